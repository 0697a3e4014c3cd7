package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/signer"

	"chancery/bench/procstat"
	"chancery/test/harness"
)

// use is what the zone and a cell hold of the machine.
type use struct {
	files int   // open descriptors of both, pipes left out
	rss   int64 // of both, in bytes
}

func (u use) String() string { return fmt.Sprintf("%d/%d MiB", u.files, u.rss>>20) }

func usage(t *testing.T, z *harness.Real, org string) use {
	t.Helper()
	cell, err := z.CellPID(t.Context(), org)
	if err != nil {
		t.Fatal(err)
	}
	var u use
	for _, pid := range []int{z.PID(), cell} {
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if errors.Is(err, os.ErrPermission) {
			t.Skip("the cell cannot be looked at without root")
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range open {
			// Go keeps the pipes of splice(2) for the next connections, until two
			// garbage collections: they are bounded by the peak, and no leak.
			target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, d.Name()))
			if !strings.HasPrefix(target, "pipe:") {
				u.files++
			}
		}
	}
	sum, err := procstat.Of([]int{z.PID(), cell})
	if err != nil {
		t.Fatal(err)
	}
	u.rss = sum.RSS
	return u
}

// settled waits until the descriptors are as few as before again.
func settled(t *testing.T, z *harness.Real, org string, before use) use {
	t.Helper()
	const slack = 16 // idle connections between zone and cell come and go
	deadline := time.Now().Add(45 * time.Second)
	for {
		now := usage(t, z, org)
		if now.files <= before.files+slack {
			return now
		}
		if time.Now().After(deadline) {
			t.Errorf("%d open descriptors, %d before:\n%s", now.files, before.files, descriptors(t, z, org))
			return now
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// descriptors tells what the zone and a cell have open, by kind.
func descriptors(t *testing.T, z *harness.Real, org string) string {
	t.Helper()
	cell, err := z.CellPID(t.Context(), org)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for name, pid := range map[string]int{"zone": z.PID(), "cell": cell} {
		count := map[string]int{}
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, l := range links {
			target, _ := os.Readlink(l)
			kind, _, _ := strings.Cut(target, ":")
			count[kind]++
		}
		fmt.Fprintf(&b, "%s: %v\n", name, count)
	}
	return b.String()
}

// dialFrom connects to the zone's S3 port from one of many local addresses, since
// the front door limits what one address may have.
func dialFrom(t *testing.T, z *harness.Real, n int) (net.Conn, error) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+n/200%200), byte(1+n%200))}, Timeout: 10 * time.Second}
	return d.DialContext(t.Context(), "tcp", z.S3)
}

