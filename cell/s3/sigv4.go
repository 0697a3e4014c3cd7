package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// The words of AWS Signature Version 4 (S3 API reference, "Authenticating
// requests (AWS Signature Version 4)").
const (
	algorithmV4 = "AWS4-HMAC-SHA256"
	terminal    = "aws4_request"
	service     = "s3"
	iso8601     = "20060102T150405Z"

	payloadUnsigned        = "UNSIGNED-PAYLOAD"
	payloadChunks          = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	payloadChunksTrailer   = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	payloadUnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	emptySHA256            = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// maxSkew is how far a request's time may be from ours, either way.
const maxSkew = 15 * time.Minute

// credential is "KEYID/DATE/REGION/SERVICE/aws4_request".
type credential struct{ keyID, date, region, service, terminal string }

// scope is what the string to sign names.
func (c credential) scope() string {
	return c.date + "/" + c.region + "/" + c.service + "/" + c.terminal
}

// parseCredential splits from the right: a key id might hold a slash.
func parseCredential(s string) (credential, bool) {
	p := strings.Split(s, "/")
	if len(p) < 5 || len(s) > 512 {
		return credential{}, false
	}
	n := len(p)
	c := credential{strings.Join(p[:n-4], "/"), p[n-4], p[n-3], p[n-2], p[n-1]}
	return c, c.keyID != "" && len(c.date) == 8
}

// signature is a parsed claim, by header or by query.
type signature struct {
	cred    credential
	signed  []string // lower-case header names
	value   string   // 64 hex digits
	date    string   // as in the string to sign
	when    time.Time
	query   bool
	expires time.Duration // presigned only
}

// parseAuthorization reads the Authorization header of version 4.
func parseAuthorization(v string) (signature, error) {
	var s signature
	malformed := func(why string) (signature, error) {
		return signature{}, failf("AuthorizationHeaderMalformed", "The authorization header is malformed; %s", why)
	}
	rest, ok := strings.CutPrefix(v, algorithmV4)
	if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
		return malformed("the algorithm is not followed by a space.")
	}
	var cred, signed string
	for part := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return malformed("a component has no equal-sign.")
		}
		var to *string
		switch name {
		case "Credential":
			to = &cred
		case "SignedHeaders":
			to = &signed
		case "Signature":
			to = &s.value
		default:
			return malformed("it has an unknown component.")
		}
		if *to != "" {
			return malformed("a component is given twice.")
		}
		*to = value
	}
	switch {
	case cred == "":
		return malformed("the Credential component is missing.")
	case signed == "":
		return malformed("the SignedHeaders component is missing.")
	case s.value == "":
		return malformed("the Signature component is missing.")
	}
	if s.cred, ok = parseCredential(cred); !ok {
		return malformed(`the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".`)
	}
	if s.signed, ok = parseSignedHeaders(signed); !ok {
		return malformed("the SignedHeaders component is invalid.")
	}
	return s, nil
}

// maxSignedHeaders bounds the names in one signature.
const maxSignedHeaders = 128

func parseSignedHeaders(s string) ([]string, bool) {
	names := strings.Split(s, ";")
	if len(names) > maxSignedHeaders {
		return nil, false
	}
	for i, n := range names {
		if n == "" || n != strings.ToLower(n) || i > 0 && names[i-1] >= n {
			return nil, false // sorted, lower case and once each, or the canonical form is not one
		}
	}
	return names, true
}

// canonicalRequest builds the request's canonical form. uri is already encoded.
func canonicalRequest(dst []byte, r *http.Request, uri []byte, params query, signed []string, payload string) []byte {
	dst = append(append(dst, r.Method...), '\n')
	dst = append(append(dst, uri...), '\n')
	dst = append(appendCanonicalQuery(dst, params), '\n')
	for _, name := range signed {
		dst = append(append(dst, name...), ':')
		dst = append(appendHeaderValue(dst, r, name), '\n')
	}
	dst = append(dst, '\n')
	for i, name := range signed {
		if i > 0 {
			dst = append(dst, ';')
		}
		dst = append(dst, name...)
	}
	return append(append(dst, '\n'), payload...)
}

// appendCanonicalQuery encodes and sorts the parameters; the signature itself is left out.
func appendCanonicalQuery(dst []byte, params query) []byte {
	if len(params) == 0 {
		return dst
	}
	type pair struct{ n, v string }
	pairs := make([]pair, 0, len(params))
	for _, p := range params {
		if p.name == "X-Amz-Signature" {
			continue
		}
		pairs = append(pairs, pair{string(appendURIEncoded(nil, p.name, false)), string(appendURIEncoded(nil, p.value, false))})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.n, b.n); c != 0 {
			return c
		}
		return strings.Compare(a.v, b.v)
	})
	for i, p := range pairs {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = append(append(append(dst, p.n...), '='), p.v...)
	}
	return dst
}

// appendHeaderValue appends a header's values joined by commas, trimmed, runs of
// spaces as one. The fields that net/http takes out of the header are put back.
func appendHeaderValue(dst []byte, r *http.Request, name string) []byte {
	switch name {
	case "host":
		return append(dst, r.Host...)
	case "content-length":
		if r.ContentLength >= 0 {
			return append(dst, itoa(r.ContentLength)...)
		}
	case "transfer-encoding":
		return append(dst, strings.Join(r.TransferEncoding, ",")...)
	}
	for i, v := range r.Header[http.CanonicalHeaderKey(name)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		space := false
		for _, c := range []byte(strings.Trim(v, " \t\n")) {
			if c == ' ' {
				if space {
					continue
				}
				space = true
			} else {
				space = false
			}
			dst = append(dst, c)
		}
	}
	return dst
}

// stringToSign is what the signing key signs.
func stringToSign(date, scope string, canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return algorithmV4 + "\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
}

func hmacSHA256(key []byte, data string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(data))
	return m.Sum(nil)
}

func hmacHex(key []byte, data string) string { return hex.EncodeToString(hmacSHA256(key, data)) }

// equalHex compares two signatures in constant time.
func equalHex(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// deriveKey is SigV4's chain: secret → date → region → service → terminal.
func deriveKey(secret string, c credential) []byte {
	k := hmacSHA256([]byte("AWS4"+secret), c.date)
	k = hmacSHA256(k, c.region)
	k = hmacSHA256(k, c.service)
	return hmacSHA256(k, c.terminal)
}

// signingKeys caches derived keys. The secret is part of what an entry is for,
// so a rotated secret never meets its predecessor's key.
type signingKeys struct {
	mu sync.RWMutex
	m  map[signerName]signerEntry
}

type signerName struct{ keyID, date, region string }
type signerEntry struct {
	secret string
	key    []byte
}

// maxSigners bounds the cache; when full it is emptied, which costs its users 2 µs each.
const maxSigners = 4096

func (s *signingKeys) key(secret string, c credential) []byte {
	name := signerName{c.keyID, c.date, c.region}
	s.mu.RLock()
	e, ok := s.m[name]
	s.mu.RUnlock()
	if ok && equalHex(e.secret, secret) {
		return e.key
	}
	k := deriveKey(secret, c)
	s.mu.Lock()
	if s.m == nil || len(s.m) >= maxSigners {
		s.m = make(map[signerName]signerEntry)
	}
	s.m[name] = signerEntry{secret, k}
	s.mu.Unlock()
	return k
}
