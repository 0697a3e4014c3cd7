package objects

import (
	"time"

	"chancery/cell/keys"
	"chancery/internal/errs"
)

// recordVersion is the first byte of every sealed entry's value.
const recordVersion = 1

// Kinds of content, second byte of object and part records.
const (
	// kindEmpty has no bytes anywhere.
	kindEmpty byte = 1 + iota
	// kindInline lies in the store beside the record.
	kindInline
	// kindBlob lies in cell/blobs.
	kindBlob
	// kindParts is a finished multipart upload: a part table and its parts' contents.
	kindParts
	// The next is reserved for the delete markers of versioning.
)

// headSize is the length of the part of a record that is not sealed: version,
// kind, id. It is enough to delete an object whose key is destroyed; it is bound
// to the sealed rest as associated data.
const headSize = 2 + len(contentID{})

// head is the open part of an object or part record.
type head struct {
	kind byte
	// id is where the bytes are: of a blob its id in cell/blobs, else the content's own.
	id contentID
}

// record is what is kept of an object version or of a part.
type record struct {
	head
	size       int64
	modified   int64 // Unix milliseconds
	etag       string
	checksum   Checksum
	class      string    // storage class; "" is STANDARD
	parts      int       // kindParts: how many
	content    contentID // kindInline, kindBlob: what the stream is bound to
	keyVersion uint32    // kindInline, kindBlob: of the bucket key
	salt       [32]byte
	// chunks are the plaintext sizes that each chunk of the part table covers (kindParts).
	chunks  []int64
	headers Headers
}

// parseHead reads the open part of a stored record.
func parseHead(raw []byte) (head, error) {
	var h head
	if len(raw) < headSize || raw[0] != recordVersion || raw[1] < kindEmpty || raw[1] > kindParts {
		return h, corrupt("objects.parseHead", "record")
	}
	h.kind = raw[1]
	copy(h.id[:], raw[2:headSize])
	return h, nil
}

func (h head) append(dst []byte) []byte {
	return append(append(dst, recordVersion, h.kind), h.id[:]...)
}

// bound is the associated data of a record: what it is (a word), the bucket, the
// open part, and the name under which it is stored.
func bound(what, bucketID string, open []byte, name []byte) []byte {
	return appendBound(make([]byte, 0, len(what)+1+len(bucketID)+len(open)+len(name)), what, bucketID, open, name)
}

func appendBound(b []byte, what, bucketID string, open []byte, name []byte) []byte {
	b = append(b, what...)
	b = append(b, 0)
	b = append(b, bucketID...)
	b = append(b, open...)
	return append(b, name...)
}

// Words for bound. Open parts have a fixed length for each word, or their length inside.
const (
	whatObject = "object"
	whatPart   = "part"
	whatUpload = "upload"
	whatTable  = "table"
	whatDone   = "done"
)

// encode appends the sealed part of r. The fields that a listing needs come first.
func (r *record) encode(e *encoder) {
	e.size(r.size)
	e.int(r.modified)
	e.string(r.etag)
	e.checksum(r.checksum)
	e.string(r.class)
	e.uint(uint64(r.parts))
	switch r.kind {
	case kindInline, kindBlob:
		e.raw(r.content[:])
		e.uint(uint64(r.keyVersion))
		e.raw(r.salt[:])
	case kindParts:
		e.uint(uint64(len(r.chunks)))
		for _, n := range r.chunks {
			e.size(n)
		}
	}
	e.headers(r.headers)
}

// decode reads what encode wrote; with brief it stops after what a listing shows.
func (r *record) decode(d *decoder, brief bool) bool {
	r.size, r.modified, r.etag = d.size(), d.int(), d.string()
	r.checksum, r.class = d.checksum(), d.string()
	r.parts = int(min(d.uint(), maxParts+1))
	if brief {
		return !d.bad
	}
	switch r.kind {
	case kindInline, kindBlob:
		copy(r.content[:], d.raw(len(r.content)))
		v := d.uint()
		if v > 1<<32-1 {
			d.fail()
		}
		r.keyVersion = uint32(v)
		copy(r.salt[:], d.raw(len(r.salt)))
	case kindParts:
		if n := d.count(1); n > 0 {
			r.chunks = make([]int64, n)
		}
		for i := range r.chunks {
			r.chunks[i] = d.size()
		}
	}
	r.headers = d.headers()
	return !d.bad && r.parts <= maxParts
}

// seal makes the value to store for r: open part, then sealed part.
func (r *record) seal(l keys.Lease, what, bucketID string, name []byte) ([]byte, error) {
	open := r.head.append(make([]byte, 0, headSize))
	e := encoder{b: make([]byte, 0, 256)}
	r.encode(&e)
	sealed, err := l.SealRecord(bound(what, bucketID, open, name), e.b)
	if err != nil {
		return nil, err
	}
	return append(open, sealed...), nil
}

// openRecord reverses seal.
func openRecord(l keys.Lease, what, bucketID string, name, raw []byte, brief bool) (*record, error) {
	h, err := parseHead(raw)
	if err != nil {
		return nil, err
	}
	r := &record{head: h}
	if err := r.open(l, what, bound(what, bucketID, raw[:headSize], name), raw, brief); err != nil {
		return nil, err
	}
	return r, nil
}

// open fills r, which has its head, from the sealed part of raw.
func (r *record) open(l keys.Lease, what string, aad, raw []byte, brief bool) error {
	plain, err := l.OpenRecord(aad, raw[headSize:])
	if err != nil {
		return err
	}
	d := decoder{b: plain}
	if !r.decode(&d, brief) || !brief && !d.end() {
		return corrupt("objects.openRecord", what+" record")
	}
	return nil
}

// object turns r into what the layers above see.
func (r *record) object(bucket, key, keyID string) Object {
	o := Object{
		Bucket: bucket, Key: key, Size: r.size, ETag: r.etag, Modified: unixMilli(r.modified),
		Headers: r.headers, Checksum: r.checksum, KeyID: keyID, RangeLength: r.size,
	}
	if r.kind == kindParts {
		o.PartCount = r.parts
	}
	if r.class == "" {
		r.class = standardClass
	}
	o.Headers.StorageClass = r.class
	return o
}

// part turns r into a Part.
func (r *record) part(number int) Part {
	return Part{Number: number, Size: r.size, ETag: r.etag, Modified: unixMilli(r.modified), Checksum: r.checksum}
}

const standardClass = "STANDARD"

func storedClass(h Headers) string {
	if h.StorageClass == standardClass {
		return ""
	}
	return h.StorageClass
}

// leaseError gives a lease's error our operation. A missing key of a bucket that
// is there means a damaged store, not a missing object.
func leaseError(op string, err error) error {
	if errs.Is(err, errs.NotFound) {
		return errs.WrapKind(errs.Corrupt, op, err)
	}
	return errs.Wrap(op, err)
}

// unixMilli is the time of a stored instant.
func unixMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
