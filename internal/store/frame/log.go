package frame

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"

	"chancery/internal/errs"
)

const (
	// Sector is the unit that a disk writes whole or not at all, in bytes. Every
	// log frame begins and ends on a sector border and is ciphertext to its last
	// byte, so that a sector of zeros inside it is one that was never written.
	Sector = 512
	// MaxPayload bounds the payload of one log frame, in bytes.
	MaxPayload = 1 << 30

	headPlain = 16 // frame number, payload length
	headSize  = headPlain + Overhead
)

// ErrTorn ends a log whose last frame was being written when the power went:
// nothing was acknowledged after the frames that were read.
var ErrTorn = errors.New("the last frame of the log is unfinished")

// aad separates the two sealed parts of a log frame; the body's is bound to its number.
var headAAD = []byte{'H'}

func bodyAAD(number uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'B'}, number) }

// frameSize returns the length on disk of a frame with a payload of n bytes.
func frameSize(n int64) int64 {
	size := headSize + Overhead + n
	return (size + Sector - 1) / Sector * Sector
}

// LogFile is what a LogWriter writes to.
type LogFile interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}

// LogWriter appends frames. The caller syncs after every frame, before it writes
// the next one: the reader's rule for torn tails rests on that. Not safe for
// concurrent use.
type LogWriter struct {
	f      LogFile
	aead   cipher.AEAD
	header []byte // nil once written
	off    int64  // where the next frame begins
	number uint64 // of the next frame
	buf    []byte
	dirty  bool // a failed write may have left bytes at off
	// Retry, if set, is asked after a failed write whether to try it again.
	Retry func(error) bool
}

// NewLogWriter begins a log in an empty file. Nothing is written before the first Append.
func NewLogWriter(f LogFile, key []byte, role string) (*LogWriter, error) {
	h, aead, err := newHeader(key, kindLog, role)
	if err != nil {
		return nil, err
	}
	first := make([]byte, Sector)
	copy(first, h)
	return &LogWriter{f: f, aead: aead, header: first, off: Sector}, nil
}

// Append seals a payload as one frame and writes it; it does not sync. After an
// error the log is as before, but Rollback must succeed before the next Append.
func (w *LogWriter) Append(parts ...[]byte) error {
	const op = "frame.Append"
	if w.dirty {
		return errs.New(errs.Internal, op, "append after a failed write")
	}
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if n > MaxPayload {
		return errs.New(errs.Invalid, op, "a frame of %d bytes", n)
	}
	size := int(frameSize(int64(n)))
	buf := w.buf[:0]
	start := w.off
	if w.header != nil {
		buf, start = append(buf, w.header...), 0
	}
	var head [headPlain]byte
	binary.BigEndian.PutUint64(head[:8], w.number)
	binary.BigEndian.PutUint64(head[8:], uint64(n))
	buf = w.aead.Seal(buf, nil, head[:], headAAD)
	body := make([]byte, 0, size-headSize-Overhead)
	for _, p := range parts {
		body = append(body, p...)
	}
	body = body[:cap(body)] // the rest of the last sector: zeros, sealed too
	buf = w.aead.Seal(buf, nil, body, bodyAAD(w.number))
	if cap(buf) <= 1<<20 {
		w.buf = buf
	}
	for {
		_, err := w.f.WriteAt(buf, start)
		if err == nil {
			break
		}
		w.dirty = true
		if w.Retry == nil || !w.Retry(err) {
			return errs.Wrap(op, err)
		}
	}
	w.dirty, w.header = false, nil
	w.off += int64(size)
	w.number++
	return nil
}

// Undo takes back the last, not yet synced, Append (or what a failed one left),
// durably. size is what Size returned before it. After an error it is unknown
// whether the frame is in the log.
func (w *LogWriter) Undo(size int64) error {
	const op = "frame.Undo"
	if size > w.off || size < Sector {
		return errs.New(errs.Internal, op, "undo to %d of %d", size, w.off)
	}
	if w.header != nil {
		size = 0
	}
	if err := w.f.Truncate(size); err != nil {
		return errs.Wrap(op, err)
	}
	if err := w.f.Sync(); err != nil {
		return errs.Wrap(op, err)
	}
	if w.header == nil && size < w.off {
		w.off = size
		w.number--
	}
	w.dirty = false
	return nil
}

// Size returns the length of the log on disk, in bytes.
func (w *LogWriter) Size() int64 { return w.off }

