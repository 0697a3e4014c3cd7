package objects

import (
	"context"
	"encoding/binary"
	"hash"

	"chancery/cell/keys"
	"chancery/internal/errs"
	"chancery/internal/store"
)

// ChecksumDeclarer is what a Body may also implement: it tells, before the bytes
// are read, which checksum algorithm Finish will return ("" for none). A part of
// an upload that has an algorithm needs one; what the body does not bring is
// computed here, which is wasted work if the body does so too.
type ChecksumDeclarer interface{ ChecksumAlgorithm() string }

func checkPartNumber(op string, n int) error {
	if n < 1 || n > maxParts {
		return invalidArgument(op, "Part number must be an integer between 1 and 10000, inclusive")
	}
	return nil
}

// PutPart stores a part, in place of one of the same number.
func (e *Engine) PutPart(ctx context.Context, in PutPart) (Part, error) {
	const op = "objects.PutPart"
	if err := e.checkTarget(op, in.Key, Headers{}); err != nil {
		return Part{}, err
	}
	if err := checkPartNumber(op, in.Number); err != nil {
		return Part{}, err
	}
	if in.Body == nil {
		return Part{}, invalidArgument(op, "no body")
	}
	if err := checkSize(op, in.Size); err != nil {
		return Part{}, err
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return Part{}, err
	}
	u, err := e.findUpload(ctx, op, l, bk, in.Key, in.UploadID)
	if err != nil {
		return Part{}, err
	}
	declared := ""
	if d, ok := in.Body.(ChecksumDeclarer); ok {
		declared = d.ChecksumAlgorithm()
	}
	if err := u.checkAlgorithm(op, declared); err != nil {
		return Part{}, err
	}
	var h hash.Hash
	if declared == "" {
		h = newHash(u.algorithm)
	}
	var sums Sums
	c, err := e.receive(ctx, op, l, bk, in.Key, source{r: e.roomy(op, in.Body, in.Size), size: in.Size, hash: h, finish: func() (err error) {
		if sums, err = in.Body.Finish(); err != nil {
			return err
		}
		return u.checkAlgorithm(op, sums.Checksum.Algorithm)
	}})
	if err != nil {
		return Part{}, err
	}
	defer c.drop(ctx)
	c.etag, c.checksum = sumsETag(sums), sums.Checksum
	switch {
	case c.checksum.Algorithm != "":
		c.checksum.Type = ""
	case h != nil:
		c.checksum = Checksum{Algorithm: u.algorithm, Value: hashValue(h)}
	case u.algorithm != "":
		return Part{}, errs.Coded(errs.Invalid, op, codeRequest, "The body declared a checksum and did not bring it.")
	}
	return e.publishPart(ctx, op, bk, u, in.Number, c)
}

// checkAlgorithm refuses a part whose checksum is of another algorithm than the upload's.
func (u *uploadInfo) checkAlgorithm(op, algorithm string) error {
	if u.algorithm == "" || algorithm == "" || algorithm == u.algorithm {
		return nil
	}
	return errs.Coded(errs.Invalid, op, codeRequest,
		"Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s", u.algorithm, algorithm)
}

// publishPart commits a received part. It holds only while the upload is open, so
// that a part never comes to an upload that is completed or aborted.
func (e *Engine) publishPart(ctx context.Context, op string, bk *bucketInfo, u *uploadInfo, number int, c *content) (Part, error) {
	ukey, pkey := uploadKey(bk.id, u.key, u.id), partKey(bk.id, u.id, number)
	c.modified = e.now().UnixMilli()
	l, err := e.lease(ctx, op, bk)
	if err != nil {
		return Part{}, err
	}
	value, err := c.record.seal(l, whatPart, bk.id, partName(u.id, number))
	if err != nil {
		return Part{}, errs.Wrap(op, err)
	}
	for try := 0; ; try++ {
		raw, err := e.get(ctx, pkey)
		if err != nil {
			return Part{}, errs.Wrap(op, err)
		}
		var b store.Batch
		bucketOpen(&b, bk)
		b.IfEquals(ukey, u.raw)
		expect(&b, pkey, raw)
		b.Put(pkey, value)
		c.publish(&b, bk)
		old, gone, err := e.unlinkRaw(ctx, &b, bk.id, raw)
		if err != nil {
			return Part{}, errs.Wrap(op, err)
		}
		if _, err = e.store.Commit(ctx, &b); err == nil {
			c.settled = true
			e.removeBlobs(ctx, old.id, gone)
			return c.record.part(number), nil
		}
		c.settled = !neverCommitted(err)
		if retry, err := e.conflicted(ctx, op, bk, try, err); !retry {
			return Part{}, err
		}
		if err := e.waitOpen(ctx, op, ukey, key2(pIntentU, string(u.id[:])), noSuchUpload(op, u.id.String())); err != nil {
			return Part{}, err
		}
	}
}

