package e2e

import (
	"crypto/md5"
	"encoding/base64"
)

// md5of is the Content-MD5 (RFC 1864) of a body.
func md5of(body string) string {
	sum := md5.Sum([]byte(body))
	return base64.StdEncoding.EncodeToString(sum[:])
}
