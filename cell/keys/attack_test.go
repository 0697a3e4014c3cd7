package keys

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/segment"
	"chancery/internal/store"
)

// leaseAll opens the store anew and takes a lease on every bucket of fill.
func leaseAll(st *memStore) error {
	r, err := Open(ctx, st, root, "health")
	if err != nil {
		return err
	}
	defer r.Close()
	for _, id := range [][2]string{{"p", "a"}, {"p", "b"}, {"q", "a"}} {
		if _, err := r.Lease(ctx, id[0], id[1], CustomerRequest); err != nil {
			return err
		}
	}
	return nil
}

// TestSwappedKeys: a wrapped key in the place of another opens nothing.
func TestSwappedKeys(t *testing.T) {
	_, st := begun(t)
	var records []string
	for k := range st.m {
		if rec, err := parseRecord(st.m[k]); err == nil && rec.state == stateLive {
			records = append(records, k)
		}
	}
	slices.Sort(records)
	if len(records) != 6 { // the organization, two projects, three buckets
		t.Fatalf("records %q", records)
	}
	for i, a := range records {
		for _, b := range records[i+1:] {
			c := st.copy()
			c.m[a], c.m[b] = c.m[b], c.m[a]
			if err := leaseAll(c); !errs.Is(err, errs.Corrupt) {
				t.Errorf("%s swapped with %s: %v", a, b, err)
			}
			c = st.copy()
			c.m[a] = c.m[b]
			if err := leaseAll(c); !errs.Is(err, errs.Corrupt) {
				t.Errorf("%s replaced by %s: %v", a, b, err)
			}
		}
	}
}

// TestEveryFlippedBit: no single bit of a wrapped key, or of what is beside it,
// can change and still give a key.
func TestEveryFlippedBit(t *testing.T) {
	_, st := begun(t)
	for _, k := range []string{orgKey, string(projectKey("p")), string(bucketKey("p", "a"))} {
		for i := range len(st.m[k]) * 8 {
			c := st.copy()
			c.m[k][i/8] ^= 1 << (i % 8)
			if err := leaseAll(c); !errs.Is(err, errs.Corrupt) {
				t.Fatalf("%s, bit %d: %v", k, i, err)
			}
		}
		for n := range st.m[k] {
			c := st.copy()
			c.m[k] = c.m[k][:n]
			if err := leaseAll(c); !errs.Is(err, errs.Corrupt) {
				t.Fatalf("%s cut to %d: %v", k, n, err)
			}
		}
	}
	c := st.copy()
	delete(c.m, orgKey)
	if err := leaseAll(c); !errs.Is(err, errs.Corrupt) {
		t.Fatalf("without the organization's key: %v", err)
	}
}

