package e2e

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/signer"

	"chancery/bench/procstat"
	"chancery/test/harness"
)

// TestSizes stores objects around every seam and reads them whole and in ranges across it.
func TestSizes(t *testing.T) {
	c := client(t, project(t, sharedZone(t), "health", "wards"))
	bucket(t, c, "sizes")
	for _, size := range []int{0, 1, 32<<10 - 1, 32 << 10, 32<<10 + 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, 1<<20 + 1, 5 << 20} {
		key, body := fmt.Sprint(size), random(size)
		put(t, c, "sizes", key, body)
		holds(t, c, "sizes", key, body)
		info, err := c.StatObject(t.Context(), "sizes", key, minio.StatObjectOptions{})
		if err != nil || info.Size != int64(size) {
			t.Errorf("%d bytes: stat says %d, %v", size, info.Size, err)
		}
		for _, edge := range []int{1, 32 << 10, 64 << 10, size} {
			from, to := edge-1, min(edge+1, size-1)
			if from < 0 || from >= size {
				continue
			}
			o := minio.GetObjectOptions{}
			if err := o.SetRange(int64(from), int64(to)); err != nil {
				t.Fatal(err)
			}
			r, err := c.GetObject(t.Context(), "sizes", key, o)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			r.Close()
			if err != nil || !bytes.Equal(got, body[from:to+1]) {
				t.Errorf("%d bytes, range %d-%d: %d bytes, %v", size, from, to, len(got), err)
			}
		}
	}
}

// names are keys that break careless software. Each must be kept as it is, next to all others.
func names() []string {
	return []string{
		"plain", "with space", "plus+plus", "percent%2Fslash", "percent%", "%", "%00", "a%20b", "100%25", "und_er.score~tilde-minus",
		"é", "e\u0301", "日本語/キー", "🦉", "👩‍🚀/🚀", "\u202ertl", "\u00a0nbsp", "ﬀ", "\U0010fffd",
		"..", ".", "../x", "a/../b", "a/./b", "./a", "a/..", "/leading", "//two", "a//b", "a///b", "trailing/", "trailing//", "/",
		"tab\there", "new\nline", "cr\rhere", "bell\x07", "esc\x1b[31m", "del\x7f", "\x01",
		"<xml>&amp;\"quotes'", "]]>", "a?b=c&d", "a#b", "a;b", "a:b", "a@b", "a=b", "a,b", "a$b", "a!b", "a*b", "a(b)", "a[b]", "a{b}", "a|b", "a\\b", "a^b", "a`b",
		"?versionId=null", "uploads", "uploadId=1", "_", "-", "--help", "CON", "nul.txt", strings.Repeat("k", 1024), strings.Repeat("é", 512), strings.Repeat("d/", 512),
	}
}

// TestNames stores an object under each name, and finds each by get, head, list, copy and delete.
func TestNames(t *testing.T) {
	z := sharedZone(t)
	p := project(t, z, "health", "wards")
	c := client(t, p)
	bucket(t, c, "odd-names")
	s3 := &raw{t: t, p: p, o: z.Org("health")}
	want := map[string][]byte{}
	for _, name := range names() {
		want[name] = []byte("body of " + name)
		if a := s3.do("PUT", "odd-names", name, "", want[name]); a.status != 200 {
			t.Errorf("put %q: %d %s", name, a.status, a.body)
			delete(want, name)
		}
	}
	for name, body := range want {
		if a := s3.do("GET", "odd-names", name, "", nil); a.status != 200 || a.body != string(body) {
			t.Errorf("get %q: %d %q", name, a.status, a.body)
		}
		if a := s3.do("HEAD", "odd-names", name, "", nil); a.status != 200 {
			t.Errorf("head %q: %d", name, a.status)
		}
	}
	listed := []string{}
	for token := ""; ; {
		query := "list-type=2&encoding-type=url&max-keys=7"
		if token != "" {
			query += "&continuation-token=" + url.QueryEscape(token)
		}
		a := s3.do("GET", "odd-names", "", query, nil)
		var page struct {
			Contents              []struct{ Key string }
			IsTruncated           bool
			NextContinuationToken string
		}
		if err := xml.Unmarshal([]byte(a.body), &page); err != nil || a.status != 200 {
			t.Fatalf("list: %d %v %s", a.status, err, a.body)
		}
		for _, k := range page.Contents {
			key, err := url.QueryUnescape(k.Key)
			if err != nil {
				t.Fatal(err)
			}
			listed = append(listed, key)
		}
		if token = page.NextContinuationToken; !page.IsTruncated {
			break
		}
	}
	for name := range want {
		if !slices.Contains(listed, name) {
			t.Errorf("%q is not in the list", name)
		}
	}
	if len(listed) != len(want) || !slices.IsSorted(listed) {
		t.Errorf("%d names listed, want %d in byte order", len(listed), len(want))
	}
	for _, bad := range []string{strings.Repeat("k", 1025), "a\xffb", "a\xc0\xafb"} {
		a := s3.do("PUT", "odd-names", bad, "", []byte("x"))
		code := map[bool]string{true: "KeyTooLongError", false: "InvalidURI"}[utf8.ValidString(bad)]
		if a.status != 400 || a.code != code {
			t.Errorf("put %.20q…: %d %s, want %s", bad, a.status, a.code, code)
		}
	}
	for name := range want {
		if a := s3.do("DELETE", "odd-names", name, "", nil); a.status != 204 {
			t.Errorf("delete %q: %d", name, a.status)
		}
	}
}

