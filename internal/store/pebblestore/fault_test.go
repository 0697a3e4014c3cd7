package pebblestore_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chancery/internal/errs"
	"chancery/internal/files/faultfs"
	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

func put(t testing.TB, s store.Store, key string, size int) error {
	t.Helper()
	var b store.Batch
	b.Put([]byte(key), bytes.Repeat([]byte(key[:1]), size))
	_, err := s.Commit(t.Context(), &b)
	return err
}

// TestFullDisk fills the disk until nothing goes, reads meanwhile, and goes on
// when there is room, without reopening.
func TestFullDisk(t *testing.T) {
	for _, room := range []int64{0, 700, 5 << 10, 40 << 10, 150 << 10} {
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			d := faultfs.New(uint64(room))
			s := open(t, "/s", d.FS())
			if err := put(t, s, "first", 100); err != nil {
				t.Fatal(err)
			}
			d.Room(room)
			acked := []string{}
			refused := 0
			for i := 0; refused < 20; i++ {
				key := fmt.Sprintf("k%05d", i)
				start := time.Now()
				err := put(t, s, key, 3000)
				switch {
				case err == nil:
					acked = append(acked, key)
				case errs.Is(err, errs.Exhausted):
					refused++
					if _, gerr := s.Get(t.Context(), []byte(key)); !errs.Is(gerr, errs.NotFound) {
						t.Fatalf("a refused commit is there: %v", gerr)
					}
				default:
					t.Fatalf("after %d commits: %v", len(acked), err)
				}
				if el := time.Since(start); el > 5*time.Second {
					t.Fatalf("a commit hung for %v", el)
				}
			}
			if v, err := s.Get(t.Context(), []byte("first")); err != nil || len(v) != 100 {
				t.Fatalf("reading on a full disk: %v", err)
			}
			d.Room(-1)
			// The engine notices by itself; what it waited for may take a moment.
			deadline := time.Now().Add(10 * time.Second)
			for put(t, s, "after", 10) != nil {
				if time.Now().After(deadline) {
					t.Fatalf("still refused: %v", put(t, s, "after", 10))
				}
				time.Sleep(5 * time.Millisecond)
			}
			for i := range 30 { // rotation and flushing work again
				if err := put(t, s, fmt.Sprintf("z%d", i), 5000); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			d.PowerLoss()
			d.Restart()
			s = open(t, "/s", d.FS())
			defer s.Close()
			n := 0
			if err := s.Scan(t.Context(), store.Prefix([]byte("k")), func(k, v []byte) (bool, error) {
				if n < len(acked) && (string(k) != acked[n] || len(v) != 3000) {
					return false, fmt.Errorf("%q instead of %q", k, acked[n])
				}
				n++
				return true, nil
			}); err != nil || n != len(acked) {
				t.Errorf("%d of %d commits, %v", n, len(acked), err)
			}
		})
	}
}

// TestOpenOnFullDisk must fail cleanly and lose nothing.
func TestOpenOnFullDisk(t *testing.T) {
	d := faultfs.New(1)
	s := open(t, "/s", d.FS())
	for i := range 10 {
		if err := put(t, s, fmt.Sprintf("k%d", i), 500); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	for room := int64(0); room < 30<<10; room += 1500 {
		d.Room(room)
		s, err := pebblestore.Open(t.Context(), pebblestore.Options{Dir: "/s", FS: d.FS(), Key: testKey})
		if err == nil {
			s.Close()
		} else if !errs.Is(err, errs.Exhausted) && !errs.Is(err, errs.Unavailable) {
			t.Fatalf("room %d: %v", room, err)
		}
	}
	d.Room(-1)
	s = open(t, "/s", d.FS())
	defer s.Close()
	if v, err := s.Get(t.Context(), []byte("k9")); err != nil || len(v) != 500 {
		t.Errorf("%d bytes, %v", len(v), err)
	}
}

// TestUnknownDurability: after a failed sync of the journal every commit is
// refused, also when the disk works again, until the store is reopened.
func TestUnknownDurability(t *testing.T) {
	d := faultfs.New(1)
	s := open(t, "/s", d.FS())
	if err := put(t, s, "a", 10); err != nil {
		t.Fatal(err)
	}
	d.Inject(func(_ int, op faultfs.Op, name string) error {
		if op == faultfs.OpSync && strings.Contains(name, "journal") {
			return syscall.EIO
		}
		return nil
	})
	if err := put(t, s, "b", 10); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("failed sync: %v", err)
	}
	d.Inject(nil)
	if err := put(t, s, "c", 10); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("after a failed sync: %v", err)
	}
	if _, err := s.Get(t.Context(), []byte("a")); err != nil {
		t.Errorf("reading: %v", err)
	}
	if _, err := s.Get(t.Context(), []byte("b")); !errs.Is(err, errs.NotFound) {
		t.Errorf("what is not known to be durable is shown: %v", err)
	}
	s.Close()
	s = open(t, "/s", d.FS())
	defer s.Close()
	if err := put(t, s, "c", 10); err != nil {
		t.Errorf("after reopening: %v", err)
	}
}

