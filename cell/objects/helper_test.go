package objects

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"chancery/cell/blobs"
	"chancery/cell/blobs/blobdir"
	"chancery/cell/keys"
	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

// testRoot is a root key that is not secret.
type testRoot struct{}

func (testRoot) Derive(info string) ([]byte, error) {
	return hkdf.Key(sha256.New, []byte("a root key for tests only, 32 B.."), nil, info, 32)
}

// world is an engine on the real store, blobs and keys.
type world struct {
	*Engine
	tb     testing.TB
	store  *pebblestore.Store
	ring   *keys.Ring
	blobs  *blobs.Store
	disk   *blobdir.Engine
	dir    string
	clock  *clock
	p      Project
	bucket string
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	c.t = c.t.Add(d)
	c.mu.Unlock()
}

// boot opens everything on a directory and a file system; fs nil is the real one.
func boot(tb testing.TB, dir string, fsys files.FS) (*world, error) {
	if fsys == nil {
		fsys = files.OS()
	}
	ctx := context.Background()
	st, err := pebblestore.Open(ctx, pebblestore.Options{Dir: filepath.Join(dir, "store"), FS: fsys, Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		return nil, err
	}
	w := &world{tb: tb, store: st, dir: dir, clock: &clock{t: time.Date(2026, 11, 22, 10, 0, 0, 123e6, time.UTC)}}
	if w.disk, err = blobdir.Open(filepath.Join(dir, "blobs"), fsys); err == nil {
		w.blobs = blobs.New(w.disk)
		if w.ring, err = keys.Open(ctx, st, testRoot{}, "org-1"); err == nil {
			w.Engine, err = New(ctx, Options{Store: st, Blobs: w.blobs, Keys: w.ring, Organization: "org-1", Region: "eu-test-1", Now: w.clock.now})
		}
	}
	if err != nil {
		st.Close()
		return nil, err
	}
	return w, nil
}

func (w *world) close() {
	w.ring.Close()
	if err := w.store.Close(); err != nil {
		w.tb.Errorf("close: %v", err)
	}
}

// newWorld has a project "p" and a bucket "bucket-a".
func newWorld(tb testing.TB) *world {
	tb.Helper()
	w, err := boot(tb, tb.TempDir(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.close)
	w.begin()
	return w
}

func (w *world) begin() {
	w.tb.Helper()
	var err error
	if w.p, err = w.CreateProject(context.Background(), "p"); err != nil {
		w.tb.Fatal(err)
	}
	w.bucket = "bucket-a"
	if _, err = w.CreateBucket(context.Background(), CreateBucket{Name: w.bucket, ProjectID: w.p.ID}); err != nil {
		w.tb.Fatal(err)
	}
}

// body is a Body of a reader.
type body struct {
	io.Reader
	sums Sums
	err  error
}

func (b *body) Finish() (Sums, error) { return b.sums, b.err }

func bytesBody(b []byte) *body { return &body{Reader: bytes.NewReader(b)} }

// md5Body is what a client that sends Content-MD5 gives.
func md5Body(b []byte) *body {
	sum := md5.Sum(b)
	return &body{Reader: bytes.NewReader(b), sums: Sums{MD5: sum[:]}}
}

// data is n bytes that depend on seed.
func data(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	r.Read(b)
	return b
}

func (w *world) put(key string, b []byte) Object {
	w.tb.Helper()
	o, err := w.Put(context.Background(), Put{Bucket: w.bucket, Key: key, Body: bytesBody(b), Size: int64(len(b))})
	if err != nil {
		w.tb.Fatalf("put %q: %v", key, err)
	}
	return o
}

func (w *world) read(in Get) (Object, []byte, error) {
	if in.Bucket == "" {
		in.Bucket = w.bucket
	}
	o, rc, err := w.Get(context.Background(), in)
	if err != nil {
		return o, nil, err
	}
	defer rc.Close()
	var buf bytes.Buffer
	_, err = io.Copy(&buf, rc)
	return o, buf.Bytes(), err
}

// want reads a key and compares.
func (w *world) want(key string, b []byte) Object {
	w.tb.Helper()
	o, got, err := w.read(Get{Key: key})
	if err != nil {
		w.tb.Fatalf("get %q: %v", key, err)
	}
	if !bytes.Equal(got, b) || o.Size != int64(len(b)) {
		w.tb.Fatalf("get %q: %d bytes (size %d) that differ from the %d written", key, len(got), o.Size, len(b))
	}
	return o
}

// code asserts an error's S3 code.
func code(tb testing.TB, err error, want string) {
	tb.Helper()
	if err == nil || errs.CodeOf(err) != want {
		tb.Fatalf("got error %v (code %q), want code %q", err, errs.CodeOf(err), want)
	}
}

func kind(tb testing.TB, err error, want errs.Kind) {
	tb.Helper()
	if !errs.Is(err, want) {
		tb.Fatalf("got error %v (%v), want %v", err, errs.KindOf(err), want)
	}
}

// stored counts the entries under a prefix of the store.
func (w *world) stored(prefix string) int {
	w.tb.Helper()
	n := 0
	err := w.store.Scan(context.Background(), store.Prefix([]byte(prefix)), func(k, v []byte) (bool, error) {
		n++
		return true, nil
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	return n
}

// blobCount counts the blobs on disk.
func (w *world) blobCount() int {
	w.tb.Helper()
	n := 0
	for _, err := range w.disk.All(context.Background()) {
		if err != nil {
			w.tb.Fatal(err)
		}
		n++
	}
	return n
}

// tidy asserts that what is stored is exactly what want objects need.
func (w *world) tidy(inline, refs int) {
	w.tb.Helper()
	if got := w.stored(pInline); got != inline {
		w.tb.Errorf("%d inline contents are stored, want %d", got, inline)
	}
	if got := w.stored(pRef); got != refs {
		w.tb.Errorf("%d blob references are stored, want %d", got, refs)
	}
	if got := w.blobCount(); got != refs {
		w.tb.Errorf("%d blobs are on disk, want %d", got, refs)
	}
	if got := w.stored("o/z/"); got != 0 {
		w.tb.Errorf("%d intents are left", got)
	}
}

var errBoom = errors.New("boom")

// failing gives n bytes, then an error.
func failing(n int, err error) io.Reader {
	return io.MultiReader(bytes.NewReader(data(n, 1)), errReader{err})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