// TestReplayedKeys: an old wrapped key opens nothing once the level above or its
// own has been rotated, not even with its numbers brought up to date.
func TestReplayedKeys(t *testing.T) {
	for name, c := range map[string]struct {
		rotate func(r *Ring) error
		key    []byte
		// update is the numbers as they stand after the rotation.
		parent, version uint32
	}{
		"project under a new epoch":  {func(r *Ring) error { return r.RotateOrganization(ctx) }, projectKey("p"), 2, 1},
		"organization, new epoch":    {func(r *Ring) error { return r.RotateOrganization(ctx) }, []byte(orgKey), 1, 2},
		"bucket under a new project": {func(r *Ring) error { return r.RotateProject(ctx, "p") }, bucketKey("p", "a"), 2, 1},
		"project, new version":       {func(r *Ring) error { return r.RotateProject(ctx, "p") }, projectKey("p"), 1, 2},
		"organization, new root":     {func(r *Ring) error { return errors.Join(r.Rewrap(ctx, &testRoot{[32]byte{2}}), r.Rewrap(ctx, root)) }, []byte(orgKey), 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r, st := begun(t)
			old := st.raw(t, c.key)
			if err := c.rotate(r); err != nil {
				t.Fatal(err)
			}
			if err := leaseAll(st); err != nil {
				t.Fatal(err)
			}
			fixed, err := parseRecord(old)
			if err != nil {
				t.Fatal(err)
			}
			fixed.parent, fixed.entries[0].version = c.parent, c.version
			for what, raw := range map[string][]byte{"as it was": old, "brought up to date": fixed.encode()} {
				tampered := st.copy()
				tampered.m[string(c.key)] = raw
				err := leaseAll(tampered)
				if c.key[2] == 'o' && c.version == 1 && what == "as it was" {
					// Back under the first root, its old record is the same key again.
					if err != nil {
						t.Error(err)
					}
					continue
				}
				// An older organization key of the same root opens, and then
				// everything below it is of another epoch.
				if !errs.Is(err, errs.Corrupt) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// TestMixedVersions: versions of one bucket's key do not pass for each other.
func TestMixedVersions(t *testing.T) {
	r, st := begun(t)
	for range 2 {
		if err := r.RotateBucket(ctx, "p", "a"); err != nil {
			t.Fatal(err)
		}
	}
	rec, err := parseRecord(st.raw(t, bucketKey("p", "a")))
	if err != nil || len(rec.entries) != 3 {
		t.Fatal(rec, err)
	}
	rec.entries[0].box, rec.entries[2].box = rec.entries[2].box, rec.entries[0].box
	c := st.copy()
	c.m[string(bucketKey("p", "a"))] = rec.encode()
	if err := leaseAll(c); !errs.Is(err, errs.Corrupt) {
		t.Fatal(err)
	}
}

// TestAnotherOrganization: the records of one organization open nothing in
// another, even under the same root.
func TestAnotherOrganization(t *testing.T) {
	_, st := begun(t)
	_, err := Open(ctx, st, root, "defence")
	kind(t, err, errs.Corrupt)
	_, err = Open(ctx, st, &testRoot{[32]byte{9}}, "health")
	kind(t, err, errs.Corrupt)
}

// TestDestroy: after a destruction nothing opens, in memory or after a restart,
// the wrapped keys are gone from the files, and what is beside goes on.
func TestDestroy(t *testing.T) {
	ids := [][2]string{{"p", "a"}, {"p", "b"}, {"q", "a"}}
	for name, c := range map[string]struct {
		destroy func(r *Ring) error
		gone    int // of ids, from the first
		keys    [][]byte
	}{
		"bucket":       {func(r *Ring) error { return r.DestroyBucket(ctx, "p", "a") }, 1, [][]byte{bucketKey("p", "a")}},
		"project":      {func(r *Ring) error { return r.DestroyProject(ctx, "p") }, 2, [][]byte{projectKey("p"), bucketKey("p", "a"), bucketKey("p", "b")}},
		"organization": {func(r *Ring) error { return r.DestroyOrganization(ctx) }, 3, [][]byte{[]byte(orgKey), projectKey("q"), bucketKey("q", "a")}},
	} {
		t.Run(name, func(t *testing.T) {
			r, st := begun(t)
			var olds [][]byte
			for _, k := range c.keys {
				olds = append(olds, st.raw(t, k)[16:])
			}
			var held []Lease
			var data []sealed
			var plain []*secret
			for _, id := range ids {
				l := take(t, r, id[0], id[1])
				held, data = append(held, l), append(data, seal(t, l, id[1]))
				plain = append(plain, l.(*lease).versions[0].key)
			}
			if err := c.destroy(r); err != nil {
				t.Fatal(err)
			}
			for i, old := range olds {
				if st.holds(old) {
					t.Fatalf("wrapped key %d is still in the files", i)
				}
			}
			fresh := open(t, st)
			for i, id := range ids {
				if i >= c.gone {
					data[i].check(t, held[i], id[1])
					data[i].check(t, take(t, fresh, id[0], id[1]), id[1])
					continue
				}
				if *plain[i] != (secret{}) {
					t.Fatalf("the key of %v is still in memory", id)
				}
				_, err := held[i].StreamKey(1, salt, binding(id[1]))
				kind(t, err, errs.Destroyed)
				_, err = held[i].OpenRecord([]byte("bound"), data[i].record)
				kind(t, err, errs.Destroyed)
				_, err = held[i].SealRecord(nil, nil)
				kind(t, err, errs.Destroyed)
				for _, r := range []*Ring{r, fresh} {
					var b store.Batch
					_, err := r.Lease(ctx, id[0], id[1], CustomerRequest)
					for j, err := range []error{err, r.RotateBucket(ctx, id[0], id[1]), r.DestroyBucket(ctx, id[0], id[1]), r.CreateBucket(ctx, &b, id[0], id[1])} {
						if !errs.Is(err, errs.Destroyed) {
							t.Fatalf("use %d of %v: %v", j, id, err)
						}
					}
				}
			}
			for _, r := range []*Ring{r, fresh} {
				kind(t, c.destroy(r), errs.Destroyed)
				if c.gone > 1 {
					var b store.Batch
					kind(t, r.RotateProject(ctx, "p"), errs.Destroyed)
					kind(t, r.CreateProject(ctx, &b, "p"), errs.Destroyed)
				}
			}
			// Rotations of what is above still work, or are refused.
			err := r.RotateOrganization(ctx)
			if c.gone == 3 {
				kind(t, err, errs.Destroyed)
			} else if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDestroyDamaged: a key that no longer opens can still be destroyed.
func TestDestroyDamaged(t *testing.T) {
	r, st := begun(t)
	st.m[string(bucketKey("p", "a"))] = []byte("noise")
	if err := r.DestroyBucket(ctx, "p", "a"); err != nil {
		t.Fatal(err)
	}
	st.m[string(projectKey("p"))][30] ^= 1
	if err := r.DestroyProject(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	if err := r.DestroyOrganization(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestNothingLeaks: no plain key is in the store, and no key or record content in an error.
func TestNothingLeaks(t *testing.T) {
	r, st := begun(t)
	l := take(t, r, "p", "a").(*lease)
	key := bytes.Clone(l.versions[0].key[:])
	if st.holds(key) {
		t.Fatal("a plain key is in the store")
	}
	_, err1 := l.StreamKey(9, salt, binding("a"))
	_, err2 := l.OpenRecord([]byte("bound"), []byte("short"))
	for _, err := range []error{err1, err2} {
		if s := err.Error(); bytes.Contains([]byte(s), key) || bytes.Contains([]byte(s), fmt.Appendf(nil, "%x", key)) {
			t.Fatal("an error tells a key")
		}
	}
}

// FuzzRecord: what parses is what encode writes.
func FuzzRecord(f *testing.F) {
	f.Add((&record{stateLive, 3, []entry{{version: 1}, {version: 7}}}).encode())
	f.Add(tombstone.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			if !errs.Is(err, errs.Corrupt) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(r.encode(), b) {
			t.Fatal("two encodings of one record")
		}
		if r.state == stateLive && r.current() != &r.entries[len(r.entries)-1] {
			t.Fatal("no current entry")
		}
	})
}

// FuzzOpenRecord: no bytes but sealed ones open.
func FuzzOpenRecord(f *testing.F) {
	r, _ := begun(f)
	l := take(f, r, "p", "a")
	rec, _ := l.SealRecord([]byte("bound"), []byte("metadata"))
	f.Add(rec)
	f.Add(rec[:10])
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Equal(b, rec) {
			return
		}
		if _, err := l.OpenRecord([]byte("bound"), b); !errs.Is(err, errs.Corrupt) {
			t.Fatal(err)
		}
	})
}

// TestVectors pins the derivations and the associated data: what is on disk
// today must open for ever. docs/formats/keys.md has the same values.
func TestVectors(t *testing.T) {
	r := &Ring{org: "health"}
	aads := map[string]place{
		"000000156368616e636572792e6b6579732e777261702e763101000000066865616c7468000000066865616c746800000004726f6f740000000200000001":   r.orgPlace(2, 1),
		"000000156368616e636572792e6b6579732e777261702e763102000000066865616c74680000000570726f6a31000000066865616c74680000000300000002": r.projectPlace("proj1", 3, 2),
		"000000156368616e636572792e6b6579732e777261702e763103000000066865616c74680000000662756b3137370000000570726f6a310000000400000003": r.bucketPlace("proj1", "buk177", 4, 3),
	}
	for _, want := range slices.Sorted(maps.Keys(aads)) {
		if got := fmt.Sprintf("%x", aads[want].aad()); got != want {
			t.Errorf("associated data\n got %s\nwant %s", got, want)
		}
	}
	var bucket secret
	for i := range bucket {
		bucket[i] = byte(i)
	}
	salt := [32]byte(bytes.Repeat([]byte{0xa5}, 32))
	b := segment.Binding{Organization: "health", Bucket: "buk177", Object: "2026/été.pdf", Content: [16]byte(bytes.Repeat([]byte{0x3c}, 16))}
	k, err := streamKey(&bucket, &salt, &b)
	if err != nil {
		t.Fatal(err)
	}
	rk, err := recordKey(&bucket, "health", "buk177")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range [][2]string{{fmt.Sprintf("%x", k), vectorStream}, {fmt.Sprintf("%x", *rk), vectorRecord}} {
		if v[0] != v[1] {
			t.Errorf("derived\n got %s\nwant %s", v[0], v[1])
		}
	}
}

const (
	vectorStream = "ea950eb0b595e727b817433550809ed8078f227814de92d6e255038bb4361ee6"
	vectorRecord = "0cd6aba3b7162e1dd5c847a6a2b178a1a4eefd5faf6463844e69b8b14f64891c"
)
