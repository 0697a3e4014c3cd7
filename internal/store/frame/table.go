package frame

import (
	"crypto/cipher"
	"encoding/binary"
	"io"
	"sync"

	"chancery/internal/errs"
)

const (
	// tablePlain is the plaintext of every table frame but the last, in bytes.
	tablePlain  = 8 << 10
	tableSealed = tablePlain + Overhead
	// tableBatch is how many frames are read or written at once, at most.
	tableBatch = 8
)

// tableAAD binds a frame to its number and says whether it is the last.
func tableAAD(number uint64, last bool) []byte {
	a := append(make([]byte, 0, 10), 'T', 0)
	if last {
		a[1] = 1
	}
	return binary.BigEndian.AppendUint64(a, number)
}

// TableWriter writes a table file from start to end. Not safe for concurrent use.
type TableWriter struct {
	w      io.Writer
	aead   cipher.AEAD
	plain  []byte // at most tablePlain bytes not yet sealed
	out    []byte // sealed, not yet written
	number uint64
	done   bool
	err    error
}

// NewTableWriter begins a table in an empty file.
func NewTableWriter(w io.Writer, key []byte, role string) (*TableWriter, error) {
	h, aead, err := newHeader(key, kindTable, role)
	if err != nil {
		return nil, err
	}
	return &TableWriter{w: w, aead: aead, out: h}, nil
}

// Write appends plaintext. An error stays.
func (t *TableWriter) Write(p []byte) (int, error) {
	const op = "frame.TableWriter"
	if t.err == nil && t.done && len(p) > 0 {
		t.err = errs.New(errs.Internal, op, "write after the end")
	}
	if t.err != nil {
		return 0, t.err
	}
	total := len(p)
	for len(p) > 0 {
		// A full buffer is sealed only when more follows: the last frame is marked.
		if len(t.plain) == tablePlain {
			if t.seal(false); t.err != nil {
				return total - len(p), t.err
			}
		}
		n := min(len(p), tablePlain-len(t.plain))
		t.plain = append(t.plain, p[:n]...)
		p = p[n:]
	}
	return total, nil
}

// Finish seals and writes the last frame. It may be called again.
func (t *TableWriter) Finish() error {
	if t.err == nil && !t.done {
		t.seal(true)
		t.done = t.err == nil
	}
	return t.err
}

func (t *TableWriter) seal(last bool) {
	t.out = t.aead.Seal(t.out, nil, t.plain, tableAAD(t.number, last))
	t.number++
	t.plain = t.plain[:0]
	if last || len(t.out) >= tableBatch*tableSealed {
		_, err := t.w.Write(t.out)
		t.err = errs.Wrap("frame.TableWriter", err)
		t.out = t.out[:0]
	}
}

// TableSize returns the plaintext length of a table file of size bytes on disk.
func TableSize(size int64, role string) (int64, error) {
	body := size - headerSize
	full, rest := body/tableSealed, body%tableSealed
	switch {
	case body < Overhead, rest > 0 && rest < Overhead, rest == Overhead && full > 0:
		return 0, errs.New(errs.Corrupt, "frame.TableSize", "%s has an impossible length", role)
	case rest == 0:
		return full * tablePlain, nil
	}
	return full*tablePlain + rest - Overhead, nil
}

// TableReader reads a table file at any offset. Safe for concurrent use.
type TableReader struct {
	r    io.ReaderAt
	role string
	aead cipher.AEAD
	size int64 // of the plaintext
}

// NewTableReader opens a table of size bytes on disk and proves that it is whole
// at its end, so that a table cut at a frame border is refused at once.
func NewTableReader(r io.ReaderAt, size int64, key []byte, role string) (*TableReader, error) {
	const op = "frame.NewTableReader"
	plain, err := TableSize(size, role)
	if err != nil {
		return nil, err
	}
	h := make([]byte, headerSize)
	if n, err := r.ReadAt(h, 0); n < len(h) {
		return nil, errs.Wrap(op, err)
	}
	aead, err := parseHeader(h, key, kindTable, role)
	if err != nil {
		return nil, err
	}
	t := &TableReader{r: r, role: role, aead: aead, size: plain}
	var one [1]byte
	if plain == 0 {
		_, err = t.frames(make([]byte, tableSealed), 0, 1)
	} else {
		_, err = t.ReadAt(one[:], plain-1)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Size returns the length of the plaintext, in bytes.
func (t *TableReader) Size() int64 { return t.size }

var tableBufs = sync.Pool{New: func() any { return new([tableBatch * tableSealed]byte) }}

// ReadAt reads plaintext. Damage in a frame that is touched is errs.Corrupt.
func (t *TableReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errs.New(errs.Invalid, "frame.ReadAt", "negative offset")
	}
	buf := tableBufs.Get().(*[tableBatch * tableSealed]byte)
	defer tableBufs.Put(buf)
	n := 0
	for n < len(p) && off < t.size {
		first := off / tablePlain
		end := min(off+int64(len(p)-n), t.size)
		count := min((end-1)/tablePlain-first+1, tableBatch)
		plain, err := t.frames(buf[:], first, count)
		if err != nil {
			return n, err
		}
		c := copy(p[n:], plain[off-first*tablePlain:])
		n += c
		off += int64(c)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// frames reads and opens count frames from number first on into buf, and returns
// their plaintext, which lies together at the start of buf.
func (t *TableReader) frames(buf []byte, first, count int64) ([]byte, error) {
	const op = "frame.ReadAt"
	lastNumber := max(t.size-1, 0) / tablePlain
	begin := first * tableSealed
	end := min(begin+count*tableSealed, t.size+(lastNumber+1)*Overhead)
	buf = buf[:end-begin]
	if n, err := t.r.ReadAt(buf, headerSize+begin); n < len(buf) {
		if err == io.EOF {
			return nil, errs.New(errs.Corrupt, op, "%s was cut short", t.role)
		}
		return nil, errs.Wrap(op, err)
	}
	out := buf[:0]
	for i := int64(0); i < count; i++ {
		sealed := buf[i*tableSealed : min((i+1)*tableSealed, int64(len(buf)))]
		number := first + i
		// The output of each frame begins at or before its own input and never
		// overlaps it inexactly: open in place, then move down.
		plain, err := t.aead.Open(sealed[:0], nil, sealed, tableAAD(uint64(number), number == lastNumber))
		if err != nil {
			return nil, errs.New(errs.Corrupt, op, "%s is damaged in frame %d", t.role, number)
		}
		out = append(out, plain...)
	}
	return out, nil
}