// TestNamesByClients does the same by clients that people use, as far as each can name a key.
func TestNamesByClients(t *testing.T) {
	z := sharedZone(t)
	p := project(t, z, "health", "wards")
	c := client(t, p)
	bucket(t, c, "client-names")
	for _, name := range names() {
		if strings.HasPrefix(name, "/") || strings.Contains(name, "//") || strings.Contains(name, "./") || name == "." || strings.HasSuffix(name, "..") || strings.HasSuffix(name, "/") {
			continue // minio-go cleans or refuses these; TestNames has them
		}
		body := []byte("body of " + name)
		if _, err := c.PutObject(t.Context(), "client-names", name, bytes.NewReader(body), int64(len(body)), minio.PutObjectOptions{}); err != nil {
			t.Errorf("minio-go: put %q: %v", name, err)
			continue
		}
		holds(t, c, "client-names", name, body)
	}
	aws, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("no aws here")
	}
	dir := t.TempDir()
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), aws, args...)
		cmd.Env = append(p.Environ(), "HOME="+dir, "AWS_EC2_METADATA_DISABLED=true")
		args[0] = "s3api"
		return cmd.CombinedOutput()
	}
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	hard := []string{"plus+%2F 🦉/../a//b/", "cr\rhere"} // each call takes seconds of Python
	if large() {
		hard = append(hard, "percent%2Fslash", "🦉 日本語", "a/../b", "a//b", "with space/", strings.Repeat("é", 512))
	}
	for _, name := range hard {
		body := []byte("aws " + name)
		if err := os.WriteFile(in, body, 0o600); err != nil {
			t.Fatal(err)
		}
		if msg, err := run("s3api", "put-object", "--endpoint-url", "https://"+z.S3, "--bucket", "client-names", "--key", name, "--body", in); err != nil {
			t.Errorf("aws: put %q: %v\n%s", name, err, msg)
			continue
		}
		if msg, err := run("s3api", "get-object", "--endpoint-url", "https://"+z.S3, "--bucket", "client-names", "--key", name, out); err != nil {
			t.Errorf("aws: get %q: %v\n%s", name, err, msg)
			continue
		}
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, body) {
			t.Errorf("aws: %q: %q, %v", name, got, err)
		}
	}
}

// raw sends requests whose path is encoded byte by byte, as no client library does.
type raw struct {
	t *testing.T
	p *harness.Project
	o *harness.Organization
}

