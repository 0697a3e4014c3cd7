// Package storetest is the contract of store.Store as tests. Every engine runs it;
// what it does not check, nobody may rely on.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// Run runs the suite. open gives a new empty store that the suite closes; reopen
// closes a store and opens it again.
func Run(t *testing.T, open func(t *testing.T) store.Store, reopen func(t *testing.T, s store.Store) store.Store) {
	tests := []struct {
		name string
		fn   func(t *testing.T, h *harness)
	}{
		{"Basics", basics},
		{"Bounds", bounds},
		{"Scan", scan},
		{"DeleteRange", deleteRange},
		{"Preconditions", preconditions},
		{"Atomicity", atomicity},
		{"Model", model},
		{"Snapshot", snapshot},
		{"Isolation", isolation},
		{"Counter", counter},
		{"GroupCommit", groupCommit},
		{"Cancelled", cancelled},
		{"FeedOrder", feedOrder},
		{"FeedLimit", feedLimit},
		{"FeedWait", feedWait},
		{"FeedCursors", feedCursors},
		{"FeedTrim", feedTrim},
		{"Durability", durability},
		{"Purge", purge},
		{"Closed", closed},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h := &harness{t: t, s: open(t), reopenFn: reopen}
			t.Cleanup(func() {
				if err := h.s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			tc.fn(t, h)
		})
	}
}

type harness struct {
	t        *testing.T
	s        store.Store
	reopenFn func(t *testing.T, s store.Store) store.Store
}

func (h *harness) ctx() context.Context { return h.t.Context() }

func (h *harness) reopen() { h.s = h.reopenFn(h.t, h.s) }

func (h *harness) commit(fill func(b *store.Batch)) store.Seq {
	h.t.Helper()
	var b store.Batch
	fill(&b)
	seq, err := h.s.Commit(h.ctx(), &b)
	if err != nil {
		h.t.Fatalf("commit: %v", err)
	}
	if seq == 0 {
		h.t.Fatal("commit with Seq 0")
	}
	return seq
}

func (h *harness) put(kv ...string) store.Seq {
	h.t.Helper()
	return h.commit(func(b *store.Batch) {
		for i := 0; i < len(kv); i += 2 {
			b.Put([]byte(kv[i]), []byte(kv[i+1]))
		}
	})
}

func (h *harness) wantKind(kind errs.Kind, fill func(b *store.Batch)) error {
	h.t.Helper()
	var b store.Batch
	fill(&b)
	seq, err := h.s.Commit(h.ctx(), &b)
	if !errs.Is(err, kind) || seq != 0 {
		h.t.Fatalf("commit gave %d, %v; want the kind %v", seq, err, kind)
	}
	return err
}

// dump returns a range as "k=v k=v".
func dump(t *testing.T, r store.Reader, rg store.Range) string {
	t.Helper()
	var out []string
	err := r.Scan(t.Context(), rg, func(k, v []byte) (bool, error) {
		out = append(out, string(k)+"="+string(v))
		return true, nil
	})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	return strings.Join(out, " ")
}

func (h *harness) want(want string) {
	h.t.Helper()
	if got := dump(h.t, h.s, store.Range{}); got != want {
		h.t.Fatalf("the store holds %q, want %q", got, want)
	}
}

func basics(t *testing.T, h *harness) {
	if _, err := h.s.Get(h.ctx(), []byte("a")); !errs.Is(err, errs.NotFound) {
		t.Fatalf("missing key: %v", err)
	}
	s1 := h.put("a", "1", "b", "2")
	s2 := h.put("a", "3")
	if s2 <= s1 {
		t.Fatalf("Seq %d after %d", s2, s1)
	}
	v, err := h.s.Get(h.ctx(), []byte("a"))
	if err != nil || string(v) != "3" {
		t.Fatalf("%q %v", v, err)
	}
	v[0] = 'x' // a copy: ours
	h.want("a=3 b=2")
	h.commit(func(b *store.Batch) { b.Delete([]byte("a")); b.Delete([]byte("never")) })
	h.want("b=2")
	h.commit(func(b *store.Batch) { b.Put([]byte("b"), nil) })
	if v, err := h.s.Get(h.ctx(), []byte("b")); err != nil || len(v) != 0 {
		t.Fatalf("empty value: %q %v", v, err)
	}
	// The last operation on a key in a batch counts.
	h.commit(func(b *store.Batch) {
		b.Put([]byte("c"), []byte("1"))
		b.Delete([]byte("c"))
		b.Delete([]byte("d"))
		b.Put([]byte("d"), []byte("2"))
	})
	h.want("b= d=2")
	if st := h.s.Stats(); st.Commits < 5 || st.Syncs == 0 || st.BytesWritten == 0 {
		t.Errorf("stats: %+v", st)
	}
}

