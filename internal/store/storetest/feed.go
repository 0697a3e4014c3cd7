package storetest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

func show(changes []store.Change) string {
	var out []string
	for _, c := range changes {
		out = append(out, fmt.Sprintf("%d.%d:%s=%s", c.Seq, c.Index, c.Topic, c.Payload))
	}
	return strings.Join(out, " ")
}

func (h *harness) read(after store.Seq, limit int) string {
	h.t.Helper()
	ch, err := h.s.Feed().Read(h.ctx(), after, limit)
	if err != nil {
		h.t.Fatalf("read: %v", err)
	}
	return show(ch)
}

// change commits changes with the payloads given.
func (h *harness) change(payloads ...string) store.Seq {
	h.t.Helper()
	return h.commit(func(b *store.Batch) {
		for _, p := range payloads {
			b.Change("t", []byte(p))
		}
	})
}

func feedOrder(t *testing.T, h *harness) {
	if got := h.read(0, 10); got != "" {
		t.Errorf("new feed: %q", got)
	}
	a := h.commit(func(b *store.Batch) {
		b.Change("object", []byte("1"))
		b.Put([]byte("k"), nil)
		b.Change("bucket", nil)
	})
	h.put("silent", "")
	c := h.change("3")
	want := fmt.Sprintf("%d.0:object=1 %d.1:bucket= %d.0:t=3", a, a, c)
	if got := h.read(0, 10); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := h.read(a, 10); got != fmt.Sprintf("%d.0:t=3", c) {
		t.Errorf("after the first: %q", got)
	}
	if got := h.read(c, 10); got != "" {
		t.Errorf("after the last: %q", got)
	}
	if got := h.read(^store.Seq(0), 10); got != "" {
		t.Errorf("after the end of numbers: %q", got)
	}
	h.reopen()
	if got := h.read(0, 10); got != want {
		t.Errorf("after reopening: %q, want %q", got, want)
	}
	if d := h.change("4"); d <= c {
		t.Errorf("Seq went back over a reopen: %d after %d", d, c)
	}
}

func feedLimit(t *testing.T, h *harness) {
	a := h.change("1", "2", "3")
	b := h.change("4")
	c := h.change("5", "6")
	for _, tc := range []struct {
		after store.Seq
		limit int
		want  int
	}{{0, 1, 3}, {0, 3, 3}, {0, 4, 4}, {0, 5, 6}, {0, 100, 6}, {a, 1, 1}, {b, 1, 2}, {c, 1, 0}} {
		ch, err := h.s.Feed().Read(h.ctx(), tc.after, tc.limit)
		if err != nil || len(ch) < tc.want || len(ch) > max(tc.want, tc.limit) {
			t.Errorf("after %d limit %d: %d changes (%v), want %d", tc.after, tc.limit, len(ch), err, tc.want)
		}
		// Whole commits only.
		sizes := map[store.Seq]int{a: 3, b: 1, c: 2}
		got := map[store.Seq]int{}
		for _, x := range ch {
			got[x.Seq]++
		}
		for seq, n := range got {
			if n != sizes[seq] {
				t.Errorf("after %d limit %d: %d of %d changes of commit %d", tc.after, tc.limit, n, sizes[seq], seq)
			}
		}
	}
}

func feedWait(t *testing.T, h *harness) {
	ctx, cancel := context.WithTimeout(h.ctx(), 20*time.Millisecond)
	defer cancel()
	if err := h.s.Feed().Wait(ctx, 0); !errs.Is(err, errs.Unavailable) {
		t.Errorf("wait on an empty feed: %v", err)
	}
	h.put("no", "change")
	if ctx, cancel := context.WithTimeout(h.ctx(), 20*time.Millisecond); h.s.Feed().Wait(ctx, 0) == nil {
		t.Error("a commit without a change woke a waiter")
		cancel()
	} else {
		cancel()
	}
	const waiters = 5
	woken := make(chan error, waiters)
	for range waiters {
		go func() { woken <- h.s.Feed().Wait(h.ctx(), 0) }()
	}
	time.Sleep(10 * time.Millisecond)
	seq := h.change("1")
	for range waiters {
		select {
		case err := <-woken:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a waiter was not woken")
		}
	}
	if err := h.s.Feed().Wait(h.ctx(), seq-1); err != nil {
		t.Errorf("what is there already: %v", err)
	}
	h.reopen()
	if err := h.s.Feed().Wait(h.ctx(), seq-1); err != nil {
		t.Errorf("what is there after reopening: %v", err)
	}
}

