package e2e

import (
	"crypto/md5"
	"encoding/base64"
	"os"
	"syscall"
	"testing"
)

// md5of is the Content-MD5 (RFC 1864) of a body.
func md5of(body string) string {
	sum := md5.Sum([]byte(body))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// large tells whether to use large inputs (`make soak`).
func large() bool { return os.Getenv("SOAK") != "" || os.Getenv("CHANCERY_E2E_LARGE") != "" }

// chownLike gives a file to the owner of another.
func chownLike(t *testing.T, path string, like os.FileInfo) {
	t.Helper()
	st, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no owner")
	}
	if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
		t.Fatal(err)
	}
}
