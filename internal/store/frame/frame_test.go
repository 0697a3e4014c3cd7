package frame

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"chancery/internal/errs"
)

var key = bytes.Repeat([]byte{3}, KeySize)

// buffer is a file in memory.
type buffer struct{ b []byte }

func (m *buffer) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}
func (m *buffer) Write(p []byte) (int, error) { m.b = append(m.b, p...); return len(p), nil }
func (m *buffer) Truncate(n int64) error      { m.b = m.b[:n]; return nil }
func (m *buffer) Sync() error                 { return nil }

func writeLog(t testing.TB, payloads ...[]byte) []byte {
	t.Helper()
	var m buffer
	w, err := NewLogWriter(&m, key, "role")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range payloads {
		if err := w.Append(p); err != nil {
			t.Fatal(err)
		}
	}
	return m.b
}

// readLog returns the payloads before the error that ends the log.
func readLog(b []byte, role string) (out [][]byte, err error) {
	r, err := NewLogReader(bytes.NewReader(b), int64(len(b)), key, role)
	for err == nil {
		var p []byte
		if p, err = r.Next(); err == nil {
			out = append(out, bytes.Clone(p))
		}
	}
	return out, err
}

func payloads(sizes ...int) [][]byte {
	out := make([][]byte, len(sizes))
	for i, n := range sizes {
		out[i] = bytes.Repeat([]byte{byte(i + 1)}, n)
	}
	return out
}

func equal(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func TestLogRoundTrip(t *testing.T) {
	want := payloads(0, 1, 440, 441, 468, 469, 5000, 100000)
	b := writeLog(t, want...)
	if len(b)%Sector != 0 {
		t.Errorf("%d bytes", len(b))
	}
	got, err := readLog(b, "role")
	if err != io.EOF || !equal(got, want) {
		t.Fatalf("%d payloads, %v", len(got), err)
	}
	if _, err := readLog(b, "other"); !errs.Is(err, errs.Corrupt) {
		t.Errorf("under another role: %v", err)
	}
	if _, err := NewLogWriter(&buffer{}, key, ""); err == nil {
		t.Error("no role")
	}
	if _, err := NewLogWriter(&buffer{}, key[:5], "r"); err == nil {
		t.Error("short key")
	}
}

// TestLogEveryBit flips every bit: never other payloads, never a silent end.
func TestLogEveryBit(t *testing.T) {
	want := payloads(100, 600, 3)
	b := writeLog(t, want...)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			got, err := readLog(b, "role")
			if !errs.Is(err, errs.Corrupt) {
				t.Fatalf("byte %d bit %d: %v after %d payloads", i, bit, err, len(got))
			}
			b[i] ^= 1 << bit
		}
	}
}

// TestLogTail: every way in which a power loss can leave the last frame is a torn
// tail; the same damage before the last frame is not.
func TestLogTail(t *testing.T) {
	want := payloads(100, 700, 2000)
	whole := writeLog(t, want...)
	last := len(writeLog(t, want[:2]...))
	for n := last; n <= len(whole); n++ {
		got, err := readLog(whole[:n], "role")
		switch {
		case n == last || n == len(whole):
			if err != io.EOF {
				t.Fatalf("cut at %d: %v", n, err)
			}
		case !errors.Is(err, ErrTorn) || !equal(got, want[:2]):
			t.Fatalf("cut at %d: %d payloads, %v", n, len(got), err)
		}
	}
	sectors := (len(whole) - last) / Sector
	for mask := 1; mask < 1<<sectors; mask++ {
		b := bytes.Clone(whole)
		for s := range sectors {
			if mask>>s&1 == 1 {
				clear(b[last+s*Sector : last+(s+1)*Sector])
			}
		}
		if got, err := readLog(b, "role"); !errors.Is(err, ErrTorn) || !equal(got, want[:2]) {
			t.Fatalf("sectors %b lost: %d payloads, %v", mask, len(got), err)
		}
		// Zeros after the end are what a preallocated or extended file has.
		if got, err := readLog(append(b, make([]byte, 3*Sector)...), "role"); !errors.Is(err, ErrTorn) || !equal(got, want[:2]) {
			t.Fatalf("sectors %b lost, and zeros after: %d payloads, %v", mask, len(got), err)
		}
	}
	for s := Sector; s < last; s += Sector {
		b := bytes.Clone(whole)
		clear(b[s : s+Sector])
		if _, err := readLog(b, "role"); !errs.Is(err, errs.Corrupt) {
			t.Fatalf("sector at %d lost before the last frame: %v", s, err)
		}
	}
}

