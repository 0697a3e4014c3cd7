package objects

import (
	"bytes"
	"context"
	"encoding/binary"

	"chancery/cell/keys"
	"chancery/internal/errs"
	"chancery/internal/store"
)

// uploadInfo is an upload record. Its value is a byte of state, a version byte,
// and the rest sealed.
type uploadInfo struct {
	id        uploadID
	key       string
	raw       []byte // value while open
	initiated int64
	algorithm string
	kind      string // checksum type
	headers   Headers
}

func uploadName(key string, id uploadID) []byte {
	return append(append(escape(nil, key), 0, 1), id[:]...)
}

func (u *uploadInfo) seal(l keys.Lease, bk *bucketInfo) ([]byte, error) {
	var e encoder
	e.int(u.initiated)
	e.strings(u.algorithm, u.kind, storedClass(u.headers))
	e.headers(u.headers)
	sealed, err := l.SealRecord(bound(whatUpload, bk.id, nil, uploadName(u.key, u.id)), e.b)
	if err != nil {
		return nil, err
	}
	return append([]byte{stateOpen, recordVersion}, sealed...), nil
}

func openUpload(l keys.Lease, bk *bucketInfo, key string, id uploadID, raw []byte) (*uploadInfo, error) {
	bad := corrupt("objects.openUpload", "upload record")
	if len(raw) < 2 || raw[1] != recordVersion {
		return nil, bad
	}
	plain, err := l.OpenRecord(bound(whatUpload, bk.id, nil, uploadName(key, id)), raw[2:])
	if err != nil {
		return nil, err
	}
	d := decoder{b: plain}
	u := &uploadInfo{id: id, key: key, initiated: d.int(), algorithm: d.string(), kind: d.string()}
	class := d.string()
	if u.headers = d.headers(); !d.end() {
		return nil, bad
	}
	if u.headers.StorageClass = class; class == "" {
		u.headers.StorageClass = standardClass
	}
	u.raw = bytes.Clone(raw)
	u.raw[0] = stateOpen
	return u, nil
}

// ending is the record's value while a complete or an abort decides.
func (u *uploadInfo) ending() []byte {
	v := bytes.Clone(u.raw)
	v[0] = stateEnding
	return v
}

func (u *uploadInfo) upload(bucket, keyID string) Upload {
	return Upload{
		Bucket: bucket, Key: u.key, ID: u.id.String(), Initiated: unixMilli(u.initiated), Headers: u.headers,
		ChecksumAlgorithm: u.algorithm, ChecksumType: u.kind, KeyID: keyID,
	}
}

// findUpload reads an upload's record, in whatever state.
func (e *Engine) findUpload(ctx context.Context, op string, l keys.Lease, bk *bucketInfo, key, id string) (*uploadInfo, error) {
	uid, ok := parseUploadID(id)
	if !ok {
		return nil, noSuchUpload(op, id)
	}
	raw, err := e.get(ctx, uploadKey(bk.id, key, uid))
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	if raw == nil {
		return nil, noSuchUpload(op, id)
	}
	u, err := openUpload(l, bk, key, uid, raw)
	return u, errs.Wrap(op, err)
}

// CreateUpload begins a multipart upload.
func (e *Engine) CreateUpload(ctx context.Context, in CreateUpload) (Upload, error) {
	const op = "objects.CreateUpload"
	if err := e.checkTarget(op, in.Key, in.Headers); err != nil {
		return Upload{}, err
	}
	kind, err := checksumType(op, in.ChecksumAlgorithm, in.ChecksumType)
	if err != nil {
		return Upload{}, err
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return Upload{}, err
	}
	if err := e.room(op, 0); err != nil {
		return Upload{}, err
	}
	now := e.now().UnixMilli()
	u := &uploadInfo{id: newUploadID(now), key: in.Key, initiated: now, algorithm: in.ChecksumAlgorithm, kind: kind, headers: in.Headers}
	value, err := u.seal(l, bk)
	if err != nil {
		return Upload{}, errs.Wrap(op, err)
	}
	for try := 0; ; try++ {
		var b store.Batch
		bucketOpen(&b, bk)
		b.IfAbsent(uploadKey(bk.id, u.key, u.id))
		b.Put(uploadKey(bk.id, u.key, u.id), value)
		if _, err = e.store.Commit(ctx, &b); err == nil {
			if u.headers.StorageClass == "" {
				u.headers.StorageClass = standardClass
			}
			return u.upload(bk.name, l.KeyID()), nil
		}
		if retry, err := e.conflicted(ctx, op, bk, try, err); !retry {
			return Upload{}, err
		}
	}
}

// Upload finds an upload in progress; NoSuchUpload if there is none of this key and id.
func (e *Engine) Upload(ctx context.Context, bucket, key, id string) (Upload, error) {
	const op = "objects.Upload"
	if err := e.checkTarget(op, key, Headers{}); err != nil {
		return Upload{}, err
	}
	bk, l, err := e.open(ctx, op, bucket)
	if err != nil {
		return Upload{}, err
	}
	u, err := e.findUpload(ctx, op, l, bk, key, id)
	if err != nil {
		return Upload{}, err
	}
	return u.upload(bk.name, l.KeyID()), nil
}

