package s3

import (
	"strconv"
	"strings"

	"chancery/cell/objects"
)

// maxPage is the largest page of a listing.
const maxPage = 1000

// pageSize reads max-keys and its like: more than the maximum is clipped, 0 asks for nothing.
func (q *request) pageSize(name string) (int, error) {
	if !q.query.has(name) {
		return maxPage, nil
	}
	v := q.query.get(name)
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		return 0, invalidArgument(name, v, "Provided %s not an integer or within integer range", name)
	}
	if n < 0 {
		return 0, invalidArgument(name, v, "Argument %s must be an integer between 0 and 2147483647", name)
	}
	return int(min(n, maxPage)), nil
}

// namer encodes names for a listing: as they are, or by encoding-type=url.
type namer struct{ url bool }

func (q *request) namer() (namer, error) {
	switch v := q.query.get("encoding-type"); {
	case !q.query.has("encoding-type"):
		return namer{}, nil
	case strings.EqualFold(v, "url"):
		return namer{true}, nil
	default:
		return namer{}, invalidArgument("encoding-type", v, "Invalid Encoding Method specified in Request")
	}
}

func (n namer) text(x *xmlBuf, element, v string) {
	if !n.url {
		x.text(element, v)
		return
	}
	x.open(element)
	x.b = appendURIEncoded(x.b, v, true) // nothing of it needs escaping
	x.close(element)
}

func (n namer) declare(x *xmlBuf) {
	if n.url {
		x.text("EncodingType", "url")
	}
}

// listObjects answers ListObjectsV2 with list-type=2, else the first version.
func (q *request) listObjects() error {
	switch v := q.query.get("list-type"); {
	case v == "2":
		return q.listV2()
	case v != "" || q.query.has("list-type"):
		return invalidArgument("list-type", v, "Invalid List Type specified in Request")
	}
	for _, name := range []string{"continuation-token", "start-after", "fetch-owner"} {
		if q.query.has(name) {
			return invalidArgument(name, q.query.get(name), "%s only supported in REST.GET.BUCKET with list-type=2", name)
		}
	}
	return q.listV1()
}

// page fetches one page; a page of no entries is never asked for below.
func (q *request) page(after string, limit int) (objects.Listing, error) {
	if err := q.checkOptionalAttributes(); err != nil {
		return objects.Listing{}, err
	}
	for _, name := range []string{"prefix", "delimiter", "marker", "start-after"} {
		if len(q.query.get(name)) > maxKeyBytes {
			return objects.Listing{}, keyTooLong(q.query.get(name))
		}
	}
	if limit == 0 {
		return objects.Listing{}, nil
	}
	return q.h.objects.List(q.ctx, objects.List{
		Bucket: q.bucket, Prefix: q.query.get("prefix"), Delimiter: q.query.get("delimiter"), After: after, Max: limit,
	})
}

// checkOptionalAttributes: only RestoreStatus exists, and no object here has one.
func (q *request) checkOptionalAttributes() error {
	v := q.r.Header.Get("X-Amz-Optional-Object-Attributes")
	if v != "" && v != "RestoreStatus" {
		return invalidArgument("x-amz-optional-object-attributes", v, "Invalid attribute name specified")
	}
	return nil
}

func (q *request) listV1() error {
	limit, err := q.pageSize("max-keys")
	if err != nil {
		return err
	}
	n, err := q.namer()
	if err != nil {
		return err
	}
	marker, delimiter := q.query.get("marker"), q.query.get("delimiter")
	l, err := q.page(marker, limit)
	if err != nil {
		return err
	}
	x := newXML()
	x.root("ListBucketResult")
	x.text("Name", q.bucket)
	n.text(x, "Prefix", q.query.get("prefix"))
	n.text(x, "Marker", marker)
	if l.Truncated && delimiter != "" {
		n.text(x, "NextMarker", l.Next)
	}
	x.integer("MaxKeys", int64(limit))
	if delimiter != "" {
		n.text(x, "Delimiter", delimiter)
	}
	n.declare(x)
	x.boolean("IsTruncated", l.Truncated)
	for i := range l.Objects {
		q.entry(x, n, &l.Objects[i], true)
	}
	commonPrefixes(x, n, l.CommonPrefixes)
	x.close("ListBucketResult")
	return q.sendXML(x)
}

func (q *request) listV2() error {
	limit, err := q.pageSize("max-keys")
	if err != nil {
		return err
	}
	n, err := q.namer()
	if err != nil {
		return err
	}
	if q.query.has("marker") {
		return invalidArgument("marker", q.query.get("marker"), "marker is not supported in REST.GET.BUCKET with list-type=2")
	}
	token, startAfter, delimiter := q.query.get("continuation-token"), q.query.get("start-after"), q.query.get("delimiter")
	if q.query.has("continuation-token") && token == "" {
		return invalidArgument("continuation-token", "", "The continuation token provided is incorrect")
	}
	after, err := tokenKey(token)
	if err != nil {
		return err
	}
	if after == "" {
		after = startAfter
	}
	owners := strings.EqualFold(q.query.get("fetch-owner"), "true")
	l, err := q.page(after, limit)
	if err != nil {
		return err
	}
	x := newXML()
	x.root("ListBucketResult")
	x.text("Name", q.bucket)
	n.text(x, "Prefix", q.query.get("prefix"))
	x.optional("ContinuationToken", token)
	if l.Truncated {
		x.text("NextContinuationToken", keyToken(l.Next))
	}
	if startAfter != "" {
		n.text(x, "StartAfter", startAfter)
	}
	x.integer("KeyCount", int64(len(l.Objects)+len(l.CommonPrefixes)))
	x.integer("MaxKeys", int64(limit))
	if delimiter != "" {
		n.text(x, "Delimiter", delimiter)
	}
	n.declare(x)
	x.boolean("IsTruncated", l.Truncated)
	for i := range l.Objects {
		q.entry(x, n, &l.Objects[i], owners)
	}
	commonPrefixes(x, n, l.CommonPrefixes)
	x.close("ListBucketResult")
	return q.sendXML(x)
}

func commonPrefixes(x *xmlBuf, n namer, list []string) {
	for _, p := range list {
		x.open("CommonPrefixes")
		n.text(x, "Prefix", p)
		x.close("CommonPrefixes")
	}
}

// entry writes one object of a listing.
func (q *request) entry(x *xmlBuf, n namer, o *objects.Object, owner bool) {
	x.open("Contents")
	n.text(x, "Key", o.Key)
	q.entryFields(x, o)
	if owner {
		q.owner(x)
	}
	x.close("Contents")
}

func (q *request) entryFields(x *xmlBuf, o *objects.Object) {
	x.time("LastModified", o.Modified)
	x.etag(o.ETag)
	if o.Checksum.Algorithm != "" {
		x.text("ChecksumAlgorithm", o.Checksum.Algorithm)
		x.optional("ChecksumType", o.Checksum.Type)
	}
	x.integer("Size", o.Size)
	class := o.Headers.StorageClass
	if class == "" {
		class = "STANDARD"
	}
	x.text("StorageClass", class)
}