func bounds(t *testing.T, h *harness) {
	long, big := make([]byte, store.MaxKey), make([]byte, store.MaxValue)
	for i := range big {
		big[i] = byte(rand.Uint32())
	}
	h.commit(func(b *store.Batch) { b.Put(long, big) })
	if v, err := h.s.Get(h.ctx(), long); err != nil || !bytes.Equal(v, big) {
		t.Fatalf("largest entry: %d bytes, %v", len(v), err)
	}
	before := dump(t, h.s, store.Range{})
	longer, bigger := bytes.Repeat([]byte{0xff}, len(long)+1), make([]byte, len(big)+1)
	ok := []byte("ok")
	for name, fill := range map[string]func(b *store.Batch){
		"empty key":       func(b *store.Batch) { b.Put(nil, ok) },
		"long key":        func(b *store.Batch) { b.Put(longer, ok) },
		"big value":       func(b *store.Batch) { b.Put(ok, bigger) },
		"long delete":     func(b *store.Batch) { b.Delete(longer) },
		"long if":         func(b *store.Batch) { b.IfAbsent(longer) },
		"empty if":        func(b *store.Batch) { b.IfPresent(nil) },
		"big if":          func(b *store.Batch) { b.IfEquals(ok, bigger) },
		"long bound":      func(b *store.Batch) { b.DeleteRange(longer, nil) },
		"long end":        func(b *store.Batch) { b.DeleteRange(nil, longer) },
		"no topic":        func(b *store.Batch) { b.Change("", ok) },
		"big payload":     func(b *store.Batch) { b.Change("t", bigger) },
		"nameless cursor": func(b *store.Batch) { b.SetCursor("", 1) },
		"unknown op":      func(b *store.Batch) { b.Ops = append(b.Ops, store.Op{Kind: 99, Key: ok}) },
		"after a good op": func(b *store.Batch) { b.Put(ok, ok); b.Put(nil, ok) },
	} {
		var b store.Batch
		fill(&b)
		if _, err := h.s.Commit(h.ctx(), &b); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.s.Commit(h.ctx(), nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("no batch: %v", err)
	}
	for _, k := range [][]byte{nil, longer} {
		if _, err := h.s.Get(h.ctx(), k); !errs.Is(err, errs.Invalid) {
			t.Errorf("get of a bad key: %v", err)
		}
	}
	if _, err := h.s.Feed().Read(h.ctx(), 0, 0); !errs.Is(err, errs.Invalid) {
		t.Errorf("limit 0: %v", err)
	}
	if dump(t, h.s, store.Range{}) != before {
		t.Error("refused input changed the store")
	}
}

func scan(t *testing.T, h *harness) {
	h.put("a", "1", "a\x00", "2", "ab", "3", "b", "4", "\xff", "5", "\xff\xff", "6", "\x00", "0")
	for _, tc := range []struct {
		name       string
		start, end string
		nilEnd     bool
		want       string
	}{
		{"all", "", "", true, "\x00=0 a=1 a\x00=2 ab=3 b=4 \xff=5 \xff\xff=6"},
		{"from", "a", "", true, "a=1 a\x00=2 ab=3 b=4 \xff=5 \xff\xff=6"},
		{"half open", "a", "ab", false, "a=1 a\x00=2"},
		{"between keys", "aa", "c", false, "ab=3 b=4"},
		{"empty end is before all", "", "", false, ""},
		{"same", "a", "a", false, ""},
		{"crossed", "b", "a", false, ""},
		{"last", "\xff", "", true, "\xff=5 \xff\xff=6"},
	} {
		r := store.Range{Start: []byte(tc.start), End: []byte(tc.end)}
		if tc.nilEnd {
			r.End = nil
		}
		if got := dump(t, h.s, r); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		r.Reverse = true
		want := strings.Fields(tc.want)
		slices.Reverse(want)
		if got := dump(t, h.s, r); got != strings.Join(want, " ") {
			t.Errorf("%s, reverse: %q", tc.name, got)
		}
	}
	if got := dump(t, h.s, store.Prefix([]byte("\xff"))); got != "\xff=5 \xff\xff=6" {
		t.Errorf("prefix ff: %q", got)
	}
	if got := dump(t, h.s, store.Prefix([]byte("a"))); got != "a=1 a\x00=2 ab=3" {
		t.Errorf("prefix a: %q", got)
	}
	n := 0
	err := h.s.Scan(h.ctx(), store.Range{}, func(_, _ []byte) (bool, error) { n++; return n < 2, nil })
	if err != nil || n != 2 {
		t.Errorf("stop: %d %v", n, err)
	}
	stop := errors.New("mine")
	if err := h.s.Scan(h.ctx(), store.Range{}, func(_, _ []byte) (bool, error) { return true, stop }); !errors.Is(err, stop) {
		t.Errorf("the callback's error: %v", err)
	}
	// A callback may use the store; the scan goes on as of its start.
	n = 0
	err = h.s.Scan(h.ctx(), store.Range{}, func(k, _ []byte) (bool, error) {
		n++
		if _, err := h.s.Get(h.ctx(), k); err != nil {
			return false, err
		}
		h.put(string(k)+"new", "x")
		return true, nil
	})
	if err != nil || n != 7 {
		t.Errorf("use within a scan: %d %v", n, err)
	}
}

func deleteRange(t *testing.T, h *harness) {
	h.put("a", "1", "b", "2", "c", "3", "d", "4", "e", "5")
	h.commit(func(b *store.Batch) { b.DeleteRange([]byte("b"), []byte("d")) })
	h.want("a=1 d=4 e=5")
	// In the order of the batch: what comes before goes, what comes after stays.
	h.commit(func(b *store.Batch) {
		b.Put([]byte("d1"), []byte("x"))
		b.DeleteRange([]byte("d"), []byte("e"))
		b.Put([]byte("d2"), []byte("y"))
	})
	h.want("a=1 d2=y e=5")
	h.commit(func(b *store.Batch) { b.DeleteRange([]byte("z"), []byte("a")) })
	h.want("a=1 d2=y e=5")
	h.commit(func(b *store.Batch) { b.DeleteRange([]byte("d"), nil); b.Change("t", nil); b.SetCursor("r", 1) })
	h.want("a=1")
	seq := h.commit(func(b *store.Batch) { b.DeleteRange(nil, nil) })
	h.want("")
	// The feed and the cursors are no keys of the user.
	if ch, err := h.s.Feed().Read(h.ctx(), 0, 10); err != nil || len(ch) != 1 || ch[0].Seq != seq-1 {
		t.Errorf("feed after deleting all: %v %v", ch, err)
	}
	if c, err := h.s.Feed().Cursor(h.ctx(), "r"); err != nil || c != 1 {
		t.Errorf("cursor after deleting all: %v %v", c, err)
	}
}

func preconditions(t *testing.T, h *harness) {
	h.put("a", "1")
	key := func(err error) string {
		var pe *store.PreconditionError
		if !errors.As(err, &pe) {
			t.Fatalf("no PreconditionError in %v", err)
		}
		return string(pe.Key)
	}
	for _, tc := range []struct {
		name string
		fill func(b *store.Batch)
		bad  string
	}{
		{"absent", func(b *store.Batch) { b.IfAbsent([]byte("x")) }, ""},
		{"absent, is there", func(b *store.Batch) { b.IfAbsent([]byte("a")) }, "a"},
		{"present", func(b *store.Batch) { b.IfPresent([]byte("a")) }, ""},
		{"present, is not", func(b *store.Batch) { b.IfPresent([]byte("x")) }, "x"},
		{"equals", func(b *store.Batch) { b.IfEquals([]byte("a"), []byte("1")) }, ""},
		{"equals, other", func(b *store.Batch) { b.IfEquals([]byte("a"), []byte("2")) }, "a"},
		{"equals, prefix", func(b *store.Batch) { b.IfEquals([]byte("a"), nil) }, "a"},
		{"equals, missing", func(b *store.Batch) { b.IfEquals([]byte("x"), nil) }, "x"},
		{"one of three", func(b *store.Batch) {
			b.IfPresent([]byte("a"))
			b.IfAbsent([]byte("y"))
			b.IfPresent([]byte("z"))
		}, "z"},
		{"against the state before the batch", func(b *store.Batch) {
			b.Put([]byte("n"), nil)
			b.IfAbsent([]byte("n"))
			b.Delete([]byte("n"))
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.bad == "" {
				h.commit(tc.fill)
				return
			}
			err := h.wantKind(errs.Conflict, func(b *store.Batch) {
				b.Put([]byte("effect"), []byte("x"))
				tc.fill(b)
				b.Change("effect", nil)
				b.SetCursor("effect", 9)
			})
			if got := key(err); got != tc.bad {
				t.Errorf("blames %q", got)
			}
		})
	}
	h.want("a=1")
	if ch, err := h.s.Feed().Read(h.ctx(), 0, 10); err != nil || len(ch) != 0 {
		t.Errorf("a refused batch left changes: %v %v", ch, err)
	}
	if c, err := h.s.Feed().Cursor(h.ctx(), "effect"); err != nil || c != 0 {
		t.Errorf("a refused batch moved a cursor: %v %v", c, err)
	}
}

// model compares random batches with a map.
func model(t *testing.T, h *harness) {
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[string]string{}
	key := func() string { return fmt.Sprintf("k%02d", rng.IntN(60)) }
	for round := range 400 {
		var b store.Batch
		next := map[string]string{}
		for k, v := range want {
			next[k] = v
		}
		ok := true
		for range 1 + rng.IntN(6) {
			k, v := key(), fmt.Sprint(round)
			switch rng.IntN(10) {
			case 0:
				b.Delete([]byte(k))
				delete(next, k)
			case 1:
				end := key()
				b.DeleteRange([]byte(k), []byte(end))
				for x := range next {
					if x >= k && x < end {
						delete(next, x)
					}
				}
			case 2:
				b.IfAbsent([]byte(k))
				_, found := want[k]
				ok = ok && !found
			case 3:
				b.IfEquals([]byte(k), []byte(want[k]))
				_, found := want[k]
				ok = ok && found
			default:
				b.Put([]byte(k), []byte(v))
				next[k] = v
			}
		}
		_, err := h.s.Commit(h.ctx(), &b)
		if ok != (err == nil) || err != nil && !errs.Is(err, errs.Conflict) {
			t.Fatalf("round %d: %v, want ok=%v", round, err, ok)
		}
		if ok {
			want = next
		}
		if round%100 == 99 {
			h.reopen()
		}
		if round%20 == 0 || round == 399 {
			var keys []string
			for k := range want {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			for i, k := range keys {
				keys[i] = k + "=" + want[k]
			}
			h.want(strings.Join(keys, " "))
		}
	}
}

func closed(t *testing.T, h *harness) {
	h.put("a", "1")
	snap, err := h.s.Snapshot(h.ctx())
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- h.s.Feed().Wait(context.Background(), 1000) }()
	time.Sleep(10 * time.Millisecond)
	s := h.s
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	select {
	case err := <-waited:
		if !errs.Is(err, errs.Unavailable) {
			t.Errorf("wait: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a waiter outlives the store")
	}
	var b store.Batch
	b.Put([]byte("b"), nil)
	_, commit := s.Commit(h.ctx(), &b)
	_, get := s.Get(h.ctx(), []byte("a"))
	_, sget := snap.Get(h.ctx(), []byte("a"))
	_, again := s.Snapshot(h.ctx())
	_, read := s.Feed().Read(h.ctx(), 0, 1)
	for name, err := range map[string]error{"commit": commit, "get": get, "snapshot get": sget, "snapshot": again, "feed": read,
		"purge": s.Purge(h.ctx(), store.Range{}),
		"scan":  s.Scan(h.ctx(), store.Range{}, func(_, _ []byte) (bool, error) { return true, nil })} {
		if !errs.Is(err, errs.Unavailable) {
			t.Errorf("%s after close: %v", name, err)
		}
	}
	if err := snap.Close(); err != nil {
		t.Errorf("closing a snapshot after its store: %v", err)
	}
}
