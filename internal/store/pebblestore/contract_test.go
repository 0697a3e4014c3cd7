package pebblestore_test

import (
	"bytes"
	"testing"
	"time"

	"chancery/internal/files"
	"chancery/internal/files/faultfs"
	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
	"chancery/internal/store/storetest"
)

var testKey = bytes.Repeat([]byte{7}, 32)

func open(t testing.TB, dir string, fsys files.FS) *pebblestore.Store {
	t.Helper()
	// A small journal, so that rotation and flushing are in every test.
	s, err := pebblestore.Open(t.Context(), pebblestore.Options{Dir: dir, FS: fsys, Key: testKey, JournalBytes: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func contract(t *testing.T, fsys func() files.FS, dir func(t *testing.T) string) {
	type place struct {
		dir  string
		fsys files.FS
	}
	places := map[store.Store]place{}
	storetest.Run(t, func(t *testing.T) store.Store {
		p := place{dir(t), fsys()}
		s := open(t, p.dir, p.fsys)
		places[s] = p
		return s
	}, func(t *testing.T, s store.Store) store.Store {
		t.Helper()
		p := places[s]
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again := open(t, p.dir, p.fsys)
		places[again] = p
		return again
	})
}

func TestContract(t *testing.T) {
	contract(t, files.OS, func(t *testing.T) string { return t.TempDir() })
}

// TestContractInMemory runs the suite on the disk that the fault tests use.
func TestContractInMemory(t *testing.T) {
	contract(t, func() files.FS {
		d := faultfs.New(1)
		d.Inject(func(_ int, op faultfs.Op, _ string) error {
			if op == faultfs.OpSync {
				time.Sleep(200 * time.Microsecond) // a sync takes time, or nothing would be grouped
			}
			return nil
		})
		return d.FS()
	}, func(*testing.T) string { return "/data" })
}
