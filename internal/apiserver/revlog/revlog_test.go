package revlog

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

type world struct {
	*Log
	t    testing.TB
	dir  string
	st   store.Store
	opts Options
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: t.TempDir(), opts: Options{Prefix: []byte("t/"), Keep: time.Hour}}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.t.Helper()
	ctx := context.Background()
	st, err := pebblestore.Open(ctx, pebblestore.Options{Dir: w.dir, Key: bytes.Repeat([]byte{1}, 32)})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.Log, err = Open(ctx, st, w.opts); err != nil {
		w.t.Fatal(err)
	}
	w.st = st
}

func (w *world) close() {
	if w.st == nil {
		return
	}
	w.Log.Close()
	if err := w.st.Close(); err != nil {
		w.t.Error(err)
	}
	w.st = nil
}

func (w *world) reopen() { w.close(); w.open() }

// put writes and returns the revision; expect -1 takes what is there.
func (w *world) put(key, value string, expect int64) int64 {
	w.t.Helper()
	if expect < 0 {
		expect = w.rev(key)
	}
	res, err := w.Put(context.Background(), key, []byte(value), expect, 0)
	if err != nil || !res.Done {
		w.t.Fatalf("put %s at %d: %+v, %v", key, expect, res, err)
	}
	return res.Revision
}

func (w *world) del(key string) int64 {
	w.t.Helper()
	res, err := w.Delete(context.Background(), key, w.rev(key))
	if err != nil || !res.Done {
		w.t.Fatalf("delete %s: %+v, %v", key, res, err)
	}
	return res.Revision
}

