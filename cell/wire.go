package cell

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// crypto/tls makes a system call for each record of 16 KiB, and each one wakes the
// front door. What follows gathers the records of a large answer and gives them to
// the socket together; it saves about a quarter of the CPU time of a large GET
// (docs/performance.md).

const (
	// heldMost is how many bytes a wire gathers before it writes: four segments of
	// plaintext, framed by TLS.
	heldMost = 256<<10 + 1<<10
	// heldLeast is the size of a write from which the answer is a large one: more than one record.
	heldLeast = 16<<10 + 1
	// socketBuffer is what the kernel may hold between cell and front door for one
	// connection, in its own count of bytes; half of it or less is payload.
	socketBuffer = 1 << 20
)

var heldPool = sync.Pool{New: func() any { b := make([]byte, 0, heldMost); return &b }}

// wire is a connection below TLS: all that it carries is ciphertext.
type wire struct {
	net.Conn
	mu   sync.Mutex
	held *[]byte // not nil while holding
}

// Write implements net.Conn. While the wire holds, an error may belong to an earlier call.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil {
		return w.Conn.Write(p)
	}
	if len(*w.held)+len(p) > heldMost {
		if err := w.flush(); err != nil {
			return 0, err
		}
		if len(p) > heldMost {
			return w.Conn.Write(p)
		}
	}
	*w.held = append(*w.held, p...)
	return len(p), nil
}

// flush writes what is held. What a failed write left is never sent again.
func (w *wire) flush() error {
	if len(*w.held) == 0 {
		return nil
	}
	_, err := w.Conn.Write(*w.held)
	*w.held = (*w.held)[:0]
	return err
}

// hold gathers what is written from now on, until release.
func (w *wire) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil {
		w.held = heldPool.Get().(*[]byte)
	}
}

// release writes what was gathered and gathers no more.
func (w *wire) release() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil {
		return nil
	}
	err := w.flush()
	heldPool.Put(w.held)
	w.held = nil
	return err
}

// wires is a listener whose connections are wires.
type wires struct{ net.Listener }

func (l wires) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if u, ok := c.(*net.UnixConn); ok {
		_ = u.SetWriteBuffer(socketBuffer) // a smaller one is only slower
	}
	return &wire{Conn: c}, nil
}

type wireKey struct{}

// withWire lets an answer find the wire of its connection (http.Server.ConnContext).
func withWire(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		c = t.NetConn()
	}
	if w, ok := c.(*wire); ok {
		return context.WithValue(ctx, wireKey{}, w)
	}
	return ctx
}

// gatherer is a writer of a response that gathers once the response proves to be large.
type gatherer struct {
	http.ResponseWriter
	wire *wire // nil: gathers nothing
}

func gather(w http.ResponseWriter, r *http.Request) *gatherer {
	under, _ := r.Context().Value(wireKey{}).(*wire)
	return &gatherer{w, under}
}

// Unwrap is for http.ResponseController.
func (g *gatherer) Unwrap() http.ResponseWriter { return g.ResponseWriter }

func (g *gatherer) Write(p []byte) (int, error) {
	if g.wire != nil && len(p) >= heldLeast {
		g.wire.hold()
	}
	return g.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (g *gatherer) FlushError() error {
	return errors.Join(http.NewResponseController(g.ResponseWriter).Flush(), g.end())
}

// end sends what was gathered. It is called when the handler is done.
func (g *gatherer) end() error {
	if g.wire == nil {
		return nil
	}
	return g.wire.release()
}
