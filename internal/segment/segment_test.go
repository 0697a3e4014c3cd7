package segment

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"testing/iotest"

	"chancery/internal/errs"
)

var (
	testKey     = Key{1, 2, 3}
	testBinding = Binding{Organization: "org", Bucket: "bucket", Object: "a/b", Content: [16]byte{9}}
)

// sizes are those around which off-by-one errors live.
var sizes = []int{0, 1, Size - 1, Size, Size + 1, 2 * Size, 3*Size + 5, (batch + 1) * Size, 2*batch*Size + 77}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i % 251)
	}
	return p
}

func mustSeal(t testing.TB, plain []byte) []byte {
	t.Helper()
	box, err := Seal(nil, testKey, testBinding, plain)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func wantCode(t testing.TB, err error, kind errs.Kind, code string) {
	t.Helper()
	if err == nil || !errs.Is(err, kind) || errs.CodeOf(err) != code {
		t.Fatalf("got error %v (kind %v, code %q), want kind %v, code %q", err, errs.KindOf(err), errs.CodeOf(err), kind, code)
	}
}

// TestRoundTrip seals and opens by every road, and compares. It is also what
// TestFIPSOnly runs in FIPS 140-only mode.
func TestRoundTrip(t *testing.T) {
	for _, size := range sizes {
		plain := pattern(size)
		boxes := map[string][]byte{"Seal": mustSeal(t, plain)}
		feeds := map[string]func(w *Writer) error{
			"Write": func(w *Writer) error { _, err := w.Write(plain); return err },
			"Write in pieces": func(w *Writer) error {
				for rest := plain; len(rest) > 0; {
					n := min(len(rest), 10_007)
					if _, err := w.Write(rest[:n]); err != nil {
						return err
					}
					rest = rest[n:]
				}
				return nil
			},
			"ReadFrom":           func(w *Writer) error { _, err := io.Copy(w, bytes.NewBuffer(plain)); return err },
			"ReadFrom in halves": func(w *Writer) error { _, err := w.ReadFrom(iotest.HalfReader(bytes.NewReader(plain))); return err },
			"ReadFrom, late EOF": func(w *Writer) error { _, err := w.ReadFrom(iotest.DataErrReader(bytes.NewReader(plain))); return err },
			"ReadFrom then Write": func(w *Writer) error {
				half := size / 2
				if _, err := w.ReadFrom(bytes.NewReader(plain[:half])); err != nil {
					return err
				}
				_, err := w.Write(plain[half:])
				return err
			},
		}
		for name, feed := range feeds {
			var out bytes.Buffer
			w, err := NewWriter(&out, testKey, testBinding)
			if err != nil {
				t.Fatal(err)
			}
			if err := feed(w); err != nil {
				t.Fatalf("%d, %s: %v", size, name, err)
			}
			if w.Size() != int64(size) {
				t.Fatalf("%d, %s: Size %d", size, name, w.Size())
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err == nil {
				t.Fatal("a second Close gave no error")
			}
			boxes[name] = out.Bytes()
		}
		for name, box := range boxes {
			if want, err := CipherSize(int64(size)); err != nil || want != int64(len(box)) {
				t.Fatalf("%d, %s: CipherSize %d %v, stream has %d", size, name, want, err, len(box))
			}
			if got, err := PlainSize(int64(len(box))); err != nil || got != int64(size) {
				t.Fatalf("%d, %s: PlainSize %d %v", size, name, got, err)
			}
			got, err := Open([]byte("before"), testKey, testBinding, box)
			if err != nil || !bytes.Equal(got, append([]byte("before"), plain...)) {
				t.Fatalf("%d, %s: Open: %v", size, name, err)
			}
			r, err := NewReader(bytes.NewReader(box), int64(len(box)), testKey, testBinding)
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(mustRange(t, r, 0, r.Size()), plain); err != nil {
				t.Fatalf("%d, %s: %v", size, name, err)
			}
			var sink bytes.Buffer
			if n, err := io.Copy(&sink, mustRange(t, r, 0, r.Size())); err != nil || n != int64(size) || !bytes.Equal(sink.Bytes(), plain) {
				t.Fatalf("%d, %s: WriteTo: %d %v", size, name, n, err)
			}
		}
	}
}

func mustRange(t testing.TB, r *Reader, off, n int64) *Range {
	t.Helper()
	g, err := r.Range(off, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// TestFIPSOnly runs the round trip where only approved modes may run.
func TestFIPSOnly(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^(TestRoundTrip|TestVectors)$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestRanges(t *testing.T) {
	const size = 9*Size + 1234
	plain := pattern(size)
	box := mustSeal(t, plain)
	r, err := NewReader(bytes.NewReader(box), int64(len(box)), testKey, testBinding)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	edges := []int64{0, 1, Size - 1, Size, Size + 1, 4 * Size, 9 * Size, size - 1, size}
	check := func(off, n int64) {
		t.Helper()
		got, err := io.ReadAll(mustRange(t, r, off, n))
		if err != nil || !bytes.Equal(got, plain[off:off+n]) {
			t.Fatalf("range %d+%d: %v", off, n, err)
		}
		p := make([]byte, n)
		if m, err := r.ReadAt(p, off); int64(m) != n || err != nil && err != io.EOF || !bytes.Equal(p, plain[off:off+n]) {
			t.Fatalf("ReadAt %d+%d: %d %v", off, n, m, err)
		}
	}
	for _, a := range edges {
		for _, b := range edges {
			if a <= b {
				check(a, b-a)
			}
		}
	}
	for range 50 {
		off := rng.Int64N(size)
		check(off, rng.Int64N(size-off))
	}
	for _, bad := range [][2]int64{{-1, 1}, {0, -1}, {0, size + 1}, {size, 1}, {size + 1, 0}, {1, 1<<63 - 1}} {
		if _, err := r.Range(bad[0], bad[1]); !errs.Is(err, errs.Invalid) {
			t.Fatalf("range %v: %v", bad, err)
		}
	}
	p := make([]byte, 10)
	if n, err := r.ReadAt(p, size-4); n != 4 || err != io.EOF {
		t.Fatalf("ReadAt over the end: %d %v", n, err)
	}
	if n, err := r.ReadAt(p, size+4); n != 0 || err != io.EOF {
		t.Fatalf("ReadAt past the end: %d %v", n, err)
	}
}

// TestZeroRefuses: a key or binding that somebody forgot to set seals and opens nothing.
func TestZeroRefuses(t *testing.T) {
	box := mustSeal(t, []byte("x"))
	bindings := map[string]Binding{"zero": {}}
	for name, change := range map[string]func(*Binding){
		"organization": func(b *Binding) { b.Organization = "" },
		"bucket":       func(b *Binding) { b.Bucket = "" },
		"object":       func(b *Binding) { b.Object = "" },
		"content":      func(b *Binding) { b.Content = [16]byte{} },
		"long object":  func(b *Binding) { b.Object = string(make([]byte, MaxObject+1)) },
		"long bucket":  func(b *Binding) { b.Bucket = string(make([]byte, MaxName+1)) },
	} {
		b := testBinding
		change(&b)
		bindings[name] = b
	}
	try := func(name string, k Key, b Binding) {
		_, err1 := Seal(nil, k, b, nil)
		_, err2 := Open(nil, k, b, box)
		_, err3 := NewWriter(io.Discard, k, b)
		_, err4 := NewReader(bytes.NewReader(box), int64(len(box)), k, b)
		for i, err := range []error{err1, err2, err3, err4} {
			if !errs.Is(err, errs.Invalid) {
				t.Fatalf("%s: call %d gave %v", name, i+1, err)
			}
		}
	}
	try("key", Key{}, testBinding)
	for name, b := range bindings {
		try(name, testKey, b)
	}
	var w Writer
	if _, err := w.Write([]byte("x")); err == nil {
		t.Fatal("the zero Writer writes")
	}
	if err := w.Close(); err == nil {
		t.Fatal("the zero Writer closes")
	}
	var r Reader
	if _, err := r.Range(0, 0); err == nil {
		t.Fatal("the zero Reader reads")
	}
	if _, err := r.ReadAt(nil, 0); err == nil {
		t.Fatal("the zero Reader reads")
	}
	var g Range
	if _, err := g.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Fatalf("the zero Range reads: %v", err)
	}
}

// TestBindingIsUnambiguous: moving a byte between fields changes what is bound.
func TestBindingIsUnambiguous(t *testing.T) {
	a := Binding{Organization: "ab", Bucket: "c", Object: "d", Content: [16]byte{1}}
	b := Binding{Organization: "a", Bucket: "bc", Object: "d", Content: [16]byte{1}}
	var h header
	if bytes.Equal(appendAAD(nil, &h, &a), appendAAD(nil, &h, &b)) {
		t.Fatal("two bindings share an encoding")
	}
	box, _ := Seal(nil, testKey, a, []byte("x"))
	_, err := Open(nil, testKey, b, box)
	wantCode(t, err, errs.Corrupt, Unauthentic)
}

// TestEveryFlippedBit: no single bit of a stream can change unnoticed.
func TestEveryFlippedBit(t *testing.T) {
	box := mustSeal(t, []byte("sixteen bytes ok"))
	for i := range len(box) * 8 {
		box[i/8] ^= 1 << (i % 8)
		got, err := Open(nil, testKey, testBinding, box)
		if !errs.Is(err, errs.Corrupt) || errs.CodeOf(err) == "" || got != nil {
			t.Fatalf("bit %d: %q %v", i, got, err)
		}
		box[i/8] ^= 1 << (i % 8)
	}
	for n := range box {
		if _, err := Open(nil, testKey, testBinding, box[:n]); !errs.Is(err, errs.Corrupt) {
			t.Fatalf("cut to %d: %v", n, err)
		}
	}
}

// TestMixedStreams: segments of two streams under one key and binding do not mix.
func TestMixedStreams(t *testing.T) {
	a, b := mustSeal(t, pattern(2*Size)), mustSeal(t, pattern(2*Size))
	mixed := append(append([]byte(nil), a[:HeaderSize+sealed]...), b[HeaderSize+sealed:]...)
	_, err := Open(nil, testKey, testBinding, mixed)
	wantCode(t, err, errs.Corrupt, Unauthentic)
}

// TestNothingBeforeVerification: what comes before a bad segment is right, and
// nothing of the bad one comes out.
func TestNothingBeforeVerification(t *testing.T) {
	plain := pattern(6 * Size)
	box := mustSeal(t, plain)
	box[HeaderSize+4*sealed+100] ^= 1
	r, err := NewReader(bytes.NewReader(box), int64(len(box)), testKey, testBinding)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(mustRange(t, r, 0, r.Size()))
	wantCode(t, err, errs.Corrupt, Unauthentic)
	if !bytes.Equal(got, plain[:4*Size]) {
		t.Fatalf("%d bytes came out", len(got))
	}
	// Ranges that do not touch it are readable.
	if _, err := io.ReadAll(mustRange(t, r, 5*Size, Size)); err != nil {
		t.Fatal(err)
	}
}

func TestSizes(t *testing.T) {
	for _, bad := range []int64{-1, 0, HeaderSize, HeaderSize + Overhead - 1, HeaderSize + sealed + 1, HeaderSize + sealed + Overhead} {
		_, err := PlainSize(bad)
		wantCode(t, err, errs.Corrupt, Truncated)
	}
	_, err := PlainSize(1<<63 - 1)
	wantCode(t, err, errs.Corrupt, Extended)
	c, err := CipherSize(MaxPlain)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := PlainSize(c); err != nil || p != MaxPlain {
		t.Fatalf("%d %v", p, err)
	}
	if _, err := PlainSize(c + 1); !errs.Is(err, errs.Corrupt) {
		t.Fatal(err)
	}
	if _, err := CipherSize(MaxPlain + 1); !errs.Is(err, errs.Exhausted) {
		t.Fatal(err)
	}
	if _, err := CipherSize(-1); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
}

// TestSegmentBound: the writer stops at 2^32 segments; the last one still fits.
func TestSegmentBound(t *testing.T) {
	w, _ := NewWriter(io.Discard, testKey, testBinding)
	w.next = MaxSegments - 2
	if _, err := w.Write(pattern(2 * Size)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte{1}); !errs.Is(err, errs.Exhausted) {
		t.Fatal(err)
	}
	if err := w.Close(); !errs.Is(err, errs.Exhausted) {
		t.Fatal(err)
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, errors.New("broken")
	}
	return len(p), nil
}

func TestWriterErrors(t *testing.T) {
	w, _ := NewWriter(&failing{after: 1}, testKey, testBinding)
	_, err := w.ReadFrom(bytes.NewReader(pattern(20 * Size)))
	if !errs.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
	if _, again := w.Write([]byte("x")); again == nil {
		t.Fatal("the error does not stick")
	}
	if err := w.Close(); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("Close after an error gave %v", err)
	}
	w.Discard()

	w, _ = NewWriter(io.Discard, testKey, testBinding)
	broken := errors.New("client went away")
	if _, err := w.ReadFrom(io.MultiReader(bytes.NewReader(pattern(Size)), iotest.ErrReader(broken))); err != broken {
		t.Fatalf("an error of the reader came out as %v", err)
	}
	w.Discard()
	if err := w.Close(); err == nil {
		t.Fatal("Close after Discard gave no error")
	}
}

type brokenAt struct{ err error }

func (b brokenAt) ReadAt(p []byte, off int64) (int, error) { return 0, b.err }

func TestReaderErrors(t *testing.T) {
	_, err := NewReader(brokenAt{errors.New("io")}, HeaderSize+Overhead, testKey, testBinding)
	if !errs.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
	_, err = NewReader(brokenAt{errs.New(errs.NotFound, "x", "gone")}, HeaderSize+Overhead, testKey, testBinding)
	if !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	// Shorter than its size says.
	box := mustSeal(t, pattern(3*Size))
	r, err := NewReader(bytes.NewReader(box[:HeaderSize+sealed+9]), int64(len(box)), testKey, testBinding)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(mustRange(t, r, 0, r.Size()))
	wantCode(t, err, errs.Corrupt, Truncated)
	g := mustRange(t, r, 0, 1)
	g.Close()
	if _, err := g.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Fatalf("a closed range reads: %v", err)
	}
}

// TestNoAllocationPerSegment: memory does not grow with the stream.
func TestNoAllocationPerSegment(t *testing.T) {
	src := bytes.NewReader(pattern(64 * Size))
	few := testing.AllocsPerRun(5, func() {
		src.Seek(0, io.SeekStart)
		w, _ := NewWriter(io.Discard, testKey, testBinding)
		if _, err := w.ReadFrom(src); err != nil {
			t.Fatal(err)
		}
		w.Close()
	})
	box := mustSeal(t, pattern(64*Size))
	read := testing.AllocsPerRun(5, func() {
		r, _ := NewReader(bytes.NewReader(box), int64(len(box)), testKey, testBinding)
		g, _ := r.Range(0, r.Size())
		if _, err := g.WriteTo(io.Discard); err != nil {
			t.Fatal(err)
		}
		g.Close()
	})
	if few > 20 || read > 20 {
		t.Fatalf("%v allocations to write 64 segments, %v to read them", few, read)
	}
}

// TestBuffersAreCleared: memory goes back to the pool without plaintext.
func TestBuffersAreCleared(t *testing.T) {
	plain := bytes.Repeat([]byte{0xee}, 3*Size+100)
	var out bytes.Buffer
	w, _ := NewWriter(&out, testKey, testBinding)
	buf := w.buf
	if _, err := w.ReadFrom(bytes.NewReader(plain)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if bytes.Contains(buf.plain[:], []byte{0xee}) {
		t.Fatal("the writer left plaintext")
	}
	r, _ := NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()), testKey, testBinding)
	g, _ := r.Range(0, r.Size())
	buf = g.buf
	if _, err := io.Copy(io.Discard, g); err != nil {
		t.Fatal(err)
	}
	g.Close()
	if bytes.Contains(buf.plain[:], []byte{0xee}) {
		t.Fatal("the range left plaintext")
	}
}

// TestWritesAreWholePages: all writes but the last are a multiple of a page.
func TestWritesAreWholePages(t *testing.T) {
	var sizes []int
	w, err := NewWriter(writerFunc(func(p []byte) (int, error) {
		sizes = append(sizes, len(p))
		return len(p), nil
	}), testKey, testBinding)
	if err != nil {
		t.Fatal(err)
	}
	const plain = 3<<20 + 17
	if _, err := w.ReadFrom(bytes.NewReader(make([]byte, plain))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	total := 0
	for i, n := range sizes {
		total += n
		if n == 0 || i < len(sizes)-1 && (n%block != 0 || n < 3*Size) {
			t.Errorf("write %d of %d has %d bytes", i, len(sizes), n)
		}
	}
	if want, _ := CipherSize(plain); int64(total) != want {
		t.Errorf("%d bytes, want %d", total, want)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
