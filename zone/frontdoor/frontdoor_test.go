package frontdoor

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// newCell is a TLS server on a Unix socket, as a cell is. It returns the dial function.
func newCell(t testing.TB, name string, serve func(net.Conn)) Dial {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conf := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(tls.Server(c, conf))
		}
	}()
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", sock)
	}
}

func httpCell(t testing.TB, name string) Dial {
	serve := make(chan net.Conn)
	l := &chanListener{c: serve, done: make(chan struct{})}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sum" {
			h := sha256.New()
			n, err := io.Copy(h, r.Body)
			fmt.Fprintf(w, "%d %x %v", n, h.Sum(nil), err)
			return
		}
		if r.URL.Path == "/large" {
			io.Copy(w, io.LimitReader(zeros{}, 64<<20))
			return
		}
		fmt.Fprint(w, name)
	})
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return newCell(t, name, func(c net.Conn) { serve <- c })
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type chanListener struct {
	c    chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *chanListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.c:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *chanListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *chanListener) Addr() net.Addr { return &net.UnixAddr{} }

type door struct {
	*Server
	s3, api string
}

func open(t testing.TB, route func(Service, string) (Dial, bool), limits Limits) door {
	t.Helper()
	var ls []Listener
	for _, service := range []Service{S3, API} {
		l, err := Listen(t.Context(), service, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ls = append(ls, l)
	}
	s, err := New(Options{Listeners: ls, Route: route, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Close(ctx)
	})
	return door{s, ls[0].Addr().String(), ls[1].Addr().String()}
}

func client(name string) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: name}}}
}

