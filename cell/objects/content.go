package objects

import (
	"context"
	"crypto/rand"
	"hash"
	"io"
	"sync"

	"chancery/cell/blobs"
	"chancery/cell/keys"
	"chancery/internal/errs"
	"chancery/internal/segment"
	"chancery/internal/store"
)

// InlineMax is the most plaintext, in bytes, that rides in the store's own commit.
const InlineMax = 32 << 10

// inlinePool holds the buffers that bodies begin in; one byte more than fits, to
// see that there is more.
var inlinePool = sync.Pool{New: func() any { return new([InlineMax + 1]byte) }}

// content is bytes that were received and are durable or ready to commit, but
// that no record names yet.
type content struct {
	e *Engine
	record
	// sealed is the inline stream (kindInline).
	sealed []byte
	// settled is true once a commit published it, or may have.
	settled bool
}

// binding is what a content's stream is bound to.
func (e *Engine) binding(bk *bucketInfo, key string, id contentID) segment.Binding {
	return segment.Binding{Organization: e.opt.Organization, Bucket: bk.id, Object: key, Content: id}
}

// source is what receive reads: a body with its promise.
type source struct {
	r io.Reader
	// size is what was declared, -1 if nothing.
	size int64
	// finish is called at the end of the bytes, before anything is durable; nil is nothing.
	finish func() error
	// hash sees the plaintext; nil is none.
	hash hash.Hash
}

// receive reads a source to its end and seals it under the bucket's current key.
// Small contents stay in memory, for the commit; larger ones stream into a blob.
// The caller publishes the content, or drops it.
func (e *Engine) receive(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, key string, src source) (*content, error) {
	if src.size >= 0 {
		if err := checkSize(op, src.size); err != nil {
			return nil, err
		}
	}
	c := &content{e: e}
	var random [16 + 32]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	copy(c.content[:], random[:16])
	copy(c.salt[:], random[16:])
	c.id = c.content
	c.keyVersion = l.Version()
	m := &meter{r: src.r, declared: src.size, hash: src.hash, op: op}

	buf := inlinePool.Get().(*[InlineMax + 1]byte)
	defer func() {
		clear(buf[:min(m.n, int64(len(buf)))])
		inlinePool.Put(buf)
	}()
	n := 0
	for n < len(buf) {
		k, err := m.Read(buf[n:])
		n += k
		if err == io.EOF {
			if err := c.sealInline(op, l, bk, key, buf[:n], src); err != nil {
				return nil, err
			}
			return c, nil
		}
		if err != nil {
			return nil, bodyError(op, err)
		}
	}
	if err := c.sealBlob(ctx, op, l, bk, key, buf[:n], m, src); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *content) sealInline(op string, l keys.Lease, bk *bucketInfo, key string, plain []byte, src source) error {
	if src.finish != nil {
		if err := src.finish(); err != nil {
			return bodyError(op, err)
		}
	}
	c.size = int64(len(plain))
	if len(plain) == 0 {
		c.kind = kindEmpty
		return nil
	}
	c.kind = kindInline
	b := c.e.binding(bk, key, c.content)
	k, err := l.StreamKey(c.keyVersion, c.salt, b)
	if err != nil {
		return errs.Wrap(op, err)
	}
	defer clear(k[:])
	c.sealed, err = segment.Seal(nil, k, b, plain)
	return errs.Wrap(op, err)
}

func (c *content) sealBlob(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, key string, begun []byte, m *meter, src source) error {
	c.kind = kindBlob
	b := c.e.binding(bk, key, c.content)
	k, err := l.StreamKey(c.keyVersion, c.salt, b)
	if err != nil {
		return errs.Wrap(op, err)
	}
	defer clear(k[:])
	body := &tail{begun: begun, meter: m, finish: src.finish, landing: &c.e.landing}
	id, size, err := c.e.opt.Blobs.Write(ctx, k, b, body)
	if err == nil {
		c.id = contentID(id)
		c.e.pins.takeOff(c.id)
	}
	if body.done {
		c.e.landing.RUnlock()
	}
	switch {
	case body.err != nil:
		err = bodyError(op, body.err)
	case err != nil:
		err = errs.Wrap(op, err)
	case size != m.n:
		err = errs.New(errs.Internal, op, "the blob has %d bytes of %d", size, m.n)
	default:
		c.size = size
		return nil
	}
	if c.id != c.content { // written all the same
		c.drop(ctx)
	}
	return err
}

