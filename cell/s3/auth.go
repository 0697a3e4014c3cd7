package s3

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
	"time"

	"chancery/cell/policy"
	"chancery/internal/errs"
)

// caller is who asks, and what the signature said of the payload.
type caller struct {
	principal policy.Principal
	// payload is x-amz-content-sha256, UNSIGNED-PAYLOAD if a presigned URL did not say.
	payload string
	// For signed chunks: the key, the seed signature and the two lines that every chunk's string names.
	key               []byte
	seed, date, scope string
}

const mechanismMessage = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."

// authenticate finds out who asks. Nothing of the body is read before it succeeds.
func (q *request) authenticate() error {
	header := q.r.Header.Values("Authorization")
	v4query := q.query.has("X-Amz-Algorithm") || q.query.has("X-Amz-Signature") || q.query.has("X-Amz-Credential")
	v2query := q.query.has("Signature") && q.query.has("AWSAccessKeyId")
	methods := 0
	for _, is := range []bool{len(header) > 0, v4query, v2query} {
		if is {
			methods++
		}
	}
	if methods > 1 || len(header) > 1 {
		return invalidArgument("Authorization", "", "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified")
	}
	switch {
	case v2query:
		return failf("InvalidRequest", "%s", mechanismMessage)
	case v4query:
		return q.authenticateQuery()
	case len(header) == 1:
		return q.authenticateHeader(header[0])
	}
	return fail("AccessDenied") // anonymous: nothing here is public
}

