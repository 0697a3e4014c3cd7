package s3

import (
	"strings"
	"sync"
	"unicode/utf8"

	"chancery/cell/objects"
)

// maxDeleteXML bounds a Delete document, in bytes.
const maxDeleteXML = 2 << 20

// deleteWorkers is how many keys of one DeleteObjects are deleted at a time, so
// that they share the store's group commits.
const deleteWorkers = 32

func init() {
	r := &route{name: "DeleteObjects", body: bodyXML, serve: (*request).deleteObjects, scope: scopeBucket}
	routes[routeKey{scopeBucket, "POST", "delete"}] = r
}

// doomed is one key of a DeleteObjects, and what became of it.
type doomed struct {
	key, version, etag string
	err                *apiError
}

func (q *request) deleteObjects() error {
	if q.body.md5 == nil && q.body.claim.alg == nil {
		return failf("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
	}
	doc, err := q.small(maxDeleteXML)
	if err != nil {
		return err
	}
	list, quiet, err := parseDelete(doc)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	next := make(chan *doomed)
	for range min(deleteWorkers, len(list)) {
		wg.Go(func() {
			for d := range next {
				d.err = q.deleteOne(d)
			}
		})
	}
	for i := range list {
		next <- &list[i]
	}
	close(next)
	wg.Wait()

	x := newXML()
	x.root("DeleteResult")
	for _, d := range list {
		switch {
		case d.err != nil:
			x.open("Error")
			x.text("Key", d.key)
			x.optional("VersionId", d.version)
			x.text("Code", d.err.code)
			x.text("Message", d.err.message)
			x.close("Error")
		case !quiet:
			x.open("Deleted")
			x.text("Key", d.key)
			x.optional("VersionId", d.version)
			x.close("Deleted")
		}
	}
	x.close("DeleteResult")
	return q.sendXML(x)
}

// deleteOne deletes one key of many. It gets the answer to that key, and runs
// beside others: nothing of q may be changed here.
func (q *request) deleteOne(d *doomed) (answer *apiError) {
	defer func() {
		if recover() != nil {
			answer = fail("InternalError")
		}
	}()
	if len(d.key) > maxKeyBytes {
		return keyTooLong(d.key)
	}
	action := "s3:DeleteObject"
	if d.version != "" {
		action = "s3:DeleteObjectVersion"
	}
	err := q.decide(action, q.held.ProjectID, "arn:aws:s3:::"+q.bucket+"/"+d.key)
	if err == nil {
		in := objects.Delete{Bucket: q.bucket, Key: d.key, VersionID: d.version}
		in.Conditions.IfMatch = d.etag
		_, err = q.h.objects.Delete(q.ctx, in)
	}
	if err == nil {
		return nil
	}
	e := q.toAPI(err)
	if e.status >= 500 && e.status != 501 {
		q.h.failed(q.id, err)
	}
	return e
}

// parseDelete reads a Delete document: 1 to 1,000 objects.
func parseDelete(doc []byte) (list []doomed, quiet bool, err error) {
	if len(doc) == 0 {
		return nil, false, fail("MissingRequestBodyError")
	}
	n, err := parseXML(doc, "Delete")
	if err != nil {
		return nil, false, err
	}
	for _, k := range n.kids {
		switch k.name {
		case "Quiet":
			v, err := k.leaf()
			if err != nil {
				return nil, false, err
			}
			switch strings.ToLower(strings.TrimSpace(v)) {
			case "true":
				quiet = true
			case "false":
				quiet = false
			default:
				return nil, false, fail("MalformedXML")
			}
		case "Object":
			if len(list) == maxPage {
				return nil, false, fail("MalformedXML")
			}
			d, err := parseDoomed(k)
			if err != nil {
				return nil, false, err
			}
			list = append(list, d)
		default:
			return nil, false, fail("MalformedXML")
		}
	}
	if len(list) == 0 {
		return nil, false, fail("MalformedXML")
	}
	return list, quiet, nil
}

func parseDoomed(n *node) (d doomed, err error) {
	for _, f := range n.kids {
		v, err := f.leaf()
		if err != nil {
			return d, err
		}
		switch f.name {
		case "Key":
			d.key = v
		case "VersionId":
			d.version = v
		case "ETag":
			d.etag = trimETag(v)
		case "LastModifiedTime", "Size":
			return d, failf("NotImplemented", "An element you provided implies functionality that is not implemented").with("Element", f.name)
		default:
			return d, fail("MalformedXML")
		}
	}
	if d.key == "" || !utf8.ValidString(d.key) {
		return d, fail("MalformedXML")
	}
	return d, nil
}
