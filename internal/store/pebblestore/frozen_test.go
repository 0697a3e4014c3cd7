package pebblestore_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"chancery/internal/errs"
	"chancery/internal/files/faultfs"
	"chancery/internal/store"
)

// TestFrozenEngine breaks what Pebble does not survive. Commits are refused
// without hanging, reads go on, closing ends, and reopening finds every commit.
func TestFrozenEngine(t *testing.T) {
	for name, hit := range map[string]func(op faultfs.Op, base string) bool{
		"manifest write": func(op faultfs.Op, base string) bool {
			return op == faultfs.OpWrite && strings.Contains(base, "MANIFEST")
		},
		"manifest sync": func(op faultfs.Op, base string) bool {
			return op == faultfs.OpSync && strings.Contains(base, "MANIFEST")
		},
		"directory sync": func(op faultfs.Op, base string) bool {
			return op == faultfs.OpSyncDir && strings.HasSuffix(base, "engine")
		},
		"table create": func(op faultfs.Op, base string) bool {
			return op == faultfs.OpCreate && strings.HasSuffix(base, ".sst")
		},
		"table sync": func(op faultfs.Op, base string) bool {
			return op == faultfs.OpSync && strings.HasSuffix(base, ".sst")
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := faultfs.New(1)
			s := open(t, "/s", d.FS())
			d.Inject(func(_ int, op faultfs.Op, base string) error {
				if hit(op, base) {
					return syscall.EIO
				}
				return nil
			})
			acked := 0
			var err error
			for ; acked < 200 && err == nil; acked++ {
				err = put(t, s, fmt.Sprintf("k%04d", acked), 3000)
			}
			acked--
			if !errs.Is(err, errs.Unavailable) {
				t.Fatalf("after %d commits: %v", acked, err)
			}
			if v, err := s.Get(t.Context(), []byte("k0000")); err != nil || len(v) != 3000 {
				t.Errorf("reading: %v", err)
			}
			snap, err := s.Snapshot(t.Context())
			if err != nil {
				t.Errorf("snapshot: %v", err)
			} else {
				snap.Close()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := s.Purge(ctx, store.Range{}); !errs.Is(err, errs.Unavailable) || ctx.Err() != nil {
				t.Errorf("purge: %v", err)
			}
			start := time.Now()
			if err := s.Close(); !errs.Is(err, errs.Unavailable) {
				t.Errorf("close: %v", err)
			}
			if el := time.Since(start); el > 3*time.Second {
				t.Errorf("closing took %v", el)
			}
			d.PowerLoss()
			d.Restart()
			s = open(t, "/s", d.FS())
			defer s.Close()
			n := 0
			if err := s.Scan(t.Context(), store.Range{}, func(_, _ []byte) (bool, error) { n++; return true, nil }); err != nil || n < acked || n > acked+1 {
				t.Errorf("%d entries for %d commits, %v", n, acked, err)
			}
		})
	}
}
