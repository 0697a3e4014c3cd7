package frontdoor

import (
	"container/list"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// TLS alerts (RFC 8446 section 6) that the front door may send, before any TLS of its own.
const (
	alertDecodeError      = 50
	alertInternalError    = 80
	alertUnrecognizedName = 112
)

// linger bounds how long a connection may stay after the cell or we ended it.
const linger = 2 * time.Second

// conn is one client's connection.
type conn struct {
	s       *Server
	service Service
	client  *net.TCPConn
	source  string
	place   *list.Element // in s.pending, under s.mu

	mu      sync.Mutex
	cell    net.Conn
	aborted bool
}

var buffers = sync.Pool{New: func() any { return new([4 << 10]byte) }}

func (c *conn) serve() {
	defer c.s.release(c)
	defer c.client.Close()
	name, read, err := c.hello()
	c.s.named(c)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.s.slow.Add(1)
		reset(c.client)
		return
	case err != nil && read == nil: // the client went away, or was pushed out of the queue
		return
	case err != nil:
		c.s.malformed.Add(1)
		c.refuse(alertDecodeError)
		return
	}
	dial, ok := c.s.o.Route(c.service, name)
	if !ok || dial == nil {
		c.s.unknown.Add(1)
		c.refuse(alertUnrecognizedName)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.s.o.Limits.Dial)
	cell, err := dial(ctx)
	cancel()
	if err != nil {
		c.s.noCell.Add(1)
		c.s.o.Log.Info("front door cannot reach a cell", "service", c.service, "error", err)
		c.refuse(alertInternalError)
		return
	}
	c.s.routed.Add(1)
	defer cell.Close()
	c.mu.Lock()
	c.cell = cell
	gone := c.aborted
	c.mu.Unlock()
	if gone {
		return
	}
	if _, err := cell.Write(read); err != nil {
		return
	}
	splice(c.client, cell)
}

// hello reads until the server name is known. It returns all that was read; nil
// if the connection broke first.
func (c *conn) hello() (string, []byte, error) {
	if err := c.client.SetReadDeadline(time.Now().Add(c.s.o.Limits.Hello)); err != nil {
		return "", nil, err
	}
	buf := buffers.Get().(*[4 << 10]byte)
	defer buffers.Put(buf)
	var h hello
	var read []byte
	for {
		n, err := c.client.Read(buf[:])
		if n == 0 && err != nil {
			return "", nil, err
		}
		read = append(read, buf[:n]...)
		name, done, err := h.feed(buf[:n])
		if err != nil {
			return "", read, err
		}
		if done {
			return name, read, c.client.SetReadDeadline(time.Time{})
		}
	}
}

// refuse sends a fatal alert and closes. Bytes that the client has sent already
// are read for a moment: closing on them would make the kernel send a reset that
// overtakes the alert.
func (c *conn) refuse(alert byte) {
	c.client.SetDeadline(time.Now().Add(linger))
	if _, err := c.client.Write([]byte{21, 3, 3, 0, 2, 2, alert}); err != nil {
		return
	}
	if c.client.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.client, 64<<10) // at most linger, at most this much
	}
}

// abort ends the connection from another goroutine.
func (c *conn) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
	c.client.Close()
	if c.cell != nil {
		c.cell.Close()
	}
}

// splice passes bytes both ways until both sides have ended. Between TCP and a
// Unix socket Go uses splice(2): the bytes never enter this process.
func splice(client *net.TCPConn, cell net.Conn) {
	up := make(chan struct{})
	go func() {
		defer close(up)
		if _, err := client.WriteTo(cell); err != nil {
			// Broken, not ended: the cell must not take it for the end of a request.
			cell.Close()
			client.Close()
			return
		}
		closeWrite(cell)
	}()
	if _, err := client.ReadFrom(cell); err != nil {
		reset(client)
		cell.Close()
	} else if client.CloseWrite() == nil {
		// The cell has said all: what the client still sends interests nobody.
		client.SetReadDeadline(time.Now().Add(linger))
	}
	<-up
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
	}
}

// sweep closes idle connections. The kernel knows when a byte last passed;
// deadlines of our own would need a wake-up per transfer, and a copy.
func (s *Server) sweep() {
	tick := time.NewTicker(min(max(s.o.Limits.Idle/4, 10*time.Millisecond), time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		var idle []*conn
		for c := range s.conns {
			if c.place == nil && c.idle() > s.o.Limits.Idle {
				idle = append(idle, c)
			}
		}
		s.mu.Unlock()
		for _, c := range idle {
			c.abort()
		}
	}
}

// idle tells for how long no data passed.
func (c *conn) idle() time.Duration {
	raw, err := c.client.SyscallConn()
	if err != nil {
		return 0
	}
	var since uint32
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			since = min(info.Last_data_recv, info.Last_data_sent)
		}
	})
	if err != nil {
		return 0
	}
	return time.Duration(since) * time.Millisecond
}
