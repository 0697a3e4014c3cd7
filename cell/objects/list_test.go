package objects

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// oracle lists as S3 says, from a sorted list of keys.
func oracle(keys []string, in List) (objects, prefixes []string, more bool, next string) {
	n := 0
	for _, k := range keys {
		if !strings.HasPrefix(k, in.Prefix) || in.After != "" && k <= in.After {
			continue
		}
		roll := ""
		if in.Delimiter != "" {
			if i := strings.Index(k[len(in.Prefix):], in.Delimiter); i >= 0 {
				roll = k[:len(in.Prefix)+i+len(in.Delimiter)]
			}
		}
		if roll != "" && (strings.HasPrefix(in.After, roll) || len(prefixes) > 0 && prefixes[len(prefixes)-1] == roll) {
			continue
		}
		if n == in.Max {
			return objects, prefixes, true, next
		}
		n++
		if roll != "" {
			prefixes, next = append(prefixes, roll), roll
		} else {
			objects, next = append(objects, k), k
		}
	}
	return objects, prefixes, false, ""
}

func TestListAgainstOracle(t *testing.T) {
	w := newWorld(t)
	r := rand.New(rand.NewPCG(1, 2))
	set := map[string]bool{"": false}
	parts := []string{"a", "b", "/", "//", "ab", "\x00", "ü", "\U0010FFFF", "é", "-", "."}
	for range 120 {
		var k string
		for range 1 + r.IntN(5) {
			k += parts[r.IntN(len(parts))]
		}
		set[k] = true
	}
	for i := range 50 { // a directory that is worth a jump
		set[fmt.Sprintf("dir/%03d", i)] = true
		set[fmt.Sprintf("dir/sub/%03d", i)] = true
	}
	delete(set, "")
	var keys []string
	var wg sync.WaitGroup
	for k := range set {
		keys = append(keys, k)
		wg.Go(func() { w.put(k, []byte(k)) })
	}
	wg.Wait()
	sort.Strings(keys)
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	for range 600 {
		in := List{
			Bucket: w.bucket, Max: 1 + r.IntN(9),
			Prefix:    pick("", "", "a", "dir/", "dir/sub/", "dir", "/", "b/", "ü", "zzz", "\U0010FFFF"),
			Delimiter: pick("", "/", "/", "//", "a", "ü", "-"),
		}
		switch r.IntN(4) {
		case 0:
			in.After = keys[r.IntN(len(keys))]
		case 1:
			in.After = pick("dir/", "dir/0", "a/", "~", "\U0010FFFF\U0010FFFF", "dir/sub/", "!")
		}
		for page := 0; ; page++ {
			objs, prefixes, more, next := oracle(keys, in)
			got, err := w.List(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, o := range got.Objects {
				names = append(names, o.Key)
				if o.Size != int64(len(o.Key)) || o.ETag == "" || o.Headers.StorageClass != "STANDARD" || o.Modified.IsZero() {
					t.Fatalf("a listed object lacks something: %+v", o)
				}
			}
			if !slices.Equal(names, objs) || !slices.Equal(got.CommonPrefixes, prefixes) || got.Truncated != more || got.Next != next {
				t.Fatalf("%+v\n got %q %q %v %q\nwant %q %q %v %q", in, names, got.CommonPrefixes, got.Truncated, got.Next, objs, prefixes, more, next)
			}
			if !more || page > 50 {
				break
			}
			in.After = next
		}
	}
	for _, n := range []int{0, -1, 1001} {
		_, err := w.List(ctx, List{Bucket: w.bucket, Max: n})
		code(t, err, "InvalidArgument")
	}
	_, err := w.List(ctx, List{Bucket: "nope", Max: 1})
	code(t, err, "NoSuchBucket")
	_, err = w.List(ctx, List{Bucket: w.bucket, Max: 1, Prefix: strings.Repeat("x", 1025)})
	code(t, err, "KeyTooLongError")
}

// countingStore counts the entries that scans look at.
type countingStore struct {
	store.Store
	seen int
}

func (c *countingStore) Scan(ctx context.Context, r store.Range, fn func(k, v []byte) (bool, error)) error {
	return c.Store.Scan(ctx, r, func(k, v []byte) (bool, error) {
		c.seen++
		return fn(k, v)
	})
}

// TestListCost: what lies below a common prefix costs next to nothing.
func TestListCost(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := g; i < 4000; i += 8 {
				w.put(fmt.Sprintf("big-%d/%05d", i%2, i), nil)
			}
		})
	}
	wg.Wait()
	w.put("tail", nil)
	c := &countingStore{Store: w.store}
	w.Engine.store = c
	l, err := w.List(ctx, List{Bucket: w.bucket, Delimiter: "/", Max: 1000})
	if err != nil || len(l.CommonPrefixes) != 2 || len(l.Objects) != 1 || l.Truncated {
		t.Fatal(l, err)
	}
	if c.seen > 2*(skipAhead+2)+2 {
		t.Errorf("a listing of 3 entries looked at %d", c.seen)
	}
	c.seen = 0
	if l, err = w.List(ctx, List{Bucket: w.bucket, Prefix: "big-1/", Max: 10}); err != nil || len(l.Objects) != 10 || !l.Truncated || c.seen > 11 {
		t.Errorf("a page of %d looked at %d: %v", len(l.Objects), c.seen, err)
	}
}