func (q *request) authenticateHeader(value string) error {
	scheme, _, _ := strings.Cut(value, " ")
	switch {
	case scheme == algorithmV4 || strings.HasPrefix(scheme, algorithmV4+"\t"):
	case scheme == "AWS", strings.HasPrefix(scheme, "AWS4-"):
		return failf("InvalidRequest", "%s", mechanismMessage)
	default:
		return invalidArgument("Authorization", scheme, "Unsupported Authorization Type")
	}
	if len(value) > 8<<10 {
		return fail("RequestHeaderSectionTooLarge")
	}
	s, err := parseAuthorization(value)
	if err != nil {
		return err
	}
	if s.date, s.when, err = q.headerDate(); err != nil {
		return err
	}
	payload := q.r.Header.Get("X-Amz-Content-Sha256")
	if payload == "" {
		return failf("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
	}
	if err := q.checkScope(s); err != nil {
		return err
	}
	now := q.h.now()
	if d := now.Sub(s.when); d > maxSkew || d < -maxSkew {
		return fail("RequestTimeTooSkewed").with("RequestTime", s.date).
			with("ServerTime", now.UTC().Format(time.RFC3339)).with("MaxAllowedSkewMilliseconds", itoa(maxSkew.Milliseconds()))
	}
	return q.verify(s, payload)
}

// headerDate reads x-amz-date or, without it, Date.
func (q *request) headerDate() (string, time.Time, error) {
	if v := q.r.Header.Get("X-Amz-Date"); v != "" {
		if t, err := time.Parse(iso8601, v); err == nil {
			return v, t, nil
		}
	} else if v := q.r.Header.Get("Date"); v != "" {
		if t, err := time.Parse(iso8601, v); err == nil {
			return v, t, nil
		}
		if t, err := http.ParseTime(v); err == nil {
			return t.UTC().Format(iso8601), t, nil
		}
	}
	return "", time.Time{}, failf("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
}

// checkScope compares the credential's scope with this endpoint and the request's date.
func (q *request) checkScope(s signature) error {
	code, lead := "AuthorizationHeaderMalformed", "The authorization header is malformed; "
	if s.query {
		code, lead = "AuthorizationQueryParametersError", "Error parsing the X-Amz-Credential parameter; "
	}
	c := s.cred
	switch {
	case c.terminal != terminal:
		return failf(code, "%sincorrect terminal %q. This endpoint uses %q.", lead, c.terminal, terminal)
	case c.service != service:
		return failf(code, "%sincorrect service %q. This endpoint belongs to %q.", lead, c.service, service)
	case !q.h.isRegion(c.region):
		return failf(code, "%sthe region '%s' is wrong; expecting '%s'", lead, c.region, q.h.region).with("Region", q.h.region).
			withHeader("X-Amz-Bucket-Region", q.h.region)
	case c.date != s.when.UTC().Format("20060102"):
		return failf(code, "%sInvalid credential date %q. This date is not the same as X-Amz-Date: %q.", lead, c.date, s.when.UTC().Format("20060102"))
	}
	return nil
}

// verify computes the signature and compares. On success the caller is known.
func (q *request) verify(s signature, payload string) error {
	if err := q.checkSigned(s.signed); err != nil {
		return err
	}
	if len(q.r.Header.Values("X-Amz-Content-Sha256")) > 1 {
		return invalidArgument("x-amz-content-sha256", "", "x-amz-content-sha256 is given more than once.")
	}
	if !validPayload(payload) {
		return invalidArgument("x-amz-content-sha256", payload, "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.")
	}
	if q.r.Header.Get("X-Amz-Security-Token") != "" || q.query.has("X-Amz-Security-Token") {
		return fail("InvalidToken") // there are no temporary credentials here
	}
	k, err := q.h.keys.AccessKey(q.ctx, s.cred.keyID)
	if errs.Is(err, errs.NotFound) || err == nil && (k.Disabled || k.Secret == "" || k.Project == "") {
		return fail("InvalidAccessKeyId").with("AWSAccessKeyId", s.cred.keyID)
	}
	if err != nil {
		return err
	}
	key := q.h.signers.key(k.Secret, s.cred)
	scope := s.cred.scope()
	path, _ := unescape(q.rawPath, false) // decoded once already, so it decodes
	uri := appendURIEncoded(make([]byte, 0, len(q.rawPath)+16), path, true)
	canonical := canonicalRequest(make([]byte, 0, 1024), q.r, uri, q.query, s.signed, payload)
	sts := stringToSign(s.date, scope, canonical)
	if !equalHex(hmacHex(key, sts), s.value) {
		// Some clients sign the path as they sent it, where that is not the canonical
		// encoding. It names the same key, so both forms are accepted.
		raw := canonicalRequest(nil, q.r, []byte(q.rawPath), q.query, s.signed, payload)
		if string(uri) == q.rawPath || !equalHex(hmacHex(key, stringToSign(s.date, scope, raw)), s.value) {
			return fail("SignatureDoesNotMatch").with("AWSAccessKeyId", s.cred.keyID).
				with("StringToSign", sts).with("SignatureProvided", s.value).
				with("StringToSignBytes", spacedHex(sts)).
				with("CanonicalRequest", string(canonical)).with("CanonicalRequestBytes", spacedHex(string(canonical)))
		}
	}
	q.caller = caller{
		principal: policy.Principal{Project: k.Project, User: k.User},
		payload:   payload, key: key, seed: s.value, date: s.date, scope: scope,
	}
	if s.query {
		return q.hoistHeaders()
	}
	return nil
}

// checkSigned demands that host and every x-amz-* header be signed: what is not
// signed could have been added on the way.
func (q *request) checkSigned(signed []string) error {
	var missing []string
	has := func(name string) bool {
		for _, s := range signed {
			if s == name {
				return true
			}
		}
		return false
	}
	if !has("host") {
		missing = append(missing, "host")
	}
	for name := range q.r.Header {
		if len(name) > 6 && strings.EqualFold(name[:6], "x-amz-") {
			if n := strings.ToLower(name); !has(n) {
				missing = append(missing, n)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return failf("AccessDenied", "There were headers present in the request which were not signed").
		with("HeadersNotSigned", strings.Join(missing, ", "))
}

// validPayload tells whether x-amz-content-sha256 is a word or a digest that we know.
func validPayload(v string) bool {
	switch v {
	case payloadUnsigned, payloadChunks, payloadChunksTrailer, payloadUnsignedTrailer:
		return true
	}
	if len(v) != 64 {
		return false
	}
	_, err := hex.DecodeString(v)
	return err == nil
}

// hoistHeaders makes headers of the x-amz-* parameters of a presigned URL, as S3
// does: SDKs move them there. They are signed, being in the query. A parameter
// that contradicts a header is refused.
func (q *request) hoistHeaders() error {
	for _, p := range q.query {
		if len(p.name) <= 6 || !strings.EqualFold(p.name[:6], "x-amz-") || authParams[p.name] {
			continue
		}
		name := textproto.CanonicalMIMEHeaderKey(p.name)
		if have := q.r.Header.Values(name); len(have) > 0 && (len(have) > 1 || have[0] != p.value) {
			return invalidArgument(p.name, p.value, "The query parameter %s contradicts the header of that name.", p.name)
		}
		q.r.Header.Set(name, p.value)
	}
	return nil
}

// authParams are the parameters that are the signature itself.
var authParams = map[string]bool{
	"X-Amz-Algorithm": true, "X-Amz-Credential": true, "X-Amz-Signature": true, "X-Amz-Date": true,
	"X-Amz-SignedHeaders": true, "X-Amz-Expires": true, "X-Amz-Security-Token": true, "X-Amz-Content-Sha256": true,
}

// spacedHex is how S3 shows bytes in SignatureDoesNotMatch.
func spacedHex(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf("% x", s)
}
