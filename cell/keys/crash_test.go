package keys

import (
	"bytes"
	"fmt"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/files/faultfs"
	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

// TestPowerLoss turns the power off at every file operation of rotations and
// destructions, on the real store. What was destroyed and acknowledged stays
// destroyed; everything else still opens, and derives the same keys.
func TestPowerLoss(t *testing.T) {
	openStore := func(d *faultfs.Disk) (*pebblestore.Store, error) {
		return pebblestore.Open(ctx, pebblestore.Options{Dir: "/store", FS: d.FS(), Key: bytes.Repeat([]byte{7}, 32)})
	}
	// begin makes a hierarchy, and returns what data under each bucket is like.
	begin := func(t *testing.T, d *faultfs.Disk) (*pebblestore.Store, *Ring, map[[2]string]sealed) {
		st, err := openStore(d)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(ctx, st, root, "health")
		if err != nil {
			t.Fatal(err)
		}
		fill(t, r)
		data := map[[2]string]sealed{}
		for _, id := range [][2]string{{"p", "a"}, {"p", "b"}, {"q", "a"}} {
			data[id] = seal(t, take(t, r, id[0], id[1]), id[1])
		}
		return st, r, data
	}
	type step struct {
		do func(r *Ring) error
		// gone are the buckets that may be destroyed once the step has begun, and
		// must be once it is done.
		gone [][2]string
	}
	steps := []step{
		{do: func(r *Ring) error { return r.RotateOrganization(ctx) }},
		{do: func(r *Ring) error { return r.RotateBucket(ctx, "p", "a") }},
		{do: func(r *Ring) error { return r.RotateProject(ctx, "p") }},
		{do: func(r *Ring) error { return r.DestroyBucket(ctx, "p", "a") }, gone: [][2]string{{"p", "a"}}},
		{do: func(r *Ring) error { return r.DestroyProject(ctx, "q") }, gone: [][2]string{{"q", "a"}}},
	}
	run := func(t *testing.T, n int) (more bool) {
		d := faultfs.New(uint64(n))
		st, r, data := begin(t, d)
		d.CrashAt(d.Ops() + n)
		maybe, must := map[[2]string]bool{}, map[[2]string]bool{}
		for _, s := range steps {
			for _, id := range s.gone {
				maybe[id] = true
			}
			if s.do(r) != nil {
				break
			}
			for _, id := range s.gone {
				must[id] = true
			}
		}
		more = d.Off()
		r.Close()
		st.Close()
		d.Restart()
		st, err := openStore(d)
		if err != nil {
			t.Fatalf("operation %d: opening the store again: %v", n, err)
		}
		defer st.Close()
		if r, err = Open(ctx, st, root, "health"); err != nil {
			t.Fatalf("operation %d: opening the ring again: %v", n, err)
		}
		defer r.Close()
		if _, err := st.Get(ctx, []byte(purgeKey)); !errs.Is(err, errs.NotFound) {
			t.Fatalf("operation %d: a purge is still due: %v", n, err)
		}
		for id, s := range data {
			l, err := r.Lease(ctx, id[0], id[1], CustomerRequest)
			switch {
			case errs.Is(err, errs.Destroyed) && maybe[id]:
			case err != nil || must[id]:
				t.Fatalf("operation %d: bucket %v: %v (to be destroyed: %v)", n, id, err, must[id])
			default:
				s.check(t, l, id[1])
			}
		}
		// And it can go on.
		var b store.Batch
		if err := r.CreateProject(ctx, &b, fmt.Sprint("new", n)); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Commit(ctx, &b); err != nil {
			t.Fatal(err)
		}
		if err := r.RotateOrganization(ctx); err != nil {
			t.Fatalf("operation %d: rotating after it: %v", n, err)
		}
		return more
	}
	const shards = 8 // most of the time is waiting for purges
	for shard := range shards {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			n := 1 + shard
			for run(t, n) {
				n += shards
			}
			t.Logf("to operation %d", n)
		})
	}
}