func (w *world) rev(key string) int64 {
	w.t.Helper()
	kv, _, err := w.Get(context.Background(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	if kv == nil {
		return 0
	}
	return kv.Modified
}

// list prints a page as "key=value@modified ...".
func (w *world) list(q Query) string {
	w.t.Helper()
	page, err := w.List(context.Background(), q)
	if err != nil {
		return errs.CodeOf(err)
	}
	var out []string
	for _, kv := range page.KVs {
		out = append(out, fmt.Sprintf("%s=%s@%d", kv.Key, kv.Value, kv.Modified))
	}
	return strings.Join(out, " ") + fmt.Sprintf(" |%d r%d", page.Count, page.Revision)
}

// TestSemantics is the table of what an API server relies on.
func TestSemantics(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	if w.Current() != 1 {
		t.Fatalf("a new log is at %d, want 1", w.Current())
	}
	must := func(name string, res Result, err error, done bool, rev int64) {
		t.Helper()
		if err != nil || res.Done != done || res.Revision != rev {
			t.Errorf("%s: %+v, %v; want done %v at %d", name, res, err, done, rev)
		}
	}
	res, err := w.Put(ctx, "/a/1", []byte("x"), 0, 0)
	must("create", res, err, true, 2)
	res, err = w.Put(ctx, "/a/1", []byte("y"), 0, 0)
	must("create again", res, err, false, 2)
	if res.Previous == nil || string(res.Previous.Value) != "x" || res.Previous.Modified != 2 {
		t.Errorf("create again tells %+v", res.Previous)
	}
	res, err = w.Put(ctx, "/a/1", []byte("y"), 2, 0)
	must("update", res, err, true, 3)
	res, err = w.Put(ctx, "/a/1", []byte("z"), 2, 0)
	must("stale update", res, err, false, 3)
	res, err = w.Put(ctx, "/a/2", []byte("z"), 5, 0)
	must("update of nothing", res, err, false, 3)
	res, err = w.Delete(ctx, "/a/1", 2)
	must("stale delete", res, err, false, 3)
	res, err = w.Delete(ctx, "/a/9", 0)
	must("delete of nothing", res, err, false, 3)
	if res.Previous != nil {
		t.Errorf("delete of nothing tells %+v", res.Previous)
	}
	res, err = w.Delete(ctx, "/a/1", 3)
	must("delete", res, err, true, 4)
	res, err = w.Put(ctx, "/a/1", []byte("again"), 0, 0)
	must("create after delete", res, err, true, 5)
	kv, rev, err := w.Get(ctx, "/a/1")
	if err != nil || kv.Created != 5 || kv.Modified != 5 || rev != 5 {
		t.Errorf("get: %+v at %d, %v", kv, rev, err)
	}
	w.put("/a/1", "more", 5)
	if kv, _, _ := w.Get(ctx, "/a/1"); kv.Created != 5 || kv.Modified != 6 {
		t.Errorf("an update changed the creation: %+v", kv)
	}
	for name, key := range map[string]string{"empty": "", "NUL": "/a\x00b", "long": "/" + strings.Repeat("k", store.MaxKey)} {
		if _, err := w.Put(ctx, key, nil, 0, 0); !errs.Is(err, errs.Invalid) {
			t.Errorf("key %s: %v", name, err)
		}
	}
	if _, err := w.Put(ctx, "/big", make([]byte, MaxValue+1), 0, 0); errs.CodeOf(err) != CodeTooLarge {
		t.Errorf("too large: %v", err)
	}
	if w.Current() != 6 {
		t.Errorf("refused writes moved the revision to %d", w.Current())
	}
}

func TestListAtRevisions(t *testing.T) {
	w := newWorld(t)
	w.put("/a/1", "a1", 0)       // 2
	w.put("/a/2", "b1", 0)       // 3
	w.put("/a/1", "a2", -1)      // 4
	w.del("/a/2")                // 5
	w.put("/a/3", "c1", 0)       // 6
	w.put("/a/2", "b2", 0)       // 7
	w.put("/b/1", "other", 0)    // 8
	w.put("/a", "exact", 0)      // 9
	w.put("/a/10", "between", 0) // 10
	check := func() {
		t.Helper()
		for _, tc := range []struct {
			q    Query
			want string
		}{
			{Query{Prefix: "/a/"}, "/a/1=a2@4 /a/10=between@10 /a/2=b2@7 /a/3=c1@6 |4 r10"},
			{Query{Prefix: "/a/", Revision: 1}, " |0 r1"},
			{Query{Prefix: "/a/", Revision: 2}, "/a/1=a1@2 |1 r2"},
			{Query{Prefix: "/a/", Revision: 3}, "/a/1=a1@2 /a/2=b1@3 |2 r3"},
			{Query{Prefix: "/a/", Revision: 4}, "/a/1=a2@4 /a/2=b1@3 |2 r4"},
			{Query{Prefix: "/a/", Revision: 5}, "/a/1=a2@4 |1 r5"},
			{Query{Prefix: "/a/", Revision: 6}, "/a/1=a2@4 /a/3=c1@6 |2 r6"},
			{Query{Prefix: "/a/", Revision: 8}, "/a/1=a2@4 /a/2=b2@7 /a/3=c1@6 |3 r8"},
			{Query{Prefix: "/a/", Revision: 11}, CodeFuture},
			{Query{Prefix: "/a/", Limit: 2}, "/a/1=a2@4 /a/10=between@10 |4 r10"},
			{Query{Prefix: "/a/", From: "/a/10\x00", Limit: 1, Revision: 10}, "/a/2=b2@7 |2 r10"},
			{Query{Prefix: "/a/", From: "/a/1\x00", Revision: 3}, "/a/2=b1@3 |1 r3"},
			{Query{Prefix: "/a/", From: "/a/2", Revision: 3}, "/a/2=b1@3 |1 r3"},
			{Query{Prefix: "/a", Exact: true}, "/a=exact@9 |1 r10"},
			{Query{Prefix: "/a", Exact: true, Revision: 8}, " |0 r8"},
			{Query{Prefix: "/a/2", Exact: true, Revision: 4}, "/a/2=b1@3 |1 r4"},
			{Query{Prefix: "/a/1", Exact: true, Revision: 3}, "/a/1=a1@2 |1 r3"},
			{Query{Prefix: "/a/", CountOnly: true}, " |4 r10"},
		} {
			if got := w.list(tc.q); got != tc.want {
				t.Errorf("%+v:\n got %s\nwant %s", tc.q, got, tc.want)
			}
		}
	}
	check()
	w.reopen()
	check()
	if err := w.Compact(context.Background(), 5); err != nil {
		t.Fatal(err)
	}
	for rev, want := range map[int64]string{4: CodeCompacted, 5: "/a/1=a2@4 |1 r5", 6: "/a/1=a2@4 /a/3=c1@6 |2 r6"} {
		if got := w.list(Query{Prefix: "/a/", Revision: rev}); got != want {
			t.Errorf("after compaction at %d: %s, want %s", rev, got, want)
		}
	}
	if err := w.Compact(context.Background(), 99); errs.CodeOf(err) != CodeFuture {
		t.Errorf("compaction of the future: %v", err)
	}
	// Compacted to the newest, nothing but the current values is left.
	if err := w.Compact(context.Background(), 10); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := w.st.Scan(context.Background(), store.Prefix([]byte("t/")), func(k, _ []byte) (bool, error) {
		if k[2] == 'v' || k[2] == 'l' {
			n++
		}
		return true, nil
	})
	if err != nil || n != 0 {
		t.Errorf("%d entries of history are left, %v", n, err)
	}
}

// events prints what a watcher sees until it has seen a revision.
func events(t testing.TB, w *Watcher, until int64) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var out []string
	for w.after < until {
		step, err := w.Next(ctx)
		if err != nil {
			return append(out, errs.CodeOf(err))
		}
		for _, e := range step.Events {
			s := fmt.Sprintf("%d %s", e.Revision, e.Key)
			if e.Previous != nil {
				s += " " + string(e.Previous.Value)
			}
			s += " →"
			if e.Current != nil {
				s += " " + string(e.Current.Value)
			}
			if e.Deleted != (e.Current == nil) || e.Created() != (e.Previous == nil && e.Current != nil) {
				s += " inconsistent"
			}
			out = append(out, s)
		}
	}
	return out
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	w.put("/a/1", "v1", 0)  // 2
	w.put("/a/1", "v2", -1) // 3
	w.put("/b/1", "w1", 0)  // 4
	w.del("/a/1")           // 5
	w.put("/a/1", "v3", 0)  // 6
	w.put("/b/1", "w2", -1) // 7
	w.put("/a/1", "v4", -1) // 8
	all := []string{"2 /a/1 → v1", "3 /a/1 v1 → v2", "5 /a/1 v2 →", "6 /a/1 → v3", "8 /a/1 v3 → v4"}
	check := func(how string) {
		t.Helper()
		w.Progress() // so that watchers that match nothing more come back
		for after, want := range map[int64][]string{1: all, 2: all[1:], 4: all[2:], 7: all[4:]} {
			if got := events(t, w.Watch("/a/", false, after), 8); !slices.Equal(got, want) {
				t.Errorf("%s, after %d:\n got %q\nwant %q", how, after, got, want)
			}
		}
	}
	check("from the ring")
	w.reopen()
	check("from the store")

	// The ring is small: an event from the store and one from the ring join.
	w.opts.RingEvents = 2
	w.reopen()
	watcher := w.Watch("/a/", false, 7)
	for i := range 5 {
		w.put("/a/2", fmt.Sprint(i), -1)
	}
	got := events(t, watcher, 13)
	if len(got) != 6 || got[0] != all[4] || got[5] != "13 /a/2 3 → 4" {
		t.Errorf("joined: %q", got)
	}
	if err := w.Compact(context.Background(), 10); err != nil {
		t.Fatal(err)
	}
	if got := events(t, w.Watch("/a/", false, 9), 13); !slices.Equal(got, []string{CodeCompacted}) {
		t.Errorf("compacted: %q", got)
	}
	if got := events(t, w.Watch("/a/", false, 10), 13); len(got) != 3 {
		t.Errorf("from where history begins: %q", got)
	}
	if got := events(t, w.Watch("/a/2", true, 10), 13); len(got) != 3 {
		t.Errorf("one key: %q", got)
	}

	// Progress reaches watchers that match nothing.
	idle := w.Watch("/none/", false, 13)
	idle.asked = w.hub.after(13).asked
	done := make(chan Step, 1)
	go func() {
		step, err := idle.Next(context.Background())
		if err != nil {
			t.Error(err)
		}
		done <- step
	}()
	w.put("/a/3", "x", 0)
	w.Progress()
	if step := <-done; !step.Progress || step.Revision != 14 || len(step.Events) != 0 {
		t.Errorf("progress: %+v", step)
	}

	// Closing wakes.
	waiting := w.Watch("/none/", false, 14)
	waiting.asked = w.hub.after(14).asked
	errc := make(chan error, 1)
	go func() {
		_, err := waiting.Next(context.Background())
		errc <- err
	}()
	w.close()
	if err := <-errc; !errs.Is(err, errs.Unavailable) {
		t.Errorf("closed: %v", err)
	}
	if _, err := w.Put(context.Background(), "/a/9", nil, 0, 0); !errs.Is(err, errs.Unavailable) {
		t.Errorf("put after close: %v", err)
	}
}

// TestConcurrent lets writers race for few keys while watchers follow, one of
// them from the store, and history is compacted behind them.
func TestConcurrent(t *testing.T) {
	w := newWorld(t)
	w.opts.RingEvents = 16
	w.reopen()
	ctx := context.Background()
	const writers, each = 8, 60
	var mu sync.Mutex
	done := map[int64]string{} // what each acknowledged write wrote
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for n := 0; n < each; {
				key := fmt.Sprintf("/k/%d", r.IntN(3))
				kv, _, err := w.Get(ctx, key)
				if err != nil {
					t.Error(err)
					return
				}
				expect := int64(0)
				if kv != nil {
					expect = kv.Modified
				}
				value := fmt.Sprintf("%d.%d", i, n)
				var res Result
				if kv != nil && r.IntN(5) == 0 {
					value = ""
					res, err = w.Delete(ctx, key, expect)
				} else {
					res, err = w.Put(ctx, key, []byte(value), expect, 0)
				}
				if err != nil {
					t.Error(err)
					return
				}
				if !res.Done {
					continue
				}
				n++
				mu.Lock()
				if _, twice := done[res.Revision]; twice {
					t.Errorf("revision %d twice", res.Revision)
				}
				done[res.Revision] = key + "=" + value
				mu.Unlock()
			}
		})
	}
	last := int64(1 + writers*each)
	follow := func() {
		state := map[string]string{}
		watcher := w.Watch("/k/", false, 1)
		for watcher.after < last {
			step, err := watcher.Next(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			for _, e := range step.Events {
				previous := ""
				if e.Previous != nil {
					previous = string(e.Previous.Value)
				}
				if state[e.Key] != previous {
					t.Errorf("at %d %s was %q, the event says %q", e.Revision, e.Key, state[e.Key], previous)
				}
				state[e.Key] = ""
				if e.Current != nil {
					state[e.Key] = string(e.Current.Value)
				}
				if e.Revision%50 == 0 {
					time.Sleep(20 * time.Millisecond) // fall behind the ring
				}
			}
		}
	}
	wg.Go(follow)
	wg.Go(follow)
	wg.Wait()
	if w.Current() != last {
		t.Fatalf("at %d, want %d", w.Current(), last)
	}
	for _, line := range events(t, w.Watch("/k/", false, 1), last) {
		var rev int64
		var rest string
		if _, err := fmt.Sscanf(line, "%d %s", &rev, &rest); err != nil {
			t.Fatal(err)
		}
		_, value, _ := strings.Cut(line, "→")
		if want := done[rev]; want != rest+"="+strings.TrimSpace(value) {
			t.Errorf("revision %d: watched %q, acknowledged %q", rev, line, want)
		}
	}
	if stats := w.st.Stats(); stats.Commits >= writers*each {
		t.Logf("no batching: %d commits for %d writes", stats.Commits, writers*each)
	}
}

