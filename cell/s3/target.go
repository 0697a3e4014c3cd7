package s3

import (
	"net"
	"net/http"
	"strings"
	"unicode/utf8"
)

// maxKeyBytes is the longest object key, in bytes of UTF-8 (S3 user guide, "Naming Amazon S3 objects").
const maxKeyBytes = 1024

// param is one parameter of the query, decoded.
type param struct{ name, value string }

// query is the parsed query string, in the order as sent.
type query []param

// get returns the first value of a parameter, empty if it is not there.
func (p query) get(name string) string {
	for i := range p {
		if p[i].name == name {
			return p[i].value
		}
	}
	return ""
}

func (p query) has(name string) bool {
	for i := range p {
		if p[i].name == name {
			return true
		}
	}
	return false
}

// rawTarget returns path and query exactly as the client sent them. net/http has
// cleaned nothing, but URL.Path is decoded and URL.RawPath is kept only if it differs.
func rawTarget(r *http.Request) (path, rawQuery string) {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, rawQuery, _ = strings.Cut(r.RequestURI, "?")
		return path, rawQuery
	}
	path = r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	return path, r.URL.RawQuery
}

// parseTarget finds bucket, key and parameters. Keys are arbitrary: nothing is
// cleaned, joined or redirected.
func (q *request) parseTarget() error {
	path, rawQuery := rawTarget(q.r)
	q.rawPath = path
	var err error
	if q.query, err = parseQuery(rawQuery); err != nil {
		return err
	}
	bucket := hostBucket(q.r.Host, q.h.domains)
	q.bucket, q.key, err = splitPath(path, bucket)
	if err != nil {
		return err
	}
	if q.bucket != "" && !plausibleBucket(q.bucket) {
		return fail("InvalidBucketName")
	}
	return nil
}

// hostBucket returns the bucket of a host-style request, empty for path style.
func hostBucket(host string, domains []string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(host, ".")
	for _, d := range domains {
		if n := len(host) - len(d); n > 1 && host[n-1] == '.' && strings.EqualFold(host[n:], d) {
			return strings.ToLower(host[:n-1])
		}
	}
	return ""
}

// splitPath decodes a raw path. With a host-style bucket the whole path is the key.
func splitPath(raw, hostBucket string) (bucket, key string, err error) {
	if raw == "" || raw[0] != '/' {
		return "", "", fail("InvalidURI").with("URI", raw)
	}
	rest := raw[1:]
	bucket = hostBucket
	if bucket == "" {
		b, k, _ := strings.Cut(rest, "/")
		if bucket, err = unescape(b, false); err != nil {
			return "", "", err
		}
		rest = k
		if bucket == "" && rest != "" {
			return "", "", fail("InvalidBucketName").with("BucketName", "")
		}
	}
	if key, err = unescape(rest, false); err != nil {
		return "", "", err
	}
	if !utf8.ValidString(key) {
		return "", "", fail("InvalidURI").with("URI", raw)
	}
	if len(key) > maxKeyBytes {
		return bucket, "", keyTooLong(key)
	}
	return bucket, key, nil
}

func keyTooLong(key string) *apiError {
	return fail("KeyTooLongError").with("Size", itoa(int64(len(key)))).with("MaxSizeAllowed", itoa(maxKeyBytes))
}

// plausibleBucket keeps nonsense from the layers below; whether a new bucket's
// name is allowed is decided by cell/objects.
func plausibleBucket(name string) bool {
	if len(name) < 3 || len(name) > 255 {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

// maxParams bounds the parameters of one query.
const maxParams = 256

// parseQuery splits and decodes a query string. "+" is a space, as in forms.
func parseQuery(raw string) (query, error) {
	if raw == "" {
		return nil, nil
	}
	out := make(query, 0, strings.Count(raw, "&")+1)
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		if len(out) == maxParams {
			return nil, fail("InvalidURI").with("URI", "")
		}
		n, v, _ := strings.Cut(part, "=")
		name, err := unescape(n, true)
		if err != nil {
			return nil, err
		}
		value, err := unescape(v, true)
		if err != nil {
			return nil, err
		}
		out = append(out, param{name, value})
	}
	return out, nil
}

// unescape decodes percent escapes once, strictly.
func unescape(s string, plusIsSpace bool) (string, error) {
	i := strings.IndexByte(s, '%')
	if i < 0 && (!plusIsSpace || strings.IndexByte(s, '+') < 0) {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if i+2 >= len(s) {
				return "", fail("InvalidURI").with("URI", s)
			}
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi < 0 || lo < 0 {
				return "", fail("InvalidURI").with("URI", s)
			}
			out = append(out, byte(hi<<4|lo))
			i += 2
		case c == '+' && plusIsSpace:
			out = append(out, ' ')
		default:
			out = append(out, c)
		}
	}
	return string(out), nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

const hexUpper = "0123456789ABCDEF"

// appendURIEncoded is the UriEncode of SigV4: every byte but the unreserved ones
// of RFC 3986 becomes %XX; "/" stays when keepSlash.
func appendURIEncoded(dst []byte, s string, keepSlash bool) []byte {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			c == '-', c == '_', c == '.', c == '~', c == '/' && keepSlash:
			dst = append(dst, c)
		default:
			dst = append(dst, '%', hexUpper[c>>4], hexUpper[c&15])
		}
	}
	return dst
}
