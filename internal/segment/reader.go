package segment

import (
	"errors"
	"io"

	"chancery/internal/errs"
)

// Reader reads any range of a sealed stream. It verifies the segments that it
// reads and no others: a stream that was cut at a boundary of segments is found
// out when its last segment is read, or at once by whoever knows its size. Safe
// for concurrent use if the io.ReaderAt is. The zero Reader refuses.
type Reader struct {
	src   io.ReaderAt
	s     stream
	plain int64
}

// NewReader opens the sealed stream of size bytes in src: it checks the size and
// the header. What is wrong with the bytes is errs.Corrupt with a class as its
// Code; the zero Key or Binding is errs.Invalid.
func NewReader(src io.ReaderAt, size int64, key Key, b Binding) (*Reader, error) {
	const op = "segment.NewReader"
	var h header
	s, err := newStream(op, &key, &b, &h)
	if err != nil {
		return nil, err
	}
	plain, err := PlainSize(size)
	if err != nil {
		return nil, err
	}
	if err := readFull(op, src, h[:], 0); err != nil {
		return nil, err
	}
	if err := h.check(op); err != nil {
		return nil, err
	}
	s.aad = appendAAD(s.aad[:0], &h, &b)
	return &Reader{src, s, plain}, nil
}

// Size returns the length of the plaintext, in bytes, as the stream's length
// tells it. It is proven only once the last segment has been read.
func (r *Reader) Size() int64 { return r.plain }

// Range reads length bytes from offset. A range that leaves the stream is
// errs.Invalid. Reading the range of an empty stream still verifies its one
// segment. Close gives the memory back.
func (r *Reader) Range(offset, length int64) (*Range, error) {
	const op = "segment.Range"
	if r == nil || r.src == nil {
		return nil, errs.New(errs.Invalid, op, "the zero reader")
	}
	if offset < 0 || length < 0 || offset > r.plain || length > r.plain-offset {
		return nil, errs.New(errs.Invalid, op, "the range leaves the stream")
	}
	g := &Range{r: r, s: r.s.fork(), left: length, skip: int(offset % Size)}
	g.next = offset / Size
	g.stop = (offset + length + Size - 1) / Size
	if length == 0 {
		g.stop = g.next
	}
	if r.plain == 0 {
		g.next, g.stop = 0, 1
	}
	g.ahead = g.next
	if g.next < g.stop {
		g.buf = pool.Get().(*buffers)
	}
	return g, nil
}

// ReadAt reads len(p) bytes from off (io.ReaderAt).
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if r == nil || r.src == nil || off < 0 {
		return 0, errs.New(errs.Invalid, "segment.ReadAt", "the zero reader or a negative offset")
	}
	var short error
	if off >= r.plain {
		off, p, short = r.plain, p[:0], io.EOF
	} else if int64(len(p)) > r.plain-off {
		p, short = p[:r.plain-off], io.EOF
	}
	g, err := r.Range(off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	defer g.Close()
	n, err := io.ReadFull(g, p)
	if err != nil {
		return n, err
	}
	return n, short
}

// Range is a reader of one range. Bytes come out only when their segment has
// been verified. Not safe for concurrent use. The zero Range refuses.
type Range struct {
	r          *Reader
	s          stream
	buf        *buffers
	next, stop int64  // segments to open: [next, stop)
	ahead      int64  // first segment not yet in box
	box        []byte // sealed segments read ahead; lies in buf.cipher
	plain      []byte // opened, not yet given out; lies in buf.plain
	left       int64  // bytes still to give out, those in plain included
	skip       int    // bytes to drop from the first segment
	err        error  // sticky
}

// Read reads (io.Reader).
func (g *Range) Read(p []byte) (int, error) {
	if len(p) == 0 && g.err == nil {
		return 0, nil
	}
	if err := g.fill(); err != nil {
		return 0, err
	}
	n := copy(p, g.plain)
	g.take(n)
	return n, nil
}

// WriteTo writes the range to w, a segment at a time straight from the buffer
// that it was opened into (io.WriterTo).
func (g *Range) WriteTo(w io.Writer) (int64, error) {
	var done int64
	for {
		if err := g.fill(); err == io.EOF {
			return done, nil
		} else if err != nil {
			return done, err
		}
		n, err := w.Write(g.plain)
		if n < 0 || n > len(g.plain) {
			return done, errs.New(errs.Internal, "segment.WriteTo", "a writer returned an impossible count")
		}
		if err == nil && n < len(g.plain) {
			err = io.ErrShortWrite
		}
		g.take(n)
		done += int64(n)
		if err != nil {
			return done, err
		}
	}
}

// Close frees the memory and forgets the key. It does not close what is read from.
func (g *Range) Close() error {
	if g.buf != nil {
		g.buf.release()
	}
	*g = Range{err: errs.New(errs.Invalid, "segment.Range", "the range is closed")}
	return nil
}

func (g *Range) take(n int) {
	g.plain = g.plain[n:]
	g.left -= int64(n)
}

// fill makes plain non-empty, or returns io.EOF at the end of the range, or what is wrong.
func (g *Range) fill() error {
	for len(g.plain) == 0 {
		if g.err != nil {
			return g.err
		}
		if g.next >= g.stop {
			g.err = io.EOF
			if g.r == nil {
				g.err = errs.New(errs.Invalid, "segment.Range", "the zero range")
			}
			return g.err
		}
		if g.err = g.open(); g.err != nil {
			g.plain = nil
			return g.err
		}
	}
	return nil
}

// open opens the next segment, reading some ahead if there is none at hand.
func (g *Range) open() error {
	const op = "segment.Read"
	last := segments(g.r.plain) - 1
	if len(g.box) == 0 {
		count := min(batch, g.stop-g.ahead)
		size := count * sealed
		if g.ahead+count > last { // the last one may be shorter
			size = (count-1)*sealed + (g.r.plain - last*Size) + Overhead
		}
		box := g.buf.cipher[:size]
		if err := readFull(op, g.r.src, box, HeaderSize+g.ahead*sealed); err != nil {
			return err
		}
		g.box = box
		g.ahead += count
	}
	box := g.box[:min(sealed, len(g.box))]
	g.buf.use(len(box) - Overhead)
	plain, err := g.s.open(op, g.buf.plain[:0], box, g.next, g.next == last)
	if err != nil {
		return err
	}
	g.box = g.box[len(box):]
	g.next++
	plain = plain[g.skip:]
	g.skip = 0
	g.plain = plain[:min(int64(len(plain)), g.left)]
	return nil
}

// readFull reads all of p from off. What is not there was cut off.
func readFull(op string, src io.ReaderAt, p []byte, off int64) error {
	n, err := src.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.Coded(errs.Corrupt, op, Truncated, "the stream is shorter than its size says")
	}
	if _, ok := errors.AsType[*errs.Error](err); ok {
		return errs.Wrap(op, err)
	}
	return errs.WrapKind(errs.Unavailable, op, err)
}
