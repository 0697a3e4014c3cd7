package s3

import (
	"strconv"
	"time"
)

// maxExpires is a week, the longest life of a presigned URL.
const maxExpires = 604800

// authenticateQuery checks a presigned URL (S3 API reference, "Authenticating
// requests: using query parameters").
func (q *request) authenticateQuery() error {
	s, payload, err := parsePresign(q.query)
	if err != nil {
		return err
	}
	if err := q.checkScope(s); err != nil {
		return err
	}
	now := q.h.now()
	switch {
	case s.when.Sub(now) > maxSkew:
		return failf("AccessDenied", "Request is not yet valid").with("X-Amz-Date", s.date).with("ServerTime", now.UTC().Format(time.RFC3339))
	case now.After(s.when.Add(s.expires)):
		return failf("AccessDenied", "Request has expired").with("X-Amz-Expires", itoa(int64(s.expires/time.Second))).
			with("Expires", s.when.Add(s.expires).UTC().Format(time.RFC3339)).with("ServerTime", now.UTC().Format(time.RFC3339))
	}
	if h := q.r.Header.Get("X-Amz-Content-Sha256"); h != "" {
		if payload != "" && payload != h {
			return invalidArgument("x-amz-content-sha256", h, "x-amz-content-sha256 in query and header differ.")
		}
		payload = h
	}
	if payload == "" {
		payload = payloadUnsigned
	}
	return q.verify(s, payload)
}

// parsePresign reads the X-Amz-* parameters. Each may be given once.
func parsePresign(p query) (s signature, payload string, err error) {
	s.query = true
	bad := func(format string, args ...any) (signature, string, error) {
		return signature{}, "", failf("AuthorizationQueryParametersError", format, args...)
	}
	seen := make(map[string]string, 8)
	for _, kv := range p {
		if !authParams[kv.name] {
			continue
		}
		if _, twice := seen[kv.name]; twice {
			return bad("%s is given more than once", kv.name)
		}
		seen[kv.name] = kv.value
	}
	if a, ok := seen["X-Amz-Algorithm"]; ok && a != algorithmV4 {
		return bad("X-Amz-Algorithm only supports %q", algorithmV4)
	}
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires"} {
		if seen[name] == "" {
			return signature{}, "", fail("AuthorizationQueryParametersError")
		}
	}
	var ok bool
	if s.cred, ok = parseCredential(seen["X-Amz-Credential"]); !ok {
		return bad(`Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".`)
	}
	s.date = seen["X-Amz-Date"]
	if s.when, err = time.Parse(iso8601, s.date); err != nil {
		return bad(`X-Amz-Date must be in the ISO8601 Long Format "yyyyMMdd'T'HHmmss'Z'"`)
	}
	n, err := strconv.ParseInt(seen["X-Amz-Expires"], 10, 64)
	switch {
	case err != nil:
		return bad("X-Amz-Expires should be a number")
	case n < 1:
		return bad("X-Amz-Expires must be non-negative")
	case n > maxExpires:
		return bad("X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
	}
	s.expires = time.Duration(n) * time.Second
	if s.signed, ok = parseSignedHeaders(seen["X-Amz-SignedHeaders"]); !ok {
		return bad("The X-Amz-SignedHeaders parameter is invalid")
	}
	s.value = seen["X-Amz-Signature"]
	return s, seen["X-Amz-Content-Sha256"], nil
}
