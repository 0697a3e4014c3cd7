package cell

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"chancery/internal/sandbox"
	"chancery/wall"
)

// The test binary is also the cell, confined as in life.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandbox.Subcommand {
		os.Exit(Main("test"))
	}
	os.Exit(m.Run())
}

type testCell struct {
	t    *testing.T
	base string
	p    *sandbox.Process
	log  *safeBuffer
	mode sandbox.Mode
	wall *http.Client
	ca   *x509.CertPool
	pin  string
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *safeBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

func newTestCell(t *testing.T) *testCell {
	t.Helper()
	base, err := os.MkdirTemp("", "cell")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	for _, d := range []string{"data", "run"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mode, _ := sandbox.Detect([]string{sandbox.Subcommand}, "")
	c := &testCell{t: t, base: base, log: &safeBuffer{}, mode: mode, ca: x509.NewCertPool()}
	c.wall = c.client(wall.SocketWall, nil)
	t.Cleanup(c.kill)
	c.start()
	return c
}

func (c *testCell) start() time.Duration {
	c.t.Helper()
	uid := uint32(0)
	if os.Getuid() == 0 && c.mode == sandbox.ModeNamespaces {
		uid = 1879113900
	}
	began := time.Now()
	p, err := sandbox.Start(sandbox.Spec{Args: []string{sandbox.Subcommand}, DataDir: filepath.Join(c.base, "data"), RunDir: filepath.Join(c.base, "run"),
		HostUID: uid, Mode: c.mode, Log: c.log})
	if err != nil {
		c.t.Fatal(err)
	}
	c.p = p
	line, _ := json.Marshal(wall.Config{Organization: "health", Zone: "lu-1", Jurisdiction: "LU", Domain: "zone.example", ExtraNames: []string{"localhost", "127.0.0.1"}, S3Port: 9000, APIPort: 9443})
	if err := p.Send(line); err != nil {
		c.t.Fatal(err)
	}
	for {
		if conn, err := net.Dial("unix", filepath.Join(c.base, "run", wall.SocketS3)); err == nil {
			conn.Close()
			return time.Since(began)
		}
		select {
		case <-p.Done():
			c.t.Fatalf("the cell ended: %s\n%s", p.Exit(), c.log)
		case <-time.After(2 * time.Millisecond):
		}
		if time.Since(began) > 20*time.Second {
			c.t.Fatalf("the cell does not serve\n%s", c.log)
		}
	}
}

func (c *testCell) kill() {
	if c.p != nil {
		c.p.Kill()
		<-c.p.Done()
	}
}

// client speaks to one of the cell's sockets; with a TLS configuration, over TLS.
func (c *testCell) client(socket string, conf *tls.Config) *http.Client {
	return &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: conf,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(c.base, "run", socket))
		}}}
}

// custody is a client that accepts the pinned sealed identity alone.
func (c *testCell) custody() *http.Client {
	return c.client(wall.SocketAPI, &tls.Config{ServerName: "seal.health.zone.example", InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if d := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo); hex.EncodeToString(d[:]) != c.pin {
				return fmt.Errorf("another key than the pinned one")
			}
			return nil
		}})
}

func (c *testCell) organization(socket, service string) *http.Client {
	return c.client(socket, &tls.Config{ServerName: service + ".health.zone.example", RootCAs: c.ca})
}

func do(client *http.Client, method, url string, in any, out any) (int, string, error) {
	var body io.Reader
	switch in := in.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(in)
	default:
		b, _ := json.Marshal(in)
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && out != nil {
		err = json.Unmarshal(b, out)
	}
	return resp.StatusCode, string(b), err
}

func (c *testCell) status() wall.Status {
	c.t.Helper()
	var s wall.Status
	if code, body, err := do(c.wall, "GET", "http://cell"+wall.PathStatus, nil, &s); err != nil || code != 200 {
		c.t.Fatalf("status: %d %s %v\n%s", code, body, err, c.log)
	}
	return s
}

func (c *testCell) expect(client *http.Client, method, url string, in any, want int, has string) {
	c.t.Helper()
	code, body, err := do(client, method, url, in, nil)
	if err != nil || code != want || !strings.Contains(body, has) {
		c.t.Fatalf("%s %s: %d %.300s %v, want %d with %q\n%s", method, url, code, body, err, want, has, c.log)
	}
}

