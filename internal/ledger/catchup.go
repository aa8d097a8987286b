package ledger

import "context"

// CatchUp returns once all that was bound before the call is known.
func (l *Ledger) CatchUp(context.Context) error { return l.Ready() }
