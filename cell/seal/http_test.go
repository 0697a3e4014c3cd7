package seal

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"chancery/custodian"
	"chancery/internal/errs"
	"chancery/wall"
)

const testServer = "seal.health.zone.example"

// serve runs a handler over real TLS on loopback with an identity, and counts
// what is posted to it.
type server struct {
	addr string
	mu   sync.Mutex
	got  [][]byte
}

func serve(t *testing.T, h http.Handler, certs ...*tls.Certificate) *server {
	t.Helper()
	s := &server{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	n := 0
	srv := &http.Server{
		ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				b, _ := io.ReadAll(r.Body)
				s.mu.Lock()
				s.got = append(s.got, bytes.Clone(b))
				s.mu.Unlock()
				r.Body = io.NopCloser(bytes.NewReader(b))
			}
			h.ServeHTTP(w, r)
		}),
	}
	tl := tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		c := certs[min(n, len(certs)-1)] // each connection its own, if there are several
		n++
		return c, nil
	}})
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tl) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return s
}

func (s *server) posted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// person writes an identity to a file and reads it as a custodian does.
func person(t *testing.T, i int) *custodian.Identity {
	t.Helper()
	id, err := custodian.ParseIdentity([]byte(identities()[i].String()))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCustodiansUnseal(t *testing.T) {
	c, k, _ := start(t, "health", 2, 3)
	s := serve(t, Handler(k), k.Identity().Certificate())
	ctx := t.Context()
	known := &custodian.Known{File: filepath.Join(t.TempDir(), "known.json")}
	cl := &custodian.Client{Endpoint: s.addr, ServerName: testServer, Known: known}

	cred, err := cl.Bootstrap(ctx, person(t, 2)) // also while sealed
	if err != nil {
		t.Fatal(err)
	}
	if cred.Token != testToken || cred.User != "admin" || cred.CACertificate != testCA() || cred.Organization != "health" {
		t.Fatalf("credential %+v", cred)
	}
	r, err := custodian.Unseal(ctx, "https://"+s.addr, testServer, person(t, 2))
	if err != nil || !r.Sent || r.Custodian != "c3" || r.Status.State != wall.SealedState || r.Status.SharesGiven != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	r, err = cl.Unseal(ctx, person(t, 2)) // repeated
	if err != nil || r.Status.SharesGiven != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err = cl.Unseal(ctx, person(t, 4))
	wantKind(t, err, errs.Denied)
	r, err = cl.Unseal(ctx, person(t, 0))
	if err != nil || r.Status.State != wall.Unsealed || r.Custodian != "c1" {
		t.Fatalf("%+v, %v", r, err)
	}
	if !bytes.Equal(c.created, c.opened) {
		t.Fatal("another root")
	}
	sent := s.posted()
	r, err = cl.Unseal(ctx, person(t, 1)) // nothing is sent to an unsealed organization
	if err != nil || r.Sent || s.posted() != sent {
		t.Fatalf("%+v, %v", r, err)
	}
	// Over a Unix socket, as in the demonstration.
	cl.Dial = func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.addr)
	}
	cl.Endpoint = ""
	if st, err := cl.Status(ctx); err != nil || st.State != wall.Unsealed {
		t.Fatalf("%+v, %v", st, err)
	}
}

// Someone stands between: he relays all that the true cell says, with another TLS key. Nothing is sent to him.
func TestManInTheMiddle(t *testing.T) {
	_, k, _ := start(t, "health", 1, 2)
	mallory := newCell(t, "health").open()
	s := serve(t, Handler(k), mallory.Identity().Certificate())
	for _, id := range []int{0, 1} {
		_, err := custodian.Unseal(t.Context(), s.addr, testServer, person(t, id))
		wantKind(t, err, errs.Denied)
		if !strings.Contains(err.Error(), "someone stands between") {
			t.Fatalf("unclear: %v", err)
		}
		_, err = custodian.Bootstrap(t.Context(), s.addr, testServer, person(t, id))
		wantKind(t, err, errs.Denied)
	}
	if s.posted() != 0 {
		t.Fatal("a share was sent to the man in the middle")
	}
}

