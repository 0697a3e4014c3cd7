package objects

import (
	"fmt"
	"io"
	"sync/atomic"
	"testing"
)

// BenchmarkPut4K runs 64 clients, so that commits share syncs. Look at
// allocations and, with -cpuprofile, at CPU per operation.
func BenchmarkPut4K(b *testing.B) {
	w := newWorld(b)
	d := data(4096, 1)
	h := Headers{ContentType: "application/octet-stream", User: map[string]string{"mtime": "1700000000"}}
	var n atomic.Int64
	b.ReportAllocs()
	b.SetBytes(4096)
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, err := w.Put(ctx, Put{Bucket: w.bucket, Key: fmt.Sprintf("dir/%08d", n.Add(1)), Body: bytesBody(d), Size: 4096, Headers: h})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkGet4K(b *testing.B) {
	w := newWorld(b)
	for i := range 100 {
		w.put(fmt.Sprintf("dir/%08d", i), data(4096, 1))
	}
	b.ReportAllocs()
	b.SetBytes(4096)
	b.ResetTimer()
	for i := range b.N {
		_, rc, err := w.Get(ctx, Get{Bucket: w.bucket, Key: fmt.Sprintf("dir/%08d", i%100)})
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, rc); err != nil || n != 4096 {
			b.Fatal(n, err)
		}
		rc.Close()
	}
}

func benchmarkLarge(b *testing.B, size int, get bool) {
	w := newWorld(b)
	d := data(size, 1)
	w.put("k", d)
	b.ReportAllocs()
	b.SetBytes(int64(size))
	b.ResetTimer()
	for range b.N {
		if !get {
			w.put("k", d)
			continue
		}
		_, rc, err := w.Get(ctx, Get{Bucket: w.bucket, Key: "k"})
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, rc); err != nil || n != int64(size) {
			b.Fatal(n, err)
		}
		rc.Close()
	}
}

func BenchmarkPut1M(b *testing.B)  { benchmarkLarge(b, 1<<20, false) }
func BenchmarkPut16M(b *testing.B) { benchmarkLarge(b, 16<<20, false) }
func BenchmarkGet1M(b *testing.B)  { benchmarkLarge(b, 1<<20, true) }
func BenchmarkGet16M(b *testing.B) { benchmarkLarge(b, 16<<20, true) }

func BenchmarkList1000(b *testing.B) {
	w := newWorld(b)
	bk, l, err := w.open(ctx, "b", w.bucket)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := w.manyObjects(bk, l, 2000); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		out, err := w.List(ctx, List{Bucket: w.bucket, Prefix: "dir/", Delimiter: "/", Max: 1000})
		if err != nil || len(out.Objects) != 1000 {
			b.Fatal(len(out.Objects), err)
		}
	}
}
