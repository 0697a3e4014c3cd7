// Package blobs_test measures the encrypting blob store on a directory: the CPU
// that a blob costs, system calls and syncs included, beside the wall time that the
// disk of this machine makes of it.
package blobs_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"chancery/cell/blobs"
	"chancery/cell/blobs/blobdir"
	"chancery/internal/files"
	"chancery/internal/segment"
)

var (
	ctx     = context.Background()
	key     = segment.Key{1, 2, 3}
	binding = segment.Binding{Organization: "health", Bucket: "b7f3c2", Object: "2026/report.pdf", Content: [16]byte{1}}
)

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func each(b *testing.B, f func(b *testing.B, s *blobs.Store, plain []byte)) {
	for _, n := range []int{64 << 10, 1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			e, err := blobdir.Open(b.TempDir(), files.OS())
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(n))
			f(b, blobs.New(e), make([]byte, n))
		})
	}
}

func perOp(b *testing.B, since time.Duration) {
	b.ReportMetric(float64((cpu()-since).Microseconds())/float64(b.N), "cpu-µs/op")
}

func BenchmarkWrite(b *testing.B) {
	each(b, func(b *testing.B, s *blobs.Store, plain []byte) {
		start := cpu()
		for b.Loop() {
			id, _, err := s.Write(ctx, key, binding, bytes.NewReader(plain))
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Remove(ctx, id); err != nil {
				b.Fatal(err)
			}
		}
		perOp(b, start)
	})
}

type onlyWriter struct{ io.Writer }

func BenchmarkRead(b *testing.B) {
	each(b, func(b *testing.B, s *blobs.Store, plain []byte) {
		id, size, err := s.Write(ctx, key, binding, bytes.NewReader(plain))
		if err != nil {
			b.Fatal(err)
		}
		start := cpu()
		for b.Loop() {
			r, err := s.Read(ctx, id, size, key, binding, 0, size)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(onlyWriter{io.Discard}, r); err != nil {
				b.Fatal(err)
			}
			r.Close()
		}
		perOp(b, start)
	})
}