// A custodian who was told the cell's identity refuses any other in the handshake, before he asks for anything.
func TestIdentityThatWasTold(t *testing.T) {
	_, k, _ := start(t, "health", 2, 2)
	other := newCell(t, "health").open()
	s := serve(t, Handler(k), k.Identity().Certificate())
	cl := &custodian.Client{Endpoint: s.addr, ServerName: testServer, Pin: other.Identity().Pin()}
	_, err := cl.Unseal(t.Context(), person(t, 0))
	wantKind(t, err, errs.Denied)
	if s.posted() != 0 {
		t.Fatal("a share was sent to another cell than was told")
	}
	for _, bad := range []string{"x", "sha256:" + k.Identity().Pin(), strings.ToUpper(k.Identity().Pin())} {
		cl.Pin = bad
		_, err = cl.Unseal(t.Context(), person(t, 0))
		wantKind(t, err, errs.Invalid)
	}
	cl.Pin = k.Identity().Pin()
	if r, err := cl.Unseal(t.Context(), person(t, 0)); err != nil || !r.Sent || r.Repeated {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := cl.Unseal(t.Context(), person(t, 0)); err != nil || !r.Repeated || r.Status.SharesGiven != 1 {
		t.Fatalf("the same share again: %+v, %v", r, err)
	}
}

// He gives the true key first and his own on the next connection.
func TestIdentityChangesBetweenConnections(t *testing.T) {
	_, k, _ := start(t, "health", 1, 1)
	mallory := newCell(t, "health").open()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		Handler(k).ServeHTTP(w, r)
	})
	s := serve(t, h, k.Identity().Certificate(), k.Identity().Certificate(), mallory.Identity().Certificate())
	_, err := custodian.Unseal(t.Context(), s.addr, testServer, person(t, 0))
	wantKind(t, err, errs.Denied)
	if s.posted() != 0 || k.Status().State != wall.SealedState {
		t.Fatal("a share was sent to another key")
	}
}

// forgery answers as the true cell does, but for what is replaced.
func forgery(k *Keeper, replace map[string]func() (int, []byte)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := replace[r.URL.Path]; f != nil && r.Method == http.MethodGet {
			code, b := f()
			if code/100 == 3 {
				w.Header().Set("Location", "https://127.0.0.1:1/")
			}
			w.WriteHeader(code)
			_, _ = w.Write(b)
			return
		}
		Handler(k).ServeHTTP(w, r)
	})
}

func to(t *testing.T, i int, plain []byte) []byte {
	t.Helper()
	file, err := encryptTo(plain, identities()[i].Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return []byte(file)
}

// Anyone can encrypt to a custodian. What is forged, from another ceremony or
// tampered with is refused, and nothing is sent.
func TestForgedAnswers(t *testing.T) {
	_, k, shares := start(t, "health", 1, 2)
	_, k2, others := start(t, "health", 1, 2)
	_, _, ofWealth := start(t, "wealth", 1, 2)
	status := func(f func(*wall.SealStatus)) func() (int, []byte) {
		return func() (int, []byte) {
			st := k.Status()
			f(&st)
			b, _ := json.Marshal(st)
			return 200, b
		}
	}
	file := func(b []byte) func() (int, []byte) { return func() (int, []byte) { return 200, b } }
	share2, err := k2.Share("c1")
	if err != nil {
		t.Fatal(err)
	}
	share, _ := k.Share("c1")
	armored := []byte(share)
	damaged := bytes.Clone(armored)
	damaged[len(damaged)/2] ^= 1
	tests := map[string]map[string]func() (int, []byte){
		"organization in status": {wall.PathSealStatus: status(func(s *wall.SealStatus) { s.Organization = "wealth" })},
		"no organization":        {wall.PathSealStatus: status(func(s *wall.SealStatus) { s.Organization = "" })},
		"ceremony in status":     {wall.PathSealStatus: status(func(s *wall.SealStatus) { s.Ceremony = strings.Repeat("a", 32) })},
		"quorum in status":       {wall.PathSealStatus: status(func(s *wall.SealStatus) { s.Quorum = 2 })},
		"custodians in status":   {wall.PathSealStatus: status(func(s *wall.SealStatus) { s.Custodians = []string{"c2", "c1", "c3"} })},
		"names in status":        {wall.PathSealStatus: status(func(s *wall.SealStatus) { s.Custodians = []string{"../c1", "c2"} })},
		"state in status":        {wall.PathSealStatus: status(func(s *wall.SealStatus) { s.State = "Open" })},
		"uninitialized":          {wall.PathSealStatus: status(func(s *wall.SealStatus) { s.State = wall.Uninitialized })},
		"status not JSON":        {wall.PathSealStatus: file([]byte("<html>"))},
		"status huge":            {wall.PathSealStatus: file(make([]byte, wall.MaxSealAnswer+1))},
		"redirect":               {wall.PathSealStatus: func() (int, []byte) { return 307, nil }},
		"share of other cell":    {wall.PathSealShare: file([]byte(share2))},
		"share damaged":          {wall.PathSealShare: file(damaged)},
		"share truncated":        {wall.PathSealShare: file(armored[:len(armored)-100])},
		"share empty":            {wall.PathSealShare: file(nil)},
		"share of c2 to c1":      {wall.PathSealShare: file(to(t, 0, shares[1]))},
		"share, other cell, ours": {wall.PathSealShare: file(to(t, 0, change(t, others[0], func(p *wall.SharePayload) {
			p.Ceremony = k.Status().Ceremony
		})))},
		"share of wealth": {wall.PathSealShare: file(to(t, 0, ofWealth[0]))},
		"share with a wrong pin": {wall.PathSealShare: file(to(t, 0, change(t, shares[0], func(p *wall.SharePayload) {
			p.Pin = strings.Repeat("0", 64)
		})))},
		"share, not a payload": {wall.PathSealShare: file(to(t, 0, []byte(`{"send":"this"}`)))},
		"share not found":      {wall.PathSealShare: func() (int, []byte) { return 404, []byte(`{"Kind":"not found","Message":"no"}`) }},
	}
	for name, replace := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, forgery(k, replace), k.Identity().Certificate())
			r, err := custodian.Unseal(t.Context(), s.addr, testServer, person(t, 0))
			if err == nil || r.Sent || s.posted() != 0 {
				t.Fatalf("sent %v, posted %d, error %v", r.Sent, s.posted(), err)
			}
			if _, err := custodian.Bootstrap(t.Context(), s.addr, testServer, person(t, 0)); err == nil && name != "uninitialized" {
				t.Fatal("took a credential")
			}
		})
	}
	// And an honest one still works.
	s := serve(t, forgery(k, nil), k.Identity().Certificate())
	if r, err := custodian.Unseal(t.Context(), s.addr, testServer, person(t, 0)); err != nil || !r.Sent {
		t.Fatalf("%+v, %v", r, err)
	}
}

