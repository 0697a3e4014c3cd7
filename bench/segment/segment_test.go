// Package segment_test measures the segment format beside minio/sio, which does
// the same job (DARE 2.0: AES-256-GCM in packages of 64 KiB) and is what MinIO used.
package segment_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/minio/sio"

	"chancery/internal/segment"
)

var (
	key     = segment.Key{1, 2, 3}
	binding = segment.Binding{Organization: "health", Bucket: "b7f3c2", Object: "2026/report.pdf", Content: [16]byte{1}}
	sizes   = []int{4 << 10, 1 << 20, 16 << 20}
)

// onlyWriter and onlyReader hide the fast paths, so that both sides are fed alike.
type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }

func each(b *testing.B, f func(b *testing.B, plain []byte)) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			f(b, make([]byte, n))
		})
	}
}

func check(b *testing.B, err error) {
	if err != nil {
		b.Fatal(err)
	}
}

func BenchmarkSealSegment(b *testing.B) {
	each(b, func(b *testing.B, plain []byte) {
		for b.Loop() {
			w, err := segment.NewWriter(io.Discard, key, binding)
			check(b, err)
			_, err = io.Copy(w, onlyReader{bytes.NewReader(plain)})
			check(b, err)
			check(b, w.Close())
		}
	})
}

func BenchmarkSealSio(b *testing.B) {
	each(b, func(b *testing.B, plain []byte) {
		buf := make([]byte, 64<<10)
		for b.Loop() {
			w, err := sio.EncryptWriter(onlyWriter{io.Discard}, sio.Config{Key: key[:], CipherSuites: []byte{sio.AES_256_GCM}})
			check(b, err)
			_, err = io.CopyBuffer(onlyWriter{w}, onlyReader{bytes.NewReader(plain)}, buf)
			check(b, err)
			check(b, w.Close())
		}
	})
}

func BenchmarkOpenSegment(b *testing.B) {
	each(b, func(b *testing.B, plain []byte) {
		box, err := segment.Seal(nil, key, binding, plain)
		check(b, err)
		for b.Loop() {
			r, err := segment.NewReader(bytes.NewReader(box), int64(len(box)), key, binding)
			check(b, err)
			g, err := r.Range(0, r.Size())
			check(b, err)
			_, err = io.Copy(onlyWriter{io.Discard}, g)
			check(b, err)
			g.Close()
		}
	})
}

func BenchmarkOpenSio(b *testing.B) {
	each(b, func(b *testing.B, plain []byte) {
		var box bytes.Buffer
		_, err := sio.Encrypt(&box, bytes.NewReader(plain), sio.Config{Key: key[:], CipherSuites: []byte{sio.AES_256_GCM}})
		check(b, err)
		buf := make([]byte, 64<<10)
		for b.Loop() {
			r, err := sio.DecryptReader(bytes.NewReader(box.Bytes()), sio.Config{Key: key[:]})
			check(b, err)
			_, err = io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{r}, buf)
			check(b, err)
		}
	})
}

// BenchmarkRange4KiB opens 4 KiB in the middle of 16 MiB: the cost of a small ranged read.
func BenchmarkRange4KiB(b *testing.B) {
	box, err := segment.Seal(nil, key, binding, make([]byte, 16<<20))
	check(b, err)
	src := bytes.NewReader(box)
	b.ReportAllocs()
	for b.Loop() {
		r, err := segment.NewReader(src, int64(len(box)), key, binding)
		check(b, err)
		g, err := r.Range(8<<20+100, 4<<10)
		check(b, err)
		_, err = io.Copy(io.Discard, g)
		check(b, err)
		g.Close()
	}
}
