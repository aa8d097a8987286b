package vm

import (
	"context"
	"errors"
	"time"
)

// Run brings the machine up, checks, and returns the last line to print. An
// error is of the run itself, or says that checks failed.
func Run(ctx context.Context, o Options) (line string, err error) {
	s := &setting{o: o, started: time.Now()}
	defer func() {
		// Logs come out of a run that was interrupted as well.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, s.end(end, err != nil))
	}()
	if err := s.start(ctx); err != nil {
		return "", err
	}
	r := &report{out: o.Out}
	for _, act := range []func() act{s.vfsCome, s.aligning, s.traffic, s.carrier, s.kills, s.drivers, s.update, s.reboot} {
		r.run(ctx, act())
	}
	if r.failed > 0 || ctx.Err() != nil {
		return r.line(), errors.Join(errors.New("not all checks passed"), ctx.Err())
	}
	return r.line(), nil
}
