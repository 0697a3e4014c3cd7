package s3

import (
	"strconv"
	"strings"

	"chancery/cell/objects"
	"chancery/internal/errs"
)

var partParams = []string{"partNumber"}

// maxParts is the largest part number, and the most parts that an object has.
const maxParts = 10000

// maxCompleteXML bounds a CompleteMultipartUpload document, in bytes: 10,000 parts of 400.
const maxCompleteXML = 4 << 20

func init() {
	for k, r := range map[routeKey]*route{
		{scopeObject, "POST", "uploads"}: {name: "CreateMultipartUpload", action: "s3:PutObject", writes: true, serve: (*request).createUpload},
		{scopeObject, "PUT", "uploadId"}: {name: "UploadPart", action: "s3:PutObject", body: bodyData, writes: true, params: partParams, serve: (*request).uploadPart},
		{scopeObject, "POST", "uploadId"}: {name: "CompleteMultipartUpload", action: "s3:PutObject", body: bodyXML, completes: true,
			serve: (*request).completeUpload},
		{scopeObject, "DELETE", "uploadId"}: {name: "AbortMultipartUpload", action: "s3:AbortMultipartUpload", serve: (*request).abortUpload},
		{scopeObject, "GET", "uploadId"}: {name: "ListParts", action: "s3:ListMultipartUploadParts", serve: (*request).listParts,
			params: []string{"max-parts", "part-number-marker", "encoding-type"}},
		{scopeBucket, "GET", "uploads"}: {name: "ListMultipartUploads", action: "s3:ListBucketMultipartUploads", serve: (*request).listUploads,
			params: []string{"prefix", "delimiter", "encoding-type", "max-uploads", "key-marker", "upload-id-marker"}},
	} {
		r.scope = k.scope
		routes[k] = r
	}
}