// TestFailedWriteIsUndone: a write that fails, but is taken back, refuses one
// commit only.
func TestFailedWriteIsUndone(t *testing.T) {
	d := faultfs.New(1)
	s := open(t, "/s", d.FS())
	defer s.Close()
	fail := true
	d.Inject(func(_ int, op faultfs.Op, name string) error {
		if fail && op == faultfs.OpWrite && strings.Contains(name, "journal") {
			return syscall.EIO
		}
		return nil
	})
	if err := put(t, s, "a", 3000); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("failed write: %v", err)
	}
	fail = false
	if err := put(t, s, "b", 10); err != nil {
		t.Fatalf("after a failed write: %v", err)
	}
}

func TestSecondOpener(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	if _, err := pebblestore.Open(t.Context(), pebblestore.Options{Dir: dir, Key: testKey}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("second opener: %v", err)
	}
	if err := put(t, s, "a", 10); err != nil {
		t.Error(err)
	}
	s.Close()
	open(t, dir, nil).Close()
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, opt := range map[string]pebblestore.Options{
		"no directory": {Key: testKey},
		"no key":       {Dir: dir},
		"short key":    {Dir: dir, Key: testKey[:31]},
	} {
		if _, err := pebblestore.Open(t.Context(), opt); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := pebblestore.Open(t.Context(), pebblestore.Options{Dir: dir, Key: testKey, MustExist: true}); !errs.Is(err, errs.NotFound) {
		t.Errorf("a store that must exist: %v", err)
	}
	s := open(t, dir, nil)
	put(t, s, "a", 1)
	s.Close()
	if _, err := pebblestore.Open(t.Context(), pebblestore.Options{Dir: dir, Key: bytes.Repeat([]byte{8}, 32)}); !errs.Is(err, errs.Corrupt) {
		t.Errorf("wrong key: %v", err)
	}
}

// TestReadError gives the reader an error, and damages nothing.
func TestReadError(t *testing.T) {
	d := faultfs.New(1)
	s := open(t, "/s", d.FS())
	for i := range 60 {
		if err := put(t, s, fmt.Sprintf("k%d", i), 2000); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s, err := pebblestore.Open(t.Context(), pebblestore.Options{Dir: "/s", FS: d.FS(), Key: testKey, CacheBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d.Inject(func(_ int, op faultfs.Op, name string) error {
		if (op == faultfs.OpRead || op == faultfs.OpOpen) && strings.HasSuffix(name, ".sst") {
			return syscall.EIO
		}
		return nil
	})
	_, err = s.Get(t.Context(), []byte("k1"))
	if err == nil || errs.Is(err, errs.NotFound) {
		t.Errorf("read error gives %v", err)
	}
	d.Inject(nil)
	if v, err := s.Get(t.Context(), []byte("k1")); err != nil || len(v) != 2000 {
		t.Errorf("after the error: %d bytes, %v", len(v), err)
	}
}

func TestCommitAndCloseTogether(t *testing.T) {
	for range 20 {
		d := faultfs.New(1)
		s := open(t, "/s", d.FS())
		var wg sync.WaitGroup
		var mu sync.Mutex
		acked := map[string]bool{}
		for w := range 8 {
			wg.Go(func() {
				for i := range 20 {
					key := fmt.Sprintf("%d-%d", w, i)
					err := put(t, s, key, 10)
					if err != nil && !errs.Is(err, errs.Unavailable) {
						t.Error(err)
					}
					if err != nil {
						return
					}
					mu.Lock()
					acked[key] = true
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Millisecond)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		s = open(t, "/s", d.FS())
		n := 0
		s.Scan(t.Context(), store.Range{}, func(k, _ []byte) (bool, error) {
			if !acked[string(k)] {
				t.Errorf("%q was refused, and is there", k)
			}
			n++
			return true, nil
		})
		if n != len(acked) {
			t.Fatalf("%d of %d acknowledged commits", n, len(acked))
		}
		s.Close()
	}
}
