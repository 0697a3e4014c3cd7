package s3

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"net/http"
	"strings"
	"testing"
	"time"

	"chancery/internal/errs"
)

func b64md5(s string) string {
	h := md5.Sum([]byte(s))
	return base64.StdEncoding.EncodeToString(h[:])
}

func crc(s string) string {
	v := crc32.ChecksumIEEE([]byte(s))
	return base64.StdEncoding.EncodeToString([]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

func h(kv ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return m
}

// TestRefusals: each request that must not succeed, its status and its code, and
// that nothing was kept of it.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.put("/bucket/there", "0123456789")
	w.want(ask{method: "PUT", target: "/theirs", key: "CHBBBBBBBBBBBBBBBBBB"}, 200, "")
	upload := xmlField(w.want(ask{method: "POST", target: "/bucket/mp?uploads", headers: h("X-Amz-Checksum-Algorithm", "CRC32")}, 200, "").body, "UploadId")
	big := strings.Repeat("x", 70<<10)
	del := "<Delete><Object><Key>there</Key></Object></Delete>"
	tests := []struct {
		name   string
		a      ask
		status int
		code   string
	}{
		{"anonymous", ask{method: "GET", target: "/bucket/there", key: "-"}, 403, "AccessDenied"},
		{"anonymous to nothing", ask{method: "GET", target: "/none/there", key: "-"}, 403, "AccessDenied"},
		{"unknown key", ask{method: "GET", target: "/bucket/there", key: "CHNOBODY"}, 403, "InvalidAccessKeyId"},
		{"disabled key", ask{method: "GET", target: "/bucket/there", key: "CHDISABLED"}, 403, "InvalidAccessKeyId"},
		{"half-made key", ask{method: "GET", target: "/bucket/there", key: "CHEMPTY"}, 403, "InvalidAccessKeyId"},
		{"basic", ask{method: "GET", target: "/bucket/there", key: "-", headers: h("Authorization", "Basic eDp5")}, 400, "InvalidArgument"},
		{"signature version 2", ask{method: "GET", target: "/bucket/there", key: "-", headers: h("Authorization", "AWS CHA:xyz=")}, 400, "InvalidRequest"},
		{"signature version 2 in query", ask{method: "GET", target: "/bucket/there?AWSAccessKeyId=A&Signature=b&Expires=1", key: "-"}, 400, "InvalidRequest"},
		{"two methods", ask{method: "GET", target: "/bucket/there?X-Amz-Signature=0"}, 400, "InvalidArgument"},
		{"asymmetric", ask{method: "GET", target: "/", key: "-", headers: h("Authorization", "AWS4-ECDSA-P256-SHA256 Credential=x")}, 400, "InvalidRequest"},
		{"session token", ask{method: "GET", target: "/bucket/there", headers: h("X-Amz-Security-Token", "t")}, 400, "InvalidToken"},
		{"preflight", ask{method: "OPTIONS", target: "/bucket/there", key: "-"}, 403, "AccessForbidden"},

		{"their bucket", ask{method: "GET", target: "/theirs"}, 403, "AccessDenied"},
		{"their object", ask{method: "PUT", target: "/theirs/x", body: "x"}, 403, "AccessDenied"},
		{"their bucket again", ask{method: "PUT", target: "/theirs"}, 409, "BucketAlreadyExists"},
		{"own bucket again", ask{method: "PUT", target: "/bucket"}, 409, "BucketAlreadyOwnedByYou"},
		{"delete theirs", ask{method: "DELETE", target: "/theirs"}, 403, "AccessDenied"},
		{"no bucket", ask{method: "GET", target: "/nothing"}, 404, "NoSuchBucket"},
		{"wrong owner expected", ask{method: "GET", target: "/bucket", headers: h("X-Amz-Expected-Bucket-Owner", "p2")}, 403, "AccessDenied"},
		{"copy from theirs", ask{method: "PUT", target: "/bucket/x", headers: h("X-Amz-Copy-Source", "/theirs/x")}, 403, "AccessDenied"},

		{"bad bucket name", ask{method: "PUT", target: "/UPPER"}, 400, "InvalidBucketName"},
		{"impossible bucket name", ask{method: "PUT", target: "/a%00b"}, 400, "InvalidBucketName"},
		{"short bucket name", ask{method: "GET", target: "/ab"}, 400, "InvalidBucketName"},
		{"empty bucket name", ask{method: "GET", target: "//x"}, 400, "InvalidBucketName"},
		{"full bucket", ask{method: "DELETE", target: "/bucket"}, 409, "BucketNotEmpty"},
		{"other region", ask{method: "PUT", target: "/other", body: "<CreateBucketConfiguration><LocationConstraint>mars</LocationConstraint></CreateBucketConfiguration>"}, 400, "IllegalLocationConstraintException"},
		{"bucket tags", ask{method: "PUT", target: "/other", body: "<CreateBucketConfiguration><Tags/></CreateBucketConfiguration>"}, 501, "NotImplemented"},
		{"other root", ask{method: "PUT", target: "/other", body: "<X/>"}, 400, "MalformedXML"},
		{"no XML", ask{method: "PUT", target: "/other", body: "hello"}, 400, "MalformedXML"},
		{"unclosed XML", ask{method: "PUT", target: "/other", body: "<CreateBucketConfiguration>"}, 400, "MalformedXML"},
		{"two roots", ask{method: "PUT", target: "/other", body: "<CreateBucketConfiguration/><CreateBucketConfiguration/>"}, 400, "MalformedXML"},
		{"entities", ask{method: "PUT", target: "/other", body: `<!DOCTYPE x [<!ENTITY a "b">]><CreateBucketConfiguration><LocationConstraint>&a;</LocationConstraint></CreateBucketConfiguration>`}, 400, "MalformedXML"},
		{"deep XML", ask{method: "PUT", target: "/other", body: strings.Repeat("<CreateBucketConfiguration>", 40) + strings.Repeat("</CreateBucketConfiguration>", 40)}, 400, "MalformedXML"},
		{"large XML", ask{method: "PUT", target: "/other", body: big}, 400, "MaxMessageLengthExceeded"},
		{"public bucket", ask{method: "PUT", target: "/other", headers: h("X-Amz-Acl", "public-read")}, 400, "InvalidBucketAclWithObjectOwnership"},
		{"bucket with lock", ask{method: "PUT", target: "/other", headers: h("X-Amz-Bucket-Object-Lock-Enabled", "true")}, 501, "NotImplemented"},

		{"unknown sub-resource", ask{method: "GET", target: "/bucket?frobnicate"}, 501, "NotImplemented"},
		{"unknown parameter", ask{method: "GET", target: "/bucket/there?x=1"}, 501, "NotImplemented"},
		{"two sub-resources", ask{method: "GET", target: "/bucket?acl&policy"}, 400, "InvalidArgument"},
		{"put versioning", ask{method: "PUT", target: "/bucket?versioning", body: "<VersioningConfiguration/>"}, 501, "NotImplemented"},
		{"put tagging", ask{method: "PUT", target: "/bucket/there?tagging", body: "<Tagging/>"}, 501, "NotImplemented"},
		{"restore", ask{method: "POST", target: "/bucket/there?restore"}, 501, "NotImplemented"},
		{"browser upload", ask{method: "POST", target: "/bucket", body: "x"}, 501, "NotImplemented"},
		{"append", ask{method: "PUT", target: "/bucket/there?append", body: "x"}, 501, "NotImplemented"},
		{"post to object", ask{method: "POST", target: "/bucket/there", body: "x"}, 405, "MethodNotAllowed"},
		{"delete the service", ask{method: "DELETE", target: "/"}, 405, "MethodNotAllowed"},
		{"unknown header", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Write-Offset-Bytes", "1")}, 501, "NotImplemented"},

		{"no object", ask{method: "GET", target: "/bucket/none"}, 404, "NoSuchKey"},
		{"version", ask{method: "GET", target: "/bucket/there?versionId=abc"}, 404, "NoSuchVersion"},
		{"empty version", ask{method: "GET", target: "/bucket/there?versionId="}, 400, "InvalidArgument"},
		{"range beyond", ask{method: "GET", target: "/bucket/there", headers: h("Range", "bytes=10-")}, 416, "InvalidRange"},
		{"range of nothing", ask{method: "GET", target: "/bucket/there", headers: h("Range", "bytes=-0")}, 416, "InvalidRange"},
		{"range of nothing of nothing", ask{method: "GET", target: "/bucket/none", headers: h("Range", "bytes=-0")}, 404, "NoSuchKey"},
		{"range and part", ask{method: "GET", target: "/bucket/there?partNumber=1", headers: h("Range", "bytes=1-2")}, 400, "InvalidRequest"},
		{"part 0", ask{method: "GET", target: "/bucket/there?partNumber=0"}, 400, "InvalidArgument"},
		{"part 2 of 1", ask{method: "GET", target: "/bucket/there?partNumber=2"}, 416, "InvalidPartNumber"},
		{"if-match", ask{method: "GET", target: "/bucket/there", headers: h("If-Match", `"nope"`)}, 412, "PreconditionFailed"},
		{"customer key on get", ask{method: "GET", target: "/bucket/there", headers: h("X-Amz-Server-Side-Encryption-Customer-Algorithm", "AES256")}, 400, "InvalidRequest"},
		{"encryption on get", ask{method: "GET", target: "/bucket/there", headers: h("X-Amz-Server-Side-Encryption", "AES256")}, 400, "InvalidArgument"},
		{"checksum mode", ask{method: "GET", target: "/bucket/there", headers: h("X-Amz-Checksum-Mode", "MAYBE")}, 400, "InvalidArgument"},
		{"split response", ask{method: "GET", target: "/bucket/there?response-content-type=a%0d%0ab:c"}, 400, "InvalidArgument"},

		{"customer key", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Server-Side-Encryption-Customer-Algorithm", "AES256")}, 501, "NotImplemented"},
		{"foreign key", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Server-Side-Encryption", "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", "arn:aws:kms:x:y:key/z")}, 400, "KMS.NotFoundException"},
		{"key without algorithm", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", "k")}, 400, "InvalidArgument"},
		{"unknown encryption", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Server-Side-Encryption", "ROT13")}, 400, "InvalidArgument"},
		{"double encryption", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Server-Side-Encryption", "aws:kms:dsse")}, 501, "NotImplemented"},
		{"encryption context", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Server-Side-Encryption-Context", "e30=")}, 501, "NotImplemented"},
		{"tags", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Tagging", "a=b")}, 501, "NotImplemented"},
		{"redirect", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Website-Redirect-Location", "/")}, 501, "NotImplemented"},
		{"lock", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Object-Lock-Mode", "GOVERNANCE")}, 400, "InvalidRequest"},
		{"public object", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Acl", "public-read")}, 400, "AccessControlListNotSupported"},
		{"grant", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Grant-Read", "id=1")}, 400, "AccessControlListNotSupported"},
		{"unknown ACL", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Acl", "mine")}, 400, "InvalidArgument"},
		{"archive class", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Storage-Class", "GLACIER")}, 400, "InvalidStorageClass"},
		{"if-none-match with a tag", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("If-None-Match", `"a"`)}, 501, "NotImplemented"},
		{"if-none-match, there", ask{method: "PUT", target: "/bucket/there", body: "x", headers: h("If-None-Match", "*")}, 412, "PreconditionFailed"},
		{"if-match, other", ask{method: "PUT", target: "/bucket/there", body: "x", headers: h("If-Match", "zz")}, 412, "PreconditionFailed"},

		{"no payload hash", ask{method: "PUT", target: "/bucket/x", body: "x", payload: "nonsense"}, 400, "InvalidArgument"},
		{"other payload", ask{method: "PUT", target: "/bucket/x", body: "x", payload: emptySHA256}, 400, "XAmzContentSHA256Mismatch"},
		{"other empty payload", ask{method: "GET", target: "/bucket/there", payload: strings.Repeat("0", 64)}, 400, "XAmzContentSHA256Mismatch"},
		{"MD5 of other", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("Content-Md5", b64md5("y"))}, 400, "BadDigest"},
		{"MD5 of nothing", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("Content-Md5", "AAAA")}, 400, "InvalidDigest"},
		{"CRC of other", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Checksum-Crc32", crc("y"))}, 400, "BadDigest"},
		{"short CRC", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Checksum-Crc32", "AAA=")}, 400, "InvalidRequest"},
		{"two sums", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Checksum-Crc32", crc("x"), "X-Amz-Checksum-Sha1", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")}, 400, "InvalidRequest"},
		{"unknown sum", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Checksum-Blake9", "AA==")}, 501, "NotImplemented"},
		{"promised sum", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Sdk-Checksum-Algorithm", "CRC32")}, 400, "InvalidRequest"},
		{"another sum promised", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Sdk-Checksum-Algorithm", "CRC32C", "X-Amz-Checksum-Crc32", crc("x"))}, 400, "InvalidRequest"},
		{"trailer without one", ask{method: "PUT", target: "/bucket/x", body: "x", headers: h("X-Amz-Trailer", "x-amz-checksum-crc32")}, 400, "InvalidRequest"},
		{"stream without length", ask{method: "PUT", target: "/bucket/x", body: "0\r\n\r\n", payload: payloadUnsignedTrailer}, 411, "MissingContentLength"},
		{"stream with wrong length", ask{method: "PUT", target: "/bucket/x", body: "1\r\na\r\n0\r\n\r\n", payload: payloadUnsignedTrailer, headers: h("X-Amz-Decoded-Content-Length", "2")}, 400, "IncompleteBody"},
		{"stream with negative length", ask{method: "PUT", target: "/bucket/x", body: "0\r\n\r\n", payload: payloadUnsignedTrailer, headers: h("X-Amz-Decoded-Content-Length", "-2")}, 400, "InvalidArgument"},
		{"stream beyond 5 GiB", ask{method: "PUT", target: "/bucket/x", body: "0\r\n\r\n", payload: payloadUnsignedTrailer, headers: h("X-Amz-Decoded-Content-Length", "5368709121")}, 400, "EntityTooLarge"},

		{"copy to itself", ask{method: "PUT", target: "/bucket/there", headers: h("X-Amz-Copy-Source", "bucket/there")}, 400, "InvalidRequest"},
		{"copy of nothing", ask{method: "PUT", target: "/bucket/x", headers: h("X-Amz-Copy-Source", "/bucket/none")}, 404, "NoSuchKey"},
		{"copy of no key", ask{method: "PUT", target: "/bucket/x", headers: h("X-Amz-Copy-Source", "/bucket")}, 400, "InvalidArgument"},
		{"copy of no bucket", ask{method: "PUT", target: "/bucket/x", headers: h("X-Amz-Copy-Source", "/nothing/a")}, 404, "NoSuchBucket"},
		{"copy if-match", ask{method: "PUT", target: "/bucket/x", headers: h("X-Amz-Copy-Source", "/bucket/there", "X-Amz-Copy-Source-If-Match", "no")}, 412, "PreconditionFailed"},
		{"copy if-modified", ask{method: "PUT", target: "/bucket/x", headers: h("X-Amz-Copy-Source", "/bucket/there", "X-Amz-Copy-Source-If-Modified-Since", time.Now().UTC().Add(time.Hour).Format(http.TimeFormat))}, 412, "PreconditionFailed"},
		{"copy directive", ask{method: "PUT", target: "/bucket/x", headers: h("X-Amz-Copy-Source", "/bucket/there", "X-Amz-Metadata-Directive", "MERGE")}, 400, "InvalidArgument"},
		{"copy tags", ask{method: "PUT", target: "/bucket/x", headers: h("X-Amz-Copy-Source", "/bucket/there", "X-Amz-Tagging-Directive", "REPLACE")}, 501, "NotImplemented"},

		{"delete without sum", ask{method: "POST", target: "/bucket?delete", body: del}, 400, "InvalidRequest"},
		{"delete nothing", ask{method: "POST", target: "/bucket?delete", body: "<Delete/>", headers: h("Content-Md5", b64md5("<Delete/>"))}, 400, "MalformedXML"},
		{"delete with other sum", ask{method: "POST", target: "/bucket?delete", body: del, headers: h("Content-Md5", b64md5("x"))}, 400, "BadDigest"},
		{"delete 1001", ask{method: "POST", target: "/bucket?delete", body: "<Delete>" + strings.Repeat("<Object><Key>a</Key></Object>", 1001) + "</Delete>", headers: h("Content-Md5", b64md5("<Delete>"+strings.Repeat("<Object><Key>a</Key></Object>", 1001)+"</Delete>"))}, 400, "MalformedXML"},

		{"list type", ask{method: "GET", target: "/bucket?list-type=3"}, 400, "InvalidArgument"},
		{"max-keys", ask{method: "GET", target: "/bucket?max-keys=-1"}, 400, "InvalidArgument"},
		{"max-keys word", ask{method: "GET", target: "/bucket?list-type=2&max-keys=ten"}, 400, "InvalidArgument"},
		{"encoding", ask{method: "GET", target: "/bucket?encoding-type=rot13"}, 400, "InvalidArgument"},
		{"token", ask{method: "GET", target: "/bucket?list-type=2&continuation-token=%21"}, 400, "InvalidArgument"},
		{"v2 parameter in v1", ask{method: "GET", target: "/bucket?start-after=a"}, 400, "InvalidArgument"},

		{"part 0 of upload", ask{method: "PUT", target: "/bucket/mp?partNumber=0&uploadId=" + upload, body: "x"}, 400, "InvalidArgument"},
		{"part 10001", ask{method: "PUT", target: "/bucket/mp?partNumber=10001&uploadId=" + upload, body: "x"}, 400, "InvalidArgument"},
		{"part of nothing", ask{method: "PUT", target: "/bucket/mp?partNumber=1&uploadId=zz", body: "x"}, 404, "NoSuchUpload"},
		{"part of other key", ask{method: "PUT", target: "/bucket/mq?partNumber=1&uploadId=" + upload, body: "x"}, 404, "NoSuchUpload"},
		{"part without sum", ask{method: "PUT", target: "/bucket/mp?partNumber=1&uploadId=" + upload, body: "x"}, 400, "InvalidRequest"},
		{"complete of nothing", ask{method: "POST", target: "/bucket/mp?uploadId=" + upload, body: "<CompleteMultipartUpload/>"}, 400, "MalformedXML"},
		{"complete without body", ask{method: "POST", target: "/bucket/mp?uploadId=" + upload}, 400, "InvalidRequest"},
		{"complete of unknown part", ask{method: "POST", target: "/bucket/mp?uploadId=" + upload, body: "<CompleteMultipartUpload><Part><PartNumber>7</PartNumber><ETag>a</ETag></Part></CompleteMultipartUpload>"}, 400, "InvalidPart"},
		{"complete, other mode", ask{method: "POST", target: "/bucket/mp?uploadId=" + upload, headers: h("X-Amz-Checksum-Type", "FULL_OBJECT"), body: "<CompleteMultipartUpload><Part><PartNumber>7</PartNumber><ETag>a</ETag></Part></CompleteMultipartUpload>"}, 400, "InvalidRequest"},
		{"complete with text", ask{method: "POST", target: "/bucket/mp?uploadId=" + upload, body: "<CompleteMultipartUpload><Part><PartNumber>x</PartNumber><ETag>a</ETag></Part></CompleteMultipartUpload>"}, 400, "InvalidArgument"},
		{"sha256 as full object", ask{method: "POST", target: "/bucket/m?uploads", headers: h("X-Amz-Checksum-Algorithm", "SHA256", "X-Amz-Checksum-Type", "FULL_OBJECT")}, 400, "InvalidRequest"},
		{"type without algorithm", ask{method: "POST", target: "/bucket/m?uploads", headers: h("X-Amz-Checksum-Type", "FULL_OBJECT")}, 400, "InvalidRequest"},
		{"unknown algorithm", ask{method: "POST", target: "/bucket/m?uploads", headers: h("X-Amz-Checksum-Algorithm", "MD4")}, 400, "InvalidRequest"},
		{"attributes of nothing", ask{method: "GET", target: "/bucket/there?attributes"}, 400, "InvalidRequest"},
		{"unknown attribute", ask{method: "GET", target: "/bucket/there?attributes", headers: h("X-Amz-Object-Attributes", "Colour")}, 400, "InvalidArgument"},
		{"acl of others", ask{method: "PUT", target: "/bucket/there?acl", headers: h("X-Amz-Acl", "public-read")}, 400, "AccessControlListNotSupported"},
		{"acl document of others", ask{method: "PUT", target: "/bucket/there?acl", body: "<AccessControlPolicy><Owner><ID>p1</ID></Owner><AccessControlList><Grant><Grantee><ID>p2</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant></AccessControlList></AccessControlPolicy>"}, 400, "AccessControlListNotSupported"},
	}
	for sub, code := range map[string]string{
		"policy": "NoSuchBucketPolicy", "policyStatus": "NoSuchBucketPolicy", "tagging": "NoSuchTagSet", "cors": "NoSuchCORSConfiguration",
		"object-lock": "ObjectLockConfigurationNotFoundError", "lifecycle": "NoSuchLifecycleConfiguration", "website": "NoSuchWebsiteConfiguration",
		"replication": "ReplicationConfigurationNotFoundError",
	} {
		w.want(ask{method: "GET", target: "/bucket?" + sub}, 404, code)
		w.want(ask{method: "PUT", target: "/bucket?" + sub, body: "x"}, 501, "NotImplemented")
	}
	before := len(w.m.objects["bucket"])
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			r := w.want(tt.a, tt.status, tt.code)
			if r.header.Get("X-Amz-Request-Id") == "" || r.header.Get("X-Amz-Id-2") == "" || r.header.Get("Date") == "" || r.header.Get("Server") == "" {
				t.Errorf("headers missing: %v", r.header)
			}
			var e struct{ Code, Message, Resource, RequestId, HostId string }
			if err := xml.Unmarshal([]byte(r.body), &e); err != nil || e.Message == "" && tt.name != "unknown ACL" || e.Resource == "" || e.RequestId != r.header.Get("X-Amz-Request-Id") || e.HostId == "" {
				t.Errorf("%v %+v\n%s", err, e, r.body)
			}
			if strings.Contains(r.body, strings.Repeat("s", 40)) {
				t.Error("a secret in an answer")
			}
		})
	}
	w.t = t
	if n := len(w.m.objects["bucket"]); n != before || string(w.m.objects["bucket"]["there"].data) != "0123456789" {
		t.Errorf("%d objects, had %d", n, before)
	}
	if len(w.m.buckets) != 2 {
		t.Errorf("buckets %v", w.m.buckets)
	}
}

func xmlField(doc, name string) string {
	_, rest, _ := strings.Cut(doc, "<"+name+">")
	v, _, _ := strings.Cut(rest, "</"+name+">")
	return v
}

func TestObjectsOnTheWire(t *testing.T) {
	w := newWorld(t)
	r := w.want(ask{method: "PUT", target: "/bucket/o", body: "0123456789", headers: h("Content-Type", "text/plain", "Cache-Control", "no-store",
		"Content-Disposition", "inline", "Content-Language", "fr", "Expires", "soon", "Content-Encoding", "x-own",
		"X-Amz-Meta-Plain", "a b", "X-Amz-Meta-Latin", "caf\xe9", "X-Amz-Meta-Word", "=?UTF-8?Q?=C3=84?=", "Content-Md5", b64md5("0123456789"),
		"X-Amz-Checksum-Crc32", crc("0123456789"), "X-Amz-Server-Side-Encryption", "AES256", "X-Amz-Storage-Class", "STANDARD_IA", "X-Amz-Acl", "private")}, 200, "")
	md := md5.Sum([]byte("0123456789"))
	etag := fmt.Sprintf(`"%x"`, md)
	keyID := w.m.buckets["bucket"].KeyID
	for name, want := range map[string]string{"ETag": etag, "X-Amz-Checksum-Crc32": crc("0123456789"), "X-Amz-Checksum-Type": "FULL_OBJECT",
		"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": keyID} {
		if r.header.Get(name) != want {
			t.Errorf("put: %s is %q, want %q", name, r.header.Get(name), want)
		}
	}
	for _, method := range []string{"GET", "HEAD"} {
		r := w.want(ask{method: method, target: "/bucket/o", headers: h("X-Amz-Checksum-Mode", "ENABLED")}, 200, "")
		for name, want := range map[string]string{"ETag": etag, "Content-Type": "text/plain", "Cache-Control": "no-store", "Content-Disposition": "inline",
			"Content-Language": "fr", "Expires": "soon", "Content-Encoding": "x-own", "X-Amz-Meta-Plain": "a b", "X-Amz-Meta-Latin": "=?UTF-8?B?Y2Fmw6k=?=",
			"X-Amz-Meta-Word": "=?UTF-8?B?w4Q=?=", "Content-Length": "10", "Accept-Ranges": "bytes", "X-Amz-Storage-Class": "STANDARD_IA",
			"X-Amz-Checksum-Crc32": crc("0123456789"), "X-Amz-Server-Side-Encryption": "aws:kms"} {
			if r.header.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", method, name, r.header.Get(name), want)
			}
		}
		if r.header.Get("Last-Modified") == "" {
			t.Error("no Last-Modified")
		}
	}
	for _, tt := range []struct {
		rng, want, contentRange string
		status                  int
	}{
		{"bytes=0-0", "0", "bytes 0-0/10", 206}, {"bytes=3-", "3456789", "bytes 3-9/10", 206}, {"bytes=-4", "6789", "bytes 6-9/10", 206},
		{"bytes=-99", "0123456789", "bytes 0-9/10", 206}, {"bytes=2-99", "23456789", "bytes 2-9/10", 206},
		{"bytes=5-3", "0123456789", "", 200}, {"lines=1-2", "0123456789", "", 200}, {"bytes=1-2,4-5", "0123456789", "", 200}, {"bytes=a-b", "0123456789", "", 200},
		{"bytes=1-99999999999999999999999", "123456789", "bytes 1-9/10", 206},
	} {
		r := w.want(ask{method: "GET", target: "/bucket/o", headers: h("Range", tt.rng, "X-Amz-Checksum-Mode", "ENABLED")}, tt.status, "")
		if r.body != tt.want || r.header.Get("Content-Range") != tt.contentRange || tt.status == 206 && r.header.Get("X-Amz-Checksum-Crc32") != "" {
			t.Errorf("%s: %q %q", tt.rng, r.body, r.header)
		}
	}
	old := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	future := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, tt := range []struct {
		headers map[string]string
		status  int
	}{
		{h("If-Match", etag), 200}, {h("If-Match", "*"), 200}, {h("If-None-Match", etag), 304}, {h("If-None-Match", `"x"`), 200},
		{h("If-Modified-Since", old), 200}, {h("If-Modified-Since", future), 304}, {h("If-Unmodified-Since", future), 200}, {h("If-Unmodified-Since", old), 412},
		{h("If-Modified-Since", "rubbish"), 200}, {h("Range", "bytes=0-1", "If-Range", etag), 206}, {h("Range", "bytes=0-1", "If-Range", `"x"`), 200},
	} {
		r := w.do(ask{method: "GET", target: "/bucket/o", headers: tt.headers})
		if r.status != tt.status || r.status == 304 && (r.body != "" || r.header.Get("ETag") != etag) {
			t.Errorf("%v: %d %q %v", tt.headers, r.status, r.body, r.header)
		}
	}
	r = w.want(ask{method: "GET", target: "/bucket/o?response-content-type=a%2Fb&response-cache-control=c&response-content-disposition=d&response-content-encoding=e&response-content-language=f&response-expires=g&x-id=GetObject"}, 200, "")
	if r.header.Get("Content-Type") != "a/b" || r.header.Get("Cache-Control") != "c" || r.header.Get("Expires") != "g" {
		t.Errorf("overrides: %v", r.header)
	}
	w.want(ask{method: "DELETE", target: "/bucket/o"}, 204, "")
	w.want(ask{method: "DELETE", target: "/bucket/o"}, 204, "")
	// Nothing claimed: CRC64NVME is computed.
	if r := w.want(ask{method: "PUT", target: "/bucket/o", body: "123456789"}, 200, ""); r.header.Get("X-Amz-Checksum-Crc64nvme") != "rosUhgp5mIg=" {
		t.Errorf("default checksum %v", r.header)
	}
}

func TestListings(t *testing.T) {
	w := newWorld(t)
	for _, k := range []string{"a", "b/1", "b/2", "c%20%26%3C", "d/x/1", "%01"} {
		w.put("/bucket/"+k, "v")
	}
	type result struct {
		KeyCount, MaxKeys                         int
		IsTruncated                               bool
		NextContinuationToken, NextMarker, Prefix string
		EncodingType                              string
		Contents                                  []struct {
			Key, ETag string
			Size      int
			Owner     *struct{ ID string }
		}
		CommonPrefixes []struct{ Prefix string }
	}
	get := func(q string) (out result) {
		t.Helper()
		r := w.want(ask{method: "GET", target: "/bucket?" + q}, 200, "")
		body := strings.ReplaceAll(r.body, "&#x1;", "CTRL") // what S3 sends, and XML 1.0 parsers refuse
		if err := xml.Unmarshal([]byte(body), &out); err != nil {
			t.Fatalf("%s: %v\n%s", q, err, r.body)
		}
		return out
	}
	names := func(r result) string {
		var s []string
		for _, c := range r.Contents {
			s = append(s, c.Key)
		}
		for _, c := range r.CommonPrefixes {
			s = append(s, c.Prefix)
		}
		return strings.Join(s, " ")
	}
	if r := get("list-type=2"); names(r) != "CTRL a b/1 b/2 c &< d/x/1" || r.KeyCount != 6 || r.MaxKeys != 1000 || r.Contents[0].Owner != nil {
		t.Errorf("%+v", r)
	}
	if r := get("list-type=2&fetch-owner=true&encoding-type=url"); names(r) != "%01 a b/1 b/2 c%20%26%3C d/x/1" || r.Contents[0].Owner.ID != "p1" || r.EncodingType != "url" {
		t.Errorf("%+v", r)
	}
	if r := get("delimiter=/"); names(r) != "CTRL a c &< b/ d/" {
		t.Errorf("%+v", r)
	}
	if r := get("delimiter=/&max-keys=3&marker=%01"); names(r) != "a c &< b/" || !r.IsTruncated || r.NextMarker != "c &<" {
		t.Errorf("%+v", r)
	}
	if r := get("list-type=2&max-keys=0"); names(r) != "" || r.IsTruncated || r.MaxKeys != 0 {
		t.Errorf("%+v", r)
	}
	if r := get("list-type=2&max-keys=5000"); r.MaxKeys != 1000 {
		t.Errorf("%+v", r)
	}
	var all []string
	token := ""
	for range 10 {
		r := get("list-type=2&max-keys=2&start-after=a" + token)
		all = append(all, names(r))
		if !r.IsTruncated {
			break
		}
		token = "&continuation-token=" + r.NextContinuationToken
	}
	if strings.Join(all, " ") != "b/1 b/2 c &< d/x/1" || len(all) != 2 {
		t.Errorf("pages %q", all)
	}
	r := w.want(ask{method: "GET", target: "/bucket?versions&prefix=b/"}, 200, "")
	if strings.Count(r.body, "<VersionId>null</VersionId><IsLatest>true</IsLatest>") != 2 {
		t.Error(r.body)
	}
	r = w.want(ask{method: "GET", target: "/"}, 200, "")
	if !strings.Contains(r.body, "<Name>bucket</Name>") || !strings.Contains(r.body, "<BucketRegion>"+testRegion) {
		t.Error(r.body)
	}
	if r = w.want(ask{method: "GET", target: "/", key: "CHBBBBBBBBBBBBBBBBBB"}, 200, ""); strings.Contains(r.body, "<Bucket>") {
		t.Error("another project's bucket is listed")
	}
	if r = w.want(ask{method: "HEAD", target: "/bucket"}, 200, ""); r.header.Get("X-Amz-Bucket-Region") != testRegion {
		t.Error(r.header)
	}
	if r = w.want(ask{method: "GET", target: "/bucket?location"}, 200, ""); !strings.Contains(r.body, ">"+testRegion+"<") {
		t.Error(r.body)
	}
}

func TestDeleteObjects(t *testing.T) {
	w := newWorld(t)
	for i := range 50 {
		w.put(fmt.Sprintf("/bucket/k%d", i), "v")
	}
	w.put("/bucket/a%26b", "v")
	doc := `<Delete xmlns="` + xmlNamespace + `">`
	for i := range 49 {
		doc += fmt.Sprintf("<Object><Key>k%d</Key></Object>", i)
	}
	doc += "<Object><Key>a&amp;b</Key></Object><Object><Key>k49</Key><ETag>other</ETag></Object><Object><Key>none</Key></Object></Delete>"
	r := w.want(ask{method: "POST", target: "/bucket?delete", body: doc, headers: h("X-Amz-Checksum-Crc32", crc(doc))}, 200, "PreconditionFailed")
	if strings.Count(r.body, "<Deleted>") != 51 || strings.Count(r.body, "<Error>") != 1 || !strings.Contains(r.body, "<Key>a&amp;b</Key>") {
		t.Error(r.body)
	}
	if len(w.m.objects["bucket"]) != 1 {
		t.Errorf("%d left", len(w.m.objects["bucket"]))
	}
	doc = "<Delete><Quiet>true</Quiet><Object><Key>k49</Key></Object></Delete>"
	if r := w.want(ask{method: "POST", target: "/bucket?delete", body: doc, headers: h("Content-Md5", b64md5(doc))}, 200, ""); strings.Contains(r.body, "<Deleted>") {
		t.Error(r.body)
	}
	// Each key is asked for by itself.
	deny := newWorld(t, func(o *Options) { o.Policy = ownProject{map[string]bool{"s3:DeleteObject": true}} })
	deny.put("/bucket/k49", "v")
	if r := deny.want(ask{method: "POST", target: "/bucket?delete", body: doc, headers: h("Content-Md5", b64md5(doc))}, 200, "AccessDenied"); len(deny.m.objects["bucket"]) != 1 {
		t.Error(r.body)
	}
}

func TestMultipartAndCopy(t *testing.T) {
	w := newWorld(t)
	r := w.want(ask{method: "POST", target: "/bucket/m%20p?uploads", headers: h("X-Amz-Checksum-Algorithm", "crc32", "X-Amz-Meta-A", "b")}, 200, "")
	id := xmlField(r.body, "UploadId")
	if id == "" || r.header.Get("X-Amz-Checksum-Type") != "COMPOSITE" {
		t.Fatal(r)
	}
	doc := "<CompleteMultipartUpload>"
	for n, s := range []string{"first ", "second"} {
		r := w.want(ask{method: "PUT", target: fmt.Sprintf("/bucket/m%%20p?partNumber=%d&uploadId=%s", n+1, id), body: s, headers: h("X-Amz-Checksum-Crc32", crc(s))}, 200, "")
		doc += fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag><ChecksumCRC32>%s</ChecksumCRC32></Part>", n+1, strings.ReplaceAll(r.header.Get("ETag"), `"`, "&quot;"), r.header.Get("X-Amz-Checksum-Crc32"))
	}
	w.put("/bucket/src", "0123456789")
	r = w.want(ask{method: "PUT", target: "/bucket/m%20p?partNumber=3&uploadId=" + id, headers: h("X-Amz-Copy-Source", "bucket%2Fsrc", "X-Amz-Copy-Source-Range", "bytes=2-4")}, 200, "")
	doc += "<Part><PartNumber>3</PartNumber><ETag>" + xmlField(r.body, "ETag") + "</ETag></Part></CompleteMultipartUpload>"
	for _, bad := range []string{"bytes=2-10", "bytes=-2", "bytes=2-", "2-4"} {
		w.want(ask{method: "PUT", target: "/bucket/m%20p?partNumber=4&uploadId=" + id, headers: h("X-Amz-Copy-Source", "bucket/src", "X-Amz-Copy-Source-Range", bad)}, 400, "InvalidArgument")
	}
	if r := w.want(ask{method: "GET", target: "/bucket/m%20p?uploadId=" + id + "&max-parts=2"}, 200, ""); strings.Count(r.body, "<Part>") != 2 || xmlField(r.body, "NextPartNumberMarker") != "2" {
		t.Error(r.body)
	}
	if r := w.want(ask{method: "GET", target: "/bucket?uploads"}, 200, ""); xmlField(r.body, "UploadId") != id || xmlField(r.body, "ChecksumAlgorithm") != "CRC32" {
		t.Error(r.body)
	}
	r = w.want(ask{method: "POST", target: "/bucket/m%20p?uploadId=" + id, body: doc}, 200, "")
	if !strings.HasSuffix(xmlField(r.body, "Location"), "/bucket/m%20p") || xmlField(r.body, "ChecksumType") != "COMPOSITE" {
		t.Error(r.body)
	}
	if r := w.want(ask{method: "GET", target: "/bucket/m%20p?partNumber=2", headers: h("X-Amz-Checksum-Mode", "ENABLED")}, 206, ""); r.body != "second" || r.header.Get("X-Amz-Mp-Parts-Count") != "3" ||
		r.header.Get("Content-Range") != "bytes 6-11/15" || r.header.Get("X-Amz-Checksum-Crc32") != crc("second") {
		t.Error(r)
	}
	r = w.want(ask{method: "GET", target: "/bucket/m%20p?attributes", headers: h("X-Amz-Object-Attributes", "ETag,ObjectParts,ObjectSize,Checksum,StorageClass", "X-Amz-Max-Parts", "1")}, 200, "")
	for name, want := range map[string]string{"PartsCount": "3", "ObjectSize": "15", "IsTruncated": "true", "StorageClass": "STANDARD"} {
		if xmlField(r.body, name) != want {
			t.Errorf("%s: %s", name, r.body)
		}
	}
	r = w.want(ask{method: "PUT", target: "/bucket/copy", headers: h("X-Amz-Copy-Source", "/bucket/m+p", "X-Amz-Metadata-Directive", "REPLACE", "X-Amz-Meta-New", "1")}, 200, "")
	if xmlField(r.body, "LastModified") == "" || w.m.objects["bucket"]["copy"].obj.Headers.User["new"] != "1" {
		t.Error(r.body)
	}
	w.want(ask{method: "PUT", target: "/bucket/copy2", headers: h("X-Amz-Copy-Source", "bucket/m%20p", "X-Amz-Storage-Class", "STANDARD_IA")}, 200, "")
	if o := w.m.objects["bucket"]["copy2"]; o.obj.Headers.User["a"] != "b" || o.obj.Headers.StorageClass != "STANDARD_IA" {
		t.Errorf("%+v", o.obj)
	}
	id = xmlField(w.want(ask{method: "POST", target: "/bucket/x?uploads"}, 200, "").body, "UploadId")
	w.want(ask{method: "DELETE", target: "/bucket/x?uploadId=" + id}, 204, "")
	w.want(ask{method: "DELETE", target: "/bucket/x?uploadId=" + id}, 404, "NoSuchUpload")
	w.want(ask{method: "PUT", target: "/bucket/copy?acl", headers: h("X-Amz-Acl", "private")}, 200, "")
	acl := w.want(ask{method: "GET", target: "/bucket/copy?acl"}, 200, "").body
	w.want(ask{method: "PUT", target: "/bucket/copy?acl", body: acl}, 200, "")
}

func TestFailuresOfTheEngine(t *testing.T) {
	var seen []error
	w := newWorld(t, func(o *Options) { o.Failed = func(_ string, err error) { seen = append(seen, err) } })
	for _, tt := range []struct {
		err    error
		status int
		code   string
	}{
		{errs.New(errs.Sealed, "x", "sealed"), 503, "Sealed"},
		{errs.New(errs.Corrupt, "x", "secret detail"), 500, "InternalError"},
		{errs.Coded(errs.Corrupt, "x", "NoSuchKey", "secret detail"), 500, "InternalError"},
		{errs.New(errs.Internal, "x", "secret detail"), 500, "InternalError"},
		{errs.New(errs.Unavailable, "x", "secret detail"), 503, "ServiceUnavailable"},
		{errs.New(errs.Exhausted, "x", "secret detail"), 507, "InsufficientStorage"},
		{errs.New(errs.Destroyed, "x", "secret detail"), 400, "KMS.KMSInvalidStateException"},
		{errs.New(errs.Conflict, "x", "secret detail"), 409, "OperationAborted"},
		{fmt.Errorf("secret detail"), 500, "InternalError"},
	} {
		w.m.broken = tt.err
		for _, a := range []ask{{method: "GET", target: "/bucket/x"}, {method: "PUT", target: "/bucket/x", body: "x"}, {method: "GET", target: "/bucket"}, {method: "DELETE", target: "/bucket"}} {
			if r := w.want(a, tt.status, tt.code); strings.Contains(r.body, "secret detail") {
				t.Errorf("a cause is shown: %s", r.body)
			}
		}
	}
	if len(seen) != 4*7 {
		t.Errorf("%d failures told", len(seen))
	}
	w.m.broken = nil
	// Damage before the first byte is a clean error, and in the middle a broken transfer.
	small, large := strings.Repeat("s", 1000), strings.Repeat("l", 3<<20)
	w.put("/bucket/small", small)
	w.put("/bucket/large", large)
	w.m.tear = 500
	w.want(ask{method: "GET", target: "/bucket/small"}, 500, "InternalError")
	w.m.tear = 1 << 20
	if r := w.do(ask{method: "GET", target: "/bucket/large"}); !strings.Contains(r.body, "BROKEN") {
		t.Errorf("a torn object came as if whole: %d, %d bytes", r.status, len(r.body))
	}
	w.m.tear = -1
	w.want(ask{method: "GET", target: "/bucket/large"}, 200, "")
}

func TestZeroOptionsRefuse(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Policy = nil })
	w.want(ask{method: "GET", target: "/"}, 503, "ServiceUnavailable")
	w = newWorld(t, func(o *Options) { o.Keys = nil })
	w.want(ask{method: "GET", target: "/"}, 503, "ServiceUnavailable")
}

func TestKeysHiddenFromWhoMayNotList(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Policy = ownProject{map[string]bool{"s3:ListBucket": true}} })
	w.put("/bucket/there", "x")
	w.want(ask{method: "GET", target: "/bucket/there"}, 200, "")
	w.want(ask{method: "GET", target: "/bucket/none"}, 403, "AccessDenied")
}

func TestSlowCompletion(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.KeepAlive = 20 * time.Millisecond })
	w.m.delay = 100 * time.Millisecond
	for _, tt := range []struct{ etag, root string }{{"nope", "Error"}, {"", "CompleteMultipartUploadResult"}} {
		id := xmlField(w.want(ask{method: "POST", target: "/bucket/m?uploads"}, 200, "").body, "UploadId")
		etag := w.want(ask{method: "PUT", target: "/bucket/m?partNumber=1&uploadId=" + id, body: "x"}, 200, "").header.Get("ETag")
		if tt.etag != "" {
			etag = tt.etag
		}
		r := w.do(ask{method: "POST", target: "/bucket/m?uploadId=" + id, body: "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + etag + "</ETag></Part></CompleteMultipartUpload>"})
		var v struct{ XMLName xml.Name }
		if err := xml.Unmarshal([]byte(r.body), &v); r.status != 200 || err != nil || v.XMLName.Local != tt.root || !strings.Contains(r.body, "?>\n ") {
			t.Errorf("%d %v %q", r.status, err, r.body)
		}
	}
}
