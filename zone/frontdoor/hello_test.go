package frontdoor

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"chancery/internal/errs"
)

// recorder is a connection that plays a client's bytes and drops what it is told.
type recorder struct{ io.Reader }

func (recorder) Write(p []byte) (int, error)      { return len(p), nil }
func (recorder) Close() error                     { return nil }
func (recorder) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (recorder) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (recorder) SetDeadline(time.Time) error      { return nil }
func (recorder) SetReadDeadline(time.Time) error  { return nil }
func (recorder) SetWriteDeadline(time.Time) error { return nil }

// theirs is what crypto/tls makes of the same bytes.
func theirs(b []byte) (name string, ok bool) {
	stop := errors.New("stop")
	tls.Server(recorder{bytes.NewReader(b)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = h.ServerName, true
		return nil, stop
	}}).Handshake()
	return name, ok
}

// clientHello is what a Go client sends.
func clientHello(t testing.TB, name string, max uint16) []byte {
	t.Helper()
	c, s := net.Pipe()
	defer s.Close()
	go func() {
		tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true, MaxVersion: max}).Handshake()
		c.Close()
	}()
	buf := make([]byte, maxHello)
	n, err := s.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	for {
		var h hello
		if _, done, err := h.feed(buf[:n]); done || err != nil {
			return buf[:n]
		}
		m, err := s.Read(buf[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
}

func parse(b []byte, step int) (string, bool, error) {
	var h hello
	for len(b) > 0 {
		n := min(step, len(b))
		name, done, err := h.feed(b[:n])
		if done || err != nil {
			return name, done, err
		}
		b = b[n:]
	}
	return "", false, nil
}

// fragment cuts the handshake message of one record into records of n bytes.
func fragment(b []byte, n int) []byte {
	var out []byte
	for body := b[5:]; len(body) > 0; {
		m := min(n, len(body))
		out = append(out, 22, 3, 1, byte(m>>8), byte(m))
		out, body = append(out, body[:m]...), body[m:]
	}
	return out
}

func TestHello(t *testing.T) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, name := range []string{"s3.health.zone.example", "BUCKET.s3.health.zone.example", "", "127.0.0.1"} {
			b := clientHello(t, name, v)
			want := strings.ToLower(name)
			if name == "127.0.0.1" {
				want = ""
			}
			for _, in := range [][]byte{b, fragment(b, 1), fragment(b, 3), fragment(b, 100)} {
				for _, step := range []int{1, 7, 1 << 20} {
					got, done, err := parse(in, step)
					if err != nil || !done || got != want {
						t.Errorf("%q by %d: %q %v %v", name, step, got, done, err)
					}
				}
			}
			for cut := range b {
				if got, done, _ := parse(b[:cut], 1<<20); done {
					t.Fatalf("done with %d of %d bytes: %q", cut, len(b), got)
				}
			}
		}
	}
}

func TestHelloRefused(t *testing.T) {
	good := clientHello(t, "api.health.zone.example", tls.VersionTLS13)
	change := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] = v
		return b
	}
	cases := map[string][]byte{
		"http":             []byte("GET / HTTP/1.1\r\n\r\n"),
		"ssl2":             {0x80, 0x2e, 1, 0, 2},
		"other version":    change(1, 2),
		"empty record":     change(3, 0)[:3:3],
		"server hello":     change(5, 2),
		"huge message":     change(6, 1),
		"long session":     change(5+4+34, 33),
		"name with space":  bytes.Replace(good, []byte("health"), []byte("he lth"), 1),
		"name with null":   bytes.Replace(good, []byte("health"), []byte("he\x00lth"), 1),
		"zero record":      {22, 3, 1, 0, 0},
		"too long record":  {22, 3, 1, 0x41, 0},
		"endless fragment": bytes.Repeat([]byte{22, 3, 1, 0, 1, 1}, 4000),
	}
	cases["empty record"] = append(cases["empty record"], 0, 0)
	for name, b := range cases {
		_, done, err := parse(b, 1<<20)
		if err == nil || done || !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: done %v, error %v", name, done, err)
		}
	}
}

func FuzzHello(f *testing.F) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		b := clientHello(f, "s3.health.zone.example", v)
		f.Add(b, 1)
		f.Add(fragment(b, 40), 9)
	}
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		name, done, err := parse(b, 1<<20)
		if done && err != nil {
			t.Fatal("done with an error")
		}
		if step > 0 {
			name2, done2, err2 := parse(b, step)
			if name != name2 || done != done2 || (err == nil) != (err2 == nil) {
				// Cut in smaller pieces, an excess after the end is not seen.
				if !(len(b) > maxHello && done2) {
					t.Fatalf("cut by %d: %q %v %v, whole: %q %v %v", step, name2, done2, err2, name, done, err)
				}
			}
		}
		// Where the standard library finds a ClientHello that we accept too, it must find the same name.
		if theirName, ok := theirs(b); ok && done {
			want := strings.ToLower(theirName)
			if net.ParseIP(want) != nil {
				want = ""
			}
			if name != want {
				t.Fatalf("we read %q, crypto/tls %q", name, theirName)
			}
		}
	})
}

func TestNames(t *testing.T) {
	n := Names{Domain: "zone.example", Default: "demo"}
	for _, c := range []struct {
		service Service
		name    string
		org     string
		ok      bool
	}{
		{S3, "s3.health.zone.example", "health", true},
		{S3, "bucket.s3.health.zone.example", "health", true},
		{S3, "a.b.s3.health.zone.example", "health", true},
		{S3, "xs3.health.zone.example", "", false},
		{S3, "api.health.zone.example", "", false},
		{S3, "seal.health.zone.example", "", false},
		{API, "api.health.zone.example", "health", true},
		{API, "seal.health.zone.example", "health", true},
		{API, "api.zone.example", "", true},
		{S3, "api.zone.example", "", false},
		{API, "s3.health.zone.example", "", false},
		{API, "health.zone.example", "", false},
		{API, "zone.example", "", false},
		{API, ".zone.example", "", false},
		{API, "api..zone.example", "", false},
		{API, "api.health.zone.example.evil.test", "", false},
		{API, "api.health.xzone.example", "", false},
		{S3, "", "demo", true},
		{S3, "localhost", "demo", true},
		{S3, "bucket.localhost", "demo", true},
		{"other", "s3.health.zone.example", "", false},
	} {
		org, ok := n.Resolve(c.service, c.name)
		if ok != c.ok || (ok && org != c.org) {
			t.Errorf("%s %q: %q %v, want %q %v", c.service, c.name, org, ok, c.org, c.ok)
		}
	}
	// A demonstration's domain is localhost: its organizations are told apart all the same.
	local := Names{Domain: "localhost", Default: "demo"}
	for name, want := range map[string]string{"s3.health.localhost": "health", "bucket.s3.health.localhost": "health", "bucket.localhost": "demo", "": "demo"} {
		if org, ok := local.Resolve(S3, name); !ok || org != want {
			t.Errorf("%q: %q %v, want %q", name, org, ok, want)
		}
	}
	if _, ok := (Names{}).Resolve(S3, ""); ok {
		t.Error("the zero Names resolves")
	}
	if _, ok := (Names{Domain: "d"}).Resolve(S3, ""); ok {
		t.Error("no default, but it resolves")
	}
}
