package objects

import (
	"context"
	"hash"
	"io"
	"strings"

	"chancery/internal/errs"
)

// openSource opens the source of a copy. All of its failed conditions are
// PreconditionFailed, as S3 answers for x-amz-copy-source-if-*.
func (e *Engine) openSource(ctx context.Context, op string, src Get) (Object, io.ReadCloser, error) {
	o, rc, err := e.Get(ctx, src)
	if errs.CodeOf(err) == codeNotModified {
		err = preconditionFailed(op)
	}
	return o, rc, err
}

// Copy copies an object, bytes and all, decrypting and encrypting as it streams.
// A copy onto itself that changes nothing is InvalidRequest. Headers.StorageClass
// counts without Replace too, as x-amz-storage-class does. The checksum is kept;
// with another algorithm, or from a multipart object's composite one, it is computed.
func (e *Engine) Copy(ctx context.Context, in Copy) (Object, error) {
	const op = "objects.Copy"
	if err := e.checkTarget(op, in.Key, in.Headers); err != nil {
		return Object{}, err
	}
	if in.ChecksumAlgorithm != "" {
		if _, err := checksumType(op, in.ChecksumAlgorithm, ""); err != nil {
			return Object{}, err
		}
	}
	if in.Source.Range != nil || in.Source.PartNumber != 0 {
		return Object{}, errs.Coded(errs.Invalid, op, codeRequest, "A copy takes a whole object.")
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return Object{}, err
	}
	if err := e.checkEarly(ctx, op, l, bk, in.Key, in.Conditions); err != nil {
		return Object{}, err
	}
	o, rc, err := e.openSource(ctx, op, in.Source)
	if err != nil {
		return Object{}, err
	}
	defer rc.Close()
	if o.Size > MaxSingle {
		return Object{}, errs.Coded(errs.Invalid, op, codeRequest,
			"The specified copy source is larger than the maximum allowable size for a copy source: %d", int64(MaxSingle))
	}
	headers := o.Headers
	if in.Replace {
		headers = in.Headers
	} else if in.Headers.StorageClass != "" {
		headers.StorageClass = in.Headers.StorageClass
	}
	if in.Source.Bucket == in.Bucket && in.Source.Key == in.Key && !in.Replace && storedClass(headers) == storedClass(o.Headers) {
		return Object{}, errs.Coded(errs.Invalid, op, codeRequest,
			"This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	sum := o.Checksum
	algorithm := sum.Algorithm
	if in.ChecksumAlgorithm != "" {
		algorithm = in.ChecksumAlgorithm
	}
	var h hash.Hash
	if algorithm != "" && (algorithm != sum.Algorithm || sum.Type == typeComposite) {
		h = newHash(algorithm)
	}
	c, err := e.receive(ctx, op, l, bk, in.Key, source{r: e.roomy(op, rc, o.Size), size: o.Size, hash: h})
	if err != nil {
		return Object{}, err
	}
	defer c.drop(ctx)
	if h != nil {
		sum = Checksum{Algorithm: algorithm, Value: hashValue(h), Type: typeFullObject}
	}
	c.etag = o.ETag
	if strings.Contains(c.etag, "-") { // not an MD5 of the bytes
		c.etag = opaqueETag()
	}
	c.checksum, c.headers, c.class = sum, headers, storedClass(headers)
	return e.publish(ctx, op, bk, in.Key, c, in.Conditions)
}
