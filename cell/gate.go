package cell

import (
	"context"
	"sync"
	"time"
)

// drainTime is how long requests in flight may take to end when the organization
// is sealed or the cell stops; then they are broken off.
const drainTime = 5 * time.Second

// gate lets requests in while the organization is unsealed, and lets it be closed
// only after every one of them has left. The zero gate is closed.
type gate struct {
	mu       sync.Mutex
	services *services
	inside   int
	empty    chan struct{} // closed when the last request of a closed gate leaves
	// closing ends when the gate closes, for what would go on for ever (a watch);
	// breaking ends a little later, for what deserves to be finished (a transfer).
	closing, breaking             context.Context
	cancelClosing, cancelBreaking context.CancelFunc
}

// pass is a request's way in.
type pass struct {
	*services
	closing, breaking context.Context
	leave             func()
}

// open lets requests in.
func (g *gate) open(s *services) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.services = s
	g.closing, g.cancelClosing = context.WithCancel(context.Background())
	g.breaking, g.cancelBreaking = context.WithCancel(context.Background())
}

// enter returns the services and what to call when the request is done; ok is
// false while the organization is sealed.
func (g *gate) enter() (p pass, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.services == nil {
		return pass{}, false
	}
	g.inside++
	return pass{g.services, g.closing, g.breaking, g.leave}, true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// close turns new requests away, waits for those inside, breaks off what takes too
// long, and returns the services for closing; nil if the gate was closed.
func (g *gate) close(ctx context.Context) *services {
	g.mu.Lock()
	s := g.services
	g.services = nil
	if s == nil {
		g.mu.Unlock()
		return nil
	}
	var empty chan struct{}
	if g.inside > 0 {
		empty = make(chan struct{})
		g.empty = empty
	}
	cancelClosing, cancelBreaking := g.cancelClosing, g.cancelBreaking
	g.mu.Unlock()
	cancelClosing()
	if empty != nil {
		wait := time.NewTimer(drainTime)
		defer wait.Stop()
		select {
		case <-empty:
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	cancelBreaking()
	if empty != nil {
		// A request that is being broken off still uses the store: closing under
		// it would be an error in the middle of an answer, or worse.
		select {
		case <-empty:
		case <-time.After(drainTime):
		}
	}
	return s
}