// begin sends the head of a signed PUT.
func begin(t *testing.T, z *harness.Real, n int, p *harness.Project, o *harness.Organization, bucket, key string, header map[string]string, length int) (net.Conn, error) {
	t.Helper()
	plain, err := dialFrom(t, z, n)
	if err != nil {
		return nil, err
	}
	c := tls.Client(plain, &tls.Config{ServerName: o.Host("s3"), RootCAs: o.Pool()})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://"+o.Host("s3")+"/"+bucket+"/"+key, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	req = signer.SignV4(*req, p.KeyID, p.Secret, "", "us-east-1")
	var head bytes.Buffer
	fmt.Fprintf(&head, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", req.URL.Path, req.URL.Host, length)
	if err := req.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	head.WriteString("\r\n")
	if _, err := c.Write(head.Bytes()); err != nil {
		plain.Close()
		return nil, err
	}
	return c, nil
}

// TestRudeClients lets clients vanish, cut short, stall, idle and flood, twice:
// nothing of it is kept, ordinary clients are served meanwhile, and the last
// time takes no more than the first.
func TestRudeClients(t *testing.T) {
	z := ownZone(t, harness.RealOptions{})
	p, o := project(t, z, "health", "wards"), z.Org("health")
	c := client(t, p)
	bucket(t, c, "rude")
	kept := random(100_000)
	put(t, c, "rude", "kept", kept)
	blobs := filepath.Join(z.Data("health"), "blobs")
	stored := filesOf(t, blobs)
	before := usage(t, z, "health")
	rounds := 2
	if large() {
		rounds = 10
	}
	after := make([]use, rounds)
	for round := range after {
		for _, attack := range []struct {
			name string
			run  func(*testing.T, *harness.Real, *harness.Project, *harness.Organization)
		}{{"vanish", vanish}, {"cut short", cutShort}, {"stall", stall}, {"idle", idle}, {"flood", flood}, {"slow hellos", slowHellos}} {
			attack.run(t, z, p, o)
			settled(t, z, "health", before)
			holds(t, c, "rude", "kept", kept)
			if t.Failed() {
				t.Fatalf("after %s, round %d", attack.name, round+1)
			}
		}
		after[round] = settled(t, z, "health", before)
	}
	t.Logf("descriptors and memory before %v, after each round %v", before, after)
	if grown := after[rounds-1].rss - after[0].rss; grown > 64<<20 {
		t.Errorf("the first round left %d MiB, the last %d MiB", after[0].rss>>20, after[rounds-1].rss>>20)
	}
	for info := range c.ListObjects(t.Context(), "rude", minio.ListObjectsOptions{Recursive: true}) {
		if info.Err != nil || info.Key != "kept" {
			t.Errorf("left in the bucket: %q %v", info.Key, info.Err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		left := slices.DeleteFunc(filesOf(t, blobs), func(f string) bool { return slices.Contains(stored, f) })
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("files of broken uploads are left: %q", left)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// vanish: half a body, then the connection is reset.
func vanish(t *testing.T, z *harness.Real, p *harness.Project, o *harness.Organization) {
	body := random(300_000)
	for n := range 40 {
		c, err := begin(t, z, n, p, o, "rude", fmt.Sprintf("vanish-%d", n), nil, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(body); err != nil {
			t.Fatal(err)
		}
		raw := c.(*tls.Conn).NetConn().(*net.TCPConn)
		if n%2 == 0 {
			_ = raw.SetLinger(0) // a reset instead of an orderly end
		}
		raw.Close()
	}
}

// cutShort: aws-chunked bodies that end too early, with an orderly end of the connection.
func cutShort(t *testing.T, z *harness.Real, p *harness.Project, o *harness.Organization) {
	header := map[string]string{"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "X-Amz-Decoded-Content-Length": "100000",
		"Content-Encoding": "aws-chunked", "X-Amz-Trailer": "x-amz-checksum-crc32"}
	for n, body := range []string{"", "1", "186a0\r\n", "186a0\r\n" + strings.Repeat("x", 50_000), "186a0\r\n" + strings.Repeat("x", 100_000) + "\r\n",
		"186a0\r\n" + strings.Repeat("x", 100_000) + "\r\n0\r\n", "186a0\r\n" + strings.Repeat("x", 100_000) + "\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n"} {
		for _, length := range []int{len(body), len(body) + 1000} { // all that was announced, or less
			c, err := begin(t, z, n, p, o, "rude", fmt.Sprintf("cut-%d-%d", n, length), header, length)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, body); err != nil {
				t.Fatal(err)
			}
			if length > len(body) {
				_ = c.(*tls.Conn).CloseWrite()
			}
			answer, _ := io.ReadAll(io.LimitReader(c, 12)) // an error, or nothing
			if bytes.HasPrefix(answer, []byte("HTTP/1.1 2")) {
				t.Errorf("%d of %d bytes of a chunked body: %s", len(body), length, answer)
			}
			c.Close()
		}
	}
}

// stall: many bodies that stop after their first byte, all at once; then the client gives up.
func stall(t *testing.T, z *harness.Real, p *harness.Project, o *harness.Organization) {
	var open []net.Conn
	for n := range 100 {
		c, err := begin(t, z, n, p, o, "rude", fmt.Sprintf("stall-%d", n), nil, 5<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(make([]byte, 40_000)); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	serves(t, p, o)
	for _, c := range open {
		c.Close()
	}
}

// idle: two thousand connections that finished TLS and say nothing.
func idle(t *testing.T, z *harness.Real, p *harness.Project, o *harness.Organization) {
	open := make([]*tls.Conn, 2000)
	var group sync.WaitGroup
	cache := tls.NewLRUClientSessionCache(1) // resumed sessions: this is about connections, not about signatures
	for w := range 8 {
		group.Go(func() {
			for n := w; n < len(open); n += 8 {
				c, err := dialFrom(t, z, n)
				if err != nil {
					t.Errorf("connection %d: %v", n, err)
					return
				}
				open[n] = tls.Client(c, &tls.Config{ServerName: o.Host("s3"), RootCAs: o.Pool(), ClientSessionCache: cache})
				if err := open[n].HandshakeContext(t.Context()); err != nil {
					t.Errorf("connection %d: %v", n, err)
					return
				}
			}
		})
	}
	group.Wait()
	serves(t, p, o)
	for _, c := range open {
		if c != nil {
			c.Close()
		}
	}
}

// flood: more headers, longer headers and longer lines than anybody needs.
func flood(t *testing.T, z *harness.Real, _ *harness.Project, o *harness.Organization) {
	many := strings.Repeat("X-Flood: 1\r\n", 5000)
	for n, head := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n" + many + "\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
		"GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /?" + strings.Repeat("a&", 1<<18) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		strings.Repeat("A", 1<<20),
		"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		plain, err := dialFrom(t, z, n)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(plain, &tls.Config{ServerName: o.Host("s3"), RootCAs: o.Pool()})
		_, _ = io.WriteString(c, head) // refused in the middle
		status := make([]byte, 12)
		if k, _ := io.ReadFull(c, status); k == len(status) && status[9] != '4' && status[9] != '5' {
			t.Errorf("flood %d: %s", n, status)
		}
		c.Close()
	}
}

// slowHellos: ten thousand connections that begin a ClientHello and do not go on.
// The front door keeps as many as its limits say; an ordinary client gets in.
func slowHellos(t *testing.T, z *harness.Real, p *harness.Project, o *harness.Organization) {
	var open []net.Conn
	for n := range 10_000 {
		c, err := dialFrom(t, z, n)
		if err != nil {
			continue // refused: that is what limits are for
		}
		_, _ = c.Write([]byte{22, 3, 1, 2}) // may be reset already
		open = append(open, c)
		if n%2500 == 2499 {
			serves(t, p, o)
		}
	}
	now := usage(t, z, "health")
	if now.files > 8000 {
		t.Errorf("%d open descriptors while %d hellos are slow", now.files, len(open))
	}
	for _, c := range open {
		c.Close()
	}
}

// serves fails the test unless an ordinary client is served.
func serves(t *testing.T, p *harness.Project, o *harness.Organization) {
	t.Helper()
	signed, err := client(t, p).PresignedGetObject(t.Context(), "rude", "kept", time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := o.Transport("s3")
	defer transport.CloseIdleConnections()
	status := 0
	for range 5 { // under a flood one connection may be unlucky
		resp, getErr := (&http.Client{Transport: transport}).Get(signed.String())
		if err = getErr; err != nil {
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if status = resp.StatusCode; err == nil && status == http.StatusOK {
			return
		}
	}
	t.Errorf("an ordinary client is not served: %d, %v", status, err)
}
