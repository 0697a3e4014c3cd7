package storetest

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/store"
)

func snapshot(t *testing.T, h *harness) {
	h.put("a", "1", "b", "2")
	seq := h.put("c", "3")
	snap, err := h.s.Snapshot(h.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if snap.Seq() != seq {
		t.Errorf("Seq %d, want %d", snap.Seq(), seq)
	}
	h.put("a", "9", "d", "4")
	h.commit(func(b *store.Batch) { b.DeleteRange([]byte("b"), []byte("d")) })
	if got := dump(t, snap, store.Range{}); got != "a=1 b=2 c=3" {
		t.Errorf("the snapshot moved: %q", got)
	}
	if got := dump(t, snap, store.Range{Reverse: true}); got != "c=3 b=2 a=1" {
		t.Errorf("reverse: %q", got)
	}
	if v, err := snap.Get(h.ctx(), []byte("b")); err != nil || string(v) != "2" {
		t.Errorf("get: %q %v", v, err)
	}
	if _, err := snap.Get(h.ctx(), []byte("d")); !errs.Is(err, errs.NotFound) {
		t.Errorf("a later key: %v", err)
	}
	h.want("a=9 d=4")
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}
	if err := snap.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := snap.Get(h.ctx(), []byte("a")); !errs.Is(err, errs.Unavailable) {
		t.Errorf("get after close: %v", err)
	}
}

// isolation lets writers keep two keys equal, and readers never see them differ.
func isolation(t *testing.T, h *harness) {
	h.put("x", "0", "y", "0")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range 3 {
		wg.Go(func() {
			for i := range 60 {
				v := fmt.Appendf(nil, "%d/%d", w, i)
				var b store.Batch
				b.Put([]byte("x"), v)
				b.Put([]byte("y"), v)
				if _, err := h.s.Commit(h.ctx(), &b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var vals []string
				err := h.s.Scan(h.ctx(), store.Range{}, func(_, v []byte) (bool, error) {
					vals = append(vals, string(v))
					return true, nil
				})
				if err != nil || len(vals) != 2 || vals[0] != vals[1] {
					t.Errorf("half a commit was seen: %v %v", vals, err)
					return
				}
				snap, err := h.s.Snapshot(h.ctx())
				if err != nil {
					t.Error(err)
					return
				}
				x, err1 := snap.Get(h.ctx(), []byte("x"))
				y, err2 := snap.Get(h.ctx(), []byte("y"))
				if err1 != nil || err2 != nil || string(x) != string(y) {
					t.Errorf("half a commit in a snapshot: %q %q %v %v", x, y, err1, err2)
				}
				snap.Close()
			}
		})
	}
	wg.Wait()
	close(stop)
	readers.Wait()
}

// counter increments one number from many goroutines by compare and set.
func counter(t *testing.T, h *harness) {
	const workers, each = 8, 20
	h.put("n", "\x00\x00\x00\x00")
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				old, err := h.s.Get(h.ctx(), []byte("n"))
				if err != nil {
					t.Error(err)
					return
				}
				var b store.Batch
				b.IfEquals([]byte("n"), old)
				b.Put([]byte("n"), binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(old)+1))
				switch _, err := h.s.Commit(h.ctx(), &b); {
				case err == nil:
					done++
				case !errs.Is(err, errs.Conflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	v, err := h.s.Get(h.ctx(), []byte("n"))
	if err != nil || binary.BigEndian.Uint32(v) != workers*each {
		t.Fatalf("counted to %v, %v", v, err)
	}
}

// atomicity makes many claim the same name at once: one wins.
func atomicity(t *testing.T, h *harness) {
	const rounds, workers = 10, 8
	for round := range rounds {
		var wg sync.WaitGroup
		won := make(chan int, workers)
		for w := range workers {
			wg.Go(func() {
				var b store.Batch
				name := fmt.Appendf(nil, "name%d", round)
				b.IfAbsent(name)
				b.Put(name, fmt.Append(nil, w))
				b.Put(fmt.Appendf(nil, "owner%d", round), fmt.Append(nil, w))
				switch _, err := h.s.Commit(h.ctx(), &b); {
				case err == nil:
					won <- w
				case !errs.Is(err, errs.Conflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d winners", len(won))
		}
		v, err := h.s.Get(h.ctx(), fmt.Appendf(nil, "owner%d", round))
		if w := <-won; err != nil || string(v) != fmt.Sprint(w) {
			t.Fatalf("%d won, but %q owns, %v", w, v, err)
		}
	}
}

func groupCommit(t *testing.T, h *harness) {
	const workers, each = 32, 25
	before := h.s.Stats()
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[store.Seq]bool{}
	for w := range workers {
		wg.Go(func() {
			last := store.Seq(0)
			for i := range each {
				var b store.Batch
				k := fmt.Appendf(nil, "%02d/%03d", w, i)
				b.Put(k, k)
				seq, err := h.s.Commit(h.ctx(), &b)
				if err != nil {
					t.Error(err)
					return
				}
				if seq <= last {
					t.Errorf("Seq %d after %d", seq, last)
				}
				last = seq
				// Read your own write, at once.
				if _, err := h.s.Get(h.ctx(), k); err != nil {
					t.Errorf("own write: %v", err)
				}
				mu.Lock()
				if seen[seq] {
					t.Errorf("Seq %d twice", seq)
				}
				seen[seq] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	st := h.s.Stats()
	if got := st.Commits - before.Commits; got != workers*each {
		t.Errorf("%d commits", got)
	}
	if syncs := st.Syncs - before.Syncs; syncs == 0 || syncs > workers*each/2 {
		t.Errorf("%d syncs for %d commits of %d writers: not grouped", syncs, workers*each, workers)
	}
	h.reopen()
	n := 0
	if err := h.s.Scan(h.ctx(), store.Range{}, func(k, v []byte) (bool, error) {
		if string(k) != string(v) {
			t.Errorf("%q=%q", k, v)
		}
		n++
		return true, nil
	}); err != nil || n != workers*each {
		t.Errorf("%d entries, %v", n, err)
	}
}

// cancelled: a caller that has given up before the commit began has no effect.
func cancelled(t *testing.T, h *harness) {
	ctx, cancel := context.WithCancel(h.ctx())
	cancel()
	var b store.Batch
	b.Put([]byte("a"), nil)
	if _, err := h.s.Commit(ctx, &b); !errs.Is(err, errs.Unavailable) {
		t.Errorf("commit: %v", err)
	}
	if _, err := h.s.Get(ctx, []byte("a")); !errs.Is(err, errs.Unavailable) {
		t.Errorf("get: %v", err)
	}
	if err := h.s.Feed().Wait(ctx, 0); !errs.Is(err, errs.Unavailable) {
		t.Errorf("wait: %v", err)
	}
	h.want("")
	// Given up at any moment: the answer and the state agree.
	for i := range 50 {
		ctx, cancel := context.WithCancel(h.ctx())
		key := fmt.Appendf(nil, "%02d", i)
		var b store.Batch
		b.Put(key, nil)
		go cancel()
		_, err := h.s.Commit(ctx, &b)
		h.put("barrier", "")
		if _, gerr := h.s.Get(h.ctx(), key); (err == nil) != (gerr == nil) {
			t.Fatalf("commit said %v, get says %v", err, gerr)
		}
	}
}
