package objects

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"chancery/cell/keys"
	"chancery/internal/errs"
	"chancery/internal/store"
)

// blobFiles lists the files of blobs, which are what is large under the blobs' directory.
func (w *world) blobFiles() (files []string) {
	filepath.WalkDir(filepath.Join(w.dir, "blobs"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if i, err := d.Info(); err == nil && i.Size() > 10_000 {
				files = append(files, p)
			}
		}
		return nil
	})
	return files
}

// TestFlippedBits: whatever bit of a blob is flipped, a reader gets right bytes up
// to the damage, then an error, and never a wrong byte.
func TestFlippedBits(t *testing.T) {
	w := newWorld(t)
	b := data(200_000, 1)
	w.put("k", b)
	files := w.blobFiles()
	if len(files) != 1 {
		t.Fatal(files)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(files[0], 0o600); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(good); at += 997 {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, got, err := w.read(Get{Key: "k"})
		if !errs.Is(err, errs.Corrupt) || !bytes.HasPrefix(b, got) {
			t.Fatalf("bit flipped at %d: %d bytes, %v", at, len(got), err)
		}
		if at < 60_000 {
			if _, rc, err := w.Get(ctx, Get{Bucket: w.bucket, Key: "k"}); err == nil {
				rc.Close()
				t.Fatalf("a blob damaged at %d, in its first segment, was opened", at)
			}
		}
	}
	for _, n := range []int{0, 100, len(good) / 2, len(good) - 1} {
		if err := os.WriteFile(files[0], good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		_, got, err := w.read(Get{Key: "k"})
		if !errs.Is(err, errs.Corrupt) || len(got) != 0 {
			t.Fatalf("cut to %d: %d bytes, %v", n, len(got), err)
		}
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.read(Get{Key: "k"})
	kind(t, err, errs.Corrupt)
	// It can be overwritten and deleted all the same.
	w.put("k", b)
	w.want("k", b)
}

// swap exchanges the values of two keys of the store.
func (w *world) swap(a, b []byte) {
	w.tb.Helper()
	va, err := w.store.Get(ctx, a)
	if err != nil {
		w.tb.Fatal(err)
	}
	vb, err := w.store.Get(ctx, b)
	if err != nil {
		w.tb.Fatal(err)
	}
	var batch store.Batch
	batch.Put(a, vb)
	batch.Put(b, va)
	if _, err := w.store.Commit(ctx, &batch); err != nil {
		w.tb.Fatal(err)
	}
}

// TestSwaps: what is bound to its place is refused in another.
func TestSwaps(t *testing.T) {
	w := newWorld(t)
	w.put("a", []byte("aaaa"))
	w.put("b", []byte("bbbb"))
	w.put("A", data(50_000, 1))
	w.put("B", data(50_000, 2))
	w.finishUpload("m", MinPart, 10)
	w.finishUpload("n", MinPart, 10)
	bk, l, err := w.open(ctx, "t", w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	rec := func(key string) *record {
		_, r, err := w.current(ctx, "t", l, bk, key, false)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, pair := range map[string][3][]byte{
		"records":       {objectKey(bk.id, "a"), objectKey(bk.id, "b"), []byte("a")},
		"large records": {objectKey(bk.id, "A"), objectKey(bk.id, "B"), []byte("A")},
		"inline":        {inlineKey(bk.id, rec("a").id), inlineKey(bk.id, rec("b").id), []byte("a")},
		"part tables":   {tableKey(bk.id, rec("m").id, 0), tableKey(bk.id, rec("n").id, 0), []byte("m")},
	} {
		w.swap(pair[0], pair[1])
		_, got, err := w.read(Get{Key: string(pair[2])})
		if !errs.Is(err, errs.Corrupt) || len(got) > 0 {
			t.Errorf("%s swapped: %d bytes, %v", name, len(got), err)
		}
		w.swap(pair[0], pair[1])
	}
	w.want("a", []byte("aaaa"))
	files := w.blobFiles()
	var first []string
	for _, f := range files {
		if i, _ := os.Stat(f); i.Size() < 60_000 {
			first = append(first, f)
		}
	}
	if len(first) != 2 {
		t.Fatal(files)
	}
	tmp := first[0] + ".x"
	if err := errors.Join(os.Rename(first[0], tmp), os.Rename(first[1], first[0]), os.Rename(tmp, first[1])); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"A", "B"} {
		if _, got, err := w.read(Get{Key: k}); !errs.Is(err, errs.Corrupt) || len(got) > 0 {
			t.Errorf("blobs swapped: %d bytes, %v", len(got), err)
		}
	}
	// An open part that was altered is refused too.
	raw, _ := w.store.Get(ctx, objectKey(bk.id, "a"))
	for at := range raw {
		bad := bytes.Clone(raw)
		bad[at] ^= 0x10
		var b store.Batch
		b.Put(objectKey(bk.id, "a"), bad)
		if _, err := w.store.Commit(ctx, &b); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Head(ctx, Get{Bucket: w.bucket, Key: "a"}); !errs.Is(err, errs.Corrupt) {
			t.Fatalf("byte %d altered: %v", at, err)
		}
	}
}

// TestReadersSurviveOverwrite: a reader reads on what it began, whatever becomes of
// the object; once it has ended nothing of the old bytes is left.
func TestReadersSurviveOverwrite(t *testing.T) {
	w := newWorld(t)
	for _, key := range []string{"single", "multi"} {
		b := data(300_000, 1)
		if key == "single" {
			w.put(key, b)
		} else {
			b = w.finishUpload(key, MinPart, MinPart, 40_000)
		}
		_, rc, err := w.Get(ctx, Get{Bucket: w.bucket, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		_, again, err := w.Get(ctx, Get{Bucket: w.bucket, Key: key, Range: &ByteRange{From: 1000, To: -1}})
		if err != nil {
			t.Fatal(err)
		}
		w.put(key, []byte("new"))
		if s, err := w.Sweep(ctx); err != nil || s.Blobs != 0 {
			t.Fatal("a sweep took what is being read", s, err)
		}
		got, err := io.ReadAll(rc)
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%s: %d of %d bytes, %v", key, len(got), len(b), err)
		}
		rc.Close()
		var buf bytes.Buffer
		if _, err := io.Copy(&buf, again); err != nil || !bytes.Equal(buf.Bytes(), b[1000:]) {
			t.Fatalf("%s: %d of %d bytes, %v", key, buf.Len(), len(b)-1000, err)
		}
		again.Close()
		again.Close() // twice is fine
		w.want(key, []byte("new"))
	}
	w.tidy(2, 0)
	if len(w.pins.readers)+len(w.pins.late)+len(w.pins.flight) != 0 {
		t.Errorf("pins are left: %+v", &w.pins)
	}
}

// TestReadWhileOverwritten: every read gives one version, whole.
func TestReadWhileOverwritten(t *testing.T) {
	w := newWorld(t)
	version := func(i int) []byte {
		n := []int{100, 33_000, 0, 70_000}[i%4]
		return append([]byte{byte(i)}, data(n, uint64(i))...)
	}
	w.put("k", version(0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				o, got, err := w.read(Get{Key: "k"})
				if err != nil || len(got) == 0 || !bytes.Equal(got, version(int(got[0]))) || o.Size != int64(len(got)) {
					t.Errorf("%d bytes of %d, %v", len(got), o.Size, err)
					return
				}
			}
		})
	}
	for i := range 120 {
		w.put("k", version(i))
		if i%20 == 0 {
			if s, err := w.Sweep(ctx); err != nil || s.Blobs != 0 {
				t.Error(s, err)
			}
		}
	}
	close(stop)
	wg.Wait()
	w.tidy(0, 1)
}

// TestSweep: orphans go, what is in flight stays.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	w.put("k", data(40_000, 1))
	bk, l, err := w.open(ctx, "t", w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.receive(ctx, "t", l, bk, "x", source{r: bytes.NewReader(data(50_000, 1)), size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := w.Sweep(ctx); err != nil || s.Blobs != 0 || w.blobCount() != 2 {
		t.Fatal("a blob in flight was swept", s, err)
	}
	w.pins.land(c.id) // as if the process had died here
	if s, err := w.Sweep(ctx); err != nil || s.Blobs != 1 || s.Bytes < 50_000 {
		t.Fatal(s, err)
	}
	w.want("k", data(40_000, 1))
	w.tidy(0, 1)
	// Sweeps beside uploads take nothing. (Of an overwritten object they might take
	// the old blob, just before its overwriter does: so every key is new.)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if s, err := w.Sweep(ctx); err != nil || s.Blobs != 0 {
					t.Error("swept beside uploads:", s, err)
					return
				}
			}
		}
	})
	var puts sync.WaitGroup
	for g := range 4 {
		puts.Go(func() {
			for i := range 15 {
				w.put(fmt.Sprint(g, "/", i), data(40_000+i, uint64(i)))
			}
		})
	}
	puts.Wait()
	close(stop)
	wg.Wait()
	for g := range 4 {
		for i := range 15 {
			w.want(fmt.Sprint(g, "/", i), data(40_000+i, uint64(i)))
		}
	}
	w.tidy(0, 61)
}

