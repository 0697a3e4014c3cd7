package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"chancery/cell/identity"
	"chancery/cell/objects"

	"github.com/minio/minio-go/v7/pkg/signer"
)

func mustBucket(m *memory) objects.Bucket {
	b, err := m.CreateBucket(context.Background(), objects.CreateBucket{Name: "examplebucket", ProjectID: "p1", Region: "us-east-1"})
	if err != nil {
		panic(err)
	}
	return b
}

func slicesConcat(b ...[]byte) []byte { return slices.Concat(b...) }
func hexOf(n int) string              { return strconv.FormatInt(int64(n), 16) }

// world is a handler, its double, and two projects' credentials.
type world struct {
	t  *testing.T
	h  http.Handler
	m  *memory
	ts *httptest.Server
}

const testRegion = "eu-lu-1"

var testKeys = fixedKeys{
	"CHAAAAAAAAAAAAAAAAAA": {ID: "CHAAAAAAAAAAAAAAAAAA", Secret: strings.Repeat("s", 40), Project: "p1", User: "alice"},
	"CHBBBBBBBBBBBBBBBBBB": {ID: "CHBBBBBBBBBBBBBBBBBB", Secret: strings.Repeat("t", 40), Project: "p2", User: "bob"},
	"CHDISABLED":           {ID: "CHDISABLED", Secret: strings.Repeat("u", 40), Project: "p1", Disabled: true},
	"CHEMPTY":              identity.AccessKey{ID: "CHEMPTY"},
}

func newWorld(t *testing.T, change ...func(*Options)) *world {
	t.Helper()
	m := newMemory()
	o := Options{Objects: m, Keys: testKeys, Policy: ownProject{}, Region: testRegion, Domains: []string{"s3.org.example"}}
	for _, f := range change {
		f(&o)
	}
	if _, err := m.CreateBucket(context.Background(), objects.CreateBucket{Name: "bucket", ProjectID: "p1", Region: testRegion}); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, h: New(o), m: m}
	w.ts = httptest.NewServer(w.h)
	t.Cleanup(w.ts.Close)
	return w
}

// ask is one request; opts change it before it is signed.
type ask struct {
	method, target, body string
	headers              map[string]string
	key                  string // access key id; empty is alice, "-" is nobody
	payload              string // x-amz-content-sha256 if not that of body
	host                 string
	length               int64 // Content-Length if not that of body
}

type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) code() string {
	_, rest, ok := strings.Cut(r.body, "<Code>")
	if !ok {
		return ""
	}
	c, _, _ := strings.Cut(rest, "</Code>")
	return c
}

func (w *world) do(a ask) reply {
	w.t.Helper()
	req, err := http.NewRequest(a.method, w.ts.URL+"/", bytes.NewReader([]byte(a.body)))
	if err != nil {
		w.t.Fatal(err)
	}
	path, query, _ := strings.Cut(a.target, "?")
	req.URL.Opaque = ""
	if req.URL.Path, err = unescape(path, false); err != nil {
		req.URL.Path = path
	}
	req.URL.RawPath = path
	req.URL.RawQuery = query
	if a.body == "" {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	if a.length > 0 {
		req.ContentLength = a.length
	}
	if a.host != "" {
		req.Host = a.host
	}
	for k, v := range a.headers {
		req.Header.Set(k, v)
	}
	sign(req, a)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", a.method, a.target, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		b = append(b, "\nBROKEN: "+err.Error()...)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

// sign uses minio-go's signer: an implementation that is not ours.
func sign(req *http.Request, a ask) {
	if a.key == "-" {
		return
	}
	id := a.key
	if id == "" {
		id = "CHAAAAAAAAAAAAAAAAAA"
	}
	payload := a.payload
	if payload == "" {
		s := sha256.Sum256([]byte(a.body))
		payload = hex.EncodeToString(s[:])
	}
	req.Header.Set("X-Amz-Content-Sha256", payload)
	secret := testKeys[id].Secret
	if secret == "" {
		secret = "guess"
	}
	signed := signer.SignV4(*req, id, secret, "", testRegion)
	req.Header = signed.Header
}

func (w *world) want(a ask, status int, code string) reply {
	w.t.Helper()
	r := w.do(a)
	if r.status != status || r.code() != code && a.method != "HEAD" {
		w.t.Errorf("%s %s: %d %s, want %d %s\n%s", a.method, a.target, r.status, r.code(), status, code, r.body)
	}
	return r
}

func (w *world) put(target, body string) {
	w.t.Helper()
	w.want(ask{method: "PUT", target: target, body: body}, 200, "")
}

func TestRoundTripOfArbitraryKeys(t *testing.T) {
	w := newWorld(t)
	keys := []string{"a", "/", "//", "a//b", "../x", "a/../../b", ".", "..", "ünï/ço∂é", "a b+c%2F", "%", "a?b#c&d=e", "ctrl\x01\x1f", "q\"<>&'", strings.Repeat("k", 1024), "\u2028", "x/"}
	for _, k := range keys {
		target := "/bucket/" + string(appendURIEncoded(nil, k, true))
		w.put(target, "value of "+k)
		if r := w.want(ask{method: "GET", target: target}, 200, ""); r.body != "value of "+k {
			t.Errorf("%q: got %q", k, r.body)
		}
		// All escaped, host style and with a port: the same key.
		all := "/" + string(appendURIEncoded(nil, k, false))
		if r := w.want(ask{method: "GET", target: all, host: "bucket.s3.org.example:9000"}, 200, ""); r.body != "value of "+k {
			t.Errorf("%q by host: got %q", k, r.body)
		}
	}
	if len(w.m.objects["bucket"]) != len(keys) {
		t.Errorf("%d keys kept, want %d", len(w.m.objects["bucket"]), len(keys))
	}
	for _, target := range []string{"/bucket/" + strings.Repeat("k", 1025)} {
		w.want(ask{method: "PUT", target: target}, 400, "KeyTooLongError")
	}
	w.want(ask{method: "GET", target: "/bucket/%ff"}, 400, "InvalidURI")
}
