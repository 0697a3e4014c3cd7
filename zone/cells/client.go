package cells

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"

	"golang.org/x/sys/unix"

	"chancery/internal/errs"
	"chancery/wall"
)

// maxAnswer bounds what a cell may answer, in bytes: Initialized for 255 custodians.
const maxAnswer = 4 << 20

// Client speaks the messages of package wall with one cell. What a cell answers
// is not trusted: it is bounded, and only shown.
type Client struct{ http *http.Client }

// NewClient speaks with the cell whose sockets are in runDir.
func NewClient(runDir string) *Client { return newClient(runDir) }

func newClient(runDir string) *Client {
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, runDir, wall.SocketWall)
		},
		MaxIdleConns: 1, DisableCompression: true,
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// forget drops connections to a cell that has ended.
func (c *Client) forget() { c.http.CloseIdleConnections() }

// Status asks the cell what it is.
func (c *Client) Status(ctx context.Context) (wall.Status, error) {
	var out wall.Status
	return out, c.call(ctx, http.MethodGet, wall.PathStatus, nil, &out)
}

// Init makes the organization's root key inside the cell. Once only.
func (c *Client) Init(ctx context.Context, in wall.Init) (wall.Initialized, error) {
	var out wall.Initialized
	return out, c.call(ctx, http.MethodPost, wall.PathInit, in, &out)
}

// Seal drops the root key.
func (c *Client) Seal(ctx context.Context) (wall.Status, error) {
	var out wall.Status
	return out, c.call(ctx, http.MethodPost, wall.PathSeal, nil, &out)
}

// Probe has the cell try to break out.
func (c *Client) Probe(ctx context.Context, in wall.Probe) (wall.ProbeReport, error) {
	var out wall.ProbeReport
	return out, c.call(ctx, http.MethodPost, wall.PathProbe, in, &out)
}

// Shutdown has the cell end cleanly. It returns when the cell has begun to.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, wall.PathShutdown, nil, nil)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	const op = "cells.Client"
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return errs.WrapKind(errs.Internal, op, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://wall"+path, body)
	if err != nil {
		return errs.WrapKind(errs.Internal, op, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return errs.WrapKind(errs.Unavailable, op, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil || len(b) > maxAnswer {
		return errs.WrapKind(errs.Unavailable, op, errors.Join(err, fmt.Errorf("an answer of %d bytes", len(b))))
	}
	if resp.StatusCode >= 300 {
		return failure(resp.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return errs.WrapKind(errs.Unavailable, op, err)
	}
	return nil
}

// failure turns a wall.Failure back into an error of its kind.
func failure(status int, body []byte) error {
	const op = "cells.Client"
	var f wall.Failure
	if err := json.Unmarshal(body, &f); err != nil || f.Kind == "" {
		return errs.New(errs.Unavailable, op, "the cell answered with status %d", status)
	}
	for k := errs.Internal; k <= errs.Destroyed; k++ {
		if k.String() == f.Kind {
			return errs.New(k, op, "%s", f.Message)
		}
	}
	return errs.New(errs.Unavailable, op, "%s", f.Message)
}

// dial connects to a socket in a cell's run directory. The cell owns that
// directory and may put there what it likes: the name is opened without
// following a link, must be a socket, and that very socket is connected to. A
// path through /proc/self/fd also has no limit of 108 bytes.
func dial(ctx context.Context, runDir, socket string) (net.Conn, error) {
	const op = "cells.dial"
	fd, err := unix.Open(filepath.Join(runDir, socket), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, errs.New(errs.Corrupt, op, "%s in the cell's run directory is not a socket", socket)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	return c, nil
}

// PID asks the kernel which process listens on the cell's wall socket (unix(7),
// SO_PEERCRED). What the cell says of itself plays no part.
func PID(ctx context.Context, runDir string) (int, error) {
	const op = "cells.PID"
	c, err := dial(ctx, runDir, wall.SocketWall)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, errs.WrapKind(errs.Internal, op, err)
	}
	var credentials *unix.Ucred
	var getErr error
	if err := raw.Control(func(fd uintptr) {
		credentials, getErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, errs.WrapKind(errs.Internal, op, err)
	}
	if getErr != nil {
		return 0, errs.WrapKind(errs.Unavailable, op, getErr)
	}
	return int(credentials.Pid), nil
}
