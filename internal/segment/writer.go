package segment

import (
	"errors"
	"io"

	"chancery/internal/errs"
)

// Writer seals a stream as it is written. Memory is bounded (about 340 KiB, from
// a pool) and no segment allocates. The stream is whole only after Close: what
// was written before an error or without Close is refused by readers. Not safe
// for concurrent use. The zero Writer refuses.
type Writer struct {
	dst   io.Writer
	s     stream
	buf   *buffers // nil once ended
	n     int      // plaintext bytes in buf, at most Size between calls
	out   []byte   // sealed, not yet written to dst; lies in buf.cipher
	next  int64    // number of the next segment
	total int64    // plaintext bytes taken
	err   error    // sticky
}

// errEnded is what an ended or zero Writer answers.
var errEnded = errs.New(errs.Invalid, "segment.Writer", "the writer has ended")

// NewWriter begins a stream on dst. The zero Key and a Binding with an empty or
// too long field are errs.Invalid. dst gets few large writes. Call Close to end
// the stream, or Discard to give it up.
func NewWriter(dst io.Writer, key Key, b Binding) (*Writer, error) {
	h := newHeader()
	s, err := newStream("segment.NewWriter", &key, &b, &h)
	if err != nil {
		return nil, err
	}
	w := &Writer{dst: dst, s: s, buf: pool.Get().(*buffers)}
	w.out = append(w.buf.cipher[:0], h[:]...)
	return w, nil
}

// Size returns the plaintext bytes taken so far.
func (w *Writer) Size() int64 { return w.total }

// Write seals p. Errors are those of the writer below, or errs.Exhausted past MaxPlain.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.ready(); err != nil {
		return 0, err
	}
	done := 0
	for len(p) > 0 {
		if w.n == Size { // more follows, so it is not the last
			if err := w.flush(w.buf.plain[:Size]); err != nil {
				return done, err
			}
			w.n = 0
		}
		var c int
		if w.n == 0 && len(p) > Size {
			c = Size // straight from p, without a copy
			if err := w.flush(p[:c]); err != nil {
				return done, err
			}
		} else {
			c = copy(w.buf.plain[w.n:Size], p)
			w.n += c
			w.buf.use(w.n)
		}
		p = p[c:]
		done += c
		w.total += int64(c)
	}
	return done, nil
}

// ReadFrom seals all of r, reading straight into the buffer (io.ReaderFrom). An
// error of r is returned as it is, and nothing is lost: Close would still end the
// stream with what came before. Give it up with Discard instead.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	if err := w.ready(); err != nil {
		return 0, err
	}
	var done int64
	for idle := 0; ; {
		c, err := r.Read(w.buf.plain[w.n:])
		if c < 0 || c > len(w.buf.plain)-w.n {
			return done, errs.New(errs.Internal, "segment.ReadFrom", "a reader returned an impossible count")
		}
		w.n += c
		w.buf.use(w.n)
		w.total += int64(c)
		done += int64(c)
		if w.n > Size { // more than a segment: the first is not the last
			if err := w.flush(w.buf.plain[:Size]); err != nil {
				return done, err
			}
			w.n = copy(w.buf.plain[:], w.buf.plain[Size:w.n])
		}
		switch {
		case err == io.EOF:
			return done, nil
		case err != nil:
			return done, err
		case c > 0:
			idle = 0
		default:
			if idle++; idle == 100 {
				return done, io.ErrNoProgress
			}
		}
	}
}

// Close seals the last segment and writes what is left. It does not close the
// writer below. A second Close returns an error.
func (w *Writer) Close() error {
	if err := w.ready(); err != nil {
		w.Discard()
		return err
	}
	err := w.seal(w.buf.plain[:w.n], true)
	if err == nil {
		err = w.write(0)
	}
	w.Discard()
	return err
}

// Discard gives the stream up without ending it, and frees its memory. After
// Close or Discard it does nothing.
func (w *Writer) Discard() {
	if w.buf == nil {
		return
	}
	w.buf.release()
	w.buf, w.out, w.s = nil, nil, stream{}
	if w.err == nil {
		w.err = errEnded
	}
}

func (w *Writer) ready() error {
	if w.err != nil {
		return w.err
	}
	if w.buf == nil {
		return errEnded
	}
	return nil
}

func (w *Writer) flush(plain []byte) error { return w.seal(plain, false) }

func (w *Writer) seal(plain []byte, last bool) error {
	if w.next >= MaxSegments || !last && w.next == MaxSegments-1 {
		w.err = errs.New(errs.Exhausted, "segment.Write", "a stream holds at most %d bytes", int64(MaxPlain))
		return w.err
	}
	if len(w.out)+len(plain)+Overhead > len(w.buf.cipher) {
		if err := w.write(len(w.out) % block); err != nil {
			return err
		}
	}
	w.out = w.s.seal(w.out, plain, w.next, last)
	w.next++
	return nil
}

// write writes what is sealed but for its last keep bytes.
func (w *Writer) write(keep int) error {
	whole := len(w.out) - keep
	n, err := w.dst.Write(w.out[:whole])
	if err == nil && n != whole {
		err = io.ErrShortWrite
	}
	w.out = w.buf.cipher[:copy(w.buf.cipher[:], w.out[whole:])]
	if err != nil {
		if _, ok := errors.AsType[*errs.Error](err); !ok {
			err = errs.WrapKind(errs.Unavailable, "segment.Write", err)
		}
		w.err = err
	}
	return err
}
