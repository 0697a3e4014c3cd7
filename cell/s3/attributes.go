package s3

import (
	"strconv"
	"strings"

	"chancery/cell/objects"
)

func init() {
	routes[routeKey{scopeObject, "GET", "attributes"}] = &route{name: "GetObjectAttributes", action: "s3:GetObjectAttributes",
		params: []string{"versionId"}, serve: (*request).objectAttributes, scope: scopeObject}
}

// objectAttributes answers GetObjectAttributes.
func (q *request) objectAttributes() error {
	want := map[string]bool{}
	for _, v := range q.r.Header.Values("X-Amz-Object-Attributes") {
		for name := range strings.SplitSeq(v, ",") {
			name = strings.TrimSpace(name)
			switch name {
			case "ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize":
				want[name] = true
			default:
				return invalidArgument("x-amz-object-attributes", name, "Invalid attribute name specified.")
			}
		}
	}
	if len(want) == 0 {
		return failf("InvalidRequest", "Missing required header for this request: x-amz-object-attributes")
	}
	// S3 asks for the right to read the object as well.
	if err := q.decide("s3:GetObject", q.held.ProjectID, "arn:aws:s3:::"+q.bucket+"/"+q.key); err != nil {
		return err
	}
	limit, err := headerInt(q.r.Header.Get("X-Amz-Max-Parts"), "x-amz-max-parts", maxPage)
	if err != nil {
		return err
	}
	after, err := headerInt(q.r.Header.Get("X-Amz-Part-Number-Marker"), "x-amz-part-number-marker", 0)
	if err != nil {
		return err
	}
	in := objects.Get{Bucket: q.bucket, Key: q.key, VersionID: q.query.get("versionId"), Conditions: readConditions(q.r.Header, "")}
	obj, err := q.h.objects.Head(q.ctx, in)
	if err != nil {
		return q.readFailed(in, obj, err)
	}
	x := newXML()
	x.root("GetObjectAttributesResponse")
	if want["ETag"] {
		x.text("ETag", obj.ETag)
	}
	if want["Checksum"] && obj.Checksum.Value != "" {
		x.open("Checksum")
		x.checksum(obj.Checksum, true)
		x.close("Checksum")
	}
	if want["ObjectParts"] && obj.PartCount > 0 {
		if err := q.attributeParts(x, obj, in.VersionID, after, min(limit, maxPage)); err != nil {
			x.free()
			return err
		}
	}
	if want["StorageClass"] {
		x.text("StorageClass", classOf(obj.Headers))
	}
	if want["ObjectSize"] {
		x.integer("ObjectSize", obj.Size)
	}
	x.close("GetObjectAttributesResponse")
	hd := q.w.Header()
	hd.Set("Last-Modified", httpTime(obj.Modified))
	q.setEncryption(obj.KeyID)
	return q.sendXML(x)
}

func (q *request) attributeParts(x *xmlBuf, obj objects.Object, version string, after, limit int) error {
	x.open("ObjectParts")
	x.integer("PartsCount", int64(obj.PartCount))
	var parts []objects.Part
	var more bool
	if limit > 0 {
		var err error
		if parts, more, err = q.h.objects.Parts(q.ctx, q.bucket, q.key, version, after, limit); err != nil {
			return err
		}
	}
	x.integer("PartNumberMarker", int64(after))
	if n := len(parts); n > 0 {
		x.integer("NextPartNumberMarker", int64(parts[n-1].Number))
	}
	x.integer("MaxParts", int64(limit))
	x.boolean("IsTruncated", more)
	for _, p := range parts {
		x.open("Part")
		x.integer("PartNumber", int64(p.Number))
		x.integer("Size", p.Size)
		x.checksum(p.Checksum, false)
		x.close("Part")
	}
	x.close("ObjectParts")
	return nil
}

// headerInt reads a header that is a non-negative number.
func headerInt(v, name string, otherwise int) (int, error) {
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, invalidArgument(name, v, "Value for %s header is invalid.", name)
	}
	return n, nil
}
