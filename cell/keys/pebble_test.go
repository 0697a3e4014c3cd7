package keys

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/store/frame"
	"chancery/internal/store/pebblestore"
)

var storeKey = bytes.Repeat([]byte{7}, 32)

func openPebble(t *testing.T, dir string) *pebblestore.Store {
	t.Helper()
	st, err := pebblestore.Open(ctx, pebblestore.Options{Dir: dir, Key: storeKey})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// onDisk tells whether p is in any file of the store, as somebody reads it who
// has the store's key: every sealed file is opened, and those that are not are
// searched as they are. It also returns how many files it could open.
func onDisk(t *testing.T, dir string, p []byte) (found bool, opened int) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "STORE"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := frame.NewLogReader(bytes.NewReader(raw), int64(len(raw)), storeKey, "STORE")
	if err != nil {
		t.Fatal(err)
	}
	id, err := log.Next()
	if err != nil {
		t.Fatal(err)
	}
	id = id[2:]
	var ks [][]byte
	for _, info := range []string{"chancery store engine v1", "chancery store journal v1"} {
		k, err := frame.Derive(storeKey, id, info)
		if err != nil {
			t.Fatal(err)
		}
		ks = append(ks, k)
	}
	err = filepath.Walk(dir, func(name string, fi os.FileInfo, err error) error {
		if err != nil || !fi.Mode().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		found = found || bytes.Contains(raw, p)
		for _, k := range ks {
			if r, err := frame.NewTableReader(bytes.NewReader(raw), int64(len(raw)), k, fi.Name()); err == nil {
				plain := make([]byte, r.Size())
				if n, _ := r.ReadAt(plain, 0); n > 0 {
					opened++
					found = found || bytes.Contains(plain[:n], p)
				}
			}
			if r, err := frame.NewLogReader(bytes.NewReader(raw), int64(len(raw)), k, fi.Name()); err == nil {
				opened++
				for {
					plain, err := r.Next()
					if err != nil {
						break
					}
					found = found || bytes.Contains(plain, p)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, opened
}

// TestErasedFromDisk: on the real store, a destroyed bucket's wrapped key was in
// the files before, and is in none of them after, even for who has the store's key.
func TestErasedFromDisk(t *testing.T) {
	dir := t.TempDir()
	st := openPebble(t, dir)
	r := open(t, st)
	fill(t, r)
	box := func(key []byte) []byte {
		raw, err := st.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		return raw[recordHead+4:][:boxSize]
	}
	destroyed, project, kept := box(bucketKey("p", "a")), box(projectKey("p")), box(bucketKey("q", "a"))
	data := seal(t, take(t, r, "q", "a"), "a")
	for _, p := range [][]byte{destroyed, project, kept} {
		if found, opened := onDisk(t, dir, p); !found {
			t.Fatalf("the search does not find what is there (%d files opened)", opened)
		}
	}
	if err := r.DestroyBucket(ctx, "p", "a"); err != nil {
		t.Fatal(err)
	}
	if found, _ := onDisk(t, dir, destroyed); found {
		t.Fatal("the destroyed key is still in the files")
	}
	if err := r.RotateOrganization(ctx); err != nil {
		t.Fatal(err)
	}
	if found, _ := onDisk(t, dir, project); found {
		t.Fatal("the key under the old epoch is still in the files")
	}
	if found, _ := onDisk(t, dir, kept); !found {
		t.Fatal("the search finds nothing any more, or a key that was not touched is gone")
	}
	r.Close()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	st = openPebble(t, dir)
	defer st.Close()
	r = open(t, st)
	_, err := r.Lease(ctx, "p", "a", CustomerRequest)
	kind(t, err, errs.Destroyed)
	data.check(t, take(t, r, "q", "a"), "a")
	if err := r.DestroyOrganization(ctx); err != nil {
		t.Fatal(err)
	}
	if found, opened := onDisk(t, dir, kept); found || opened == 0 {
		t.Fatalf("after the end of the organization a key is in the files (%d opened)", opened)
	}
}

// TestCrashDuringPurge: the process ends after the destruction's commit and
// before its purge; the next Open ends it.
func TestCrashDuringPurge(t *testing.T) {
	dir := t.TempDir()
	st := openPebble(t, dir)
	r := open(t, &noPurge{st})
	fill(t, r)
	raw, err := st.Get(ctx, bucketKey("p", "a"))
	if err != nil {
		t.Fatal(err)
	}
	box := raw[recordHead+4:][:boxSize]
	kind(t, r.DestroyBucket(ctx, "p", "a"), errs.Unavailable)
	r.Close()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if found, _ := onDisk(t, dir, box); !found {
		t.Fatal("the store dropped it when it closed: this test shows nothing any more")
	}
	st = openPebble(t, dir)
	defer st.Close()
	open(t, st)
	if found, _ := onDisk(t, dir, box); found {
		t.Fatal("Open did not end the purge")
	}
}
