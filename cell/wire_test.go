package cell

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// countingListener counts the writes of its connections.
type countingListener struct {
	net.Listener
	writes *atomic.Int64
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c, l.writes}, nil
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// gatheringServer serves h over TLS on a Unix socket as the cell serves S3.
func gatheringServer(t *testing.T, h http.HandlerFunc) (*http.Client, *atomic.Int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var writes atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := gather(w, r)
		defer g.end()
		h(g, r)
	}))
	_ = s.Listener.Close()
	s.Listener = wires{countingListener{l, &writes}}
	s.Config.ConnContext = withWire
	s.TLS = &tls.Config{DynamicRecordSizingDisabled: true}
	s.StartTLS()
	t.Cleanup(s.Close)
	return &http.Client{Transport: &http.Transport{
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // no identity is tested
	}}, &writes
}

func TestLargeAnswersAreGathered(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcde\n"), 4<<20/16)
	client, writes := gatheringServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4194304")
		for b := want; len(b) > 0; b = b[64<<10:] {
			if _, err := w.Write(b[:64<<10]); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 3 { // on one connection
		before := writes.Load()
		resp, err := client.Get("https://cell/")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes of %d: %v", len(got), len(want), err)
		}
		// 256 records of 16 KiB; a few writes more for the handshake and the header.
		if n := writes.Load() - before; n > 32 {
			t.Errorf("%d writes for 4 MiB", n)
		}
	}
}

// Whatever a handler flushes must reach the client while the handler goes on.
func TestFlushSendsWhatIsHeld(t *testing.T) {
	seen := make(chan struct{})
	client, _ := gatheringServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, heldLeast))
		w.Write([]byte("tail"))
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		select {
		case <-seen:
		case <-time.After(10 * time.Second):
			t.Error("the client saw nothing")
		}
		w.Write([]byte("end"))
	})
	resp, err := client.Get("https://cell/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, heldLeast+4)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first[heldLeast:]) != "tail" {
		t.Fatalf("%q %v", first[heldLeast:], err)
	}
	close(seen)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "end" {
		t.Fatalf("%q %v", rest, err)
	}
}

// A handler that breaks a transfer off must not leave a whole answer behind, and
// a client that is gone must end the handler.
func TestBrokenAnswers(t *testing.T) {
	client, _ := gatheringServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		w.Write(make([]byte, 500_000))
		panic(http.ErrAbortHandler)
	})
	resp, err := client.Get("https://cell/")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a broken answer looks whole")
	}

	ended := make(chan error, 1)
	client, _ = gatheringServer(t, func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				ended <- err
				return
			}
		}
	})
	resp, err = client.Get("https://cell/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the handler writes to a client that is gone")
	}
}
