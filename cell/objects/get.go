package objects

import (
	"bytes"
	"context"
	"errors"
	"io"

	"chancery/cell/blobs"
	"chancery/cell/keys"
	"chancery/internal/errs"
	"chancery/internal/segment"
)

// errGone means that a record names bytes that are no longer there: the record
// has changed since it was read, or the bytes are lost.
var errGone = errors.New("the content has gone")

// Get opens an object. With NotModified, PreconditionFailed, InvalidRange and
// InvalidPartNumber the Object is returned too, for its headers and size. The
// first bytes have been verified when Get returns; the reader fails before it
// gives any byte that does not authenticate.
func (e *Engine) Get(ctx context.Context, in Get) (Object, io.ReadCloser, error) {
	const op = "objects.Get"
	if err := e.checkTarget(op, in.Key, Headers{}); err != nil {
		return Object{}, nil, err
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return Object{}, nil, err
	}
	var last []byte
	for {
		raw, r, err := e.lookup(ctx, op, l, bk, in)
		if err != nil {
			return Object{}, nil, err
		}
		o := r.object(bk.name, in.Key, l.KeyID())
		if err := checkRead(op, in.Conditions, r); err != nil {
			return o, nil, err
		}
		if err := e.selectRange(ctx, op, l, bk, in, r, &o); err == errGone {
			if bytes.Equal(raw, last) {
				return Object{}, nil, corrupt(op, "content")
			}
			last = raw
			continue
		} else if err != nil {
			return o, nil, err
		}
		rc, err := e.openContent(ctx, op, l, bk, in.Key, raw, r, o.RangeStart, o.RangeLength)
		if err == errGone {
			// Overwritten or deleted since lookup, or lost: the same record twice tells.
			if bytes.Equal(raw, last) {
				return Object{}, nil, corrupt(op, "content")
			}
			last = raw
			continue
		}
		if err != nil {
			return Object{}, nil, err
		}
		return o, rc, nil
	}
}

// Head is Get without the bytes.
func (e *Engine) Head(ctx context.Context, in Get) (Object, error) {
	const op = "objects.Head"
	if err := e.checkTarget(op, in.Key, Headers{}); err != nil {
		return Object{}, err
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return Object{}, err
	}
	var last []byte
	for {
		raw, r, err := e.lookup(ctx, op, l, bk, in)
		if err != nil {
			return Object{}, err
		}
		o := r.object(bk.name, in.Key, l.KeyID())
		if err := checkRead(op, in.Conditions, r); err != nil {
			return o, err
		}
		err = e.selectRange(ctx, op, l, bk, in, r, &o)
		if err == errGone {
			if bytes.Equal(raw, last) {
				return Object{}, corrupt(op, "part table")
			}
			last = raw
			continue
		}
		return o, err
	}
}

// lookup finds the record that a read asks for.
func (e *Engine) lookup(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, in Get) ([]byte, *record, error) {
	if err := checkVersion(op, in.VersionID); err != nil {
		return nil, nil, err
	}
	raw, r, err := e.current(ctx, op, l, bk, in.Key, false)
	if err != nil {
		return nil, nil, err
	}
	if r == nil {
		return nil, nil, noSuchKey(op, in.Key)
	}
	return raw, r, nil
}

// selectRange decides which bytes a read asks for, into o.
func (e *Engine) selectRange(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, in Get, r *record, o *Object) error {
	switch {
	case in.PartNumber != 0 && in.Range != nil:
		return errs.Coded(errs.Invalid, op, codeRequest, "Cannot specify both Range header and partNumber query parameter")
	case in.PartNumber < 0 || in.PartNumber > maxParts:
		return invalidArgument(op, "Part number must be an integer between 1 and 10000, inclusive")
	case in.PartNumber != 0:
		return e.selectPart(ctx, op, l, bk, r, in.PartNumber, o)
	case in.Range != nil:
		start, length, err := in.Range.resolve(op, r.size)
		if err != nil {
			return err
		}
		o.RangeStart, o.RangeLength, o.Partial = start, length, true
	}
	return nil
}

// selectPart selects the number-th part. A single put has one part: all of it.
func (e *Engine) selectPart(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, r *record, number int, o *Object) error {
	count := 1
	if r.kind == kindParts {
		count = r.parts
	}
	if number > count {
		return errs.Coded(errs.Invalid, op, codePartNumber, "The requested partnumber is not satisfiable")
	}
	o.Partial = true
	if r.kind != kindParts {
		return nil
	}
	start, part, err := e.tablePart(ctx, l, bk, r, number)
	if err != nil {
		if err == errGone {
			return err
		}
		return errs.Wrap(op, err)
	}
	o.RangeStart, o.RangeLength = start, part.size
	// The part's own checksum is what a client that reads by parts can verify.
	if part.checksum.Algorithm != "" {
		o.Checksum = part.checksum
	}
	return nil
}