func partName(id uploadID, number int) []byte {
	return binary.BigEndian.AppendUint16(append([]byte(nil), id[:]...), uint16(number))
}

// CopyPart stores a part from (a range of) another object.
func (e *Engine) CopyPart(ctx context.Context, in CopyPart) (Part, error) {
	const op = "objects.CopyPart"
	if err := e.checkTarget(op, in.Key, Headers{}); err != nil {
		return Part{}, err
	}
	if err := checkPartNumber(op, in.Number); err != nil {
		return Part{}, err
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return Part{}, err
	}
	u, err := e.findUpload(ctx, op, l, bk, in.Key, in.UploadID)
	if err != nil {
		return Part{}, err
	}
	o, rc, err := e.openSource(ctx, op, in.Source)
	if err != nil {
		return Part{}, err
	}
	defer rc.Close()
	if g := in.Source.Range; g != nil && g.Suffix == 0 && (g.To < 0 || g.To >= o.Size) {
		return Part{}, invalidArgument(op, "Range specified is not valid for source object of size: %d", o.Size)
	}
	if err := checkSize(op, o.RangeLength); err != nil {
		return Part{}, err
	}
	h := newHash(u.algorithm)
	c, err := e.receive(ctx, op, l, bk, in.Key, source{r: e.roomy(op, rc, o.RangeLength), size: o.RangeLength, hash: h})
	if err != nil {
		return Part{}, err
	}
	defer c.drop(ctx)
	c.etag = opaqueETag()
	if h != nil {
		c.checksum = Checksum{Algorithm: u.algorithm, Value: hashValue(h)}
	}
	return e.publishPart(ctx, op, bk, u, in.Number, c)
}

// ListParts lists an upload's parts by number.
func (e *Engine) ListParts(ctx context.Context, in ListParts) (PartListing, error) {
	const op = "objects.ListParts"
	if err := e.checkTarget(op, in.Key, Headers{}); err != nil {
		return PartListing{}, err
	}
	if err := checkPage(op, in.Max); err != nil {
		return PartListing{}, err
	}
	if in.After < 0 {
		return PartListing{}, invalidArgument(op, "the part number marker is negative")
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return PartListing{}, err
	}
	u, err := e.findUpload(ctx, op, l, bk, in.Key, in.UploadID)
	if err != nil {
		return PartListing{}, err
	}
	out := PartListing{Upload: u.upload(bk.name, l.KeyID())}
	if in.After >= maxParts {
		return out, nil
	}
	err = e.scanParts(ctx, l, bk, u.id, in.After, func(number int, r *record) bool {
		if len(out.Parts) == in.Max {
			out.Truncated = true
			return false
		}
		out.Parts = append(out.Parts, r.part(number))
		return true
	})
	if err != nil {
		return PartListing{}, errs.Wrap(op, err)
	}
	if out.Truncated {
		out.Next = out.Parts[len(out.Parts)-1].Number
	}
	return out, nil
}

// scanParts calls fn for each stored part of an upload with a number above after.
func (e *Engine) scanParts(ctx context.Context, l keys.Lease, bk *bucketInfo, id uploadID, after int, fn func(int, *record) bool) error {
	prefix := partPrefix(bk.id, id)
	rng := store.Prefix(prefix)
	rng.Start = partKey(bk.id, id, after+1)
	return e.store.Scan(ctx, rng, func(k, v []byte) (bool, error) {
		if len(k) != len(prefix)+2 {
			return false, corrupt("objects.scanParts", "part key")
		}
		number := int(binary.BigEndian.Uint16(k[len(prefix):]))
		r, err := openRecord(l, whatPart, bk.id, partName(id, number), v, false)
		if err != nil {
			return false, err
		}
		return fn(number, r), nil
	})
}
