package objects

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"

	"chancery/cell/keys"
	"chancery/internal/errs"
	"chancery/internal/store"
)

// CompleteUpload makes an upload's parts an object. The upload is first marked as
// ending, so that no part changes while they are looked through; then one commit
// puts the object in place of the upload. What does not succeed leaves the upload
// open. The parts of the finished object are numbered 1 to N in order.
func (e *Engine) CompleteUpload(ctx context.Context, in CompleteUpload) (Object, error) {
	const op = "objects.CompleteUpload"
	if err := e.checkTarget(op, in.Key, Headers{}); err != nil {
		return Object{}, err
	}
	if err := checkCompleted(op, in.Parts); err != nil {
		return Object{}, err
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return Object{}, err
	}
	uid, ok := parseUploadID(in.UploadID)
	if !ok {
		return Object{}, noSuchUpload(op, in.UploadID)
	}
	asked := digestParts(in.Parts)
	ukey, intent := uploadKey(bk.id, in.Key, uid), key2(pIntentU, string(uid[:]))
	u, err := e.findUpload(ctx, op, l, bk, in.Key, in.UploadID)
	if err == nil {
		if err = e.checkEarly(ctx, op, l, bk, in.Key, in.Conditions); err != nil {
			return Object{}, err
		}
		_, err = e.flip(ctx, op, ukey, intent, noSuchUpload(op, in.UploadID))
	}
	if errs.CodeOf(err) == codeNoSuchUpload {
		return e.completedBefore(ctx, op, l, bk, in.Key, uid, asked, err)
	}
	if err != nil {
		return Object{}, err
	}
	defer e.ends.unlock(intent)
	// From here on the upload must be settled either way, whatever becomes of the caller.
	ctx = context.WithoutCancel(ctx)
	o, undo, err := e.complete(ctx, op, l, bk, u, in, asked)
	if undo {
		if err := e.reopen(ctx, ukey, intent); err != nil {
			return Object{}, errs.Wrap(op, err)
		}
	}
	return o, err
}

func checkCompleted(op string, parts []CompletedPart) error {
	if len(parts) == 0 || len(parts) > maxParts {
		return errs.Coded(errs.Invalid, op, codeMalformed, "The XML you provided was not well-formed or did not validate against our published schema")
	}
	for i, p := range parts {
		if err := checkPartNumber(op, p.Number); err != nil {
			return err
		}
		if i > 0 && p.Number <= parts[i-1].Number {
			return errs.Coded(errs.Invalid, op, codePartOrder, "The list of parts was not in ascending order. The parts list must be specified in order by part number.")
		}
	}
	return nil
}

// digestParts identifies what a complete asks for.
func digestParts(parts []CompletedPart) [32]byte {
	h := sha256.New()
	for _, p := range parts {
		tag := strings.Trim(p.ETag, `"`)
		h.Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(p.Number)), uint32(len(tag))))
		h.Write([]byte(tag))
	}
	return [32]byte(h.Sum(nil))
}