// endingKeys gives leases that last 50 ms.
type endingKeys struct{ keys.Manager }

type endingLease struct {
	keys.Lease
	ended func() bool
}

var errEnded = errs.New(errs.Unavailable, "t", "the lease has ended")

func (l *endingLease) SealRecord(b, p []byte) ([]byte, error) {
	if l.ended() {
		return nil, errEnded
	}
	return l.Lease.SealRecord(b, p)
}

func (k *endingKeys) Lease(c context.Context, project, bucket string, why keys.Reason) (keys.Lease, error) {
	l, err := k.Manager.Lease(c, project, bucket, why)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	return &endingLease{l, func() bool { return time.Since(begun) > 50*time.Millisecond }}, nil
}

// slowReader takes longer than a lease lasts.
type slowReader struct {
	io.Reader
	once sync.Once
}

func (s *slowReader) Read(p []byte) (int, error) {
	s.once.Do(func() { time.Sleep(80 * time.Millisecond) })
	return s.Reader.Read(p)
}

// TestLeaseEndsDuringBody: a body may take longer than a lease lasts.
func TestLeaseEndsDuringBody(t *testing.T) {
	w := newWorld(t)
	w.Engine.opt.Keys = &endingKeys{Manager: w.ring}
	for _, n := range []int{100, 100_000} {
		b := data(n, 1)
		if _, err := w.Put(ctx, Put{Bucket: w.bucket, Key: "k", Body: &body{Reader: &slowReader{Reader: bytes.NewReader(b)}}, Size: int64(n)}); err != nil {
			t.Fatal(err)
		}
		w.want("k", b)
	}
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "m"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.PutPart(ctx, PutPart{Bucket: w.bucket, Key: "m", UploadID: u.ID, Number: 1, Size: -1, Body: &body{Reader: &slowReader{Reader: bytes.NewReader(data(100, 2))}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.CompleteUpload(ctx, completion(u, p)); err != nil {
		t.Fatal(err)
	}
}

// zeros is n bytes of zero that no memory holds.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), z.n)]
	clear(p)
	z.n -= int64(len(p))
	return len(p), nil
}

// TestMemoryIsBounded streams 1 GiB in and out and counts what was allocated.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 1 GiB")
	}
	w := newWorld(t)
	const size = 1 << 30
	allocated := func(f func()) uint64 {
		var a, b runtime.MemStats
		runtime.ReadMemStats(&a)
		f()
		runtime.ReadMemStats(&b)
		return b.TotalAlloc - a.TotalAlloc
	}
	put := allocated(func() {
		if _, err := w.Put(ctx, Put{Bucket: w.bucket, Key: "k", Body: &body{Reader: &zeros{size}}, Size: size}); err != nil {
			t.Fatal(err)
		}
	})
	get := allocated(func() {
		_, rc, err := w.Get(ctx, Get{Bucket: w.bucket, Key: "k"})
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		if n, err := io.Copy(io.Discard, rc); err != nil || n != size {
			t.Fatal(n, err)
		}
	})
	cp := allocated(func() {
		if _, err := w.Copy(ctx, Copy{Source: Get{Bucket: w.bucket, Key: "k"}, Bucket: w.bucket, Key: "k2"}); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("allocated for 1 GiB: put %d KiB, get %d KiB, copy %d KiB", put>>10, get>>10, cp>>10)
	for name, n := range map[string]uint64{"put": put, "get": get, "copy": cp} {
		if n > 16<<20 {
			t.Errorf("%s allocated %d MiB in all", name, n>>20)
		}
	}
}

// TestSingleLimit: more than 5 GiB is refused while it streams, without being kept.
func TestSingleLimit(t *testing.T) {
	m := &meter{r: &zeros{MaxSingle + 1}, n: MaxSingle - 10, declared: -1, op: "t"}
	p := make([]byte, 64)
	_, err := io.ReadFull(m, p)
	code(t, err, "EntityTooLarge")
}

// FuzzRecords: no stored bytes make the decoders panic or allocate without bound.
func FuzzRecords(f *testing.F) {
	var e encoder
	r := record{head: head{kind: kindBlob}, size: 5, etag: "x", checksum: Checksum{"SHA256", "v", "COMPOSITE"}, headers: Headers{User: map[string]string{"a": "b"}}}
	r.encode(&e)
	f.Add(e.b, kindBlob)
	e = encoder{}
	r.kind, r.chunks, r.parts = kindParts, []int64{1, 2}, 300
	r.encode(&e)
	f.Add(e.b, kindParts)
	f.Fuzz(func(t *testing.T, b []byte, k byte) {
		r := record{head: head{kind: k}}
		d := decoder{b: b}
		if r.decode(&d, false) && d.end() {
			var e encoder
			r.encode(&e)
			r2 := record{head: r.head}
			d2 := decoder{b: e.b}
			if !r2.decode(&d2, false) || !d2.end() || r2.size != r.size || r2.etag != r.etag || len(r2.headers.User) != len(r.headers.User) {
				t.Fatal("a record that does not survive encoding")
			}
		}
		chunkHeads(b)
		decodeBucket("x", b)
		decodeProject("x", b)
		DecodeObjectChange(b)
		DecodeBucketChange(b)
		DecodeProjectChange(b)
		if key, rest, ok := unescape(b); ok && !bytes.Equal(append(append(escape(nil, key), 0, 1), rest...), b) {
			t.Fatal("unescape does not reverse escape")
		}
		parseUploadID(string(b))
	})
}

// TestStoredSecrets: neither names nor metadata values nor bytes are in what the
// records hold outside their sealed part. (The store encrypts keys and values as well.)
func TestStoredSecrets(t *testing.T) {
	w := newWorld(t)
	var rnd [12]byte
	rand.Read(rnd[:])
	canary := base64.RawURLEncoding.EncodeToString(rnd[:])
	if _, err := w.Put(ctx, Put{Bucket: w.bucket, Key: "k", Body: bytesBody([]byte(canary)), Size: -1, Headers: Headers{ContentType: canary, User: map[string]string{canary: canary}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "k", Headers: Headers{User: map[string]string{"x": canary}}}); err != nil {
		t.Fatal(err)
	}
	err := w.store.Scan(ctx, store.Prefix([]byte("o/")), func(k, v []byte) (bool, error) {
		if bytes.Contains(v, []byte(canary)) {
			t.Errorf("the entry %q holds it in plain", k)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
