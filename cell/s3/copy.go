package s3

import (
	"slices"
	"strings"
	"unicode/utf8"

	"chancery/cell/objects"
	"chancery/internal/errs"
)

// copySource is a parsed x-amz-copy-source.
type copySource struct{ bucket, key, version string }

// parseCopySource reads "[/]BUCKET/KEY[?versionId=ID]", URL-encoded. As S3 does, it
// reads "+" as a space.
func parseCopySource(v string) (copySource, error) {
	bad := func() (copySource, error) {
		return copySource{}, invalidArgument("x-amz-copy-source", v, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	}
	var c copySource
	path, rawQuery, hasQuery := strings.Cut(v, "?")
	if strings.HasPrefix(path, "arn:") {
		return copySource{}, notImplemented("x-amz-copy-source")
	}
	if hasQuery {
		params, err := parseQuery(rawQuery)
		if err != nil || len(params) != 1 || params[0].name != "versionId" || params[0].value == "" {
			return bad()
		}
		c.version = params[0].value
	}
	dec, err := unescape(path, true)
	if err != nil || !utf8.ValidString(dec) {
		return bad()
	}
	var ok bool
	c.bucket, c.key, ok = strings.Cut(strings.TrimPrefix(dec, "/"), "/")
	if !ok || c.key == "" || !plausibleBucket(c.bucket) {
		return bad()
	}
	if len(c.key) > maxKeyBytes {
		return copySource{}, keyTooLong(c.key)
	}
	return c, nil
}

// source reads where to copy from, and asks whether the caller may read there.
func (q *request) source() (objects.Get, error) {
	hd := q.r.Header
	if len(hd.Values("X-Amz-Copy-Source")) > 1 {
		return objects.Get{}, invalidArgument("x-amz-copy-source", "", "x-amz-copy-source is given more than once.")
	}
	c, err := parseCopySource(hd.Get("X-Amz-Copy-Source"))
	if err != nil {
		return objects.Get{}, err
	}
	in := objects.Get{Bucket: c.bucket, Key: c.key, VersionID: c.version, Conditions: readConditions(hd, "X-Amz-Copy-Source-")}
	b := q.held
	if c.bucket != q.bucket {
		if b, err = q.h.objects.Bucket(q.ctx, c.bucket); err != nil {
			if errs.CodeOf(err) == "NoSuchBucket" {
				return in, fail("NoSuchBucket").because(err).with("BucketName", c.bucket)
			}
			return in, err
		}
	}
	if want := hd.Get("X-Amz-Source-Expected-Bucket-Owner"); want != "" && want != b.ProjectID {
		return in, fail("AccessDenied")
	}
	action := "s3:GetObject"
	if c.version != "" {
		action = "s3:GetObjectVersion"
	}
	return in, q.decide(action, b.ProjectID, "arn:aws:s3:::"+c.bucket+"/"+c.key)
}

// sourceFailed names the source, not the target, in an error about the source.
func (q *request) sourceFailed(src objects.Get, err error) error {
	switch errs.CodeOf(err) {
	case "NoSuchKey":
		return fail("NoSuchKey").because(err).with("Key", src.Key)
	case "NoSuchVersion":
		return fail("NoSuchVersion").because(err).with("Key", src.Key).with("VersionId", src.VersionID)
	case "NotModified", "PreconditionFailed":
		return fail("PreconditionFailed").because(err)
	}
	return err
}

func (q *request) copyObject() error {
	if err := q.checkKey(); err != nil {
		return err
	}
	src, err := q.source()
	if err != nil {
		return err
	}
	headers, err := q.writeHeaders()
	if err != nil {
		return err
	}
	cond, err := writeConditions(q.r.Header)
	if err != nil {
		return err
	}
	hd := q.r.Header
	in := objects.Copy{Source: src, Bucket: q.bucket, Key: q.key, Headers: headers, Conditions: cond}
	switch v := hd.Get("X-Amz-Metadata-Directive"); v {
	case "", "COPY":
	case "REPLACE":
		in.Replace = true
	default:
		return invalidArgument("x-amz-metadata-directive", v, "Unknown metadata directive.")
	}
	switch v := hd.Get("X-Amz-Tagging-Directive"); v {
	case "", "COPY":
	case "REPLACE":
		return notImplemented("x-amz-tagging-directive")
	default:
		return invalidArgument("x-amz-tagging-directive", v, "Unknown tagging directive.")
	}
	if v := hd.Get("X-Amz-Checksum-Algorithm"); v != "" {
		a := algorithmNamed(v)
		if a == nil {
			return unsupportedAlgorithm()
		}
		in.ChecksumAlgorithm = a.name
	}
	if src.Bucket == q.bucket && src.Key == q.key && src.VersionID == "" && !in.Replace && headers.StorageClass == "" &&
		in.ChecksumAlgorithm == "" && hd.Get("X-Amz-Server-Side-Encryption") == "" {
		return failf("InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	if !in.Replace && headers.StorageClass != "" {
		// The class changes though the rest is copied: take the source's headers as they are now.
		o, err := q.h.objects.Head(q.ctx, src)
		if err != nil {
			return q.sourceFailed(src, err)
		}
		class := headers.StorageClass
		in.Replace, in.Headers = true, o.Headers
		in.Headers.StorageClass = class
		in.Source.Conditions = objects.Conditions{IfMatch: o.ETag}
	}
	return q.slowly(func() (func(*xmlBuf), error) {
		obj, err := q.h.objects.Copy(q.ctx, in)
		if err != nil {
			return nil, q.sourceFailed(src, err)
		}
		return func(x *xmlBuf) {
			q.setEncryption(obj.KeyID)
			copyResult(x, "CopyObjectResult", objects.Part{ETag: obj.ETag, Modified: obj.Modified, Checksum: obj.Checksum})
		}, nil
	})
}

// copyResult is the answer of both copies.
func copyResult(x *xmlBuf, root string, p objects.Part) {
	x.root(root)
	x.time("LastModified", p.Modified)
	x.etag(p.ETag)
	x.checksum(p.Checksum, true)
	x.close(root)
}

func (q *request) uploadPartCopy() error {
	number, err := q.partNumber()
	if err != nil {
		return err
	}
	src, err := q.source()
	if err != nil {
		return err
	}
	if v := q.r.Header.Get("X-Amz-Copy-Source-Range"); v != "" {
		r, _ := parseRange(v)
		if r == nil || r.Suffix > 0 || r.To < 0 {
			return invalidArgument("x-amz-copy-source-range", v, "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy")
		}
		o, err := q.h.objects.Head(q.ctx, src)
		if err != nil {
			return q.sourceFailed(src, err)
		}
		if r.To >= o.Size {
			return invalidArgument("x-amz-copy-source-range", v, "Range specified is not valid for source object of size: %d", o.Size)
		}
		src.Range = r
	}
	in := objects.CopyPart{Source: src, Bucket: q.bucket, Key: q.key, UploadID: q.query.get("uploadId"), Number: number}
	return q.slowly(func() (func(*xmlBuf), error) {
		p, err := q.h.objects.CopyPart(q.ctx, in)
		if err != nil {
			return nil, q.sourceFailed(src, err)
		}
		return func(x *xmlBuf) {
			q.setEncryption("")
			p.Checksum.Type = "" // parts have none
			copyResult(x, "CopyPartResult", p)
		}, nil
	})
}

func init() {
	object := &route{name: "CopyObject", action: "s3:PutObject", writes: true, serve: (*request).copyObject, scope: scopeObject}
	part := &route{name: "UploadPartCopy", action: "s3:PutObject", writes: true, serve: (*request).uploadPartCopy, scope: scopeObject,
		params: slices.Clone(partParams)}
	copyRoutes[""], copyRoutes["uploadId"] = object, part
}