func (r *raw) do(method, bucket, key, query string, body []byte) answer {
	r.t.Helper()
	transport := r.o.Transport("s3")
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "https://"+r.o.Host("s3"), bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.URL.Path, req.URL.RawPath = "/"+bucket, "/"+bucket
	if key != "" {
		req.URL.Path, req.URL.RawPath = "/"+bucket+"/"+key, "/"+bucket+"/"+escape(key)
	}
	// The signer of minio-go encodes the path in its own way: ours is opaque to it and to net/http.
	req.URL.RawQuery = query
	req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	signed := signer.SignV4(*req, r.p.KeyID, r.p.Secret, "", "us-east-1")
	signed.URL.Opaque = "//" + r.o.Host("s3") + req.URL.RawPath
	resp, err := (&http.Client{Transport: transport}).Do(signed)
	if err != nil {
		r.t.Fatalf("%s %q: %v", method, key, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %q: %v", method, key, err)
	}
	var e struct{ Code string }
	_ = xml.Unmarshal(got, &e) // not every answer is XML
	return answer{status: resp.StatusCode, code: e.Code, body: string(got)}
}

// escape is the UriEncode of SigV4, with "/" kept.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_.~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// TestManyParts: parts below 5 MiB are refused at the end unless last; an upload
// with all 10,000 part numbers is gone through with bounded memory.
func TestManyParts(t *testing.T) {
	z := sharedZone(t)
	p := project(t, z, "health", "wards")
	c := client(t, p)
	core := minio.Core{Client: c}
	bucket(t, c, "parts")
	id, err := core.NewMultipartUpload(t.Context(), "parts", "small", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var parts []minio.CompletePart
	for n := 1; n <= 2; n++ {
		part, err := core.PutObjectPart(t.Context(), "parts", "small", id, n, strings.NewReader("x"), 1, minio.PutObjectPartOptions{})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, minio.CompletePart{PartNumber: n, ETag: part.ETag})
	}
	_, err = core.CompleteMultipartUpload(t.Context(), "parts", "small", id, parts, minio.PutObjectOptions{})
	refused(t, "two parts of one byte", err, "EntityTooSmall")
	_, err = core.PutObjectPart(t.Context(), "parts", "small", id, 10_001, strings.NewReader("x"), 1, minio.PutObjectPartOptions{})
	refused(t, "part 10,001", err, "InvalidArgument")
	if err := core.AbortMultipartUpload(t.Context(), "parts", "small", id); err != nil {
		t.Fatal(err)
	}
	pid, err := z.CellPID(t.Context(), "health")
	if err != nil {
		t.Fatal(err)
	}
	if large() {
		manyParts(t, core, pid, 2000) // 10 GiB of parts: each is stored
	}
	manyTinyParts(t, core, pid)
}

// manyTinyParts puts 10,000 parts of one byte each (each is legal by itself), and
// watches the memory of a completion that must read all of them: it names them
// all, and is refused for their size.
func manyTinyParts(t *testing.T, core minio.Core, pid int) {
	id, err := core.NewMultipartUpload(t.Context(), "parts", "tiny", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const count = 10_000
	parts := make([]minio.CompletePart, count)
	next, failed := make(chan int), make(chan error, 16)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for n := range next {
				part, err := core.PutObjectPart(ctx, "parts", "tiny", id, n, strings.NewReader("x"), 1, minio.PutObjectPartOptions{})
				if err != nil {
					failed <- err
					cancel()
					return
				}
				parts[n-1] = minio.CompletePart{PartNumber: n, ETag: part.ETag}
			}
		})
	}
feed:
	for n := 1; n <= count; n++ {
		select {
		case next <- n:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	group.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	if !procstat.ResetPeak([]int{pid}) {
		t.Log("the kernel does not reset peaks")
	}
	before, err := procstat.Of([]int{pid})
	if err != nil {
		t.Fatal(err)
	}
	_, err = core.CompleteMultipartUpload(t.Context(), "parts", "tiny", id, parts, minio.PutObjectOptions{})
	refused(t, "10,000 parts of one byte", err, "EntityTooSmall")
	after, err := procstat.Of([]int{pid})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("completing 10,000 parts: cell %d MiB before, peak %d MiB", before.RSS>>20, after.PeakRSS>>20)
	if grown := after.PeakRSS - before.RSS; grown > 128<<20 {
		t.Errorf("the completion took %d MiB of memory", grown>>20)
	}
	listed := 0
	for marker := 0; ; {
		page, err := core.ListObjectParts(t.Context(), "parts", "tiny", id, marker, 1000)
		if err != nil {
			t.Fatal(err)
		}
		listed += len(page.ObjectParts)
		if marker = page.NextPartNumberMarker; !page.IsTruncated {
			break
		}
	}
	if listed != count {
		t.Errorf("%d parts listed", listed)
	}
	if err := core.AbortMultipartUpload(t.Context(), "parts", "tiny", id); err != nil {
		t.Error(err)
	}
}

// manyParts completes an upload of count parts of 5 MiB, each a copy.
func manyParts(t *testing.T, core minio.Core, pid, count int) {
	body := random(5 << 20)
	put(t, core.Client, "parts", "source", body)
	id, err := core.NewMultipartUpload(t.Context(), "parts", "whole", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var parts []minio.CompletePart
	for n := 1; n <= count; n++ {
		part, err := core.CopyObjectPart(t.Context(), "parts", "source", "parts", "whole", id, n, 0, -1, nil)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part)
	}
	procstat.ResetPeak([]int{pid})
	info, err := core.CompleteMultipartUpload(t.Context(), "parts", "whole", id, parts, minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := procstat.Of([]int{pid})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d parts completed as %s; cell peak %d MiB", count, info.ETag, u.PeakRSS>>20)
	o := minio.GetObjectOptions{}
	if err := o.SetRange(int64(count-1)*5<<20, 0); err == nil {
		r, err := core.Client.GetObject(t.Context(), "parts", "whole", o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("the last part: %d bytes, %v", len(got), err)
		}
	}
}
