package segment

import (
	"bytes"
	"io"
	"testing"

	"chancery/internal/errs"
)

// FuzzReader feeds arbitrary bytes to both readers. They agree, fail only with
// errs.Corrupt, and accept nothing but the streams that were sealed here.
func FuzzReader(f *testing.F) {
	// The checked-in streams: workers of the fuzzer are processes of their own,
	// and must know the same ones.
	file, streams := loadVectors(f)
	key, binding := hexKey(f, file.Key), file.Binding.over(Binding{})
	known := map[string][]byte{}
	for _, v := range file.Good {
		known[string(streams[v.Name])] = pattern(v.Size)
		f.Add(streams[v.Name])
	}
	for _, v := range file.Bad {
		if v.Key == "" && v.Binding == nil {
			f.Add(v.build(f, streams))
		}
	}
	f.Fuzz(func(t *testing.T, box []byte) {
		plain, err := Open(nil, key, binding, box)
		var streamed []byte
		r, err2 := NewReader(bytes.NewReader(box), int64(len(box)), key, binding)
		if err2 == nil {
			g, err := r.Range(0, r.Size())
			if err != nil {
				t.Fatal(err)
			}
			streamed, err2 = io.ReadAll(g)
			g.Close()
		}
		if (err == nil) != (err2 == nil) {
			t.Fatalf("Open says %v, Reader says %v", err, err2)
		}
		if err != nil {
			if !errs.Is(err, errs.Corrupt) || !errs.Is(err2, errs.Corrupt) || errs.CodeOf(err) != errs.CodeOf(err2) {
				t.Fatalf("Open says %v (%s), Reader says %v (%s)", err, errs.CodeOf(err), err2, errs.CodeOf(err2))
			}
			return
		}
		want, ok := known[string(box)]
		if !ok || !bytes.Equal(plain, want) || !bytes.Equal(streamed, want) {
			t.Fatal("bytes that nobody sealed were accepted")
		}
	})
}

// FuzzSizes: the two size functions are inverse, and no size makes them panic.
func FuzzSizes(f *testing.F) {
	for _, n := range []int64{0, 1, Size, Size + 1, MaxPlain, 1<<63 - 1, -1} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		if c, err := CipherSize(n); err == nil {
			if p, err := PlainSize(c); err != nil || p != n {
				t.Fatalf("PlainSize(CipherSize(%d)) = %d, %v", n, p, err)
			}
		}
		if p, err := PlainSize(n); err == nil {
			if c, err := CipherSize(p); err != nil || c != n {
				t.Fatalf("CipherSize(PlainSize(%d)) = %d, %v", n, c, err)
			}
		}
	})
}