// TestListDuringWrites: keys that are there all the time are in every listing, once.
func TestListDuringWrites(t *testing.T) {
	w := newWorld(t)
	var fixed []string
	for i := range 40 {
		k := fmt.Sprintf("%02d/fixed", i)
		fixed = append(fixed, k)
		w.put(k, []byte("x"))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k := fmt.Sprintf("%02d/%d-%d", i%40, g, i%5)
				if i%3 == 0 {
					w.Delete(ctx, Delete{Bucket: w.bucket, Key: k})
				} else if _, err := w.Put(ctx, Put{Bucket: w.bucket, Key: k, Body: bytesBody([]byte("y")), Size: 1}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		var got []string
		in := List{Bucket: w.bucket, Max: 7}
		prev := ""
		for {
			l, err := w.List(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range l.Objects {
				if o.Key <= prev {
					t.Fatalf("%q after %q", o.Key, prev)
				}
				prev = o.Key
				if strings.HasSuffix(o.Key, "/fixed") {
					got = append(got, o.Key)
				}
			}
			if !l.Truncated {
				break
			}
			in.After = l.Next
		}
		if !slices.Equal(got, fixed) {
			t.Fatalf("listed %d of %d fixed keys", len(got), len(fixed))
		}
	}
	close(stop)
	wg.Wait()
}

func TestNoLostUpdates(t *testing.T) {
	w := newWorld(t)
	// Compare-and-swap counters: every acknowledged step is in the sum.
	w.put("n", []byte("0"))
	const workers, steps = 6, 8
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < steps; {
				o, b, err := w.read(Get{Key: "n"})
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				fmt.Sscan(string(b), &n)
				next := fmt.Sprint(n + 1)
				_, err = w.Put(ctx, Put{Bucket: w.bucket, Key: "n", Body: bytesBody([]byte(next)), Size: int64(len(next)), Conditions: Conditions{IfMatch: o.ETag}})
				if err == nil {
					done++
				} else if errs.CodeOf(err) != "PreconditionFailed" {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	w.want("n", []byte(fmt.Sprint(workers*steps)))
	// If-None-Match: exactly one of many creates wins.
	var mu sync.Mutex
	won := 0
	for range 8 {
		wg.Go(func() {
			_, err := w.Put(ctx, Put{Bucket: w.bucket, Key: "once", Body: bytesBody(data(40_000, 1)), Size: 40_000, Conditions: Conditions{IfNoneMatch: "*"}})
			if err == nil {
				mu.Lock()
				won++
				mu.Unlock()
			} else if errs.CodeOf(err) != "PreconditionFailed" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d creates won", won)
	}
	// Unconditional writes of one key all succeed, the last wins, nothing is left of the others.
	for i := range 12 {
		wg.Go(func() { w.put("hot", data(33_000+i, uint64(i))) })
	}
	wg.Wait()
	if _, b, err := w.read(Get{Key: "hot"}); err != nil || string(b) != string(data(len(b), uint64(len(b)-33_000))) {
		t.Error("a torn object", err)
	}
	w.tidy(1, 2)
}