// complete decides and commits. undo tells that nothing was committed and that
// the upload must be opened again.
func (e *Engine) complete(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, u *uploadInfo, in CompleteUpload, asked [32]byte) (o Object, undo bool, err error) {
	parts, total, err := e.chooseParts(ctx, op, l, bk, u, in.Parts)
	if err != nil {
		return Object{}, true, err
	}
	if in.Size >= 0 && in.Size != total {
		return Object{}, true, errs.Coded(errs.Invalid, op, codeRequest,
			"The provided 'x-amz-mp-object-size' header does not match what was computed.")
	}
	sum, err := wholeChecksum(op, u, parts, in.Checksum)
	if err != nil {
		return Object{}, true, err
	}
	r := &record{
		head: head{kind: kindParts}, size: total, etag: multipartETag(parts), checksum: sum,
		class: storedClass(u.headers), parts: len(parts), headers: u.headers,
	}
	rand.Read(r.id[:]) // never fails (crypto/rand)
	keep := make(map[int]struct{}, len(in.Parts))
	for _, p := range in.Parts {
		keep[p.Number] = struct{}{}
	}
	ukey, okey := uploadKey(bk.id, u.key, u.id), objectKey(bk.id, u.key)
	for try := 0; ; try++ {
		raw, err := e.get(ctx, okey)
		if err != nil {
			return Object{}, true, errs.Wrap(op, err)
		}
		if err := e.checkAgain(op, l, bk, u.key, raw, in.Conditions); err != nil {
			return Object{}, true, err
		}
		var b store.Batch
		bucketOpen(&b, bk)
		b.IfEquals(ukey, u.ending())
		expect(&b, okey, raw)
		r.modified = e.now().UnixMilli()
		if err := e.putTable(l, &b, bk, r, parts); err != nil {
			return Object{}, true, errs.Wrap(op, err)
		}
		value, err := r.seal(l, whatObject, bk.id, []byte(u.key))
		if err != nil {
			return Object{}, true, errs.Wrap(op, err)
		}
		b.Put(okey, value)
		b.Put(doneKey(bk.id, u.id), encodeDone(r.modified, asked, u.key, value))
		b.Delete(ukey)
		b.Delete(key2(pIntentU, string(u.id[:])))
		unused, err := e.unlinkParts(ctx, &b, bk.id, u.id, keep)
		if err != nil {
			return Object{}, true, errs.Wrap(op, err)
		}
		old, gone, err := e.unlinkRaw(ctx, &b, bk.id, raw)
		if err != nil {
			return Object{}, true, errs.Wrap(op, err)
		}
		b.Change(TopicObject, ObjectChange{Created, bk.id, u.key, r.id}.encode())
		if _, err = e.store.Commit(ctx, &b); err == nil {
			e.removeNow(ctx, unused)
			e.removeBlobs(ctx, old.id, gone)
			return r.object(bk.name, u.key, l.KeyID()), false, nil
		}
		if retry, err2 := e.conflicted(ctx, op, bk, try, err); !retry {
			return Object{}, neverCommitted(err), err2
		}
		if now, err := e.get(ctx, ukey); err != nil || !bytes.Equal(now, u.ending()) {
			return Object{}, false, errors.Join(aborted(op), err)
		}
	}
}

// chooseParts finds the stored parts that a complete names and checks them.
func (e *Engine) chooseParts(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, u *uploadInfo, asked []CompletedPart) (parts []*record, total int64, err error) {
	invalid := errs.Coded(errs.Invalid, op, codePart,
		"One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.")
	i := 0
	err = e.scanParts(ctx, l, bk, u.id, 0, func(number int, r *record) bool {
		if number == asked[i].Number {
			parts = append(parts, r)
			i++
		}
		return i < len(asked) && number < asked[i].Number
	})
	if err != nil {
		return nil, 0, errs.Wrap(op, err)
	}
	if len(parts) != len(asked) {
		return nil, 0, invalid
	}
	for i, p := range parts {
		a := asked[i]
		if strings.Trim(a.ETag, `"`) != p.etag ||
			a.Checksum.Algorithm != "" && (a.Checksum.Algorithm != p.checksum.Algorithm || a.Checksum.Value != p.checksum.Value) {
			return nil, 0, invalid
		}
		if i < len(parts)-1 && p.size < MinPart {
			return nil, 0, errs.Coded(errs.Invalid, op, codeEntityTooSmall, "Your proposed upload is smaller than the minimum allowed size")
		}
		total += p.size
	}
	return parts, total, nil
}

