package s3

import (
	"net/http"
	"slices"
	"strings"
)

type scope uint8

const (
	scopeService scope = iota
	scopeBucket
	scopeObject
)

func (s scope) String() string { return [...]string{"SERVICE", "BUCKET", "OBJECT"}[s] }

type bodyKind uint8

const (
	bodyNone bodyKind = iota
	bodyXML           // small, read whole
	bodyData          // streamed
)

// route is one operation: what it needs before it runs, and how it runs.
type route struct {
	name string
	// action is the policy's name for it; empty if the operation asks per key.
	action string
	// params are the query parameters that mean something here. Any other is refused.
	params []string
	body   bodyKind
	// newBucket: the bucket need not exist yet. completes: x-amz-checksum-* is about the object.
	newBucket, completes bool
	// writes: the operation stores something, so encryption headers apply.
	writes bool
	serve  func(*request) error

	scope scope
}

type routeKey struct {
	scope  scope
	method string
	sub    string
}

// subresources are all query parameters that choose an operation, built or not
// (S3 API reference, "Actions"; an unknown parameter is refused anyway).
var subresources = map[string]bool{}

func init() {
	for name := range strings.FieldsSeq(`abac accelerate acl analytics append attributes cors delete encryption
		intelligent-tiering inventory legal-hold lifecycle location logging metadataConfiguration metadataInventoryTable
		metadataJournalTable metadataTable metrics notification object-lock ownershipControls policy policyStatus
		publicAccessBlock renameObject replication requestPayment restore retention select session tagging torrent
		uploadId uploads versioning versions website`) {
		subresources[name] = true
	}
	for k, r := range routes {
		r.scope = k.scope
	}
}

var listParams = []string{"prefix", "delimiter", "max-keys", "encoding-type"}

var readParams = []string{"versionId", "partNumber", "response-content-type", "response-content-language",
	"response-expires", "response-cache-control", "response-content-disposition", "response-content-encoding"}

// routes is every operation that is built.
var routes = map[routeKey]*route{
	{scopeService, "GET", ""}: {name: "ListBuckets", action: "s3:ListAllMyBuckets", serve: (*request).listBuckets,
		params: []string{"prefix", "max-buckets", "continuation-token", "bucket-region"}},

	{scopeBucket, "GET", ""}: {name: "ListObjects", action: "s3:ListBucket", serve: (*request).listObjects,
		params: append([]string{"list-type", "marker", "continuation-token", "start-after", "fetch-owner"}, listParams...)},
	{scopeBucket, "HEAD", ""}:   {name: "HeadBucket", action: "s3:ListBucket", serve: (*request).headBucket},
	{scopeBucket, "PUT", ""}:    {name: "CreateBucket", action: "s3:CreateBucket", serve: (*request).createBucket, newBucket: true, body: bodyXML},
	{scopeBucket, "DELETE", ""}: {name: "DeleteBucket", action: "s3:DeleteBucket", serve: (*request).deleteBucket},

	{scopeObject, "GET", ""}:    {name: "GetObject", action: "s3:GetObject", serve: (*request).getObject, params: readParams},
	{scopeObject, "HEAD", ""}:   {name: "HeadObject", action: "s3:GetObject", serve: (*request).headObject, params: readParams},
	{scopeObject, "PUT", ""}:    {name: "PutObject", action: "s3:PutObject", serve: (*request).putObject, body: bodyData, writes: true},
	{scopeObject, "DELETE", ""}: {name: "DeleteObject", action: "s3:DeleteObject", serve: (*request).deleteObject, params: []string{"versionId"}},
}

