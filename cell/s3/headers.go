package s3

import (
	"encoding/base64"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"chancery/cell/objects"
)

// storageClasses are those that mean "readable at once": the label is kept and
// shown, and makes no difference here. The archive classes would promise a
// restore step that does not exist.
var storageClasses = []string{"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"}

// writeHeaders reads what is stored with a new object, and refuses what cannot be.
func (q *request) writeHeaders() (objects.Headers, error) {
	hd := q.r.Header
	out := objects.Headers{
		ContentType: joined(hd, "Content-Type"), ContentDisposition: joined(hd, "Content-Disposition"),
		ContentLanguage: joined(hd, "Content-Language"), CacheControl: joined(hd, "Cache-Control"), Expires: joined(hd, "Expires"),
		ContentEncoding: q.contentEncoding(), StorageClass: hd.Get("X-Amz-Storage-Class"),
	}
	if out.StorageClass != "" && !slices.Contains(storageClasses, out.StorageClass) {
		return objects.Headers{}, fail("InvalidStorageClass").with("StorageClassRequested", out.StorageClass)
	}
	if err := checkACL(hd, false); err != nil {
		return objects.Headers{}, err
	}
	for _, name := range []string{"X-Amz-Website-Redirect-Location", "X-Amz-Tagging", "X-Amz-Server-Side-Encryption-Context"} {
		if hd.Get(name) != "" {
			return objects.Headers{}, notImplemented(strings.ToLower(name))
		}
	}
	for name, values := range hd {
		if strings.HasPrefix(name, "X-Amz-Object-Lock-") {
			if name == "X-Amz-Object-Lock-Legal-Hold" && values[0] == "OFF" {
				continue
			}
			return objects.Headers{}, failf("InvalidRequest", "Bucket is missing Object Lock Configuration")
		}
		if user, ok := strings.CutPrefix(name, "X-Amz-Meta-"); ok && user != "" {
			if out.User == nil {
				out.User = make(map[string]string)
			}
			out.User[strings.ToLower(user)] = decodeMeta(strings.Join(values, ","))
		}
	}
	return out, nil
}

func joined(hd http.Header, name string) string {
	v := hd[name]
	if len(v) == 1 {
		return v[0]
	}
	return strings.Join(v, ",")
}

// contentEncoding is the stored Content-Encoding: aws-chunked is of the transfer
// and goes, if the body was so framed.
func (q *request) contentEncoding() string {
	v := joined(q.r.Header, "Content-Encoding")
	if v == "" || !strings.HasPrefix(q.caller.payload, "STREAMING-") {
		return v
	}
	var keep []string
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part != "" && !strings.EqualFold(part, "aws-chunked") {
			keep = append(keep, part)
		}
	}
	return strings.Join(keep, ",")
}

// decodeMeta reads a metadata value as S3 does: RFC 2047 words are decoded, other
// bytes beyond ASCII are taken for ISO 8859-1 (S3 user guide, "User-defined object metadata").
func decodeMeta(v string) string {
	if strings.Contains(v, "=?") {
		var d mime.WordDecoder
		if s, err := d.DecodeHeader(v); err == nil && utf8.ValidString(s) && !strings.ContainsAny(s, "\r\n\x00") {
			return s
		}
	}
	for i := range len(v) {
		if v[i] >= utf8.RuneSelf {
			b := make([]rune, 0, len(v))
			for _, c := range []byte(v) {
				b = append(b, rune(c))
			}
			return string(b)
		}
	}
	return v
}

// encodeMeta is the reverse: what is not ASCII goes out as one RFC 2047 word.
func encodeMeta(v string) string {
	for i := range len(v) {
		if c := v[i]; c >= utf8.RuneSelf || c < ' ' && c != '\t' || c == 0x7f {
			return "=?UTF-8?B?" + base64.StdEncoding.EncodeToString([]byte(v)) + "?="
		}
	}
	return v
}

// checkACL accepts the canned ACLs that say what is so anyway: the owner of the
// bucket owns everything, and nobody else has a grant.
func checkACL(hd http.Header, bucket bool) error {
	refuse := fail("AccessControlListNotSupported")
	if bucket {
		refuse = fail("InvalidBucketAclWithObjectOwnership")
	}
	for name := range hd {
		if strings.HasPrefix(name, "X-Amz-Grant-") {
			return refuse
		}
	}
	switch acl := hd.Get("X-Amz-Acl"); acl {
	case "", "private":
		return nil
	case "bucket-owner-full-control":
		if bucket {
			return invalidArgument("x-amz-acl", acl, "")
		}
		return nil
	case "public-read", "public-read-write", "authenticated-read", "aws-exec-read", "bucket-owner-read", "log-delivery-write":
		return refuse
	default:
		return invalidArgument("x-amz-acl", acl, "")
	}
}

