package keys

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// TestRotateTo: a rotation to a generation happens once, however often it is asked
// for, makes one key whatever it jumps over, and old data stays readable.
func TestRotateTo(t *testing.T) {
	r, st := begun(t)
	data := seal(t, take(t, r, "p", "a"), "a")
	levels := map[string]struct {
		to  func(r *Ring, n uint32) error
		now func(r *Ring) (uint32, error)
	}{
		"organization": {func(r *Ring, n uint32) error { return r.RotateOrganizationTo(ctx, n) },
			func(r *Ring) (uint32, error) { k, _, err := r.Generations(ctx); return k, err }},
		"project": {func(r *Ring, n uint32) error { return r.RotateProjectTo(ctx, "p", n) },
			func(r *Ring) (uint32, error) { return r.ProjectGeneration(ctx, "p") }},
		"bucket": {func(r *Ring, n uint32) error { return r.RotateBucketTo(ctx, "p", "a", n) },
			func(r *Ring) (uint32, error) { return r.BucketGeneration(ctx, "p", "a") }},
	}
	for name, l := range levels {
		kind(t, l.to(r, 0), errs.Invalid)
		at := uint32(1)
		for _, to := range []uint32{1, 2, 2, 1, 40, 40, 3} {
			before := st.purges
			if err := l.to(r, to); err != nil {
				t.Fatalf("%s to %d: %v", name, to, err)
			}
			if (st.purges > before) != (to > at) {
				t.Errorf("%s from %d to %d: %d purges", name, at, to, st.purges-before)
			}
			at = max(at, to)
			// A new process sees the same.
			for _, r := range []*Ring{r, open(t, st)} {
				if got, err := l.now(r); err != nil || got != at {
					t.Fatalf("%s to %d: at %d, %v; want %d", name, to, got, err, at)
				}
			}
		}
	}
	rec, err := parseRecord(st.raw(t, bucketKey("p", "a")))
	if err != nil || len(rec.entries) != 3 {
		t.Fatalf("%d keys, %v; want those of 1, 2 and 40", len(rec.entries), err)
	}
	fresh := open(t, st)
	lease := take(t, fresh, "p", "a")
	data.check(t, lease, "a")
	if lease.Version() != 40 {
		t.Fatalf("version %d", lease.Version())
	}
	if err := r.Rewrap(ctx, &testRoot{[32]byte{2}}); err != nil {
		t.Fatal(err)
	}
	if k, root, err := r.Generations(ctx); k != 40 || root != 2 || err != nil {
		t.Fatalf("%d, %d, %v", k, root, err)
	}
	if _, err := r.BucketGeneration(ctx, "p", "none"); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	if err := r.DestroyOrganization(ctx); err != nil {
		t.Fatal(err)
	}
	for name, l := range levels {
		if _, err := l.now(r); name == "organization" && !errs.Is(err, errs.Destroyed) || err == nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := l.to(r, 50); !errs.Is(err, errs.Destroyed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.Close()
	_, _, err = r.Generations(ctx)
	kind(t, err, errs.Sealed)
	_, _, err = (*Ring)(nil).Generations(ctx)
	kind(t, err, errs.Sealed)
}

// slowPurge lets a test stand in the middle of a purge.
type slowPurge struct {
	*memStore
	enter, leave chan struct{}
}

func (s slowPurge) Purge(ctx context.Context, r store.Range) error {
	s.enter <- struct{}{}
	<-s.leave
	return s.memStore.Purge(ctx, r)
}

// TestPurgesInBackground: destructions are answered before their purge; one that
// comes in the middle of a purge gets its own; failures are tried again.
func TestPurgesInBackground(t *testing.T) {
	slow := slowPurge{newMemStore(), make(chan struct{}), make(chan struct{})}
	r := open(t, slow)
	fill(t, r)
	var olds [][]byte
	for _, b := range []string{"a", "b"} {
		olds = append(olds, bytes.Clone(slow.raw(t, bucketKey("p", b))[16:]))
	}
	life, stop := context.WithCancel(ctx)
	reports := make(chan string, 100)
	var group sync.WaitGroup
	group.Go(func() {
		r.RunPurges(life, func(due bool, err error) { reports <- fmt.Sprint(due, err != nil) })
	})
	defer group.Wait()
	defer stop()
	for !r.purging.running.Load() {
		time.Sleep(time.Millisecond)
	}
	destroy := func(bucket string) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- r.DestroyBucket(ctx, "p", bucket) }()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the destruction waits for the purge")
		}
		_, err := r.Lease(ctx, "p", bucket, CustomerRequest)
		kind(t, err, errs.Destroyed)
	}
	destroy("a")
	<-slow.enter
	destroy("b") // in the middle of the purge for a
	kind(t, r.DestroyBucket(ctx, "p", "b"), errs.Destroyed)
	if due, err := r.PurgeDue(ctx); !due || err != nil {
		t.Fatal(due, err)
	}
	slow.leave <- struct{}{}
	<-slow.enter // and once more, for b
	slow.leave <- struct{}{}
	for _, want := range []string{"true false", "false false"} {
		if got := <-reports; got != want {
			t.Fatalf("reported %q, want %q", got, want)
		}
	}
	for i, old := range olds {
		if slow.holds(old) {
			t.Errorf("wrapped key %d is still in the files", i)
		}
	}
	if due, err := r.PurgeDue(ctx); due || err != nil {
		t.Fatal(due, err)
	}
	// Without RunPurges it is as before: answered when all is done.
	stop()
	group.Wait()
	go func() { <-slow.enter; slow.leave <- struct{}{} }()
	if err := r.DestroyProject(ctx, "q"); err != nil {
		t.Fatal(err)
	}
	if due, err := r.PurgeDue(ctx); due || err != nil {
		t.Fatal(due, err)
	}
}
