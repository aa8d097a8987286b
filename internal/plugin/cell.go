package plugin

import "sync/atomic"

// cell holds the latest value of something. One goroutine sets it, any number
// read it without waiting, and each can wait for the next value.
type cell[T any] struct {
	current atomic.Pointer[version[T]]
}

type version[T any] struct {
	value    T
	replaced chan struct{}
}

func newCell[T any](v T) *cell[T] {
	c := &cell[T]{}
	c.current.Store(&version[T]{v, make(chan struct{})})
	return c
}

func (c *cell[T]) set(v T) {
	old := c.current.Swap(&version[T]{v, make(chan struct{})})
	close(old.replaced)
}

// get is the value and a channel that is closed once it is replaced. Whoever
// looks at the value first and waits then misses no change.
func (c *cell[T]) get() (T, <-chan struct{}) {
	v := c.current.Load()
	return v.value, v.replaced
}

func (c *cell[T]) value() T { return c.current.Load().value }
