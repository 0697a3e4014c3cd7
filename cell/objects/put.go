package objects

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"chancery/cell/keys"
	"chancery/internal/errs"
	"chancery/internal/store"
)

// opaqueETag is an entity tag that no client takes for an MD5.
func opaqueETag() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:]) + "-1"
}

// sumsETag is the MD5 in hex if the client sent one, else opaque.
func sumsETag(s Sums) string {
	if len(s.MD5) == 16 {
		return hex.EncodeToString(s.MD5)
	}
	return opaqueETag()
}

// Put stores an object. The body is verified before anything is committed; the
// answer comes when the object is durable.
func (e *Engine) Put(ctx context.Context, in Put) (Object, error) {
	const op = "objects.Put"
	if err := e.checkTarget(op, in.Key, in.Headers); err != nil {
		return Object{}, err
	}
	if in.Body == nil {
		return Object{}, invalidArgument(op, "no body")
	}
	if err := checkSize(op, in.Size); err != nil {
		return Object{}, err
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return Object{}, err
	}
	if err := e.checkEarly(ctx, op, l, bk, in.Key, in.Conditions); err != nil {
		return Object{}, err
	}
	var sums Sums
	c, err := e.receive(ctx, op, l, bk, in.Key, source{r: e.roomy(op, in.Body, in.Size), size: in.Size, finish: func() (err error) {
		sums, err = in.Body.Finish()
		return err
	}})
	if err != nil {
		return Object{}, err
	}
	defer c.drop(ctx)
	c.etag, c.checksum, c.headers, c.class = sumsETag(sums), sums.Checksum, in.Headers, storedClass(in.Headers)
	return e.publish(ctx, op, bk, in.Key, c, in.Conditions)
}

// checkTarget checks what can be checked of a write without looking at the store.
func (e *Engine) checkTarget(op, key string, h Headers) error {
	if err := e.ready(op); err != nil {
		return err
	}
	if err := checkKey(op, key); err != nil {
		return err
	}
	return checkHeaders(op, h)
}

// checkEarly fails a conditional write before its body is read, if it would fail now.
func (e *Engine) checkEarly(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, key string, c Conditions) error {
	if !c.set() {
		return nil
	}
	_, cur, err := e.current(ctx, op, l, bk, key, true)
	if err != nil {
		return err
	}
	return checkWrite(op, c, key, cur)
}

// current reads the current record of a key: its raw value and what it holds; both nil if there is none.
func (e *Engine) current(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, key string, brief bool) ([]byte, *record, error) {
	raw, err := e.get(ctx, objectKey(bk.id, key))
	if err != nil || raw == nil {
		return nil, nil, errs.Wrap(op, err)
	}
	r, err := openRecord(l, whatObject, bk.id, []byte(key), raw, brief)
	if err != nil {
		return nil, nil, errs.Wrap(op, err)
	}
	return raw, r, nil
}

// publish makes a received content the current version of key: one commit that
// writes the record and the content's reference, removes the old version's, and
// tells the change feed. It holds for the state that it was decided on, or is decided again.
func (e *Engine) publish(ctx context.Context, op string, bk *bucketInfo, key string, c *content, cond Conditions) (Object, error) {
	okey := objectKey(bk.id, key)
	for try := 0; ; try++ {
		l, err := e.lease(ctx, op, bk)
		if err != nil {
			return Object{}, err
		}
		raw, err := e.get(ctx, okey)
		if err != nil {
			return Object{}, errs.Wrap(op, err)
		}
		if err := e.checkAgain(op, l, bk, key, raw, cond); err != nil {
			return Object{}, err
		}
		c.modified = e.now().UnixMilli()
		value, err := c.record.seal(l, whatObject, bk.id, []byte(key))
		if err != nil {
			return Object{}, errs.Wrap(op, err)
		}
		var b store.Batch
		bucketOpen(&b, bk)
		expect(&b, okey, raw)
		b.Put(okey, value)
		c.publish(&b, bk)
		old, gone, err := e.unlinkRaw(ctx, &b, bk.id, raw)
		if err != nil {
			return Object{}, errs.Wrap(op, err)
		}
		b.Change(TopicObject, ObjectChange{Created, bk.id, key, c.id}.encode())
		_, err = e.store.Commit(ctx, &b)
		if err == nil {
			c.settled = true
			e.removeBlobs(ctx, old.id, gone)
			return c.record.object(bk.name, key, l.KeyID()), nil
		}
		c.settled = !neverCommitted(err)
		if retry, err := e.conflicted(ctx, op, bk, try, err); !retry {
			return Object{}, err
		}
	}
}

