package keys

import (
	"errors"
	"sync"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/store"
)

func TestRotate(t *testing.T) {
	r, st := begun(t)
	before := seal(t, take(t, r, "p", "a"), "a")
	other := seal(t, take(t, r, "q", "a"), "a")
	olds := [][]byte{st.raw(t, []byte(orgKey))[16:], st.raw(t, projectKey("p"))[16:], st.raw(t, bucketKey("p", "a"))[16:]}

	steps := map[string]func() error{
		"organization": func() error { return r.RotateOrganization(ctx) },
		"project":      func() error { return r.RotateProject(ctx, "p") },
		"root":         func() error { return r.Rewrap(ctx, &testRoot{[32]byte{2}}) },
	}
	for _, name := range []string{"organization", "project", "organization", "project"} {
		if err := steps[name](); err != nil {
			t.Fatal(name, err)
		}
		before.check(t, take(t, r, "p", "a"), "a")
		fresh := open(t, st)
		before.check(t, take(t, fresh, "p", "a"), "a")
		other.check(t, take(t, fresh, "q", "a"), "a")
		if v := take(t, fresh, "p", "a").Version(); v != 1 {
			t.Fatalf("the bucket is at version %d after rotating a level above", v)
		}
	}
	for i, old := range olds {
		if st.holds(old) {
			t.Fatalf("the old wrapped key %d is still in the files", i)
		}
	}
	if err := r.RotateBucket(ctx, "p", "a"); err != nil {
		t.Fatal(err)
	}
	l := take(t, r, "p", "a")
	if l.Version() != 2 {
		t.Fatalf("version %d", l.Version())
	}
	before.check(t, l, "a")
	after := seal(t, l, "a")
	if after.key == before.key {
		t.Fatal("the new version derives the old keys")
	}
	if err := r.RotateProject(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	if err := steps["root"](); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, st, root, "health"); !errs.Is(err, errs.Corrupt) {
		t.Fatalf("the old root still opens: %v", err)
	}
	fresh, err := Open(ctx, st, &testRoot{[32]byte{2}}, "health")
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	for name, r := range map[string]*Ring{"rewrapped": r, "reopened": fresh} {
		before.check(t, take(t, r, "p", "a"), "a")
		after.check(t, take(t, r, "p", "a"), "a")
		commit(t, r, func(b *store.Batch) error { return r.CreateBucket(ctx, b, "p", name) })
	}
}

// TestCreateDuringRotation: a bucket whose creation meets a rotation is either
// refused or rewrapped, whichever commits first; never left behind.
func TestCreateDuringRotation(t *testing.T) {
	r, st := begun(t)
	var late, lateProject store.Batch
	if err := r.CreateBucket(ctx, &late, "p", "late"); err != nil {
		t.Fatal(err)
	}
	if err := r.CreateProject(ctx, &lateProject, "late"); err != nil {
		t.Fatal(err)
	}
	if err := r.RotateProject(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	if err := r.RotateOrganization(ctx); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*store.Batch{&late, &lateProject} {
		_, err := st.Commit(ctx, b)
		kind(t, err, errs.Conflict)
	}
	// The other way round: the creation commits just before the rotation does.
	var bucket, project store.Batch
	if err := r.CreateBucket(ctx, &bucket, "p", "early"); err != nil {
		t.Fatal(err)
	}
	st.before = func() { st.Commit(ctx, &bucket) }
	if err := r.RotateProject(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	if err := r.CreateProject(ctx, &project, "early"); err != nil {
		t.Fatal(err)
	}
	st.before = func() { st.Commit(ctx, &project) }
	if err := r.RotateOrganization(ctx); err != nil {
		t.Fatal(err)
	}
	fresh := open(t, st)
	take(t, fresh, "p", "early")
	commit(t, fresh, func(b *store.Batch) error { return fresh.CreateBucket(ctx, b, "early", "x") })
	take(t, fresh, "early", "x")
	// And a destruction.
	if err := r.CreateBucket(ctx, &late, "p", "late2"); err != nil {
		t.Fatal(err)
	}
	if err := r.DestroyProject(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	_, err := st.Commit(ctx, &late)
	kind(t, err, errs.Conflict)
}

func TestConcurrent(t *testing.T) {
	r, _ := begun(t)
	s := seal(t, take(t, r, "p", "a"), "a")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				l, err := r.Lease(ctx, "p", "a", CustomerRequest)
				if err != nil {
					t.Error(err)
					return
				}
				if k, err := l.StreamKey(s.version, salt, binding("a")); err != nil || k != s.key {
					t.Error("another key", err)
				}
			}
		})
	}
	for range 10 {
		for _, err := range []error{r.RotateOrganization(ctx), r.RotateProject(ctx, "p"), r.RotateBucket(ctx, "p", "a"), r.RotateBucket(ctx, "q", "a")} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	wg.Wait()
}

var errDisk = errs.New(errs.Unavailable, "disk", "read error")

// TestPurgeIsResumed: what a failed or interrupted purge left is ended later.
func TestPurgeIsResumed(t *testing.T) {
	r, st := begun(t)
	old := st.raw(t, bucketKey("p", "a"))[16:]
	st.failing.purge = errDisk
	err := r.DestroyBucket(ctx, "p", "a")
	kind(t, err, errs.Unavailable)
	if !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	_, err = r.Lease(ctx, "p", "a", CustomerRequest)
	kind(t, err, errs.Destroyed)
	if !st.holds(old) {
		t.Fatal("the test's store purges by itself")
	}
	if _, err := Open(ctx, st, root, "health"); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("opened with a purge due and failing: %v", err)
	}
	st.failing.purge = nil
	open(t, st)
	if st.holds(old) || st.purges != 1 {
		t.Fatalf("the purge was not resumed (%d purges)", st.purges)
	}
	open(t, st)
	if st.purges != 1 {
		t.Fatal("purged again without need")
	}
	kind(t, r.DestroyBucket(ctx, "p", "a"), errs.Destroyed)

	// A commit that fails changes nothing; one of unknown fate ends the leases.
	l := take(t, r, "p", "b")
	st.failing.commit = errs.New(errs.Exhausted, "disk", "full")
	kind(t, r.DestroyBucket(ctx, "p", "b"), errs.Exhausted)
	seal(t, l, "b")
	st.failing.commit = errDisk
	kind(t, r.DestroyBucket(ctx, "p", "b"), errs.Unavailable)
	_, err = l.SealRecord(nil, nil)
	kind(t, err, errs.Unavailable)
}
