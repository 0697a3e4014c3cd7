package s3

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"chancery/cell/blobs"
	"chancery/cell/blobs/blobdir"
	"chancery/cell/identity"
	"chancery/cell/keys"
	"chancery/cell/objects"
	"chancery/cell/policy"
	"chancery/internal/files"
	"chancery/internal/store/pebblestore"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

type engineRoot struct{}

func (engineRoot) Derive(info string) ([]byte, error) {
	return hkdf.Key(sha256.New, []byte("a root key for tests only, 32 B.."), nil, info, 32)
}

// realWorld is the handler on the real engine, store, blobs, keys, identity and policy.
func realWorld(tb testing.TB) (h http.Handler, key identity.AccessKey, dir string) {
	tb.Helper()
	ctx := context.Background()
	dir = tb.TempDir()
	check := func(err error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	st, err := pebblestore.Open(ctx, pebblestore.Options{Dir: filepath.Join(dir, "store"), Key: bytes.Repeat([]byte{7}, 32)})
	check(err)
	tb.Cleanup(func() { st.Close() })
	disk, err := blobdir.Open(filepath.Join(dir, "blobs"), files.OS())
	check(err)
	ring, err := keys.Open(ctx, st, engineRoot{}, "org-1")
	check(err)
	tb.Cleanup(func() { ring.Close() })
	e, err := objects.New(ctx, objects.Options{Store: st, Blobs: blobs.New(disk), Keys: ring, Organization: "org-1", Region: testRegion})
	check(err)
	p, err := e.CreateProject(ctx, "p")
	check(err)
	d := identity.Open(st)
	key, err = d.CreateAccessKey(ctx, identity.NewAccessKey{Project: p.ID, User: "alice"})
	check(err)
	return New(Options{Objects: e, Keys: d, Policy: policy.New(), Region: testRegion}), key, dir
}

func TestRealEngine(t *testing.T) {
	h, key, dir := realWorld(t)
	ts := httptest.NewTLSServer(h)
	defer ts.Close()
	c, err := minio.New(strings.TrimPrefix(ts.URL, "https://"), &minio.Options{
		Creds: credentials.NewStaticV4(key.ID, key.Secret, ""), Secure: true, Transport: ts.Client().Transport, Region: testRegion, TrailingHeaders: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := c.MakeBucket(ctx, "bucket", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 12<<20)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(data) //nolint:errcheck // never fails
	canary := []byte("canary-5f1e-body")
	copy(data, canary)
	for i, n := range []int{0, 1, 4096, 32 << 10, 32<<10 + 1, 256 << 10, 256<<10 + 1, 12 << 20} {
		for _, o := range []minio.PutObjectOptions{{}, {SendContentMd5: true}, {Checksum: minio.ChecksumCRC32C, PartSize: 5 << 20}, {Checksum: minio.ChecksumCRC64NVME, PartSize: 5 << 20}} {
			k := fmt.Sprintf("canary-name/%d %d ü", i, n)
			if _, err := c.PutObject(ctx, "bucket", k, bytes.NewReader(data[:n]), int64(n), o); err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			g, err := c.GetObject(ctx, "bucket", k, minio.GetObjectOptions{Checksum: true})
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(g)
			if err != nil || !bytes.Equal(got, data[:n]) {
				t.Fatalf("%d bytes: %d came back, %v", n, len(got), err)
			}
			if n > 10 {
				ro := minio.GetObjectOptions{}
				if err := ro.SetRange(3, int64(n-3)); err != nil {
					t.Fatal(err)
				}
				g, _ := c.GetObject(ctx, "bucket", k, ro)
				if got, err := io.ReadAll(g); err != nil || !bytes.Equal(got, data[3:n-2]) {
					t.Fatalf("range of %d: %d, %v", n, len(got), err)
				}
			}
		}
	}
	// Conditional writes, and a listing through the real order of keys.
	o := minio.PutObjectOptions{}
	o.SetMatchETagExcept("*")
	if _, err := c.PutObject(ctx, "bucket", "canary-name/0 0 ü", strings.NewReader("x"), 1, o); minio.ToErrorResponse(err).Code != "PreconditionFailed" {
		t.Error(err)
	}
	n := 0
	for l := range c.ListObjects(ctx, "bucket", minio.ListObjectsOptions{Recursive: true, MaxKeys: 3}) {
		if l.Err != nil {
			t.Fatal(l.Err)
		}
		n++
	}
	if n != 8 {
		t.Errorf("%d listed", n)
	}
	if err := c.RemoveBucket(ctx, "bucket"); minio.ToErrorResponse(err).Code != "BucketNotEmpty" {
		t.Error(err)
	}
	if _, err := c.StatObject(ctx, "nothing", "x", minio.StatObjectOptions{}); minio.ToErrorResponse(err).StatusCode != 404 {
		t.Error(err)
	}
	// What went through the wire is on disk in no readable form.
	list, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(list) == 0 {
		t.Fatal("nothing on disk", err)
	}
	for _, f := range walk(t, dir) {
		for _, word := range []string{string(canary), "canary-name", key.Secret} {
			if bytes.Contains(f.data, []byte(word)) {
				t.Errorf("%q stands in %s", word, f.name)
			}
		}
	}
	for e := range c.RemoveObjects(ctx, "bucket", c.ListObjects(ctx, "bucket", minio.ListObjectsOptions{Recursive: true}), minio.RemoveObjectsOptions{}) {
		t.Error(e)
	}
	if err := c.RemoveBucket(ctx, "bucket"); err != nil {
		t.Error(err)
	}
}
