package lead

import (
	"context"
	"time"
)

// Alone leads for as long as it runs: it is the only extender there is.
type Alone struct{ *Term }

// Run leads until ctx ends.
func (a Alone) Run(ctx context.Context) error {
	defer a.close()
	a.hold("alone", time.Time{}, 0)
	<-ctx.Done()
	return nil
}
