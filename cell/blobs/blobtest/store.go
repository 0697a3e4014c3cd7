package blobtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"chancery/cell/blobs"
	"chancery/internal/errs"
	"chancery/internal/segment"
)

var (
	key     = segment.Key{7}
	binding = segment.Binding{Organization: "o", Bucket: "b", Object: "k", Content: [16]byte{1}}
	errGone = errors.New("the client went away")
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
		if _, _, err := s.Write(ctx, key, binding, src); !errors.Is(err, errGone) {
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

func (failingReader) Read([]byte) (int, error) { return 0, errGone }

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
	if n, _, err := s.Sweep(ctx, 0, func(blobs.ID) (bool, error) { return false, errGone }); n != 0 || !errors.Is(err, errGone) {
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
