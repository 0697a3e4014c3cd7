package s3

import (
	"chancery/cell/objects"
	"net/http"
)

func (q *request) putObject() error {
	if err := q.checkKey(); err != nil {
		return err
	}
	hd, err := q.writeHeaders()
	if err != nil {
		return err
	}
	cond, err := writeConditions(q.r.Header)
	if err != nil {
		return err
	}
	q.body.useSum(defaultSum)
	obj, err := q.h.objects.Put(q.ctx, objects.Put{
		Bucket: q.bucket, Key: q.key, Body: q.body, Size: q.body.size, Headers: hd, Conditions: cond,
	})
	if err != nil {
		return writeFailed(q.r.Header, err)
	}
	out := q.w.Header()
	out["ETag"] = []string{`"` + obj.ETag + `"`}
	q.setEncryption(obj.KeyID)
	setChecksum(out, obj.Checksum)
	if obj.VersionID != "" && obj.VersionID != "null" {
		out.Set("X-Amz-Version-Id", obj.VersionID)
	}
	return q.sendEmpty(http.StatusOK)
}

func (q *request) deleteObject() error {
	in := objects.Delete{Bucket: q.bucket, Key: q.key, VersionID: q.query.get("versionId")}
	if q.query.has("versionId") && in.VersionID == "" {
		return invalidArgument("versionId", "", "Version id cannot be the empty string")
	}
	in.Conditions.IfMatch = trimETag(q.r.Header.Get("If-Match"))
	d, err := q.h.objects.Delete(q.ctx, in)
	if err != nil {
		return writeFailed(q.r.Header, err)
	}
	if d.VersionID != "" && d.VersionID != "null" || in.VersionID == "null" {
		q.w.Header().Set("X-Amz-Version-Id", in.VersionID)
		if d.VersionID != "" {
			q.w.Header().Set("X-Amz-Version-Id", d.VersionID)
		}
	}
	return q.sendEmpty(http.StatusNoContent)
}

// writeFailed names the condition that did not hold.
func writeFailed(hd http.Header, err error) error {
	e := preconditionOf(err)
	if e == nil {
		return err
	}
	name := "If-None-Match"
	if hd.Get("If-Match") != "" {
		name = "If-Match"
	}
	return e.with("Condition", name)
}