// checkEncryption judges what a request says of encryption. Everything is always
// encrypted under the bucket's own key and answers as SSE-KMS.
func (q *request) checkEncryption(rt *route) error {
	hd := q.r.Header
	for name := range hd {
		if strings.HasPrefix(name, "X-Amz-Server-Side-Encryption-Customer-") || strings.HasPrefix(name, "X-Amz-Copy-Source-Server-Side-Encryption-Customer-") {
			if rt.body == bodyNone && !rt.writes {
				return failf("InvalidRequest", "The encryption parameters are not applicable to this object.")
			}
			return notImplemented(strings.ToLower(name))
		}
	}
	alg, keyID := hd.Get("X-Amz-Server-Side-Encryption"), hd.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id")
	if hd.Get("X-Amz-Server-Side-Encryption-Context") != "" {
		return notImplemented("x-amz-server-side-encryption-context")
	}
	if alg == "" && keyID == "" {
		return nil
	}
	if !rt.writes {
		return invalidArgument("x-amz-server-side-encryption", alg, "x-amz-server-side-encryption header is not supported for this operation.")
	}
	switch alg {
	case "AES256":
		if keyID != "" {
			return invalidArgument("x-amz-server-side-encryption-aws-kms-key-id", keyID, "x-amz-server-side-encryption-aws-kms-key-id is only valid with x-amz-server-side-encryption: aws:kms.")
		}
	case "aws:kms":
	case "":
		return invalidArgument("x-amz-server-side-encryption", alg, "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms")
	case "aws:kms:dsse":
		return notImplemented("x-amz-server-side-encryption")
	default:
		return invalidArgument("x-amz-server-side-encryption", alg, "The encryption method specified is not supported")
	}
	return nil
}

// checkKey refuses a KMS key that is not the bucket's own. The bucket is known by now.
func (q *request) checkKey() error {
	asked := q.r.Header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id")
	if asked == "" || asked == q.held.KeyID {
		return nil
	}
	if _, id, ok := strings.Cut(q.held.KeyID, ":key/"); ok && asked == id {
		return nil
	}
	return failf("KMS.NotFoundException", "Key '%s' does not exist", asked)
}

// setEncryption tells that the object is encrypted, and under which key.
func (q *request) setEncryption(keyID string) {
	if keyID == "" {
		keyID = q.held.KeyID
	}
	hd := q.w.Header()
	hd["X-Amz-Server-Side-Encryption"] = sseKMS
	if keyID != "" { // none if the bucket's key has been destroyed
		hd["X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"] = []string{keyID}
	}
}

var sseKMS = []string{"aws:kms"}

// trimETag takes the quotes off an entity tag. A list of tags stays as it is.
func trimETag(v string) string {
	v = strings.TrimSpace(v)
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' && !strings.Contains(v, ",") {
		return v[1 : len(v)-1]
	}
	return v
}

// readConditions are those of GET and HEAD (RFC 9110 section 13). Dates that are none are ignored.
func readConditions(hd http.Header, prefix string) objects.Conditions {
	c := objects.Conditions{IfMatch: trimETag(joined(hd, prefix+"If-Match")), IfNoneMatch: trimETag(joined(hd, prefix+"If-None-Match"))}
	if t, err := http.ParseTime(hd.Get(prefix + "If-Modified-Since")); err == nil {
		c.IfModifiedSince = t
	}
	if t, err := http.ParseTime(hd.Get(prefix + "If-Unmodified-Since")); err == nil {
		c.IfUnmodifiedSince = t
	}
	return c
}

// writeConditions are those of PUT and CompleteMultipartUpload: If-Match with an
// entity tag, If-None-Match with "*" alone.
func writeConditions(hd http.Header) (objects.Conditions, error) {
	for _, name := range []string{"If-Modified-Since", "If-Unmodified-Since"} {
		if hd.Get(name) != "" {
			return objects.Conditions{}, notImplemented(name)
		}
	}
	c := objects.Conditions{IfMatch: trimETag(hd.Get("If-Match")), IfNoneMatch: trimETag(hd.Get("If-None-Match"))}
	if c.IfNoneMatch != "" && (c.IfNoneMatch != "*" || c.IfMatch != "") {
		return objects.Conditions{}, notImplemented("If-None-Match")
	}
	return c, nil
}

// httpTime formats a time for Last-Modified.
func httpTime(t time.Time) string { return t.UTC().Format(http.TimeFormat) }
