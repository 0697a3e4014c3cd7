package pebblestore

import (
	"sync"

	"chancery/internal/errs"
)

// gate lets operations in until it is shut, and shutting waits until all are out.
// Unlike a read lock it may be entered again by who is inside.
type gate struct {
	mu   sync.Mutex
	zero sync.Cond
	in   int
	shut bool
	done chan struct{} // closed when shutting begins
}

func (g *gate) init() { g.zero.L, g.done = &g.mu, make(chan struct{}) }

func (g *gate) enter(op string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return errClosed(op)
	}
	g.in++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.in--; g.in == 0 {
		g.zero.Broadcast()
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut {
		g.shut = true
		close(g.done)
	}
	for g.in > 0 {
		g.zero.Wait()
	}
}

func errClosed(op string) error { return errs.New(errs.Unavailable, op, "the store is closed") }