// AbortUpload ends an upload and removes its parts. It needs no key, so that the
// remains of a destroyed bucket can be removed.
func (e *Engine) AbortUpload(ctx context.Context, bucket, key, id string) error {
	const op = "objects.AbortUpload"
	if err := e.checkTarget(op, key, Headers{}); err != nil {
		return err
	}
	bk, err := e.findBucket(ctx, op, bucket)
	if err != nil {
		return err
	}
	uid, ok := parseUploadID(id)
	if !ok {
		return noSuchUpload(op, id)
	}
	ukey, intent := uploadKey(bk.id, key, uid), key2(pIntentU, string(uid[:]))
	open, err := e.flip(ctx, op, ukey, intent, noSuchUpload(op, id))
	if err != nil {
		return err
	}
	defer e.ends.unlock(intent)
	ctx = context.WithoutCancel(ctx)
	var b store.Batch
	ending := bytes.Clone(open)
	ending[0] = stateEnding
	b.IfEquals(ukey, ending)
	b.Delete(ukey)
	b.Delete(intent)
	gone, err := e.unlinkParts(ctx, &b, bk.id, uid, nil)
	if err != nil {
		_ = e.reopen(ctx, ukey, intent)
		return errs.Wrap(op, err)
	}
	if _, err := e.store.Commit(ctx, &b); err != nil {
		if neverCommitted(err) {
			_ = e.reopen(ctx, ukey, intent)
		}
		return errs.Wrap(op, err)
	}
	e.removeNow(ctx, gone)
	return nil
}

// unlinkParts adds to b the removal of an upload's part records, and of their
// contents but for the parts in keep.
func (e *Engine) unlinkParts(ctx context.Context, b *store.Batch, bucketID string, id uploadID, keep map[int]struct{}) (gone []contentID, err error) {
	prefix := partPrefix(bucketID, id)
	err = e.store.Scan(ctx, store.Prefix(prefix), func(k, v []byte) (bool, error) {
		if len(k) != len(prefix)+2 {
			return false, corrupt("objects.unlinkParts", "part key")
		}
		if _, ok := keep[int(binary.BigEndian.Uint16(k[len(prefix):]))]; ok {
			return true, nil
		}
		h, err := parseHead(v)
		if err != nil || h.kind == kindParts { // a part has no parts
			return false, corrupt("objects.unlinkParts", "part record")
		}
		list, err := e.unlink(ctx, b, bucketID, h)
		gone = append(gone, list...)
		return err == nil, err
	})
	b.DeleteRange(prefix, store.After(prefix))
	return gone, err
}

// ListUploads lists uploads in progress by key, then start.
func (e *Engine) ListUploads(ctx context.Context, in ListUploads) (UploadListing, error) {
	const op = "objects.ListUploads"
	if err := checkPage(op, in.Max, in.Prefix, in.Delimiter, in.KeyMarker); err != nil {
		return UploadListing{}, err
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return UploadListing{}, err
	}
	s := scanner{
		base: inBucket(pUpload, bk.id, ""),
		name: func(rest []byte) (string, bool) {
			key, id, ok := unescape(rest)
			return key, ok && len(id) == len(uploadID{})
		},
		escaped: func(k string) []byte { return escape(nil, k) },
		prefix:  in.Prefix, delimiter: in.Delimiter, max: in.Max,
	}
	if in.KeyMarker != "" {
		s.start = append(escape(bytes.Clone(s.base), in.KeyMarker), 0)
		if in.UploadIDMarker != "" {
			id, ok := parseUploadID(in.UploadIDMarker)
			if !ok {
				return UploadListing{}, invalidArgument(op, "Invalid uploadId marker")
			}
			s.start = append(append(append(s.start, 1), id[:]...), 0)
		} else {
			s.start = append(s.start, 2) // past every upload of this key
			s.markInside(in.KeyMarker)
		}
	}
	var out UploadListing
	keyID := l.KeyID()
	more, err := s.run(ctx, e.store, func(key string, rest, value []byte) error {
		var id uploadID
		copy(id[:], rest[len(rest)-len(id):])
		u, err := openUpload(l, bk, key, id, value)
		if err != nil {
			return err
		}
		out.Uploads = append(out.Uploads, u.upload(bk.name, keyID))
		out.NextKeyMarker, out.NextUploadIDMarker = key, id.String()
		return nil
	}, func(p string) {
		out.CommonPrefixes = append(out.CommonPrefixes, p)
		out.NextKeyMarker, out.NextUploadIDMarker = p, ""
	})
	if err != nil {
		return UploadListing{}, errs.Wrap(op, err)
	}
	if out.Truncated = more; !more {
		out.NextKeyMarker, out.NextUploadIDMarker = "", ""
	}
	return out, nil
}