// checksumMode reads x-amz-checksum-algorithm and -type of a new upload.
func (q *request) checksumMode() (alg, mode string, err error) {
	v, mode := q.r.Header.Get("X-Amz-Checksum-Algorithm"), strings.ToUpper(q.r.Header.Get("X-Amz-Checksum-Type"))
	if v == "" {
		if mode != "" {
			return "", "", failf("InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
		}
		return "", "", nil
	}
	a := algorithmNamed(v)
	if a == nil {
		return "", "", unsupportedAlgorithm()
	}
	full, parts := strings.HasPrefix(a.name, "CRC"), a.name != "CRC64NVME"
	switch mode {
	case "":
		if mode = composite; !parts {
			mode = fullObject
		}
	case fullObject, composite:
		if mode == fullObject && !full || mode == composite && !parts {
			return "", "", failf("InvalidRequest", "The %s checksum type cannot be used with the %s checksum algorithm.", mode, strings.ToLower(a.name))
		}
	default:
		return "", "", failf("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
	}
	return a.name, mode, nil
}

func (q *request) createUpload() error {
	if err := q.checkKey(); err != nil {
		return err
	}
	hd, err := q.writeHeaders()
	if err != nil {
		return err
	}
	alg, mode, err := q.checksumMode()
	if err != nil {
		return err
	}
	u, err := q.h.objects.CreateUpload(q.ctx, objects.CreateUpload{
		Bucket: q.bucket, Key: q.key, Headers: hd, ChecksumAlgorithm: alg, ChecksumType: mode,
	})
	if err != nil {
		return err
	}
	q.setEncryption(u.KeyID)
	if alg != "" {
		q.w.Header().Set("X-Amz-Checksum-Algorithm", alg)
		q.w.Header().Set("X-Amz-Checksum-Type", mode)
	}
	x := newXML()
	x.root("InitiateMultipartUploadResult")
	x.text("Bucket", q.bucket)
	x.text("Key", q.key)
	x.text("UploadId", u.ID)
	x.close("InitiateMultipartUploadResult")
	return q.sendXML(x)
}

func (q *request) partNumber() (int, error) {
	v := q.query.get("partNumber")
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > maxParts {
		return 0, invalidArgument("partNumber", v, "Part number must be an integer between 1 and 10000, inclusive")
	}
	return n, nil
}

func (q *request) uploadPart() error {
	number, err := q.partNumber()
	if err != nil {
		return err
	}
	if err := q.checkKey(); err != nil {
		return err
	}
	u, err := q.h.objects.Upload(q.ctx, q.bucket, q.key, q.query.get("uploadId"))
	if err != nil {
		return err
	}
	if alg := u.ChecksumAlgorithm; alg != "" {
		given := "null"
		if q.body.claim.alg != nil {
			given = q.body.claim.alg.name
		}
		switch {
		case given == alg:
		case given == "null" && u.ChecksumType == fullObject:
			q.body.useSum(alg)
		default:
			return failf("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s", strings.ToLower(alg), strings.ToLower(given))
		}
	}
	p, err := q.h.objects.PutPart(q.ctx, objects.PutPart{
		Bucket: q.bucket, Key: q.key, UploadID: u.ID, Number: number, Body: q.body, Size: q.body.size,
	})
	if err != nil {
		return err
	}
	hd := q.w.Header()
	hd["ETag"] = []string{`"` + p.ETag + `"`}
	q.setEncryption(u.KeyID)
	p.Checksum.Type = "" // parts have none
	setChecksum(hd, p.Checksum)
	return q.sendEmpty(200)
}

func (q *request) abortUpload() error {
	if err := q.h.objects.AbortUpload(q.ctx, q.bucket, q.key, q.query.get("uploadId")); err != nil {
		return err
	}
	return q.sendEmpty(204)
}

func (q *request) completeUpload() error {
	in := objects.CompleteUpload{Bucket: q.bucket, Key: q.key, UploadID: q.query.get("uploadId"), Size: -1}
	hd := q.r.Header
	var err error
	if in.Conditions, err = writeConditions(hd); err != nil {
		return err
	}
	if v := hd.Get("X-Amz-Mp-Object-Size"); v != "" {
		if in.Size, err = strconv.ParseInt(v, 10, 64); err != nil || in.Size < 0 {
			return failf("InvalidRequest", "Value for x-amz-mp-object-size header is invalid.")
		}
	}
	if in.Checksum, err = q.completeChecksum(in.UploadID); err != nil {
		return err
	}
	doc, err := q.small(maxCompleteXML)
	if err != nil {
		return err
	}
	if in.Parts, err = parseComplete(doc); err != nil {
		return err
	}
	return q.slowly(func() (func(*xmlBuf), error) {
		obj, err := q.h.objects.CompleteUpload(q.ctx, in)
		if err != nil {
			return nil, writeFailed(hd, err)
		}
		return func(x *xmlBuf) {
			q.setEncryption(obj.KeyID)
			x.root("CompleteMultipartUploadResult")
			x.text("Location", q.location())
			x.text("Bucket", q.bucket)
			x.text("Key", q.key)
			x.etag(obj.ETag)
			x.checksum(obj.Checksum, true)
			x.close("CompleteMultipartUploadResult")
		}, nil
	})
}

// location is the URL of the object, as this client would ask for it.
func (q *request) location() string {
	scheme := "http://"
	if q.r.TLS != nil {
		scheme = "https://"
	}
	return scheme + q.r.Host + q.rawPath
}

// completeChecksum reads the client's claim for the whole object.
func (q *request) completeChecksum(uploadID string) (objects.Checksum, error) {
	mode := strings.ToUpper(q.r.Header.Get("X-Amz-Checksum-Type"))
	if mode != "" && mode != fullObject && mode != composite {
		return objects.Checksum{}, failf("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
	}
	if mode != "" {
		// After a completion the upload is gone, and completing again must still answer.
		u, err := q.h.objects.Upload(q.ctx, q.bucket, q.key, uploadID)
		if err == nil && u.ChecksumType != "" && u.ChecksumType != mode {
			return objects.Checksum{}, failf("InvalidRequest", "The upload was created using the %s checksum mode. The complete request must use the same checksum mode.", u.ChecksumType)
		}
		if err != nil && errs.CodeOf(err) != "NoSuchUpload" {
			return objects.Checksum{}, err
		}
	}
	c := q.body.claim
	if c.alg == nil {
		return objects.Checksum{}, nil
	}
	digest, count, isComposite := strings.Cut(c.value, "-")
	if n, err := strconv.Atoi(count); !c.alg.validValue(digest) || isComposite && (err != nil || n < 1 || n > maxParts) {
		return objects.Checksum{}, failf("InvalidRequest", "Value for %s header is invalid.", strings.ToLower(c.alg.header))
	}
	if mode == "" {
		if mode = fullObject; isComposite {
			mode = composite
		}
	}
	return objects.Checksum{Algorithm: c.alg.name, Value: c.value, Type: mode}, nil
}

// parseComplete reads the list of parts. Their order is judged by cell/objects.
func parseComplete(doc []byte) ([]objects.CompletedPart, error) {
	if len(doc) == 0 {
		return nil, failf("InvalidRequest", "You must specify at least one part")
	}
	n, err := parseXML(doc, "CompleteMultipartUpload")
	if err != nil {
		return nil, err
	}
	if len(n.kids) == 0 || len(n.kids) > maxParts {
		return nil, fail("MalformedXML")
	}
	parts := make([]objects.CompletedPart, 0, len(n.kids))
	for _, k := range n.kids {
		if k.name != "Part" {
			return nil, fail("MalformedXML")
		}
		var p objects.CompletedPart
		for _, f := range k.kids {
			v, err := f.leaf()
			if err != nil {
				return nil, err
			}
			v = strings.TrimSpace(v)
			switch alg, isSum := strings.CutPrefix(f.name, "Checksum"); {
			case f.name == "PartNumber" && p.Number == 0:
				if p.Number, err = strconv.Atoi(v); err != nil || p.Number < 1 || p.Number > maxParts {
					return nil, invalidArgument("PartNumber", v, "Part number must be an integer between 1 and 10000, inclusive")
				}
			case f.name == "ETag" && p.ETag == "":
				p.ETag = trimETag(v)
			case isSum && p.Checksum.Algorithm == "" && algorithmNamed(alg) != nil:
				a := algorithmNamed(alg)
				if !a.validValue(v) {
					return nil, failf("InvalidRequest", "Value for %s is invalid.", f.name)
				}
				p.Checksum = objects.Checksum{Algorithm: a.name, Value: v}
			default:
				return nil, fail("MalformedXML")
			}
		}
		if p.Number == 0 || p.ETag == "" {
			return nil, fail("MalformedXML")
		}
		parts = append(parts, p)
	}
	return parts, nil
}
