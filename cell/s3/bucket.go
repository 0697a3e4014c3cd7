package s3

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"chancery/cell/objects"
)

func (q *request) listBuckets() error {
	list, err := q.h.objects.Buckets(q.ctx, q.caller.principal.Project)
	if err != nil {
		return err
	}
	limit := len(list)
	if v := q.query.get("max-buckets"); q.query.has("max-buckets") {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 10000 {
			return invalidArgument("max-buckets", v, "max-buckets must be an integer between 1 and 10000.")
		}
		limit = min(limit, n)
	}
	after, err := tokenKey(q.query.get("continuation-token"))
	if err != nil {
		return err
	}
	prefix, region := q.query.get("prefix"), q.query.get("bucket-region")
	list = slices.DeleteFunc(slices.Clone(list), func(b objects.Bucket) bool {
		return b.Name <= after && after != "" || !strings.HasPrefix(b.Name, prefix) || region != "" && region != b.Region
	})
	x := newXML()
	x.root("ListAllMyBucketsResult")
	q.owner(x)
	x.open("Buckets")
	for _, b := range list[:min(limit, len(list))] {
		x.open("Bucket")
		x.text("Name", b.Name)
		x.time("CreationDate", b.Created)
		x.text("BucketRegion", b.Region)
		x.close("Bucket")
	}
	x.close("Buckets")
	if len(list) > limit && limit > 0 {
		x.text("ContinuationToken", keyToken(list[limit-1].Name))
	}
	x.optional("Prefix", prefix)
	x.close("ListAllMyBucketsResult")
	return q.sendXML(x)
}

// owner writes the owner of everything in sight: the project.
func (q *request) owner(x *xmlBuf) {
	x.open("Owner")
	q.ownerFields(x)
	x.close("Owner")
}

func (q *request) ownerFields(x *xmlBuf) {
	id := q.held.ProjectID
	if id == "" {
		id = q.caller.principal.Project
	}
	x.text("ID", id)
	x.text("DisplayName", id)
}

// keyToken makes an opaque continuation token of the key to go on after; tokenKey reverses it.
func keyToken(key string) string {
	if key == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte("\x01" + key))
}

func tokenKey(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < 2 || b[0] != 1 || len(b) > 4*maxKeyBytes {
		return "", invalidArgument("continuation-token", token, "The continuation token provided is incorrect")
	}
	return string(b[1:]), nil
}

// maxConfigXML bounds the small documents that configure a bucket, in bytes.
const maxConfigXML = 64 << 10

func (q *request) createBucket() error {
	if err := checkACL(q.r.Header, true); err != nil {
		return err
	}
	switch v := q.r.Header.Get("X-Amz-Object-Ownership"); v {
	case "", "BucketOwnerEnforced":
	case "BucketOwnerPreferred", "ObjectWriter":
		return notImplemented("x-amz-object-ownership")
	default:
		return invalidArgument("x-amz-object-ownership", v, "Invalid x-amz-object-ownership header.")
	}
	if v := q.r.Header.Get("X-Amz-Bucket-Object-Lock-Enabled"); v != "" && !strings.EqualFold(v, "false") {
		return notImplemented("x-amz-bucket-object-lock-enabled")
	}
	doc, err := q.small(maxConfigXML)
	if err != nil {
		return err
	}
	if len(doc) > 0 {
		if err := q.checkLocation(doc); err != nil {
			return err
		}
	}
	b, err := q.h.objects.CreateBucket(q.ctx, objects.CreateBucket{
		Name: q.bucket, ProjectID: q.caller.principal.Project, Region: q.h.region,
	})
	if err != nil {
		return err
	}
	hd := q.w.Header()
	hd.Set("Location", "/"+b.Name)
	hd.Set("X-Amz-Bucket-Arn", "arn:aws:s3:::"+b.Name)
	return q.sendEmpty(http.StatusOK)
}

// checkLocation validates a CreateBucketConfiguration: it may name this region, and nothing else.
func (q *request) checkLocation(doc []byte) error {
	n, err := parseXML(doc, "CreateBucketConfiguration")
	if err != nil {
		return err
	}
	seen := false
	for _, k := range n.kids {
		switch k.name {
		case "LocationConstraint":
			loc, err := k.leaf()
			if err != nil || seen {
				return fail("MalformedXML")
			}
			seen = true
			if loc = strings.TrimSpace(loc); loc != "" && !q.h.isRegion(loc) {
				return failf("IllegalLocationConstraintException", "The %s location constraint is incompatible for the region specific endpoint this request was sent to.", loc)
			}
		case "Location", "Bucket", "Tags":
			return failf("NotImplemented", "An element you provided implies functionality that is not implemented").with("Element", k.name)
		default:
			return fail("MalformedXML")
		}
	}
	return nil
}

func (q *request) headBucket() error {
	hd := q.w.Header()
	hd.Set("X-Amz-Bucket-Region", q.held.Region)
	hd.Set("X-Amz-Bucket-Arn", "arn:aws:s3:::"+q.held.Name)
	hd.Set("X-Amz-Access-Point-Alias", "false")
	hd.Set("Content-Type", "application/xml")
	q.start(http.StatusOK)
	return nil
}

func (q *request) deleteBucket() error {
	if err := q.h.objects.DeleteBucket(q.ctx, q.bucket); err != nil {
		return err
	}
	return q.sendEmpty(http.StatusNoContent)
}