func decryptShare(t *testing.T, file string, id *age.HybridIdentity) []byte {
	t.Helper()
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(file)), id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLife is a cell's life in its sandbox: made, unsealed, serving, attacked from
// inside, sealed, unsealed, killed, and back sealed.
func TestLife(t *testing.T) {
	c := newTestCell(t)
	if s := c.status(); s.State != wall.Uninitialized || s.Version != "test" || len(s.Enforced) < 11 {
		t.Fatalf("%+v", s)
	}
	for _, m := range c.status().Enforced {
		if !m.Enforced {
			t.Logf("not enforced here: %s: %s", m.Name, m.Detail)
		}
	}
	c.pin = c.status().IdentityPin
	s3 := c.organization(wall.SocketS3, "s3")
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	var made wall.Initialized
	if code, body, err := do(c.wall, "POST", "http://cell"+wall.PathInit, wall.Init{Quorum: 1,
		Custodians: []wall.Custodian{{Name: "alice", Recipient: id.Recipient().String()}}}, &made); err != nil || code != 200 {
		t.Fatalf("init: %d %s %v\n%s", code, body, err, c.log)
	}
	c.ca.AppendCertsFromPEM([]byte(made.CACertificate))
	if s := c.status(); s.State != wall.SealedState || s.IdentityPin != made.IdentityPin || s.IdentityPin != c.pin {
		t.Fatalf("%+v", s)
	}
	// Sealed and never unsealed: the organization's own certificate is not there yet.
	if _, _, err := do(s3, "GET", "https://cell/", nil, nil); err == nil {
		t.Error("S3 answered under the organization's CA before the first unseal")
	}
	share := decryptShare(t, made.Shares["alice"], id)
	// A share is only taken under the server name whose key it names.
	insecure := c.client(wall.SocketAPI, &tls.Config{ServerName: "api.health.zone.example", InsecureSkipVerify: true})
	c.expect(insecure, "POST", "https://cell"+wall.PathSealUnseal, share, http.StatusMisdirectedRequest, "server name")
	c.expect(insecure, "GET", "https://cell/apis", nil, 503, "Sealed")
	c.expect(c.client(wall.SocketS3, &tls.Config{ServerName: "s3.health.zone.example", InsecureSkipVerify: true}), "GET", "https://cell/", nil, 503, "<Code>Sealed</Code>")

	began := time.Now()
	c.expect(c.custody(), "POST", "https://cell"+wall.PathSealUnseal, share, 200, string(wall.Unsealed))
	t.Logf("unsealed in %v", time.Since(began))
	if s := c.status(); s.State != wall.Unsealed {
		t.Fatalf("%+v", s)
	}
	c.expect(s3, "GET", "https://cell/", nil, 403, "AccessDenied")
	c.expect(c.organization(wall.SocketAPI, "api"), "GET", "https://cell/apis", nil, 401, "")

	// From inside, while S3 is served.
	var report wall.ProbeReport
	probe := wall.Probe{TCP: []string{"127.0.0.1:1"}, UDP: []string{"127.0.0.1:1"}, Paths: []string{c.base, "/etc/passwd"}, PIDs: []int{os.Getpid()}}
	if code, _, err := do(c.wall, "POST", "http://cell"+wall.PathProbe, probe, &report); err != nil || code != 200 || len(report.Attempts) < 50 {
		t.Fatalf("probe: %d %v, %d attempts", code, err, len(report.Attempts))
	}
	for _, a := range report.Attempts {
		if !a.Refused {
			t.Errorf("%s: %s", a.Name, a.Detail)
		}
	}
	c.expect(s3, "GET", "https://cell/", nil, 403, "AccessDenied")

	// Sealed without a restart: S3 still says so under its own name.
	c.expect(c.wall, "POST", "http://cell"+wall.PathSeal, nil, 200, string(wall.SealedState))
	c.expect(s3, "GET", "https://cell/", nil, 503, "<Code>Sealed</Code>")
	c.expect(c.custody(), "POST", "https://cell"+wall.PathSealUnseal, share, 200, string(wall.Unsealed))
	c.expect(s3, "GET", "https://cell/", nil, 403, "AccessDenied")
	t.Logf("resident memory, unsealed: %d MiB", rss(t, c.p.PID())>>20)

	// A crash seals.
	c.kill()
	t.Logf("restarted, sealed, in %v", c.start())
	if s := c.status(); s.State != wall.SealedState {
		t.Fatalf("%+v", s)
	}
	c.expect(c.custody(), "POST", "https://cell"+wall.PathSealUnseal, share, 200, string(wall.Unsealed))
	c.expect(s3, "GET", "https://cell/", nil, 403, "AccessDenied")

	// A clean end.
	c.expect(c.wall, "POST", "http://cell"+wall.PathShutdown, nil, 202, "")
	select {
	case <-c.p.Done():
	case <-time.After(15 * time.Second):
		t.Fatalf("it does not end\n%s", c.log)
	}
	if !c.p.OK() {
		t.Errorf("%s\n%s", c.p.Exit(), c.log)
	}
	t.Logf("log:\n%s", c.log)
}

func rss(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	fmt.Sscan(string(b), &size, &resident)
	return resident * int64(os.Getpagesize())
}

func TestConfigRefused(t *testing.T) {
	for _, in := range []string{"", "{", "{}\n", `{"Organization":"a b","Domain":"d"}` + "\n", `{"Organization":"a"}` + "\n", strings.Repeat("x", maxConfig+2)} {
		if _, err := readConfig(strings.NewReader(in)); err == nil {
			t.Errorf("%.30q was accepted", in)
		}
	}
}
