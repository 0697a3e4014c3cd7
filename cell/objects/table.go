package objects

import (
	"bytes"
	"context"
	"io"

	"chancery/cell/keys"
	"chancery/internal/errs"
	"chancery/internal/store"
)

// partsPerChunk is how many parts one chunk of a part table describes: about 35 KiB.
const partsPerChunk = 256

// sealChunk makes the value of a chunk: version, number of parts, the parts'
// heads, then, sealed, the parts' records.
func sealChunk(l keys.Lease, bk *bucketInfo, id contentID, chunk int, parts []*record) ([]byte, error) {
	open := encoder{b: make([]byte, 0, 3+len(parts)*headSize)}
	open.byte(recordVersion)
	open.uint(uint64(len(parts)))
	var e encoder
	for _, p := range parts {
		open.b = p.head.append(open.b)
		p.encode(&e)
	}
	sealed, err := l.SealRecord(bound(whatTable, bk.id, open.b, chunkName(id, chunk)), e.b)
	if err != nil {
		return nil, err
	}
	return append(open.b, sealed...), nil
}

func chunkName(id contentID, chunk int) []byte {
	return append(id[:], byte(chunk>>8), byte(chunk))
}

// chunkHeads reads the open part of a chunk; rest is the sealed part.
func chunkHeads(raw []byte) (heads []head, rest []byte, err error) {
	d := decoder{b: raw}
	v := d.byte()
	n := d.count(headSize)
	if v != recordVersion || d.bad || n > partsPerChunk {
		return nil, nil, corrupt("objects.chunkHeads", "part table")
	}
	heads = make([]head, n)
	for i := range heads {
		if heads[i], err = parseHead(d.raw(headSize)); err != nil {
			return nil, nil, err
		}
	}
	return heads, d.b, nil
}

// openChunk reverses sealChunk.
func openChunk(l keys.Lease, bk *bucketInfo, id contentID, chunk int, raw []byte) ([]*record, error) {
	heads, rest, err := chunkHeads(raw)
	if err != nil {
		return nil, err
	}
	open := raw[:len(raw)-len(rest)]
	plain, err := l.OpenRecord(bound(whatTable, bk.id, open, chunkName(id, chunk)), rest)
	if err != nil {
		return nil, err
	}
	d := decoder{b: plain}
	parts := make([]*record, len(heads))
	for i := range parts {
		parts[i] = &record{head: heads[i]}
		if heads[i].kind == kindParts || !parts[i].decode(&d, false) {
			return nil, corrupt("objects.openChunk", "part table")
		}
	}
	if !d.end() {
		return nil, corrupt("objects.openChunk", "part table")
	}
	return parts, nil
}

// putTable adds the part table of a finished upload to b and fills in r.chunks.
func (e *Engine) putTable(l keys.Lease, b *store.Batch, bk *bucketInfo, r *record, parts []*record) error {
	r.chunks = nil
	for i := 0; i < len(parts); i += partsPerChunk {
		part := parts[i:min(i+partsPerChunk, len(parts))]
		chunk := i / partsPerChunk
		value, err := sealChunk(l, bk, r.id, chunk, part)
		if err != nil {
			return err
		}
		b.Put(tableKey(bk.id, r.id, chunk), value)
		var size int64
		for _, p := range part {
			size += p.size
		}
		r.chunks = append(r.chunks, size)
	}
	return nil
}

// chunk reads one chunk of r's table; errGone if it is not there.
func (e *Engine) chunk(ctx context.Context, l keys.Lease, bk *bucketInfo, r *record, chunk int) ([]*record, error) {
	raw, err := e.get(ctx, tableKey(bk.id, r.id, chunk))
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, errGone
	}
	return openChunk(l, bk, r.id, chunk, raw)
}

// tablePart finds the number-th part and where its bytes begin.
func (e *Engine) tablePart(ctx context.Context, l keys.Lease, bk *bucketInfo, r *record, number int) (start int64, part *record, err error) {
	at := (number - 1) / partsPerChunk
	if at >= len(r.chunks) {
		return 0, nil, corrupt("objects.tablePart", "part table")
	}
	parts, err := e.chunk(ctx, l, bk, r, at)
	if err != nil {
		return 0, nil, err
	}
	for _, n := range r.chunks[:at] {
		start += n
	}
	i := (number - 1) % partsPerChunk
	if i >= len(parts) {
		return 0, nil, corrupt("objects.tablePart", "part table")
	}
	for _, p := range parts[:i] {
		start += p.size
	}
	return start, parts[i], nil
}

// unlinkTable adds to b the removal of a part table with all its parts' contents.
func (e *Engine) unlinkTable(ctx context.Context, b *store.Batch, bucketID string, id contentID) (gone []contentID, err error) {
	err = e.store.Scan(ctx, store.Prefix(inBucket(pTable, bucketID, string(id[:]))), func(k, v []byte) (bool, error) {
		heads, _, err := chunkHeads(v)
		if err != nil {
			return false, err
		}
		for _, h := range heads {
			if h.kind == kindParts {
				return false, corrupt("objects.unlinkTable", "part table")
			}
			list, err := e.unlink(ctx, b, bucketID, h)
			if err != nil {
				return false, err
			}
			gone = append(gone, list...)
		}
		b.Delete(bytes.Clone(k))
		return true, nil
	})
	return gone, err
}