func TestLogMovedFrames(t *testing.T) {
	want := payloads(100, 100, 100, 100)
	b := writeLog(t, want...)
	frame := func(i int) []byte { return b[Sector*(i+1) : Sector*(i+2)] }
	swapped := bytes.Clone(b)
	copy(swapped[Sector:], frame(1))
	copy(swapped[2*Sector:], frame(0))
	again := append(bytes.Clone(b), frame(3)...)
	missing := append(bytes.Clone(b[:2*Sector]), b[3*Sector:]...)
	for name, bad := range map[string][]byte{"swapped": swapped, "repeated": again, "missing": missing} {
		if _, err := readLog(bad, "role"); !errs.Is(err, errs.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failing writes a part of what it is given, then fails, as often as told.
type failing struct {
	buffer
	fails int
}

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	if f.fails > 0 {
		f.fails--
		f.buffer.WriteAt(p[:len(p)/2], off)
		return len(p) / 2, errors.New("no")
	}
	return f.buffer.WriteAt(p, off)
}

func TestLogUndo(t *testing.T) {
	var f failing
	w, err := NewLogWriter(&f, key, "role")
	if err != nil {
		t.Fatal(err)
	}
	step := func(p []byte, fails int, undo bool) {
		t.Helper()
		before := w.Size()
		f.fails = fails
		err := w.Append(p)
		if (err != nil) != (fails > 0) {
			t.Fatal(err)
		}
		if fails > 0 && w.Append(p) == nil {
			t.Fatal("append after a failed write")
		}
		if undo {
			if err := w.Undo(before); err != nil {
				t.Fatal(err)
			}
		}
	}
	step([]byte("failed first"), 1, true)
	step([]byte("one"), 0, false)
	step(make([]byte, 3000), 1, true)
	step([]byte("taken back"), 0, true)
	step([]byte("two"), 0, false)
	f.fails = 2
	w.Retry = func(error) bool { return true }
	if err := w.Append([]byte("three")); err != nil {
		t.Fatal(err)
	}
	got, err := readLog(f.b, "role")
	if err != io.EOF || !equal(got, [][]byte{[]byte("one"), []byte("two"), []byte("three")}) {
		t.Fatalf("%q %v", got, err)
	}
}

func writeTable(t testing.TB, plain []byte) []byte {
	t.Helper()
	var m buffer
	w, err := NewTableWriter(&m, key, "role")
	if err != nil {
		t.Fatal(err)
	}
	for p := plain; len(p) > 0; {
		n := min(len(p), 3001)
		if _, err := w.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		p = p[n:]
	}
	for range 2 {
		if err := w.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte{1}); err == nil {
		t.Error("write after the end")
	}
	return m.b
}

func openTable(b []byte, role string) (*TableReader, error) {
	return NewTableReader(bytes.NewReader(b), int64(len(b)), key, role)
}

func TestTableRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, tablePlain - 1, tablePlain, tablePlain + 1, 3 * tablePlain, 200_000} {
		plain := make([]byte, n)
		for i := range plain {
			plain[i] = byte(rng.Uint32())
		}
		b := writeTable(t, plain)
		r, err := openTable(b, "role")
		if err != nil || r.Size() != int64(n) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		got := make([]byte, n)
		if m, err := r.ReadAt(got, 0); m != n || err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes: read %d, %v", n, m, err)
		}
		for range 50 {
			off, l := rng.IntN(n+2), rng.IntN(n+2)
			p := make([]byte, l)
			m, err := r.ReadAt(p, int64(off))
			want := max(min(n-off, l), 0)
			if m != want || (err != nil) != (m < l) || !bytes.Equal(p[:m], plain[min(off, n):min(off, n)+m]) {
				t.Fatalf("%d at %d of %d: %d, %v", l, off, n, m, err)
			}
		}
		if _, err := openTable(b, "other"); !errs.Is(err, errs.Corrupt) {
			t.Errorf("under another role: %v", err)
		}
	}
}

