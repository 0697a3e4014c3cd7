package pebblestore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

// BenchmarkCommit measures durable commits of one 512-byte entry.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s, err := pebblestore.Open(b.Context(), pebblestore.Options{Dir: b.TempDir(), Key: testKey})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			value := make([]byte, 512)
			var next atomic.Int64
			b.SetParallelism(writers)
			b.ReportAllocs()
			run := func() bool {
				var batch store.Batch
				batch.Put(fmt.Appendf(nil, "key/%09d", next.Add(1)), value)
				_, err := s.Commit(b.Context(), &batch)
				if err != nil {
					b.Error(err)
				}
				return err == nil
			}
			if writers == 1 {
				for b.Loop() && run() {
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() && run() {
					}
				})
			}
			st := s.Stats()
			b.ReportMetric(float64(st.Commits)/float64(st.Syncs), "commits/sync")
			b.ReportMetric(float64(st.BytesWritten)/float64(st.Commits), "disk-B/op")
		})
	}
}
