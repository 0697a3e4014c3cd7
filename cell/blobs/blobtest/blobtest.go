// Package blobtest is the contract of blobs.Engine as a test suite. Every engine
// runs it. It must never rely on how one engine works.
package blobtest

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"chancery/cell/blobs"
	"chancery/internal/errs"
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
