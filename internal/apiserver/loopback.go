package apiserver

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"chancery/internal/errs"
)

// loopback carries the server's own clients to its handler through memory: a
// net.Listener whose connections are pipes.
type loopback struct {
	conns     chan net.Conn
	closed    chan struct{}
	closeOnce sync.Once
	token     string
	transport *http.Transport
	server    *http.Server
}

// pipeAddr names both ends of an in-memory connection.
type pipeAddr struct{}

func (pipeAddr) Network() string { return "memory" }
func (pipeAddr) String() string  { return "loopback" }

func newLoopback(logger *slog.Logger) *loopback {
	l := &loopback{
		conns: make(chan net.Conn), closed: make(chan struct{}),
		token: rand.Text() + rand.Text(),
	}
	l.transport = &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dial(ctx) },
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
	l.server = &http.Server{
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	return l
}

func (l *loopback) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, errs.New(errs.Unavailable, "apiserver.loopback", "the API server has stopped")
	}
}

// Accept implements net.Listener.
func (l *loopback) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *loopback) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *loopback) Addr() net.Addr { return pipeAddr{} }

// serve answers until stop.
func (l *loopback) serve(h http.Handler) {
	l.server.Handler = h
	go func() { _ = l.server.Serve(l) }()
}

// stop ends every connection.
func (l *loopback) stop() {
	_ = l.server.Close()
	_ = l.Close()
	l.transport.CloseIdleConnections()
}

// config is what a client in this process needs. It acts as the server itself
// and may do everything: give it to our own code only.
func (l *loopback) config() *rest.Config {
	return &rest.Config{
		Host:        "http://loopback",
		Transport:   l.transport,
		BearerToken: l.token,
		// The limits of a remote client make no sense here.
		QPS: -1,
	}
}