// wholeChecksum computes the finished object's checksum from those of its parts
// and compares what the client claims.
func wholeChecksum(op string, u *uploadInfo, parts []*record, claim Checksum) (Checksum, error) {
	algorithm, kind := u.algorithm, u.kind
	if algorithm == "" {
		if claim.Algorithm == "" {
			return Checksum{}, nil
		}
		var err error
		if algorithm = claim.Algorithm; kind == "" {
			if kind, err = checksumType(op, algorithm, claim.Type); err != nil {
				return Checksum{}, err
			}
		}
	}
	if claim.Algorithm != "" && claim.Algorithm != algorithm || claim.Type != "" && claim.Type != kind {
		return Checksum{}, errs.Coded(errs.Invalid, op, codeRequest,
			"The upload was created using the %s checksum of type %s. The complete request must use the same.", strings.ToLower(algorithm), kind)
	}
	join := composite
	if kind == typeFullObject {
		join = fullObject
	}
	sum, ok := join(algorithm, parts)
	if !ok {
		return Checksum{}, errs.Coded(errs.Invalid, op, codeRequest,
			"The upload's parts do not all have a %s checksum, so that of the object cannot be told.", strings.ToLower(algorithm))
	}
	whole, _, _ := strings.Cut(sum.Value, "-")
	if claim.Value != "" && claim.Value != sum.Value && claim.Value != whole {
		return Checksum{}, errs.Coded(errs.Invalid, op, codeBadDigest, "The %s you specified did not match the calculated checksum.", algorithm)
	}
	return sum, nil
}

// encodeDone makes the entry that answers a repeated complete: when, what was
// asked, the key, and the object record as it was then.
func encodeDone(at int64, asked [32]byte, key string, value []byte) []byte {
	var e encoder
	e.byte(recordVersion)
	e.int(at)
	e.raw(asked[:])
	e.string(key)
	e.raw(value)
	return e.b
}

// completedBefore answers a complete of an upload that is no more: as before if it
// asks for the same parts, else with cause.
func (e *Engine) completedBefore(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, key string, id uploadID, asked [32]byte, cause error) (Object, error) {
	raw, err := e.get(ctx, doneKey(bk.id, id))
	if err != nil {
		return Object{}, errs.Wrap(op, err)
	}
	if raw == nil {
		return Object{}, cause
	}
	d := decoder{b: raw}
	v := d.byte()
	d.int()
	same := bytes.Equal(d.raw(len(asked)), asked[:])
	doneFor := d.string()
	if d.bad || v != recordVersion {
		return Object{}, corrupt(op, "finished upload")
	}
	if !same || doneFor != key {
		return Object{}, cause
	}
	r, err := openRecord(l, whatObject, bk.id, []byte(key), d.b, false)
	if err != nil {
		return Object{}, errs.Wrap(op, err)
	}
	return r.object(bk.name, key, l.KeyID()), nil
}

// Parts lists the parts of a finished multipart object with numbers above after,
// at most limit (1 to 1000), and whether there are more. Of a single put it is empty.
func (e *Engine) Parts(ctx context.Context, bucket, key, versionID string, after, limit int) ([]Part, bool, error) {
	const op = "objects.Parts"
	if err := e.checkTarget(op, key, Headers{}); err != nil {
		return nil, false, err
	}
	if err := checkPage(op, limit); err != nil {
		return nil, false, err
	}
	if after < 0 {
		return nil, false, invalidArgument(op, "the part number marker is negative")
	}
	bk, l, err := e.open(ctx, op, bucket)
	if err != nil {
		return nil, false, err
	}
	var last []byte
	for {
		raw, r, err := e.lookup(ctx, op, l, bk, Get{Key: key, VersionID: versionID})
		if err != nil || r.kind != kindParts {
			return nil, false, err
		}
		var out []Part
		n := after
		for err == nil && n < r.parts && len(out) < limit {
			var parts []*record
			if parts, err = e.chunk(ctx, l, bk, r, n/partsPerChunk); err != nil {
				break
			}
			from := n % partsPerChunk
			if from >= len(parts) {
				return nil, false, corrupt(op, "part table")
			}
			for _, p := range parts[from:] {
				if len(out) == limit {
					break
				}
				n++
				out = append(out, p.part(n))
			}
		}
		if err == errGone && !bytes.Equal(raw, last) {
			last = raw
			continue
		}
		if err == errGone {
			return nil, false, corrupt(op, "part table")
		}
		return out, n < r.parts, errs.Wrap(op, err)
	}
}