// drop gives up what was received, unless it may have been published. It must be
// called once the caller is done with a content, whatever came of it.
func (c *content) drop(ctx context.Context) {
	if c == nil || c.kind != kindBlob {
		return
	}
	if !c.settled {
		// What cannot be removed now is an orphan, and Sweep removes it.
		_ = c.e.opt.Blobs.Remove(context.WithoutCancel(ctx), blobs.ID(c.id))
	}
	c.e.pins.land(c.id)
}

// publish adds to b what makes the content durable with its record.
func (c *content) publish(b *store.Batch, bk *bucketInfo) {
	switch c.kind {
	case kindInline:
		b.Put(inlineKey(bk.id, c.id), c.sealed)
	case kindBlob:
		b.Put(refKey(c.id), []byte(bk.id))
	}
}

// unlink adds to b what removes a content that no record will name any more, and
// returns the blobs to remove once b is committed. It needs no key.
func (e *Engine) unlink(ctx context.Context, b *store.Batch, bucketID string, h head) ([]contentID, error) {
	switch h.kind {
	case kindInline:
		b.Delete(inlineKey(bucketID, h.id))
	case kindBlob:
		b.Delete(refKey(h.id))
		return []contentID{h.id}, nil
	case kindParts:
		return e.unlinkTable(ctx, b, bucketID, h.id)
	}
	return nil, nil
}

// removeBlobs removes blobs that a commit has unlinked, at once or after the last
// reader of their content. A blob that cannot be removed now is an orphan, and Sweep removes it.
func (e *Engine) removeBlobs(ctx context.Context, of contentID, list []contentID) {
	if len(list) > 0 {
		e.removeNow(ctx, e.pins.removable(of, list))
	}
}

// removeNow removes blobs that nobody reads part by part.
func (e *Engine) removeNow(ctx context.Context, list []contentID) {
	ctx = context.WithoutCancel(ctx)
	for _, id := range list {
		_ = e.opt.Blobs.Remove(ctx, blobs.ID(id))
	}
}

// meter counts and bounds what a body gives, and feeds the hash.
type meter struct {
	r        io.Reader
	n        int64
	declared int64 // -1: nothing declared
	hash     hash.Hash
	op       string
	idle     int
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if n < 0 || n > len(p) {
		return 0, errs.New(errs.Internal, m.op, "a body returned an impossible count")
	}
	m.n += int64(n)
	if m.hash != nil {
		m.hash.Write(p[:n])
	}
	switch {
	case m.n > MaxSingle:
		return 0, entityTooLarge(m.op)
	case m.declared >= 0 && (m.n > m.declared || err == io.EOF && m.n < m.declared):
		return 0, errs.Coded(errs.Invalid, m.op, codeIncompleteBody, "You did not provide the number of bytes specified by the Content-Length HTTP header.")
	}
	if n > 0 || err != nil {
		m.idle = 0
	} else if m.idle++; m.idle > 100 {
		return 0, io.ErrNoProgress
	}
	return n, err
}

// tail is what a blob is written from: what was read already, then the rest; at
// the end it asks finish, so that a body that does not keep its promise never
// becomes durable. err tells a fault of the body from one of the blob.
type tail struct {
	begun  []byte
	meter  *meter
	finish func() error
	// landing is held for reading from the end of the body until the blob's id is
	// in pins: see Sweep. done tells that it is held.
	landing *sync.RWMutex
	done    bool
	err     error
}

// Size implements blobs.Sized with what the client declared.
func (t *tail) Size() int64 { return t.meter.declared }

func (t *tail) Read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	if t.done {
		return 0, io.EOF
	}
	if len(t.begun) > 0 {
		n := copy(p, t.begun)
		t.begun = t.begun[n:]
		return n, nil
	}
	n, err := t.meter.Read(p)
	if err == io.EOF {
		err = nil
		if t.finish != nil {
			err = t.finish()
		}
		if err == nil {
			t.landing.RLock()
			t.done = true
			if n > 0 {
				return n, nil
			}
			return 0, io.EOF
		}
	}
	t.err = err
	return n, err
}
