// Package blobtest is the contract of blobs.Engine as a test suite. Every engine
// runs it. It must never rely on how one engine works.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"chancery/cell/blobs"
	"chancery/internal/errs"
	"chancery/internal/segment"
)

// Run checks an engine and the encrypting Store on it. open returns a new, empty engine.
func Run(t *testing.T, open func(t *testing.T) blobs.Engine) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, blobs.Engine)
	}{
		{"write and read", writeRead}, {"create twice", createTwice}, {"missing", missing},
		{"abort", abort}, {"ended writers refuse", ended}, {"remove under a reader", removeUnderReader},
		{"all", all}, {"cancelled", cancelled}, {"concurrent", concurrent},
		{"store round trip", storeRoundTrip}, {"store refuses what is not whole", storeTampered},
		{"store failing source", storeFailingSource}, {"store cancelled", storeCancelled},
		{"store sweep", storeSweep}, {"store zero values", storeZero},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, open(t)) })
	}
}

var ctx = context.Background()

// Pattern returns n bytes of which every 16 are recognizable.
func Pattern(n int) []byte {
	const canary = "PLAINTEXT-CANARY"
	return bytes.Repeat([]byte(canary), n/len(canary)+1)[:n]
}

// Put stores raw bytes as a blob.
func Put(t testing.TB, e blobs.Engine, data []byte) blobs.ID {
	t.Helper()
	id := blobs.NewID()
	w, err := e.Create(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return id
}

// Get returns a blob's raw bytes.
func Get(t testing.TB, e blobs.Engine, id blobs.ID) []byte {
	t.Helper()
	r, err := e.Open(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data := make([]byte, r.Size())
	if n, err := r.ReadAt(data, 0); n != len(data) || err != nil && err != io.EOF {
		t.Fatalf("ReadAt: %d of %d, %v", n, len(data), err)
	}
	return data
}

func list(t testing.TB, e blobs.Engine) map[blobs.ID]blobs.Info {
	t.Helper()
	m := map[blobs.ID]blobs.Info{}
	for info, err := range e.All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := m[info.ID]; twice {
			t.Fatalf("%v is listed twice", info.ID)
		}
		m[info.ID] = info
	}
	return m
}

func kind(t testing.TB, err error, want errs.Kind) {
	t.Helper()
	if !errs.Is(err, want) {
		t.Fatalf("got %v (%v), want %v", err, errs.KindOf(err), want)
	}
}

func writeRead(t *testing.T, e blobs.Engine) {
	for _, n := range []int{0, 1, 4096, 1<<20 + 3} {
		data := Pattern(n)
		id := blobs.NewID()
		w, err := e.Create(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		for rest := data; len(rest) > 0; {
			c := min(len(rest), 300_000)
			if m, err := w.Write(rest[:c]); m != c || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[c:]
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		w.Abort() // after Commit it does nothing
		if got := Get(t, e, id); !bytes.Equal(got, data) {
			t.Fatalf("%d bytes came back as %d others", n, len(got))
		}
		r, err := e.Open(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 10)
		if m, err := r.ReadAt(p, int64(n)); m != 0 || err != io.EOF {
			t.Fatalf("reading at the end: %d %v", m, err)
		}
		if n > 100 {
			if m, err := r.ReadAt(p, 55); m != 10 || err != nil || !bytes.Equal(p, data[55:65]) {
				t.Fatalf("reading inside: %d %v", m, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func createTwice(t *testing.T, e blobs.Engine) {
	id := Put(t, e, []byte("first"))
	_, err := e.Create(ctx, id)
	kind(t, err, errs.Exists)
	if got := Get(t, e, id); string(got) != "first" {
		t.Fatalf("the first became %q", got)
	}
}

func missing(t *testing.T, e blobs.Engine) {
	_, err := e.Open(ctx, blobs.NewID())
	kind(t, err, errs.NotFound)
	if err := e.Remove(ctx, blobs.NewID()); err != nil {
		t.Fatal(err)
	}
}

func abort(t *testing.T, e blobs.Engine) {
	id := blobs.NewID()
	w, err := e.Create(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	w.Abort()
	_, err = e.Open(ctx, id)
	kind(t, err, errs.NotFound)
	if n := len(list(t, e)); n != 0 {
		t.Fatalf("%d blobs are left", n)
	}
}

func ended(t *testing.T, e blobs.Engine) {
	w, err := e.Create(ctx, blobs.NewID())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Fatal("a committed writer writes")
	}
	if err := w.Commit(); err == nil {
		t.Fatal("a committed writer commits again")
	}
	w, err = e.Create(ctx, blobs.NewID())
	if err != nil {
		t.Fatal(err)
	}
	w.Abort()
	if err := w.Commit(); err == nil {
		t.Fatal("an aborted writer commits")
	}
}

func removeUnderReader(t *testing.T, e blobs.Engine) {
	id := Put(t, e, []byte("still here"))
	r, err := e.Open(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := e.Remove(ctx, id); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 5)
	if _, err := r.ReadAt(p, 0); err != nil || string(p) != "still" {
		t.Fatalf("an open reader lost its blob: %q %v", p, err)
	}
	_, err = e.Open(ctx, id)
	kind(t, err, errs.NotFound)
}

func all(t *testing.T, e blobs.Engine) {
	if n := len(list(t, e)); n != 0 {
		t.Fatalf("a new engine has %d blobs", n)
	}
	want := map[blobs.ID]int{}
	for i := range 40 {
		want[Put(t, e, Pattern(i))] = i
	}
	got := list(t, e)
	if len(got) != len(want) {
		t.Fatalf("%d listed, want %d", len(got), len(want))
	}
	for id, n := range want {
		info := got[id]
		if age := time.Since(info.Modified); info.Size != int64(n) || age > time.Minute || age < -time.Minute {
			t.Fatalf("%v is listed as %+v, has %d bytes", id, info, n)
		}
	}
	for range e.All(ctx) {
		break // a consumer may stop
	}
}

func cancelled(t *testing.T, e blobs.Engine) {
	id := Put(t, e, []byte("x"))
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err := e.Create(gone, blobs.NewID())
	kind(t, err, errs.Unavailable)
	_, err = e.Open(gone, id)
	kind(t, err, errs.Unavailable)
	kind(t, e.Remove(gone, id), errs.Unavailable)
	for _, err := range e.All(gone) {
		kind(t, err, errs.Unavailable)
	}
	if n := len(list(t, e)); n != 1 {
		t.Fatalf("%d blobs", n)
	}
}

func concurrent(t *testing.T, e blobs.Engine) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 5 {
				data := Pattern(i * 1000)
				id := blobs.NewID()
				w, err := e.Create(ctx, id)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := w.Write(data); err != nil {
					t.Error(err)
				}
				if err := w.Commit(); err != nil {
					t.Error(err)
				}
				r, err := e.Open(ctx, id)
				if err != nil {
					t.Error(err)
					return
				}
				got := make([]byte, len(data))
				if _, err := r.ReadAt(got, 0); err != nil && err != io.EOF || !bytes.Equal(got, data) {
					t.Error("another blob came back", err)
				}
				r.Close()
				if i%2 == 0 {
					if err := e.Remove(ctx, id); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := len(list(t, e)); n != 16 {
		t.Fatalf("%d blobs are left, want 16", n)
	}
}

var (
	key     = segment.Key{7}
	binding = segment.Binding{Organization: "o", Bucket: "b", Object: "k", Content: [16]byte{1}}
	broken  = errors.New("the client went away")
)

func storeRoundTrip(t *testing.T, e blobs.Engine) {
	s := blobs.New(e)
	rng := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, segment.Size, segment.Size + 1, 7*segment.Size + 99} {
		data := Pattern(n)
		id, size, err := s.Write(ctx, key, binding, bytes.NewReader(data))
		if err != nil || size != int64(n) {
			t.Fatal(size, err)
		}
		if bytes.Contains(Get(t, e, id), Pattern(16)) {
			t.Fatal("the engine has seen plaintext")
		}
		check := func(off, length int64) {
			t.Helper()
			r, err := s.Read(ctx, id, size, key, binding, off, length)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var got bytes.Buffer
			if _, err := io.Copy(&got, r); err != nil || !bytes.Equal(got.Bytes(), data[off:off+length]) {
				t.Fatalf("%d+%d of %d: %v", off, length, n, err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		check(0, size)
		check(size, 0)
		for range 10 {
			off := rng.Int64N(size + 1)
			check(off, rng.Int64N(size-off+1))
		}
		for _, bad := range [][2]int64{{-1, 1}, {0, size + 1}, {size + 1, 0}, {0, -1}} {
			_, err := s.Read(ctx, id, size, key, binding, bad[0], bad[1])
			kind(t, err, errs.Invalid)
		}
		if err := s.Remove(ctx, id); err != nil {
			t.Fatal(err)
		}
		_, err = s.Read(ctx, id, size, key, binding, 0, size)
		kind(t, err, errs.NotFound)
	}
}

// storeTampered: whatever happens to a blob, its reader gets an error or right
// bytes, never wrong ones.
func storeTampered(t *testing.T, e blobs.Engine) {
	s := blobs.New(e)
	data := Pattern(3 * segment.Size)
	write := func(b segment.Binding) (blobs.ID, []byte) {
		id, _, err := s.Write(ctx, key, b, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return id, Get(t, e, id)
	}
	_, box := write(binding)
	other := binding
	other.Object = "another"
	_, swapped := write(other)
	full := len(box)
	flip := func(at int) []byte {
		c := bytes.Clone(box)
		c[at] ^= 0x80
		return c
	}
	for name, bad := range map[string][]byte{
		"flipped first bit":    flip(0),
		"flipped in header":    flip(20),
		"flipped in the midst": flip(full / 2),
		"flipped last bit":     flip(full - 1),
		"truncated by one":     box[:full-1],
		"truncated to half":    box[:full/2],
		"cut at a segment":     box[:segment.HeaderSize+2*(segment.Size+segment.Overhead)],
		"empty":                {},
		"lengthened":           append(bytes.Clone(box), 0),
		"of another object":    swapped,
	} {
		id := Put(t, e, bad)
		r, err := s.Read(ctx, id, int64(len(data)), key, binding, 0, int64(len(data)))
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
			r.Close()
		}
		if !errs.Is(err, errs.Corrupt) || errs.CodeOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.HasPrefix(data, got) {
			t.Errorf("%s: wrong bytes came out", name)
		}
	}
}

func storeFailingSource(t *testing.T, e blobs.Engine) {
	s := blobs.New(e)
	for _, n := range []int{0, 10, 10 * segment.Size} {
		src := io.MultiReader(bytes.NewReader(Pattern(n)), failingReader{})
		if _, _, err := s.Write(ctx, key, binding, src); err != broken {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	func() {
		defer func() { recover() }()
		s.Write(ctx, key, binding, panicking{})
	}()
	if n := len(list(t, e)); n != 0 {
		t.Fatalf("%d blobs are left", n)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, broken }

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("a defect above") }

func storeCancelled(t *testing.T, e blobs.Engine) {
	s := blobs.New(e)
	gone, cancel := context.WithCancel(ctx)
	src := &counting{r: bytes.NewReader(Pattern(20 * segment.Size)), after: 5 * segment.Size, call: cancel}
	_, _, err := s.Write(gone, key, binding, src)
	kind(t, err, errs.Unavailable)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("the cause is lost: %v", err)
	}
	if n := len(list(t, e)); n != 0 {
		t.Fatalf("%d blobs are left", n)
	}
	id, size, err := s.Write(ctx, key, binding, bytes.NewReader(Pattern(20*segment.Size)))
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel = context.WithCancel(ctx)
	r, err := s.Read(gone, id, size, key, binding, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	cancel()
	n, err := io.Copy(io.Discard, r)
	kind(t, err, errs.Unavailable)
	if n > 8*segment.Size {
		t.Fatalf("%d bytes came out after the end", n)
	}
}

type counting struct {
	r     io.Reader
	n     int
	after int
	call  func()
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n += n; c.n >= c.after {
		c.call()
	}
	return n, err
}

func storeSweep(t *testing.T, e blobs.Engine) {
	s := blobs.New(e)
	write := func(n int) blobs.ID {
		id, _, err := s.Write(ctx, key, binding, bytes.NewReader(Pattern(n)))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	kept, orphan := write(100), write(200)
	half := blobs.NewID() // as a crash leaves it: begun, never ended
	hw, err := e.Create(ctx, half)
	if err != nil {
		t.Fatal(err)
	}
	hw.Write([]byte("half"))
	known := func(id blobs.ID) (bool, error) { return id == kept, nil }

	if n, b, err := s.Sweep(ctx, time.Hour, known); n != 0 || b != 0 || err != nil {
		t.Fatalf("young blobs were swept: %d %d %v", n, b, err)
	}
	if n, _, err := s.Sweep(ctx, 0, func(blobs.ID) (bool, error) { return false, broken }); n != 0 || !errors.Is(err, broken) {
		t.Fatalf("%d %v", n, err)
	}
	if n := len(list(t, e)); n != 3 {
		t.Fatalf("%d blobs after a failed sweep", n)
	}

	// A write under way is never an orphan, whatever its age.
	pr, pw := io.Pipe()
	type result struct {
		id  blobs.ID
		err error
	}
	done := make(chan result)
	go func() {
		id, _, err := s.Write(ctx, key, binding, pr)
		done <- result{id, err}
	}()
	pw.Write(Pattern(10 * segment.Size))
	n, b, err := s.Sweep(ctx, 0, known)
	if err != nil || n != 2 || b < 204 {
		t.Fatalf("swept %d blobs, %d bytes, %v; want 2", n, b, err)
	}
	pw.Close()
	res := <-done
	if res.err != nil {
		t.Fatal(res.err)
	}
	got := list(t, e)
	if len(got) != 2 || got[kept].Size == 0 || got[res.id].Size == 0 {
		t.Fatalf("left: %v", got)
	}
	if _, ok := got[orphan]; ok {
		t.Fatal("the orphan is still there")
	}
	hw.Abort()
	_, _, err = s.Sweep(ctx, -1, known)
	kind(t, err, errs.Invalid)
	_, _, err = s.Sweep(ctx, 0, nil)
	kind(t, err, errs.Invalid)
}

func storeZero(t *testing.T, e blobs.Engine) {
	s := blobs.New(e)
	_, _, err := s.Write(ctx, segment.Key{}, binding, bytes.NewReader(nil))
	kind(t, err, errs.Invalid)
	_, _, err = s.Write(ctx, key, segment.Binding{}, bytes.NewReader(nil))
	kind(t, err, errs.Invalid)
	if n := len(list(t, e)); n != 0 {
		t.Fatalf("%d blobs were made", n)
	}
	id, _, err := s.Write(ctx, key, binding, bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Read(ctx, id, 0, segment.Key{}, binding, 0, 0)
	kind(t, err, errs.Invalid)
	_, err = s.WriteAs(ctx, blobs.ID{}, key, binding, bytes.NewReader(nil))
	kind(t, err, errs.Invalid)
	_, err = s.WriteAs(ctx, id, key, binding, bytes.NewReader(nil))
	kind(t, err, errs.Exists)
	var zero blobs.Store
	_, _, err = zero.Write(ctx, key, binding, bytes.NewReader(nil))
	kind(t, err, errs.Invalid)
	_, err = zero.Read(ctx, id, 0, key, binding, 0, 0)
	kind(t, err, errs.Invalid)
	kind(t, zero.Remove(ctx, id), errs.Invalid)
	_, _, err = zero.Sweep(ctx, 0, func(blobs.ID) (bool, error) { return false, nil })
	kind(t, err, errs.Invalid)
}