// resolve turns a range into first byte and length for an object of size bytes
// (RFC 9110 section 14.1.2). A range outside the object is InvalidRange.
func (g ByteRange) resolve(op string, size int64) (start, length int64, err error) {
	unsatisfiable := errs.Coded(errs.Invalid, op, codeRange, "The requested range is not satisfiable")
	if g.Suffix > 0 {
		if size == 0 {
			return 0, 0, unsatisfiable
		}
		length = min(g.Suffix, size)
		return size - length, length, nil
	}
	if g.Suffix < 0 || g.From < 0 || g.To >= 0 && g.To < g.From {
		return 0, 0, invalidArgument(op, "the range is not of a form of RFC 9110")
	}
	if g.From >= size {
		return 0, 0, unsatisfiable
	}
	end := size - 1
	if g.To >= 0 {
		end = min(end, g.To)
	}
	return g.From, end - g.From + 1, nil
}

// openContent opens length bytes from offset of a content. raw is the record as
// it was read; errGone is returned if it has been overtaken.
func (e *Engine) openContent(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, key string, raw []byte, r *record, offset, length int64) (io.ReadCloser, error) {
	if r.kind == kindParts {
		return e.openParts(ctx, op, bk, key, raw, r, offset, length)
	}
	return e.openSingle(ctx, op, l, bk, key, r, offset, length)
}

// openSingle opens a content that is one stream: of an object or of a part.
func (e *Engine) openSingle(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, key string, r *record, offset, length int64) (io.ReadCloser, error) {
	if r.kind == kindEmpty {
		if r.size != 0 {
			return nil, corrupt(op, "record")
		}
		return &memory{}, nil
	}
	b := e.binding(bk, key, r.content)
	k, err := l.StreamKey(r.keyVersion, r.salt, b)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	defer clear(k[:])
	switch r.kind {
	case kindInline:
		sealed, err := e.get(ctx, inlineKey(bk.id, r.id))
		if err != nil {
			return nil, errs.Wrap(op, err)
		}
		if sealed == nil {
			return nil, errGone
		}
		plain, err := segment.Open(nil, k, b, sealed)
		if err != nil {
			return nil, errs.Wrap(op, err)
		}
		if int64(len(plain)) != r.size {
			return nil, corrupt(op, "content")
		}
		return &memory{rest: plain[offset : offset+length], all: plain}, nil
	case kindBlob:
		return e.openBlob(ctx, op, k, b, r, offset, length)
	}
	return nil, corrupt(op, "record")
}

// openBlob opens a range of a blob and reads its first bytes, so that a blob that
// is damaged where reading begins is an error before any answer is begun.
func (e *Engine) openBlob(ctx context.Context, op string, k segment.Key, b segment.Binding, r *record, offset, length int64) (io.ReadCloser, error) {
	rc, err := e.opt.Blobs.Read(ctx, blobs.ID(r.id), r.size, k, b, offset, length)
	if err != nil {
		if notFound(err) {
			return nil, errGone
		}
		return nil, errs.Wrap(op, err)
	}
	p := &peeked{ReadCloser: rc}
	n, err := io.ReadFull(rc, p.first[:min(length, int64(len(p.first)))])
	if err != nil {
		rc.Close()
		return nil, errs.Wrap(op, err)
	}
	p.left = p.first[:n]
	return p, nil
}

// peeked gives back what openBlob has read, then the rest.
type peeked struct {
	io.ReadCloser
	first [256]byte
	left  []byte
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return p.ReadCloser.Read(b)
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

// WriteTo lets io.Copy take segments straight from the buffer they were opened into.
func (p *peeked) WriteTo(w io.Writer) (int64, error) {
	var done int64
	if len(p.left) > 0 {
		n, err := w.Write(p.left)
		if err == nil && n < len(p.left) {
			err = io.ErrShortWrite
		}
		done = int64(max(n, 0))
		if err != nil {
			return done, err
		}
		p.left = nil
	}
	n, err := io.Copy(w, p.ReadCloser)
	return done + n, err
}

func (p *peeked) Close() error {
	clear(p.first[:])
	p.left = nil
	return p.ReadCloser.Close()
}

// memory reads the plaintext of an inline content and clears it at Close.
type memory struct{ rest, all []byte }

func (m *memory) Read(p []byte) (int, error) {
	if len(m.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

func (m *memory) WriteTo(w io.Writer) (int64, error) {
	if len(m.rest) == 0 {
		return 0, nil
	}
	n, err := w.Write(m.rest)
	if n < 0 || n > len(m.rest) {
		return 0, errs.New(errs.Internal, "objects.Read", "a writer returned an impossible count")
	}
	if err == nil && n < len(m.rest) {
		err = io.ErrShortWrite
	}
	m.rest = m.rest[n:]
	return int64(n), err
}

func (m *memory) Close() error {
	clear(m.all)
	m.rest, m.all = nil, nil
	return nil
}
