package pebblestore_test

import (
	"bytes"
	"testing"

	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

func TestOpenCommitReopen(t *testing.T) {
	dir, key := t.TempDir(), bytes.Repeat([]byte{7}, 32)
	ctx := t.Context()
	for i := range 3 {
		s, err := pebblestore.Open(ctx, pebblestore.Options{Dir: dir, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			v, err := s.Get(ctx, []byte("k"))
			if err != nil || v[0] != byte(i-1) {
				t.Fatalf("%v %v", v, err)
			}
		}
		var b store.Batch
		b.Put([]byte("k"), []byte{byte(i)})
		b.Change("t", []byte{byte(i)})
		seq, err := s.Commit(ctx, &b)
		if err != nil || seq != store.Seq(i+1) {
			t.Fatalf("%d %v", seq, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