// openParts opens a range of a finished multipart object. The part table of the
// range is read now (at most 1.5 MiB for 10,000 parts) and the parts' blobs are
// kept from removal until Close, so that an overwrite does not cut the read short.
func (e *Engine) openParts(ctx context.Context, op string, bk *bucketInfo, key string, raw []byte, r *record, offset, length int64) (io.ReadCloser, error) {
	p := &partsReader{e: e, ctx: ctx, op: op, bk: bk, key: key, r: r, left: length}
	e.pins.pin(r.id)
	if err := p.load(raw, offset, length); err != nil {
		p.Close()
		if err == errGone {
			return nil, err
		}
		return nil, errs.Wrap(op, err)
	}
	return p, nil
}

// partsReader reads the parts of a multipart object one after the other.
type partsReader struct {
	e   *Engine
	ctx context.Context
	op  string
	bk  *bucketInfo
	key string
	r   *record

	chunks [][]byte // sealed chunks still to be opened
	at     int      // number of the first of them
	parts  []*record
	skip   int64 // bytes to skip in what follows
	left   int64 // bytes still to give that are not in cur
	cur    io.ReadCloser
	closed bool
}

// load reads the chunks of the range, makes sure that the record still holds
// (a commit that removes the parts after that sees the pin), and opens the first part.
func (p *partsReader) load(raw []byte, offset, length int64) error {
	var start int64
	for i, n := range p.r.chunks {
		if start+n > offset && start < offset+length {
			if p.chunks == nil {
				p.at, p.skip = i, offset-start
			}
			sealed, err := p.e.get(p.ctx, tableKey(p.bk.id, p.r.id, i))
			if err != nil {
				return err
			}
			if sealed == nil {
				return errGone
			}
			p.chunks = append(p.chunks, sealed)
		}
		start += n
	}
	if start != p.r.size {
		return corrupt(p.op, "part table")
	}
	now, err := p.e.get(p.ctx, objectKey(p.bk.id, p.key))
	if err != nil {
		return err
	}
	if !bytes.Equal(now, raw) {
		return errGone
	}
	if p.left > 0 {
		return p.next()
	}
	return nil
}

// next opens the next part of the range.
func (p *partsReader) next() error {
	l, err := p.e.lease(p.ctx, p.op, p.bk) // the last one may have ended since
	if err != nil {
		return err
	}
	for {
		if len(p.parts) == 0 {
			if len(p.chunks) == 0 {
				return corrupt(p.op, "part table")
			}
			if p.parts, err = openChunk(l, p.bk, p.r.id, p.at, p.chunks[0]); err != nil {
				return err
			}
			p.chunks, p.at = p.chunks[1:], p.at+1
			continue
		}
		part := p.parts[0]
		p.parts = p.parts[1:]
		if p.skip >= part.size {
			p.skip -= part.size
			continue
		}
		n := min(part.size-p.skip, p.left)
		rc, err := p.e.openSingle(p.ctx, p.op, l, p.bk, p.key, part, p.skip, n)
		if err == errGone {
			return corrupt(p.op, "part")
		}
		if err != nil {
			return err
		}
		p.cur, p.skip = rc, 0
		p.left -= n
		return nil
	}
}

// advance closes a part that has been read and opens the next; io.EOF at the end.
func (p *partsReader) advance() error {
	if p.cur != nil {
		err := p.cur.Close()
		p.cur = nil
		if err != nil {
			return err
		}
	}
	if p.closed {
		return errs.New(errs.Invalid, p.op, "the reader is closed")
	}
	if p.left == 0 {
		return io.EOF
	}
	return p.next()
}

func (p *partsReader) Read(b []byte) (int, error) {
	for {
		if p.cur != nil {
			n, err := p.cur.Read(b)
			if err != io.EOF {
				return n, err
			}
			if n > 0 {
				return n, nil
			}
		}
		if err := p.advance(); err != nil {
			return 0, err
		}
	}
}

// WriteTo lets io.Copy take segments straight from the buffer they were opened into.
func (p *partsReader) WriteTo(w io.Writer) (int64, error) {
	var done int64
	for {
		if p.cur != nil {
			n, err := io.Copy(w, p.cur)
			done += n
			if err != nil {
				return done, err
			}
		}
		if err := p.advance(); err == io.EOF {
			return done, nil
		} else if err != nil {
			return done, err
		}
	}
}

// Close ends the reading and lets go of the parts' blobs.
func (p *partsReader) Close() error {
	if p.closed {
		return nil
	}
	p.closed = true
	var err error
	if p.cur != nil {
		err = p.cur.Close()
		p.cur = nil
	}
	p.e.removeNow(p.ctx, p.e.pins.unpin(p.r.id))
	return err
}
