package s3load

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Credentials sign requests.
type Credentials struct{ AccessKeyID, Secret, Region string }

// Values of x-amz-content-sha256 that are not a hash.
const (
	unsignedPayload = "UNSIGNED-PAYLOAD"
	unsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// signer makes AWS Signature Version 4 headers. It keeps the day's signing key,
// so that a request costs a few hashes only. Safe for concurrent use.
type signer struct {
	creds Credentials
	mu    sync.Mutex
	day   string
	key   []byte
}

func sum(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func (s *signer) signingKey(day string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.day != day {
		key := sum([]byte("AWS4"+s.creds.Secret), day)
		for _, part := range []string{s.creds.Region, "s3", "aws4_request"} {
			key = sum(key, part)
		}
		s.day, s.key = day, key
	}
	return s.key
}

// sign adds X-Amz-Date, X-Amz-Content-Sha256 and Authorization. Every header that
// the request has by then is signed. Paths and queries must be in their canonical
// form already: the driver only makes names that need no escape.
func (s *signer) sign(req *http.Request, payload string, now time.Time) {
	now = now.UTC()
	stamp := now.Format("20060102T150405Z")
	day := stamp[:8]
	req.Header.Set("X-Amz-Date", stamp)
	req.Header.Set("X-Amz-Content-Sha256", payload)

	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	headers := []string{"host:" + host + "\n"}
	names := []string{"host"}
	for name, values := range req.Header {
		name = strings.ToLower(name)
		headers = append(headers, name+":"+strings.TrimSpace(strings.Join(values, ","))+"\n")
		names = append(names, name)
	}
	slices.Sort(headers)
	slices.Sort(names)
	signed := strings.Join(names, ";")
	path := req.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	canonical := strings.Join([]string{req.Method, path, req.URL.RawQuery, strings.Join(headers, ""), signed, payload}, "\n")
	digest := sha256.Sum256([]byte(canonical))
	scope := day + "/" + s.creds.Region + "/s3/aws4_request"
	signature := sum(s.signingKey(day), "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(digest[:]))
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+s.creds.AccessKeyID+"/"+scope+
		",SignedHeaders="+signed+",Signature="+hex.EncodeToString(signature))
}
