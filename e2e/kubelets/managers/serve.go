package managers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/numalane/numalane/e2e/kubelets/wire"
)

// Serve does the commands that come in until the last, one kubelet after the
// other, and stops the last of them.
func Serve(ctx context.Context, in io.Reader, out io.Writer, newWiring New) error {
	s := &session{newWiring: newWiring}
	defer s.stop(ctx)
	lines, answers := bufio.NewReader(in), json.NewEncoder(out)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		if err := answers.Encode(s.answer(ctx, line)); err != nil {
			return fmt.Errorf("write an answer: %w", err)
		}
	}
}

type session struct {
	newWiring New
	kubelet   *kubelet // nil when none runs
}

var (
	errNotStarted = errors.New("no kubelet runs")
	errBroken     = errors.New("the kubelet has panicked: start it again")
)

func (s *session) answer(ctx context.Context, line []byte) (a wire.Answer) {
	defer func() {
		if cause := recover(); cause != nil {
			a = wire.Answer{Error: fmt.Sprintf("panic: %v\n%s", cause, debug.Stack())}
			if s.kubelet != nil {
				s.kubelet.broken = true
			}
		}
	}()
	var c wire.Command
	err := json.Unmarshal(line, &c)
	if err == nil {
		err = s.do(ctx, &c, &a)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func (s *session) do(ctx context.Context, c *wire.Command, a *wire.Answer) (err error) {
	if c.Start != nil {
		s.stop(ctx)
		if s.kubelet, err = start(ctx, c.Start, s.newWiring); err != nil {
			return err
		}
		a.Version = kubernetesVersion()
		return nil
	}
	switch k := s.kubelet; {
	case k == nil:
		return errNotStarted
	case k.broken:
		return errBroken
	case c.Admit != nil:
		a.Admission, err = k.admit(ctx, c.Admit)
		return err
	case c.End != "":
		k.end(c.End)
		return nil
	default: // an Await of nothing is an empty command
		return k.await(ctx, c.Await)
	}
}

func (s *session) stop(ctx context.Context) {
	if s.kubelet != nil {
		k := s.kubelet
		s.kubelet = nil
		k.stop(ctx)
	}
}

// kubernetesVersion is that of the module, v1.37.2.
func kubernetesVersion() string {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == "k8s.io/kubernetes" {
			return m.Version
		}
	}
	return ""
}