func TestTwoServers(t *testing.T) {
	w := newWorld(t)
	other, err := Open(context.Background(), w.st, w.opts)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	w.put("/a", "1", 0)
	if _, err := other.Put(context.Background(), "/b", nil, 0, 0); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a second server wrote: %v", err)
	}
	if got := w.list(Query{Prefix: "/"}); got != "/a=1@2 |1 r2" {
		t.Error(got)
	}
}

func TestExpiry(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	if _, err := w.Put(ctx, "/short", []byte("x"), 0, time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Put(ctx, "/renewed", []byte("x"), 0, time.Second); err != nil {
		t.Fatal(err)
	}
	w.put("/renewed", "y", 3)
	w.reopen() // the time runs across restarts
	for end := time.Now().Add(10 * time.Second); w.rev("/short") != 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not expired")
		}
	}
	if w.rev("/renewed") == 0 {
		t.Error("a value that was written again without a limit expired")
	}
}

func TestBounded(t *testing.T) {
	w := newWorld(t)
	w.opts.Keep, w.opts.KeepRevisions = 20*time.Millisecond, 50
	w.reopen()
	for i := range 300 {
		w.put("/a", fmt.Sprint(i), -1)
	}
	for end := time.Now().Add(10 * time.Second); w.Compacted() < 250; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("compacted to %d only", w.Compacted())
		}
	}
}

func TestForeignBytes(t *testing.T) {
	w := newWorld(t)
	w.put("/a", "x", 0)
	for name, raw := range map[string][]byte{"empty": {}, "format": append([]byte{9}, make([]byte, recordHeader)...), "short": {recordFormat, 0}} {
		var b store.Batch
		b.Put(w.keys.current("/a"), raw)
		if _, err := w.st.Commit(context.Background(), &b); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.Get(context.Background(), "/a"); !errs.Is(err, errs.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := w.List(context.Background(), Query{Prefix: "/"}); !errs.Is(err, errs.Corrupt) {
			t.Errorf("%s: list %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encodeRecord(&KV{Created: 1, Modified: 2, Value: []byte("x")}, 3))
	f.Add(entry{flagCreated, 7, "/a"}.encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if kv, until, err := decodeRecord("/k", raw); err == nil {
			if again := encodeRecord(kv, until); !bytes.Equal(again, raw) {
				t.Errorf("record %x became %x", raw, again)
			}
		}
		if e, err := decodeEntry(raw); err == nil {
			if again := e.encode(); !bytes.Equal(again, raw) {
				t.Errorf("entry %x became %x", raw, again)
			}
		}
	})
}
