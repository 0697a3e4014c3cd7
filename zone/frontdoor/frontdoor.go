// Package frontdoor is where clients arrive: the port tells the service, the TLS
// server name tells the organization, and the bytes go on to the cell as they
// are. It reads the ClientHello and nothing else; TLS ends inside the cell.
//
// It must never hold a key or a certificate of an organization, never change a
// byte that it passes on, and never let a client that sends nothing cost more
// than a bounded place in a bounded queue.
package frontdoor

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"chancery/internal/errs"
)

// Dial connects to a cell's socket, or to the operator's own API server.
type Dial func(context.Context) (net.Conn, error)

// Listener is one port and the service behind it.
type Listener struct {
	Service Service
	net.Listener
}

// Listen opens a port for a service. It is plain TCP: Go's default, Multipath
// TCP, can neither be spliced well nor asked when a byte last passed.
func Listen(ctx context.Context, service Service, address string) (Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return Listener{}, errs.WrapKind(errs.Unavailable, "frontdoor.Listen", err)
	}
	return Listener{service, l}, nil
}

// Limits bound what clients can take. Zero fields get their defaults.
type Limits struct {
	// Connections in all: default 8192, or an eighth of the descriptors that the
	// process may open if that is less (a spliced connection holds six).
	Connections int
	// PerSource bounds the connections of one address (IPv6: one /64): default a quarter of Connections.
	PerSource int
	// Pending bounds the connections whose ClientHello is not complete: default an
	// eighth of Connections. When there are more, the oldest is dropped.
	Pending int
	// Hello is how long a ClientHello may take: default 5 s.
	Hello time.Duration
	// Idle is how long a connection may pass no byte in either direction: default 15 min.
	Idle time.Duration
	// Dial is how long the cell may take to accept: default 5 s.
	Dial time.Duration
}

// Options configure a Server.
type Options struct {
	Listeners []Listener
	// Route finds the target of a server name (lower case, empty if the client
	// sent none). Not ok: the client gets the TLS alert unrecognized_name.
	Route  func(service Service, name string) (Dial, bool)
	Limits Limits
	Log    *slog.Logger
}

// Stats are counters since the start, and what is there now.
type Stats struct {
	Active, Pending                                             int
	Accepted, Routed, Unknown, Malformed, Slow, Refused, NoCell uint64
}

// Server is a running front door.
type Server struct {
	o    Options
	stop context.CancelFunc
	ctx  context.Context
	wg   sync.WaitGroup

	mu      sync.Mutex
	conns   map[*conn]struct{}
	sources map[string]int
	pending queue
	closed  bool

	accepted, routed, unknown, malformed, slow, refused, noCell atomic.Uint64
}

// New starts to serve. Close it.
func New(o Options) (*Server, error) {
	const op = "frontdoor.New"
	if len(o.Listeners) == 0 || o.Route == nil {
		return nil, errs.New(errs.Invalid, op, "a front door needs listeners and a route")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Limits = o.Limits.withDefaults()
	s := &Server{o: o, conns: map[*conn]struct{}{}, sources: map[string]int{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, l := range o.Listeners {
		s.wg.Go(func() { s.accept(l) })
	}
	s.wg.Go(s.sweep)
	return s, nil
}

func (l Limits) withDefaults() Limits {
	if l.Connections <= 0 {
		l.Connections = 8192
		var files unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil && files.Cur/8 < uint64(l.Connections) {
			l.Connections = max(int(files.Cur/8), 16)
		}
	}
	if l.PerSource <= 0 {
		l.PerSource = max(l.Connections/4, 1)
	}
	if l.Pending <= 0 {
		l.Pending = max(l.Connections/8, 1)
	}
	for d, def := range map[*time.Duration]time.Duration{&l.Hello: 5 * time.Second, &l.Idle: 15 * time.Minute, &l.Dial: 5 * time.Second} {
		if *d <= 0 {
			*d = def
		}
	}
	return l
}

func (s *Server) accept(l Listener) {
	pause := 5 * time.Millisecond
	for {
		c, err := l.Accept()
		if s.ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return
		}
		if err != nil {
			// Out of descriptors or memory: wait until connections end.
			s.o.Log.Warn("front door cannot accept", "service", l.Service, "error", err)
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.accepted.Add(1)
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			c.Close()
			continue
		}
		cn := &conn{s: s, service: l.Service, client: tcp, source: source(tcp.RemoteAddr())}
		if !s.admit(cn) {
			s.refused.Add(1)
			reset(tcp)
			continue
		}
		s.wg.Go(cn.serve)
	}
}

// reset closes a connection without leaving it in TIME_WAIT here.
func reset(c *net.TCPConn) {
	c.SetLinger(0) // an error here means that it is closed
	c.Close()
}

// source is what PerSource counts by.
func source(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String()
	}
	if v4 := t.IP.To4(); v4 != nil {
		return string(v4)
	}
	return string(t.IP.Mask(net.CIDRMask(64, 128)))
}

// admit takes a place for a connection, or tells that there is none.
func (s *Server) admit(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.o.Limits
	if s.closed || len(s.conns) >= l.Connections || s.sources[c.source] >= l.PerSource {
		return false
	}
	s.conns[c] = struct{}{}
	s.sources[c.source]++
	if s.pending.push(c) > l.Pending {
		// The oldest had the most time. Dropping the newest instead would let
		// whoever fills the queue keep everyone else out.
		oldest := s.pending.pop()
		s.slow.Add(1)
		reset(oldest.client)
	}
	return true
}

// named moves a connection from pending to active.
func (s *Server) named(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.remove(c)
}

func (s *Server) release(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.remove(c)
	delete(s.conns, c)
	if s.sources[c.source]--; s.sources[c.source] <= 0 {
		delete(s.sources, c.source)
	}
}

// Stats tells what the front door did and does.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Active: len(s.conns), Pending: s.pending.list.Len(), Accepted: s.accepted.Load(), Routed: s.routed.Load(),
		Unknown: s.unknown.Load(), Malformed: s.malformed.Load(), Slow: s.slow.Load(), Refused: s.refused.Load(), NoCell: s.noCell.Load()}
}

// Close stops accepting, lets running connections go on until ctx ends, then
// closes them. It returns when nothing of the server runs any more.
func (s *Server) Close(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	for _, l := range s.o.Listeners {
		l.Close()
	}
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.abort()
	}
	s.mu.Unlock()
	<-done
}
