package pebblestore_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"chancery/internal/files/faultfs"
	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

// workload is a scripted run: every commit changes a fixed pair of entries, so
// that half a commit shows. It runs until the end or the first error, across
// reopenings, and tells what was acknowledged.
type workload struct {
	acked int // commits acknowledged
	tried int // commits begun; at most one more than acked
	errs  []error
}

const (
	commits   = 60
	perReopen = 20
)

func value(i int) []byte {
	// Large enough that journals rotate and tables are flushed and compacted.
	return fmt.Appendf(nil, "%04d %x", i, rand.New(rand.NewPCG(uint64(i), 0)).Perm(300+i%7*150))
}

func (w *workload) run(ctx context.Context, d *faultfs.Disk) {
	for w.acked < commits {
		s, err := pebblestore.Open(ctx, pebblestore.Options{Dir: "/d/store", FS: d.FS(), Key: testKey, JournalBytes: 12 << 10})
		if err != nil {
			w.errs = append(w.errs, err)
			return
		}
		for i := w.acked + 1; i <= commits; i++ {
			var b store.Batch
			b.Put(fmt.Appendf(nil, "slot/%d", i%10), value(i))
			b.Put([]byte("last"), value(i))
			b.Change("t", fmt.Appendf(nil, "%d", i))
			b.SetCursor("r", store.Seq(i))
			w.tried = i
			if _, err := s.Commit(ctx, &b); err != nil {
				w.errs = append(w.errs, err)
				s.Close()
				return
			}
			w.acked = i
			if i%perReopen == 0 {
				break
			}
		}
		if err := s.Close(); err != nil {
			w.errs = append(w.errs, err)
			return
		}
	}
}

// check opens the store and compares it with what must be there: every
// acknowledged commit, and the one in flight wholly or not at all.
func (w *workload) check(t *testing.T, ctx context.Context, d *faultfs.Disk) {
	t.Helper()
	s, err := pebblestore.Open(ctx, pebblestore.Options{Dir: "/d/store", FS: d.FS(), Key: testKey})
	if err != nil {
		t.Fatalf("after %d acknowledged commits: %v", w.acked, err)
	}
	defer s.Close()
	got := map[string]string{}
	if err := s.Scan(ctx, store.Range{}, func(k, v []byte) (bool, error) {
		got[string(k)] = string(v)
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	changes, err := s.Feed().Read(ctx, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	n := len(changes)
	if n != w.acked && n != w.tried {
		t.Fatalf("the feed has %d changes; %d commits were acknowledged, %d begun", n, w.acked, w.tried)
	}
	want := map[string]string{}
	for i := 1; i <= n; i++ {
		want[fmt.Sprintf("slot/%d", i%10)] = string(value(i))
		want["last"] = string(value(i))
		if c := changes[i-1]; string(c.Payload) != fmt.Sprint(i) || c.Seq != store.Seq(i) {
			t.Fatalf("change %d is %v", i, c)
		}
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%d entries after %d commits, want %d, or other values", len(got), n, len(want))
	}
	if c, err := s.Feed().Cursor(ctx, "r"); err != nil || c != store.Seq(n) {
		t.Fatalf("cursor %d, %v; want %d", c, err, n)
	}
	// It must go on working.
	var b store.Batch
	b.Put([]byte("after"), nil)
	if _, err := s.Commit(ctx, &b); err != nil {
		t.Fatal(err)
	}
}

// everyOp runs fn for operation numbers over the whole workload, within a time.
func everyOp(t *testing.T, budget time.Duration, fn func(t *testing.T, n int, seed uint64)) {
	d := faultfs.New(0)
	(&workload{}).run(t.Context(), d)
	total := d.Ops()
	if total < 300 {
		t.Fatalf("the workload has only %d operations", total)
	}
	if testing.Short() {
		budget /= 10
	}
	// First a coarse walk over all of it, then points between, as time allows.
	start, runs := time.Now(), 0
	order := rand.New(rand.NewPCG(3, 4)).Perm(total)
	for _, i := range order {
		if time.Since(start) > budget {
			break
		}
		fn(t, i+1, uint64(i))
		if t.Failed() {
			t.Fatalf("at operation %d of %d", i+1, total)
		}
		runs++
	}
	if runs < 5 {
		t.Errorf("only %d runs in %v", runs, budget)
	}
	t.Logf("%d of %d operations", runs, total)
}

func TestPowerLossAtEveryOperation(t *testing.T) {
	lost := 0
	everyOp(t, 7*time.Second, func(t *testing.T, n int, seed uint64) {
		d := faultfs.New(seed)
		d.CrashAt(n)
		w := &workload{}
		w.run(t.Context(), d)
		d.Restart()
		w.check(t, t.Context(), d)
		if w.acked < commits {
			lost++
		}
	})
	if lost == 0 {
		t.Error("no run was interrupted")
	}
}

// TestPowerLossDuringRecovery loses power again while the store is being opened.
func TestPowerLossDuringRecovery(t *testing.T) {
	everyOp(t, 2500*time.Millisecond, func(t *testing.T, n int, seed uint64) {
		d := faultfs.New(seed)
		d.CrashAt(n)
		w := &workload{}
		w.run(t.Context(), d)
		for range 3 {
			d.Restart()
			d.CrashAt(d.Ops() + 1 + int(seed*7%60))
			if s, err := pebblestore.Open(t.Context(), pebblestore.Options{Dir: "/d/store", FS: d.FS(), Key: testKey}); err == nil {
				s.Close()
			}
			seed++
		}
		d.Restart()
		w.check(t, t.Context(), d)
	})
}

// TestReadOrSyncErrorAtEveryOperation fails one operation with EIO. Whatever it
// hits, what was acknowledged is there after reopening.
func TestErrorAtEveryOperation(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		t.Run(fault.Error(), func(t *testing.T) {
			everyOp(t, 2500*time.Millisecond, func(t *testing.T, n int, seed uint64) {
				d := faultfs.New(seed)
				d.FailAt(n, fault)
				w := &workload{}
				w.run(t.Context(), d)
				// The process ends, the machine does not, or does too.
				if seed%2 == 0 {
					d.PowerLoss()
					d.Restart()
				} else {
					d.Inject(nil)
				}
				w.check(t, t.Context(), d)
			})
		})
	}
}