func feedCursors(t *testing.T, h *harness) {
	cursor := func(name string) store.Seq {
		t.Helper()
		c, err := h.s.Feed().Cursor(h.ctx(), name)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := cursor("r"); c != 0 {
		t.Errorf("new cursor: %d", c)
	}
	if _, err := h.s.Feed().Cursor(h.ctx(), ""); !errs.Is(err, errs.Invalid) {
		t.Errorf("nameless cursor: %v", err)
	}
	a := h.change("1")
	h.commit(func(b *store.Batch) { b.Put([]byte("effect"), []byte("1")); b.SetCursor("r", a) })
	if c := cursor("r"); c != a {
		t.Errorf("cursor at %d, want %d", c, a)
	}
	// The effect and the position are one commit.
	h.wantKind(errs.Conflict, func(b *store.Batch) { b.SetCursor("r", a+5); b.IfPresent([]byte("nothing")) })
	if c := cursor("r"); c != a {
		t.Errorf("a refused batch moved the cursor to %d", c)
	}
	if c := cursor("other"); c != 0 {
		t.Errorf("another cursor: %d", c)
	}
	h.reopen()
	if c := cursor("r"); c != a {
		t.Errorf("cursor after reopening: %d", c)
	}
	h.want("effect=1")
}

func feedTrim(t *testing.T, h *harness) {
	trim := func() store.Seq {
		t.Helper()
		s, err := h.s.Feed().Trim(h.ctx())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := h.change("1")
	if s := trim(); s != 0 || h.read(0, 10) == "" {
		t.Errorf("trimmed to %d without a cursor", s)
	}
	b := h.change("2")
	c := h.change("3")
	h.commit(func(x *store.Batch) { x.SetCursor("fast", c); x.SetCursor("slow", a) })
	if s := trim(); s != a {
		t.Errorf("trimmed to %d, want %d", s, a)
	}
	want := fmt.Sprintf("%d.0:t=2 %d.0:t=3", b, c)
	if got := h.read(a, 10); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	_, err := h.s.Feed().Read(h.ctx(), a-1, 10)
	if !errs.Is(err, errs.Conflict) || errs.CodeOf(err) != store.CodeTrimmed {
		t.Errorf("a reader that missed changes: %v", err)
	}
	if s := trim(); s != a {
		t.Errorf("second trim: %d", s)
	}
	h.reopen()
	if got := h.read(a, 10); got != want {
		t.Errorf("after reopening: %q", got)
	}
	h.commit(func(x *store.Batch) { x.SetCursor("slow", c+100) })
	if s := trim(); s != c {
		t.Errorf("trimmed to %d, want the newest change %d", s, c)
	}
	if got := h.read(c, 10); got != "" {
		t.Errorf("all trimmed: %q", got)
	}
	h.reopen()
	d := h.change("4")
	if err := h.s.Feed().Wait(h.ctx(), c); err != nil || h.read(c, 10) != fmt.Sprintf("%d.0:t=4", d) {
		t.Errorf("the feed does not go on: %v", err)
	}
}

func durability(t *testing.T, h *harness) {
	for i := range 5 {
		for j := range 20 {
			h.put(fmt.Sprintf("%d/%02d", i, j), strings.Repeat("v", j*100))
		}
		h.commit(func(b *store.Batch) { b.DeleteRange(fmt.Appendf(nil, "%d/05", i), fmt.Appendf(nil, "%d/15", i)) })
		h.reopen()
		n := 0
		if err := h.s.Scan(h.ctx(), store.Range{}, func(k, v []byte) (bool, error) {
			n++
			var a, b int
			if _, err := fmt.Sscanf(string(k), "%d/%d", &a, &b); err != nil || len(v) != b*100 {
				t.Errorf("%q has %d bytes", k, len(v))
			}
			return true, nil
		}); err != nil || n != (i+1)*10 {
			t.Fatalf("%d entries after reopening, %v", n, err)
		}
	}
}

// purge checks what can be seen from outside: live entries stay. That the deleted
// ones are gone from the files is each engine's own test.
func purge(t *testing.T, h *harness) {
	h.put("a", "1", "b", "2", "c", "3", "d", "4")
	h.commit(func(b *store.Batch) { b.Delete([]byte("b")); b.Put([]byte("c"), []byte("5")) })
	for _, r := range []store.Range{{Start: []byte("b"), End: []byte("c")}, {Start: []byte("c"), End: []byte("b")}, {}} {
		if err := h.s.Purge(h.ctx(), r); err != nil {
			t.Fatal(err)
		}
		h.want("a=1 c=5 d=4")
	}
	snap, err := h.s.Snapshot(h.ctx())
	if err != nil {
		t.Fatal(err)
	}
	h.commit(func(b *store.Batch) { b.Delete([]byte("a")) })
	ctx, cancel := context.WithTimeout(h.ctx(), 50*time.Millisecond)
	if err := h.s.Purge(ctx, store.Range{}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("purge under an open snapshot that holds the entry: %v", err)
	}
	cancel()
	if got := dump(t, snap, store.Range{}); got != "a=1 c=5 d=4" {
		t.Errorf("the snapshot lost entries: %q", got)
	}
	snap.Close()
	if err := h.s.Purge(h.ctx(), store.Range{}); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	h.want("c=5 d=4")
}