// LogReader reads the frames of a log in order.
type LogReader struct {
	r      io.ReaderAt
	role   string
	size   int64
	aead   cipher.AEAD
	off    int64
	number uint64
	buf    []byte
	err    error
}

// NewLogReader opens a log of size bytes. A file too short for a header, or with
// a header of zeros, gives ErrTorn: its creation was not finished.
func NewLogReader(r io.ReaderAt, size int64, key []byte, role string) (*LogReader, error) {
	const op = "frame.NewLogReader"
	h := make([]byte, min(size, Sector))
	if _, err := r.ReadAt(h, 0); err != nil && err != io.EOF {
		return nil, errs.Wrap(op, err)
	}
	if isZero(h) || len(h) < Sector {
		return nil, ErrTorn
	}
	aead, err := parseHeader(h[:headerSize], key, kindLog, role)
	if err == nil && !isZero(h[headerSize:]) {
		err = errs.New(errs.Corrupt, op, "%s has a damaged header", role)
	}
	if err != nil {
		return nil, err
	}
	return &LogReader{r: r, role: role, size: size, aead: aead, off: Sector}, nil
}

// Next returns the next payload, valid until the next call: io.EOF at the end,
// ErrTorn at a torn tail, errs.Corrupt at damage. The error stays.
func (l *LogReader) Next() ([]byte, error) {
	if l.err != nil {
		return nil, l.err
	}
	p, err := l.next()
	l.err = err
	return p, err
}

func (l *LogReader) next() ([]byte, error) {
	const op = "frame.Next"
	left := l.size - l.off
	if left == 0 {
		return nil, io.EOF
	}
	first := make([]byte, min(left, Sector))
	if err := l.readAt(first, l.off); err != nil {
		return nil, err
	}
	number, length, ok := l.openHead(first)
	if !ok {
		if len(first) < Sector || isZero(first) {
			return nil, l.torn()
		}
		return nil, l.corrupt(op)
	}
	if number != l.number || length > MaxPayload {
		return nil, l.corrupt(op)
	}
	size := frameSize(int64(length))
	if size > left {
		return nil, l.torn()
	}
	if int64(cap(l.buf)) < size {
		l.buf = make([]byte, size)
	}
	buf := l.buf[:size]
	if err := l.readAt(buf, l.off); err != nil {
		return nil, err
	}
	body, err := l.aead.Open(buf[headSize:headSize], nil, buf[headSize:], bodyAAD(number))
	if err != nil {
		// Open has cleared the output; look at the disk again.
		if err := l.readAt(buf, l.off); err != nil {
			return nil, err
		}
		for s := int64(0); s < size; s += Sector {
			if isZero(buf[s : s+Sector]) {
				return nil, l.torn()
			}
		}
		return nil, l.corrupt(op)
	}
	l.off += size
	l.number++
	return body[:length], nil
}

// openHead opens the head of a frame. It holds its own seal, so that a flipped
// bit in a length cannot make a whole frame look like an unfinished one.
func (l *LogReader) openHead(sector []byte) (number, length uint64, ok bool) {
	if len(sector) < headSize {
		return 0, 0, false
	}
	var dst [headPlain]byte
	p, err := l.aead.Open(dst[:0], nil, sector[:headSize], headAAD)
	if err != nil || len(p) != headPlain {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:]), true
}

// torn decides about a frame that is not whole: a later frame with a good head
// proves that this one was synced once, so that it is damage, not a torn tail.
func (l *LogReader) torn() error {
	const op = "frame.Next"
	chunk := make([]byte, 128*Sector)
	for off := l.off + Sector; off < l.size; off += int64(len(chunk)) {
		p := chunk[:min(int64(len(chunk)), l.size-off)]
		if err := l.readAt(p, off); err != nil {
			return err
		}
		for s := 0; s < len(p); s += Sector {
			if number, _, ok := l.openHead(p[s:min(s+Sector, len(p))]); ok && number > l.number {
				return l.corrupt(op)
			}
		}
	}
	return ErrTorn
}

func (l *LogReader) readAt(p []byte, off int64) error {
	n, err := l.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF || err == nil {
		err = errs.WrapKind(errs.Corrupt, "frame.read", io.ErrUnexpectedEOF) // shorter than its size
	}
	return errs.Wrap("frame.read", err)
}

func (l *LogReader) corrupt(op string) error {
	return errs.New(errs.Corrupt, op, "%s is damaged at byte %d", l.role, l.off)
}
