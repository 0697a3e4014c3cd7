package s3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"chancery/cell/objects"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/signer"
)

// raw sends bytes on a connection of its own and returns what came back. body is
// sent piece by piece; the connection stays open for writing until the answer ends.
func (w *world) raw(req *http.Request, expect bool, pieces ...string) (string, net.Conn) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.ts.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", req.Method, req.URL.RequestURI(), req.Host)
	req.Header.Write(&b) //nolint:errcheck // a buffer
	fmt.Fprintf(&b, "Content-Length: %d\r\n", req.ContentLength)
	if expect {
		b.WriteString("Expect: 100-continue\r\n")
	}
	b.WriteString("\r\n")
	for _, p := range pieces {
		b.WriteString(p)
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		w.t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), c
}

func (w *world) signedPut(target string, length int64, payload, key string) *http.Request {
	req, _ := http.NewRequest("PUT", w.ts.URL+target, nil)
	req.ContentLength = length
	sign(req, ask{payload: payload, key: key})
	return req
}

func TestContinueOnlyForTheKnown(t *testing.T) {
	w := newWorld(t)
	req := w.signedPut("/bucket/x", 5, payloadUnsigned, "CHNOBODY")
	line, c := w.raw(req, true)
	c.Close()
	if line != "HTTP/1.1 403 Forbidden" {
		t.Errorf("an unknown caller was answered %q", line)
	}
	line, c = w.raw(w.signedPut("/nothing/x", 5, payloadUnsigned, ""), true)
	c.Close()
	if line != "HTTP/1.1 404 Not Found" {
		t.Errorf("no bucket: %q", line)
	}
	line, c = w.raw(w.signedPut("/bucket/x", 5, payloadUnsigned, ""), true)
	defer c.Close()
	if line != "HTTP/1.1 100 Continue" {
		t.Errorf("a known caller was answered %q", line)
	}
}

// An empty body has nothing to wait for, but old botocore waits for the 100 all the same.
func TestContinueForAnEmptyBody(t *testing.T) {
	w := newWorld(t)
	line, c := w.raw(w.signedPut("/bucket/empty", 0, payloadUnsigned, ""), true)
	defer c.Close()
	if line != "HTTP/1.1 100 Continue" {
		t.Errorf("an empty body that asked was answered %q", line)
	}
}

func TestRegions(t *testing.T) {
	create := func(region, location string, others ...string) reply {
		w := newWorld(t, func(o *Options) { o.OtherRegions = others })
		body := "<CreateBucketConfiguration><LocationConstraint>" + location + "</LocationConstraint></CreateBucketConfiguration>"
		req, _ := http.NewRequest("PUT", w.ts.URL+"/fresh", strings.NewReader(body))
		sum := sha256.Sum256([]byte(body))
		req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
		id := "CHAAAAAAAAAAAAAAAAAA"
		signed := signer.SignV4(*req, id, testKeys[id].Secret, "", region)
		return w.send(signed)
	}
	for _, c := range []struct {
		region, location string
		others           []string
		code             string
	}{
		{testRegion, testRegion, nil, ""},
		{"us-east-1", testRegion, nil, "AuthorizationHeaderMalformed"},
		{"us-east-1", "us-east-1", []string{"us-east-1"}, ""},
		{testRegion, "us-east-1", nil, "IllegalLocationConstraintException"},
		{"eu-west-1", testRegion, []string{"us-east-1"}, "AuthorizationHeaderMalformed"},
	} {
		r := create(c.region, c.location, c.others...)
		if r.code() != c.code {
			t.Errorf("signed for %s, location %s, others %v: %d %s, want %s", c.region, c.location, c.others, r.status, r.code(), c.code)
		}
	}
}