// checkAgain decides a write's conditions on what the commit will find. checkEarly
// held when the request began; so an object that If-Match wants and that is gone
// now was deleted meanwhile, which S3 answers with 409 and a wish to try again.
func (e *Engine) checkAgain(op string, l keys.Lease, bk *bucketInfo, key string, raw []byte, cond Conditions) error {
	if !cond.set() {
		return nil
	}
	var cur *record
	if raw != nil {
		var err error
		if cur, err = openRecord(l, whatObject, bk.id, []byte(key), raw, true); err != nil {
			return errs.Wrap(op, err)
		}
	} else if cond.IfMatch != "" {
		return errs.Coded(errs.Conflict, op, codeConditional,
			"The conditional request cannot succeed due to a conflicting operation against this resource.")
	}
	return checkWrite(op, cond, key, cur)
}

// unlinkRaw is unlink for the version that a raw record names; nothing for nil.
func (e *Engine) unlinkRaw(ctx context.Context, b *store.Batch, bucketID string, raw []byte) (head, []contentID, error) {
	if raw == nil {
		return head{}, nil, nil
	}
	h, err := parseHead(raw)
	if err != nil {
		return h, nil, err
	}
	gone, err := e.unlink(ctx, b, bucketID, h)
	return h, gone, err
}

// Delete removes an object. A missing key is no error, as in S3. Without a
// condition it needs no key, so the remains of a destroyed bucket can be deleted.
func (e *Engine) Delete(ctx context.Context, in Delete) (Deleted, error) {
	const op = "objects.Delete"
	if err := e.checkTarget(op, in.Key, Headers{}); err != nil {
		return Deleted{}, err
	}
	if err := checkVersion(op, in.VersionID); err != nil {
		return Deleted{}, err
	}
	bk, err := e.findBucket(ctx, op, in.Bucket)
	if err != nil {
		return Deleted{}, err
	}
	var l keys.Lease
	if in.Conditions.set() {
		if l, err = e.lease(ctx, op, bk); err != nil {
			return Deleted{}, err
		}
	}
	okey := objectKey(bk.id, in.Key)
	for try := 0; ; try++ {
		raw, err := e.get(ctx, okey)
		if err != nil {
			return Deleted{}, errs.Wrap(op, err)
		}
		if in.Conditions.set() {
			var cur *record
			if raw != nil {
				if cur, err = openRecord(l, whatObject, bk.id, []byte(in.Key), raw, true); err != nil {
					return Deleted{}, errs.Wrap(op, err)
				}
			}
			if err := checkDelete(op, in.Conditions, in.Key, cur); err != nil {
				return Deleted{}, err
			}
		}
		if raw == nil {
			return Deleted{}, nil
		}
		var b store.Batch
		bucketOpen(&b, bk)
		expect(&b, okey, raw)
		b.Delete(okey)
		old, gone, err := e.unlinkRaw(ctx, &b, bk.id, raw)
		if err != nil {
			return Deleted{}, errs.Wrap(op, err)
		}
		b.Change(TopicObject, ObjectChange{Removed, bk.id, in.Key, old.id}.encode())
		if _, err = e.store.Commit(ctx, &b); err == nil {
			e.removeBlobs(ctx, old.id, gone)
			return Deleted{Existed: true}, nil
		}
		if retry, err := e.conflicted(ctx, op, bk, try, err); !retry {
			return Deleted{}, err
		}
	}
}

// checkDelete decides a delete's conditions: If-Match as for writes, and
// If-Unmodified-Since where the caller offers it.
func checkDelete(op string, c Conditions, key string, cur *record) error {
	if err := checkWrite(op, c, key, cur); err != nil || cur == nil {
		return err
	}
	return checkRead(op, Conditions{IfUnmodifiedSince: c.IfUnmodifiedSince}, cur)
}

func checkVersion(op, id string) error {
	if id != "" && id != "null" {
		return errs.Coded(errs.NotFound, op, codeNoSuchVersion, "The specified version does not exist.")
	}
	return nil
}
