package e2e

import (
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
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

// unsigned asks the S3 port of the zone in a directory, under a server name, and returns the answer's body.
func unsigned(dir, name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "endpoints.json"))
	if err != nil {
		return "", err
	}
	var endpoints struct{ S3 string }
	if err := json.Unmarshal(raw, &endpoints); err != nil {
		return "", err
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", endpoints.S3)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a sealed cell has no certificate that anybody vouches for
	}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get("https://" + name + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