// route finds the operation of a request.
func (q *request) route() (*route, error) {
	s := scopeService
	switch {
	case q.key != "":
		s = scopeObject
	case q.bucket != "":
		s = scopeBucket
	}
	sub := ""
	for _, p := range q.query {
		if !subresources[p.name] || p.name == sub {
			continue
		}
		if sub != "" {
			return nil, invalidArgument("ResourceType", p.name, "Conflicting query string parameters: %s, %s", sub, p.name)
		}
		sub = p.name
	}
	r := routes[routeKey{s, q.r.Method, sub}]
	if r != nil && q.r.Method == http.MethodPut && s == scopeObject && q.r.Header.Get("X-Amz-Copy-Source") != "" {
		if c := copyRoutes[sub]; c != nil {
			r = c
		}
	}
	if r != nil {
		return r, nil
	}
	if sub != "" || s == scopeBucket && q.r.Method == http.MethodPost {
		return nil, failf("NotImplemented", "This operation is not implemented.").with("Method", q.r.Method).with("ResourceType", sub)
	}
	var allow []string
	for k := range routes {
		if k.scope == s && k.sub == "" {
			allow = append(allow, k.method)
		}
	}
	slices.Sort(allow)
	return nil, fail("MethodNotAllowed").with("Method", q.r.Method).with("ResourceType", s.String()).withHeader("Allow", strings.Join(allow, ", "))
}

// copyRoutes are the PUTs that take their bytes from another object, by sub-resource.
var copyRoutes = map[string]*route{}

// checkCommon refuses every parameter and x-amz-* header that would otherwise be
// ignored: what a client asks for is done or refused.
func (q *request) checkCommon(rt *route) error {
	for _, p := range q.query {
		switch {
		case p.name == "x-id", subresources[p.name], slices.Contains(rt.params, p.name):
		case q.query.has("X-Amz-Signature") && len(p.name) > 6 && strings.EqualFold(p.name[:6], "x-amz-"):
		default:
			return failf("NotImplemented", "A parameter you provided implies functionality that is not implemented").with("Parameter", p.name)
		}
	}
	for name := range q.r.Header {
		if !strings.HasPrefix(name, "X-Amz-") {
			continue
		}
		if !knownHeader(name) {
			return notImplemented(strings.ToLower(name))
		}
	}
	return q.checkEncryption(rt)
}

// knownHeader tells whether an x-amz-* header is one that some operation here
// understands, refuses by itself, or that has no effect by its own definition.
func knownHeader(name string) bool {
	for _, p := range []string{"X-Amz-Meta-", "X-Amz-Checksum-", "X-Amz-Grant-", "X-Amz-Copy-Source-If-",
		"X-Amz-Server-Side-Encryption-Customer-", "X-Amz-Copy-Source-Server-Side-Encryption-Customer-", "X-Amz-Object-Lock-"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return knownHeaders[name]
}

var knownHeaders = map[string]bool{
	"X-Amz-Date": true, "X-Amz-Content-Sha256": true, "X-Amz-Decoded-Content-Length": true, "X-Amz-Trailer": true,
	"X-Amz-Sdk-Checksum-Algorithm": true, "X-Amz-Acl": true, "X-Amz-Storage-Class": true, "X-Amz-Tagging": true,
	"X-Amz-Tagging-Directive": true, "X-Amz-Metadata-Directive": true, "X-Amz-Copy-Source": true, "X-Amz-Copy-Source-Range": true,
	"X-Amz-Website-Redirect-Location": true, "X-Amz-Bucket-Object-Lock-Enabled": true, "X-Amz-Object-Ownership": true,
	"X-Amz-Expected-Bucket-Owner": true, "X-Amz-Source-Expected-Bucket-Owner": true,
	"X-Amz-Server-Side-Encryption": true, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": true,
	"X-Amz-Server-Side-Encryption-Context": true, "X-Amz-Server-Side-Encryption-Bucket-Key-Enabled": true,
	"X-Amz-Mp-Object-Size": true, "X-Amz-Object-Attributes": true, "X-Amz-Max-Parts": true, "X-Amz-Part-Number-Marker": true,
	"X-Amz-Optional-Object-Attributes": true,
	// No bucket asks its readers to pay, deletes by MFA, or holds governance locks: without effect.
	"X-Amz-Request-Payer": true, "X-Amz-Mfa": true, "X-Amz-Bypass-Governance-Retention": true,
	// Of the client itself.
	"X-Amz-User-Agent": true, "X-Amz-Te": true,
}