// A credential that is not of the organization that the share names is refused.
func TestForgedBootstrap(t *testing.T) {
	_, k, shares := start(t, "health", 1, 1)
	mine, err := wall.ParseSharePayload(shares[0])
	if err != nil {
		t.Fatal(err)
	}
	good := wall.Bootstrap{Format: wall.BootstrapFormat, Organization: "health", Ceremony: mine.Ceremony, Pin: mine.Pin, CA: mine.CA,
		User: "admin", Token: "t", CACertificate: testCA()}
	otherCA, err := os.ReadFile(filepath.Join(newCellDir(t), identityFile))
	if err != nil {
		t.Fatal(err)
	}
	_, certificate, _ := strings.Cut(string(otherCA), "-----END PRIVATE KEY-----\n")
	for name, f := range map[string]func(*wall.Bootstrap){
		"none":         nil,
		"organization": func(b *wall.Bootstrap) { b.Organization = "wealth" },
		"ceremony":     func(b *wall.Bootstrap) { b.Ceremony = strings.Repeat("a", 32) },
		"pin":          func(b *wall.Bootstrap) { b.Pin = strings.Repeat("a", 64) },
		"ca digest":    func(b *wall.Bootstrap) { b.CA = strings.Repeat("a", 64) },
		"ca":           func(b *wall.Bootstrap) { b.CACertificate = certificate },
		"no ca":        func(b *wall.Bootstrap) { b.CACertificate = "x" },
		"two cas":      func(b *wall.Bootstrap) { b.CACertificate += certificate },
		"format":       func(b *wall.Bootstrap) { b.Format = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			b := good
			if f != nil {
				f(&b)
			}
			plain, err := b.Encode()
			if err != nil {
				t.Fatal(err)
			}
			forged := to(t, 0, plain)
			s := serve(t, forgery(k, map[string]func() (int, []byte){wall.PathSealBootstrap: func() (int, []byte) { return 200, forged }}),
				k.Identity().Certificate())
			_, err = custodian.Bootstrap(t.Context(), s.addr, testServer, person(t, 0))
			if f == nil && err != nil || f != nil && !errs.Is(err, errs.Denied) {
				t.Fatal(err)
			}
		})
	}
}

func newCellDir(t *testing.T) string {
	c := newCell(t, "health")
	c.open()
	return c.o.Dir
}