func TestTableDamage(t *testing.T) {
	plain := bytes.Repeat([]byte("0123456789"), 3000)
	b := writeTable(t, plain)
	all := func(b []byte) error {
		r, err := openTable(b, "role")
		if err != nil {
			return err
		}
		got := make([]byte, r.Size())
		if _, err := r.ReadAt(got, 0); err != nil {
			return err
		}
		if !bytes.Equal(got, plain) {
			t.Fatal("other bytes without an error")
		}
		return nil
	}
	for i := 0; i < len(b); i += 7 {
		b[i] ^= 1 << (i % 8)
		if err := all(b); !errs.Is(err, errs.Corrupt) {
			t.Fatalf("byte %d: %v", i, err)
		}
		b[i] ^= 1 << (i % 8)
	}
	for n := range len(b) {
		if n%97 != 0 && (n-headerSize)%tableSealed > 40 {
			continue
		}
		if err := all(b[:n]); !errs.Is(err, errs.Corrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	swapped := bytes.Clone(b)
	copy(swapped[headerSize:], b[headerSize+tableSealed:headerSize+2*tableSealed])
	copy(swapped[headerSize+tableSealed:], b[headerSize:headerSize+tableSealed])
	if err := all(swapped); !errs.Is(err, errs.Corrupt) {
		t.Errorf("swapped frames: %v", err)
	}
	if err := all(append(bytes.Clone(b), b[headerSize:headerSize+tableSealed]...)); !errs.Is(err, errs.Corrupt) {
		t.Errorf("frame added: %v", err)
	}
}

// FuzzLog: whatever the bytes, the reader ends, and gives only what was written.
func FuzzLog(f *testing.F) {
	want := payloads(100, 700, 2000)
	whole := writeLog(f, want...)
	f.Add(whole)
	f.Add(whole[:len(whole)-Sector])
	f.Add([]byte{})
	f.Add(make([]byte, 2*Sector))
	f.Add(append(bytes.Clone(whole[:2*Sector]), whole...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readLog(b, "role")
		if err == nil {
			t.Fatal("no end")
		}
		// Only the salt of the seed can open frames, and then only its own, in order.
		if len(got) > 0 && bytes.Equal(b[:headerSize], whole[:headerSize]) && (len(got) > len(want) || !equal(got, want[:len(got)])) {
			t.Fatal("other payloads")
		}
	})
}

// FuzzTable: the same for tables.
func FuzzTable(f *testing.F) {
	plain := bytes.Repeat([]byte("0123456789"), 2000)
	whole := writeTable(f, plain)
	f.Add(whole, int64(0), uint16(100))
	f.Add(whole[:len(whole)-1], int64(9000), uint16(9000))
	f.Add([]byte{}, int64(-1), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, off int64, n uint16) {
		r, err := openTable(b, "role")
		if err != nil {
			return
		}
		p := make([]byte, n)
		m, err := r.ReadAt(p, off)
		if err == nil && m != len(p) {
			t.Fatal("short without an error")
		}
		if m > 0 && !bytes.Equal(p[:m], plain[off:off+int64(m)]) {
			t.Fatal("other bytes")
		}
	})
}