func TestClientsThatVanishOrDawdle(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.IdleTimeout = 150 * time.Millisecond })
	before := runtime.NumGoroutine()
	for _, payload := range []string{payloadUnsigned, emptySHA256} {
		// Half a body, then silence: RequestTimeout.
		line, c := w.raw(w.signedPut("/bucket/x", 1000, payload, ""), false, strings.Repeat("x", 500))
		c.Close()
		if line != "HTTP/1.1 400 Bad Request" {
			t.Errorf("a dawdler was answered %q", line)
		}
	}
	// Half a body, then gone.
	req := w.signedPut("/bucket/x", 1000, payloadUnsigned, "")
	c, err := net.Dial("tcp", w.ts.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "PUT /bucket/x HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000\r\n", req.Host)
	req.Header.Write(&b) //nolint:errcheck // a buffer
	b.WriteString("\r\nhalf")
	c.Write(b.Bytes())
	c.Close()
	for range 100 {
		if runtime.NumGoroutine() <= before+2 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before+4 {
		t.Errorf("%d goroutines, had %d", n, before)
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if len(w.m.objects["bucket"]) != 0 {
		t.Error("something was kept")
	}
}

func TestReaderThatStops(t *testing.T) {
	broken := make(chan error, 1)
	w := newWorld(t, func(o *Options) {
		o.IdleTimeout = 150 * time.Millisecond
		o.Failed = func(_ string, err error) { broken <- err }
	})
	w.put("/bucket/large", strings.Repeat("l", 32<<20))
	req, _ := http.NewRequest("GET", w.ts.URL+"/bucket/large", nil)
	sign(req, ask{})
	_, c := w.raw(req, false)
	defer c.Close()
	select {
	case <-broken:
	case <-time.After(10 * time.Second):
		t.Error("a reader that takes nothing holds the server")
	}
}

func TestTimesAndScopes(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	w := newWorld(t, func(o *Options) { o.Now = func() time.Time { return now } })
	w.keepThere()
	secret := testKeys["CHAAAAAAAAAAAAAAAAAA"].Secret
	// claim signs a GET by header, by our own code (whose sums the vectors prove), as an attacker could.
	claim := func(at time.Time, date, region, service, terminal string, signed []string, extra map[string]string) reply {
		req, _ := http.NewRequest("GET", w.ts.URL+"/bucket/there", nil)
		req.Header.Set("X-Amz-Date", at.Format(iso8601))
		req.Header.Set("X-Amz-Content-Sha256", payloadUnsigned)
		for k, v := range extra {
			req.Header.Set(k, v)
		}
		req.Host = req.URL.Host
		c := credential{"CHAAAAAAAAAAAAAAAAAA", date, region, service, terminal}
		canonical := canonicalRequest(nil, req, []byte("/bucket/there"), nil, signed, payloadUnsigned)
		sig := hmacHex(deriveKey(secret, c), stringToSign(at.Format(iso8601), c.scope(), canonical))
		req.Header.Set("Authorization", algorithmV4+" Credential="+c.keyID+"/"+c.scope()+", SignedHeaders="+strings.Join(signed, ";")+", Signature="+sig)
		return w.send(req)
	}
	usual := []string{"host", "x-amz-content-sha256", "x-amz-date"}
	day := now.Format("20060102")
	for _, tt := range []struct {
		name string
		r    reply
		code string
	}{
		{"good", claim(now, day, testRegion, "s3", terminal, usual, nil), ""},
		{"14 minutes early", claim(now.Add(14*time.Minute), day, testRegion, "s3", terminal, usual, nil), ""},
		{"16 minutes early", claim(now.Add(16*time.Minute), day, testRegion, "s3", terminal, usual, nil), "RequestTimeTooSkewed"},
		{"16 minutes late", claim(now.Add(-16*time.Minute), day, testRegion, "s3", terminal, usual, nil), "RequestTimeTooSkewed"},
		{"other day", claim(now, "20261121", testRegion, "s3", terminal, usual, nil), "AuthorizationHeaderMalformed"},
		{"other region", claim(now, day, "us-east-1", "s3", terminal, usual, nil), "AuthorizationHeaderMalformed"},
		{"other service", claim(now, day, testRegion, "ec2", terminal, usual, nil), "AuthorizationHeaderMalformed"},
		{"other terminal", claim(now, day, testRegion, "s3", "aws5", usual, nil), "AuthorizationHeaderMalformed"},
		{"host unsigned", claim(now, day, testRegion, "s3", terminal, usual[1:], nil), "AccessDenied"},
		{"an x-amz header unsigned", claim(now, day, testRegion, "s3", terminal, usual, map[string]string{"X-Amz-Acl": "private"}), "AccessDenied"},
		{"unsorted", claim(now, day, testRegion, "s3", terminal, []string{"x-amz-date", "host", "x-amz-content-sha256"}, nil), "AuthorizationHeaderMalformed"},
		{"an absent header signed", claim(now, day, testRegion, "s3", terminal, []string{"host", "range", "x-amz-content-sha256", "x-amz-date"}, nil), ""},
	} {
		if tt.r.code() != tt.code {
			t.Errorf("%s: %d %s\n%s", tt.name, tt.r.status, tt.r.code(), tt.r.body)
		}
		if tt.name == "other region" && !strings.Contains(tt.r.body, "<Region>"+testRegion+"</Region>") {
			t.Error(tt.r.body)
		}
	}
	// Presigned: minio-go's signer uses the real clock, so does this part.
	now = time.Now().UTC()
	presign := func(seconds int64, headers http.Header) *http.Request {
		req, _ := http.NewRequest("GET", w.ts.URL+"/bucket/there", nil)
		for k, v := range headers {
			req.Header[k] = v
		}
		return signer.PreSignV4(*req, "CHAAAAAAAAAAAAAAAAAA", secret, "", testRegion, seconds)
	}
	if r := w.send(presign(100, nil)); r.status != 200 || r.body != "x" {
		t.Errorf("%d %s", r.status, r.body)
	}
	expired := presign(100, nil)
	now = now.Add(101 * time.Second)
	if r := w.send(expired); r.code() != "AccessDenied" || !strings.Contains(r.body, "Request has expired") {
		t.Error(r.body)
	}
	now = now.Add(-time.Hour)
	if r := w.send(presign(100, nil)); r.code() != "AccessDenied" || !strings.Contains(r.body, "not yet valid") {
		t.Error(r.body)
	}
	now = time.Now().UTC()
	twice := presign(100, nil)
	twice.URL.RawQuery += "&X-Amz-Expires=604800"
	if r := w.send(twice); r.code() != "AuthorizationQueryParametersError" {
		t.Error(r.body)
	}
	for _, part := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"} {
		req := presign(100, nil)
		v := req.URL.Query()
		v.Del(part)
		req.URL.RawQuery = v.Encode()
		if r := w.send(req); r.code() != "AuthorizationQueryParametersError" {
			t.Errorf("without %s: %s", part, r.body)
		}
	}
	// A header hoisted into the query counts; one that contradicts it is refused.
	req, _ := http.NewRequest("PUT", w.ts.URL+"/bucket/hoisted?x-amz-meta-a=b&X-Amz-Server-Side-Encryption-Customer-Algorithm=AES256", nil)
	if r := w.send(signer.PreSignV4(*req, "CHAAAAAAAAAAAAAAAAAA", secret, "", testRegion, 100)); r.code() != "NotImplemented" {
		t.Errorf("a customer key in the query was ignored: %s", r.body)
	}
	req, _ = http.NewRequest("PUT", w.ts.URL+"/bucket/hoisted?x-amz-meta-a=b", strings.NewReader("x"))
	if r := w.send(signer.PreSignV4(*req, "CHAAAAAAAAAAAAAAAAAA", secret, "", testRegion, 100)); r.status != 200 || w.m.objects["bucket"]["hoisted"].obj.Headers.User["a"] != "b" {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func (w *world) keepThere() {
	w.m.keep("bucket", "there", w.m.lastIn.Headers, []byte("x"), "e", objects.Checksum{}, nil)
}

func (w *world) send(req *http.Request) reply {
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func TestUnsignedTrailer(t *testing.T) {
	w := newWorld(t)
	put := func(body string, headers map[string]string) reply {
		headers["X-Amz-Decoded-Content-Length"] = "10"
		return w.do(ask{method: "PUT", target: "/bucket/t", body: body, payload: payloadUnsignedTrailer, headers: headers})
	}
	sum := crc("0123456789")
	announced := func() map[string]string {
		return h("X-Amz-Trailer", "x-amz-checksum-crc32", "Content-Encoding", "aws-chunked,gzip", "X-Amz-Sdk-Checksum-Algorithm", "CRC32")
	}
	const data = "4\r\n0123\r\n6\r\n456789\r\n0\r\n"
	if r := put(data+"x-amz-checksum-crc32:"+sum+"\r\n\r\n", announced()); r.status != 200 || r.header.Get("X-Amz-Checksum-Crc32") != sum {
		t.Fatal(r)
	}
	if o := w.m.objects["bucket"]["t"]; string(o.data) != "0123456789" || o.obj.Headers.ContentEncoding != "gzip" {
		t.Errorf("%q %+v", o.data, o.obj.Headers)
	}
	if r := put(data+"\r\n", h()); r.status != 200 {
		t.Error(r)
	}
	delete(w.m.objects["bucket"], "t")
	for name, tt := range map[string]struct {
		body    string
		headers map[string]string
		code    string
	}{
		"wrong sum":       {data + "x-amz-checksum-crc32:" + crc("x") + "\r\n\r\n", announced(), "BadDigest"},
		"not base64":      {data + "x-amz-checksum-crc32:!!!\r\n\r\n", announced(), "InvalidRequest"},
		"missing":         {data + "\r\n", announced(), "MalformedTrailerError"},
		"not announced":   {data + "x-amz-checksum-crc32:" + sum + "\r\n\r\n", h(), "MalformedTrailerError"},
		"other":           {data + "x-amz-checksum-sha1:" + sum + "\r\n\r\n", announced(), "MalformedTrailerError"},
		"no chunks":       {"0123456789", h(), "IncompleteBody"},
		"bad end":         {"4\r\n0123XX6\r\n456789\r\n0\r\n\r\n", h(), "IncompleteBody"},
		"short":           {"4\r\n0123\r\n0\r\n\r\n", h(), "IncompleteBody"},
		"long":            {"4\r\n0123\r\n7\r\n4567890\r\n0\r\n\r\n", h(), "IncompleteBody"},
		"unknown trailer": {data + "\r\n", h("X-Amz-Trailer", "x-amz-meta-a"), "InvalidRequest"},
	} {
		if r := put(tt.body, tt.headers); r.code() != tt.code || w.m.objects["bucket"]["t"] != nil {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
}

// TestMinioClient runs a client of other people over TLS.
func TestMinioClient(t *testing.T) {
	w := newWorld(t)
	ts := httptest.NewTLSServer(w.h)
	defer ts.Close()
	c, err := minio.New(strings.TrimPrefix(ts.URL, "https://"), &minio.Options{
		Creds:  credentials.NewStaticV4("CHAAAAAAAAAAAAAAAAAA", testKeys["CHAAAAAAAAAAAAAAAAAA"].Secret, ""),
		Secure: true, Transport: ts.Client().Transport, Region: testRegion, TrailingHeaders: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := c.MakeBucket(ctx, "second", minio.MakeBucketOptions{Region: testRegion}); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB: several parts
	for name, o := range map[string]minio.PutObjectOptions{
		"plain": {}, "md5": {SendContentMd5: true}, "crc32c": {Checksum: minio.ChecksumCRC32C}, "crc64": {Checksum: minio.ChecksumFullObjectCRC32},
		"sha256": {Checksum: minio.ChecksumSHA256}, "parts": {PartSize: 5 << 20}, "unsized": {PartSize: 5 << 20, UserMetadata: map[string]string{"A": "b"}},
	} {
		size := int64(len(data))
		if name == "unsized" {
			size = -1
		}
		key := "dir/" + name + " +é"
		if _, err := c.PutObject(ctx, "second", key, bytes.NewReader(data), size, o); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r, err := c.GetObject(ctx, "second", key, minio.GetObjectOptions{Checksum: true})
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if _, err := io.Copy(h, r); err != nil || hex.EncodeToString(h.Sum(nil)) != sha(data) {
			t.Errorf("%s: %v", name, err)
		}
	}
	n := 0
	for o := range c.ListObjects(ctx, "second", minio.ListObjectsOptions{Recursive: true, MaxKeys: 2}) {
		if o.Err != nil || o.Size != int64(len(data)) {
			t.Errorf("%+v", o)
		}
		n++
	}
	if n != 7 {
		t.Errorf("%d objects", n)
	}
	if _, err := c.CopyObject(ctx, minio.CopyDestOptions{Bucket: "second", Object: "copy"}, minio.CopySrcOptions{Bucket: "second", Object: "dir/plain +é"}); err != nil {
		t.Error(err)
	}
	for e := range c.RemoveObjects(ctx, "second", c.ListObjects(ctx, "second", minio.ListObjectsOptions{Recursive: true}), minio.RemoveObjectsOptions{}) {
		t.Error(e)
	}
	if err := c.RemoveBucket(ctx, "second"); err != nil {
		t.Error(err)
	}
	if _, err := c.StatObject(ctx, "bucket", "none", minio.StatObjectOptions{}); minio.ToErrorResponse(err).StatusCode != 404 {
		t.Error(err)
	}
}

func sha(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