// A whole forged organization, consistent in itself, is noticed by a custodian who was there before.
func TestForgedOrganizationIsKnown(t *testing.T) {
	_, k, _ := start(t, "health", 1, 1)
	_, fake, _ := start(t, "health", 1, 1)
	known := &custodian.Known{File: filepath.Join(t.TempDir(), "known.json")}
	s := serve(t, Handler(k), k.Identity().Certificate())
	if _, err := (&custodian.Client{Endpoint: s.addr, ServerName: testServer, Known: known}).Unseal(t.Context(), person(t, 0)); err != nil {
		t.Fatal(err)
	}
	f := serve(t, Handler(fake), fake.Identity().Certificate())
	_, err := (&custodian.Client{Endpoint: f.addr, ServerName: testServer, Known: known}).Unseal(t.Context(), person(t, 0))
	wantKind(t, err, errs.Denied)
	if f.posted() != 0 {
		t.Fatal("a share was sent")
	}
}

// Only hybrid post-quantum TLS carries a share.
func TestClassicTLSIsRefused(t *testing.T) {
	_, k, _ := start(t, "health", 1, 1)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, Certificates: []tls.Certificate{*k.Identity().Certificate()}})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: Handler(k), ReadHeaderTimeout: time.Second, ErrorLog: nil}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	_, err = custodian.Unseal(t.Context(), l.Addr().String(), testServer, person(t, 0))
	wantKind(t, err, errs.Unavailable)
}

func TestHandlerAnswers(t *testing.T) {
	c, k, shares := start(t, "health", 2, 2)
	h := Handler(k)
	do := func(method, path string, body []byte) (int, wall.Failure, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, bytes.NewReader(body)))
		var f wall.Failure
		if w.Code != 200 {
			if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || f.Kind == "" || f.Message == "" {
				t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
			}
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Fatal("may be cached")
		}
		return w.Code, f, w.Body.String()
	}
	wrong := change(t, shares[1], func(p *wall.SharePayload) { p.Share[0] ^= 1 })
	for _, test := range []struct {
		method, path string
		body         []byte
		code         int
		says         string
	}{
		{"GET", wall.PathSealStatus, nil, 200, ""},
		{"GET", wall.PathSealShare + "?custodian=c1", nil, 200, ""},
		{"GET", wall.PathSealShare, nil, 404, "no share"},
		{"GET", wall.PathSealShare + "?custodian=../seal.json", nil, 404, "no share"},
		{"GET", wall.PathSealBootstrap, nil, 200, ""},
		{"GET", "/", nil, 404, "no such path"},
		{"GET", "/seal/v1/unseal", nil, 404, "no such path"},
		{"POST", wall.PathSealStatus, nil, 404, "no such path"},
		{"POST", wall.PathSealUnseal, nil, 400, "not a share"},
		{"POST", wall.PathSealUnseal, make([]byte, wall.MaxSharePayload), 400, "not a share"},
		{"POST", wall.PathSealUnseal, make([]byte, wall.MaxSharePayload+1), 400, "at most"},
		{"POST", wall.PathSealUnseal, wrong, 403, "c2"},
		{"POST", wall.PathSealUnseal, shares[0], 200, ""},
	} {
		code, f, body := do(test.method, test.path, test.body)
		if code != test.code || !strings.Contains(f.Message, test.says) {
			t.Errorf("%s %s: %d %s", test.method, test.path, code, body)
		}
	}
	// What goes wrong inside is not told.
	c.fail = errs.New(errs.Corrupt, "store.Open", "/secret/path")
	code, f, _ := do("POST", wall.PathSealUnseal, shares[1])
	if code != 500 || strings.Contains(f.Message, "/secret") || f.Kind != "corrupt" {
		t.Fatalf("%d %+v", code, f)
	}
	c.fail = errs.WrapKind(errs.Exhausted, "x", io.ErrShortWrite)
	do("POST", wall.PathSealUnseal, shares[0])
	code, f, _ = do("POST", wall.PathSealUnseal, shares[1])
	if code != 500 || strings.Contains(f.Message, "short") {
		t.Fatalf("%d %+v", code, f)
	}
	// A zero Keeper answers too, and gives nothing.
	w := httptest.NewRecorder()
	Handler(nil).ServeHTTP(w, httptest.NewRequest("GET", wall.PathSealShare+"?custodian=c1", nil))
	if w.Code != 503 {
		t.Fatal(w.Code)
	}
}

// A share file is for its custodian alone.
func TestShareFilesAreForOne(t *testing.T) {
	_, k, _ := start(t, "health", 2, 3)
	for i := range 3 {
		file, err := k.Share("c" + string(rune('1'+i)))
		if err != nil {
			t.Fatal(err)
		}
		for j := range 6 {
			_, err := age.Decrypt(armorReader(file), identities()[j])
			if (err == nil) != (i == j) {
				t.Fatalf("share %d, identity %d: %v", i, j, err)
			}
		}
	}
}