func get(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestRouting(t *testing.T) {
	cells := map[string]Dial{"health": httpCell(t, "health"), "demo": httpCell(t, "demo"), "": httpCell(t, "operator")}
	names := Names{Domain: "zone.example", Default: "demo"}
	d := open(t, func(s Service, n string) (Dial, bool) {
		org, ok := names.Resolve(s, n)
		if !ok {
			return nil, false
		}
		dial, ok := cells[org]
		return dial, ok
	}, Limits{})
	for _, c := range []struct{ addr, name, want string }{
		{d.s3, "s3.health.zone.example", "health"},
		{d.s3, "bucket.s3.health.zone.example", "health"},
		{d.api, "seal.health.zone.example", "health"},
		{d.api, "api.zone.example", "operator"},
		{d.s3, "", "demo"},
	} {
		got, err := get(client(c.name), "https://"+c.addr)
		if err != nil || got != c.want {
			t.Errorf("%s: %q %v, want %q", c.name, got, err, c.want)
		}
	}
	for _, name := range []string{"s3.other.zone.example", "example.com", "api.health.zone.example"} {
		_, err := get(client(name), "https://"+d.s3)
		if err == nil || !strings.Contains(err.Error(), "tls: unrecognized name") {
			t.Errorf("%s: %v, want the alert unrecognized_name", name, err)
		}
	}
	// A body both ways, larger than every buffer.
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	resp, err := client("s3.health.zone.example").Post("https://"+d.s3+"/sum", "", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	if want := fmt.Sprintf("%d %x <nil>", len(body), sha256.Sum256(body)); string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	got, err := get(client("s3.health.zone.example"), "https://"+d.s3+"/large")
	if err != nil || len(got) != 64<<20 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if st := d.Stats(); st.Unknown != 3 || st.Routed != 7 {
		t.Errorf("%+v", st)
	}
}

func TestNoCell(t *testing.T) {
	d := open(t, func(Service, string) (Dial, bool) {
		return func(context.Context) (net.Conn, error) { return nil, errors.New("down") }, true
	}, Limits{})
	_, err := get(client("x"), "https://"+d.s3)
	if err == nil || !strings.Contains(err.Error(), "tls: internal error") {
		t.Errorf("%v, want the alert internal_error", err)
	}
	resp, err := http.Get("http://" + d.s3)
	if err == nil {
		resp.Body.Close()
		t.Error("plain HTTP was answered")
	}
	if st := d.Stats(); st.NoCell != 1 || st.Malformed != 1 {
		t.Errorf("%+v", st)
	}
}

// TestHalfClose ends each direction alone and looks whether the other goes on.
func TestHalfClose(t *testing.T) {
	upload := make(chan string, 1)
	echo := func(ctx context.Context) (net.Conn, error) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		ends := [2]net.Conn{}
		for i, fd := range pair {
			f := os.NewFile(uintptr(fd), "pair")
			if ends[i], err = net.FileConn(f); err != nil {
				return nil, err
			}
			f.Close()
		}
		go func() {
			defer ends[1].Close()
			b, _ := io.ReadAll(ends[1]) // until the client's half-close comes through
			upload <- string(b)
			ends[1].Write([]byte("answer after the end"))
		}()
		return ends[0], nil
	}
	d := open(t, func(Service, string) (Dial, bool) { return echo, true }, Limits{})
	first := clientHello(t, "x", tls.VersionTLS13)
	c, err := net.Dial("tcp", d.s3)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(first)
	c.Write([]byte("more"))
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || string(b) != "answer after the end" {
		t.Errorf("%q %v", b, err)
	}
	if got := <-upload; got != string(first)+"more" {
		t.Errorf("the cell got %d bytes, want %d", len(got), len(first)+4)
	}
	// A client that breaks off must not look like one that ended.
	c2, _ := net.Dial("tcp", d.s3)
	c2.Write(first)
	time.Sleep(50 * time.Millisecond)
	reset(c2.(*net.TCPConn))
	<-upload
	waitFor(t, func() bool { return d.Stats().Active == 0 })
}

func waitFor(t testing.TB, what func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !what(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

// TestSlowHellos holds 500 connections that never say who they want, while
// ordinary clients go on, and then looks what is left of them.
func TestSlowHellos(t *testing.T) {
	cell := httpCell(t, "health")
	d := open(t, func(Service, string) (Dial, bool) { return cell, true }, Limits{Connections: 1000, PerSource: 1000, Pending: 100, Hello: time.Second})
	if _, err := get(client("x"), "https://"+d.s3); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	before := runtime.NumGoroutine()
	var slow []net.Conn
	for i := range 500 {
		c, err := net.Dial("tcp", d.s3)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			c.Write([]byte{22, 3, 1})
		}
		slow = append(slow, c)
		if i%50 == 0 {
			if got, err := get(client("x"), "https://"+d.s3); err != nil || got != "health" {
				t.Fatalf("with %d slow connections: %q %v", i, got, err)
			}
		}
	}
	waitFor(t, func() bool { return d.Stats().Accepted >= 511 })
	if st := d.Stats(); st.Pending > 100 {
		t.Errorf("%d pending", st.Pending)
	}
	waitFor(t, func() bool { st := d.Stats(); return st.Active == 0 && st.Slow == 500 })
	for _, c := range slow {
		c.Close()
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before+5 })
}

func TestLimits(t *testing.T) {
	cell := httpCell(t, "health")
	d := open(t, func(Service, string) (Dial, bool) { return cell, true }, Limits{Connections: 10, PerSource: 4, Pending: 8})
	var held []*tls.Conn
	for range 4 {
		c, err := tls.Dial("tcp", d.s3, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	if _, err := tls.Dial("tcp", d.s3, &tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("a fifth connection of one source was let in")
	}
	if d.Stats().Refused != 1 {
		t.Errorf("%+v", d.Stats())
	}
	for _, c := range held {
		c.Close()
	}
	waitFor(t, func() bool { return d.Stats().Active == 0 })
	if _, err := get(client("x"), "https://"+d.s3); err != nil {
		t.Error(err)
	}
}

func TestIdle(t *testing.T) {
	cell := httpCell(t, "health")
	d := open(t, func(Service, string) (Dial, bool) { return cell, true }, Limits{Idle: 300 * time.Millisecond})
	c, err := tls.Dial("tcp", d.s3, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Traffic keeps it alive beyond the limit.
	for range 5 {
		time.Sleep(150 * time.Millisecond)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil || n > 0 || strings.Contains(err.Error(), "timeout") {
		t.Errorf("an idle connection stays: %v", err)
	}
}

func TestClose(t *testing.T) {
	cell := httpCell(t, "health")
	d := open(t, func(Service, string) (Dial, bool) { return cell, true }, Limits{})
	c, err := tls.Dial("tcp", d.s3, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	d.Close(ctx)
	if _, err := net.Dial("tcp", d.s3); err == nil {
		t.Error("still listening")
	}
	if d.Stats().Active != 0 {
		t.Errorf("%+v", d.Stats())
	}
}

func cpu() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// raw measures the door alone: the cell and the client are plain sockets.
func rawCell(b *testing.B, serve func(net.Conn)) Dial {
	sock := filepath.Join(b.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return func(ctx context.Context) (net.Conn, error) { return net.Dial("unix", sock) }
}

// BenchmarkSplice passes 1 MiB up per operation. CPU is that of client, door and cell together.
func BenchmarkSplice(b *testing.B) {
	var got atomic.Int64
	hello := clientHello(b, "x", tls.VersionTLS13)
	cell := rawCell(b, func(c net.Conn) {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, c, make([]byte, 256<<10))
		got.Add(n)
		c.Close()
	})
	for _, through := range []bool{true, false} {
		b.Run(map[bool]string{true: "door", false: "direct"}[through], func(b *testing.B) {
			var c net.Conn
			if through {
				d := open(b, func(Service, string) (Dial, bool) { return cell, true }, Limits{})
				c, _ = net.Dial("tcp", d.s3)
				c.Write(hello)
			} else {
				c, _ = cell(context.Background())
			}
			buf := make([]byte, 1<<20)
			b.SetBytes(1 << 20)
			before := cpu()
			for b.Loop() {
				c.Write(buf)
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "µs-cpu/MiB")
			c.Close()
		})
	}
}

// BenchmarkSmall is a small request and answer on an open connection.
func BenchmarkSmall(b *testing.B) {
	hello := clientHello(b, "x", tls.VersionTLS13)
	cell := rawCell(b, func(c net.Conn) {
		buf := make([]byte, 4096)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			c.Write(buf[:300])
		}
	})
	for _, through := range []bool{true, false} {
		b.Run(map[bool]string{true: "door", false: "direct"}[through], func(b *testing.B) {
			var c net.Conn
			buf := make([]byte, 4096)
			if through {
				d := open(b, func(Service, string) (Dial, bool) { return cell, true }, Limits{})
				c, _ = net.Dial("tcp", d.s3)
				c.Write(hello)
				c.Read(buf)
			} else {
				c, _ = cell(context.Background())
			}
			before := cpu()
			for b.Loop() {
				c.Write(buf[:500])
				c.Read(buf)
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "µs-cpu/op")
			c.Close()
		})
	}
}

// BenchmarkConnect is a whole connection: hello, routing, one answer, end.
func BenchmarkConnect(b *testing.B) {
	hello := clientHello(b, "s3.health.zone.example", tls.VersionTLS13)
	cell := rawCell(b, func(c net.Conn) {
		buf := make([]byte, 4096)
		c.Read(buf)
		c.Write(buf[:300])
		c.Close()
	})
	d := open(b, func(Service, string) (Dial, bool) { return cell, true }, Limits{})
	before := cpu()
	for b.Loop() {
		c, err := net.Dial("tcp", d.s3)
		if err != nil {
			b.Fatal(err)
		}
		c.Write(hello)
		io.Copy(io.Discard, c)
		c.Close()
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "µs-cpu/op")
}
