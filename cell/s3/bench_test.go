package s3

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chancery/cell/objects"
)

type diskFile struct {
	name string
	data []byte
}

func walk(t *testing.T, dir string) (out []diskFile) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		out = append(out, diskFile{p, b})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sink stores nothing: what is measured is this layer alone.
type sink struct {
	*memory
	data []byte
}

func (s sink) Put(_ context.Context, in objects.Put) (objects.Object, error) {
	var buf [4096]byte
	for {
		if _, err := in.Body.Read(buf[:]); err == io.EOF {
			break
		} else if err != nil {
			return objects.Object{}, err
		}
	}
	sums, err := in.Body.Finish()
	return objects.Object{ETag: "e", Checksum: sums.Checksum}, err
}

func (s sink) Get(context.Context, objects.Get) (objects.Object, io.ReadCloser, error) {
	return objects.Object{ETag: "e", Size: int64(len(s.data)), RangeLength: int64(len(s.data)), Modified: time.Unix(1, 0)}, io.NopCloser(bytes.NewReader(s.data)), nil
}

type nullWriter struct{ h http.Header }

func (n *nullWriter) Header() http.Header         { return n.h }
func (n *nullWriter) Write(b []byte) (int, error) { return len(b), nil }
func (n *nullWriter) WriteHeader(int)             {}

func benchmark(b *testing.B, method string, size int, payload string) {
	m := newMemory()
	data := bytes.Repeat([]byte("x"), size)
	h := New(Options{Objects: sink{m, data}, Keys: testKeys, Policy: ownProject{}, Region: testRegion})
	if _, err := m.CreateBucket(context.Background(), objects.CreateBucket{Name: "bucket", ProjectID: "p1", Region: testRegion}); err != nil {
		b.Fatal(err)
	}
	req := httptest.NewRequest(method, "http://127.0.0.1/bucket/some/key", nil)
	req.RequestURI = "/bucket/some/key"
	if method == "PUT" {
		req.ContentLength = int64(size)
	}
	a := ask{payload: payload}
	if payload == "" && method == "PUT" {
		a.body = string(data)
	}
	sign(req, a)
	rd := bytes.NewReader(data)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		rd.Reset(data)
		r := *req
		r.Body = io.NopCloser(rd)
		w := &nullWriter{http.Header{}}
		h.ServeHTTP(w, &r)
		if w.h["ETag"] == nil {
			b.Fatal("refused")
		}
	}
}

func BenchmarkPut4KSigned(b *testing.B)   { benchmark(b, "PUT", 4096, "") }
func BenchmarkPut4KUnsigned(b *testing.B) { benchmark(b, "PUT", 4096, payloadUnsigned) }
func BenchmarkPut1M(b *testing.B)         { benchmark(b, "PUT", 1<<20, payloadUnsigned) }
func BenchmarkGet4K(b *testing.B)         { benchmark(b, "GET", 4096, "") }
func BenchmarkGet1M(b *testing.B)         { benchmark(b, "GET", 1<<20, "") }
