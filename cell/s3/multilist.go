package s3

import (
	"strconv"

	"chancery/cell/objects"
)

// listParts answers ListParts: the parts of an upload in progress.
func (q *request) listParts() error {
	limit, err := q.pageSize("max-parts")
	if err != nil {
		return err
	}
	n, err := q.namer()
	if err != nil {
		return err
	}
	after := 0
	if v := q.query.get("part-number-marker"); v != "" {
		if after, err = strconv.Atoi(v); err != nil || after < 0 {
			return invalidArgument("part-number-marker", v, "Provided part-number-marker not an integer or within integer range")
		}
	}
	// A page of none still tells whether the upload exists.
	in := objects.ListParts{Bucket: q.bucket, Key: q.key, UploadID: q.query.get("uploadId"), After: after, Max: max(limit, 1)}
	l, err := q.h.objects.ListParts(q.ctx, in)
	if err != nil {
		return err
	}
	if limit == 0 {
		l.Parts, l.Truncated, l.Next = nil, false, after
	}
	x := newXML()
	x.root("ListPartsResult")
	x.text("Bucket", q.bucket)
	n.text(x, "Key", q.key)
	x.text("UploadId", l.Upload.ID)
	n.declare(x)
	x.open("Initiator")
	q.ownerFields(x)
	x.close("Initiator")
	q.owner(x)
	x.text("StorageClass", classOf(l.Upload.Headers))
	x.integer("PartNumberMarker", int64(after))
	if l.Truncated {
		x.integer("NextPartNumberMarker", int64(l.Next))
	}
	x.integer("MaxParts", int64(limit))
	x.boolean("IsTruncated", l.Truncated)
	if l.Upload.ChecksumAlgorithm != "" {
		x.text("ChecksumAlgorithm", l.Upload.ChecksumAlgorithm)
		x.optional("ChecksumType", l.Upload.ChecksumType)
	}
	for _, p := range l.Parts {
		x.open("Part")
		x.integer("PartNumber", int64(p.Number))
		x.time("LastModified", p.Modified)
		x.etag(p.ETag)
		x.integer("Size", p.Size)
		x.checksum(p.Checksum, false)
		x.close("Part")
	}
	x.close("ListPartsResult")
	return q.sendXML(x)
}

func classOf(h objects.Headers) string {
	if h.StorageClass == "" {
		return "STANDARD"
	}
	return h.StorageClass
}

// listUploads answers ListMultipartUploads.
func (q *request) listUploads() error {
	limit, err := q.pageSize("max-uploads")
	if err != nil {
		return err
	}
	n, err := q.namer()
	if err != nil {
		return err
	}
	in := objects.ListUploads{
		Bucket: q.bucket, Prefix: q.query.get("prefix"), Delimiter: q.query.get("delimiter"),
		KeyMarker: q.query.get("key-marker"), UploadIDMarker: q.query.get("upload-id-marker"), Max: limit,
	}
	if in.KeyMarker == "" {
		in.UploadIDMarker = "" // S3: ignored without a key-marker
	}
	var l objects.UploadListing
	if limit > 0 {
		if l, err = q.h.objects.ListUploads(q.ctx, in); err != nil {
			return err
		}
	}
	x := newXML()
	x.root("ListMultipartUploadsResult")
	x.text("Bucket", q.bucket)
	n.text(x, "KeyMarker", in.KeyMarker)
	x.text("UploadIdMarker", in.UploadIDMarker)
	if l.Truncated {
		n.text(x, "NextKeyMarker", l.NextKeyMarker)
		x.text("NextUploadIdMarker", l.NextUploadIDMarker)
	}
	n.text(x, "Prefix", in.Prefix)
	if in.Delimiter != "" {
		n.text(x, "Delimiter", in.Delimiter)
	}
	n.declare(x)
	x.integer("MaxUploads", int64(limit))
	x.boolean("IsTruncated", l.Truncated)
	for i := range l.Uploads {
		u := &l.Uploads[i]
		x.open("Upload")
		n.text(x, "Key", u.Key)
		x.text("UploadId", u.ID)
		x.open("Initiator")
		q.ownerFields(x)
		x.close("Initiator")
		q.owner(x)
		x.text("StorageClass", classOf(u.Headers))
		x.time("Initiated", u.Initiated)
		if u.ChecksumAlgorithm != "" {
			x.text("ChecksumAlgorithm", u.ChecksumAlgorithm)
			x.optional("ChecksumType", u.ChecksumType)
		}
		x.close("Upload")
	}
	commonPrefixes(x, n, l.CommonPrefixes)
	x.close("ListMultipartUploadsResult")
	return q.sendXML(x)
}
