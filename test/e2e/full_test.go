package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"chancery/test/harness"
)

// mountScript gives the program that it becomes a mount namespace of its own in
// which a directory is a small file system in memory. Nothing outside sees it,
// and it ends with the last process in it.
const mountScript = `mount -t tmpfs -o "size=$1,nodev,nosuid" e2e "$2" && shift 2 && exec "$@"`

// TestDiskFull fills the disk of a cell: writes fail cleanly, nothing is
// damaged, reads go on, and after objects are deleted writes work again.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	for _, program := range []string{"unshare", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s here: %v", program, err)
		}
	}
	dir := t.TempDir()
	data := filepath.Join(dir, "zone", "cells", "health", "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("unshare", "-m", "sh", "-c", mountScript, "sh", "1m", data, "true").CombinedOutput(); err != nil {
		t.Skipf("mounting is refused here: %v\n%s", err, out)
	}
	z := ownZone(t, harness.RealOptions{Dir: dir, Wrap: []string{"unshare", "-m", "sh", "-c", mountScript, "sh", "160m", data}})
	p := project(t, z, "health", "wards")
	c := client(t, p)
	s := &stock{"x-rays", map[string][]byte{}}
	if err := c.MakeBucket(t.Context(), s.bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	fill(t, c, s, 1)
	// From large to small, until not even an inline object fits.
	for _, size := range []int{4 << 20, 256 << 10, 40 << 10, 8 << 10, 100} {
		for n := 0; ; n++ {
			if n == 5000 {
				t.Fatalf("5000 objects of %d bytes fit", size)
			}
			key, body := fmt.Sprintf("filler/%d/%d", size, n), random(size)
			_, err := c.PutObject(t.Context(), s.bucket, key, bytes.NewReader(body), int64(size), minio.PutObjectOptions{})
			if err == nil {
				s.want[key] = body
				continue
			}
			cleanly(t, fmt.Sprintf("a put of %d bytes on a full disk", size), err)
			if _, err := c.StatObject(t.Context(), s.bucket, key, minio.StatObjectOptions{}); err == nil {
				t.Errorf("%s was refused and is there", key)
			}
			break
		}
	}
	t.Logf("%d objects fit", len(s.want))
	if failed := s.check(t, c, "on a full disk"); failed != 0 {
		t.Errorf("on a full disk %d of %d objects cannot be read", failed, len(s.want))
	}
	// Its API lives in the same store: it refuses writes as cleanly, and reads on.
	configmap := func(n int) (int, error) {
		return z.Org("health").API(t.Context(), http.MethodPost, "/api/v1/namespaces/wards/configmaps", map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": fmt.Sprintf("big-%d", n)},
			"data": map[string]any{"x": strings.Repeat("x", 500_000)}}, nil)
	}
	// A flush of the store may just have made a little room.
	made, status, err := 0, 0, error(nil)
	for ; made < 200 && err == nil && status < 400; made++ {
		status, err = configmap(made)
	}
	if err != nil || status < 500 {
		t.Errorf("the API on a full disk: %d, %v; want a 5xx", status, err)
	}
	if status, err := z.Org("health").API(t.Context(), http.MethodGet, "/api/v1/namespaces", nil, nil); err != nil || status != http.StatusOK {
		t.Errorf("reading from the API on a full disk: %d, %v", status, err)
	}
	_, err = minio.Core{Client: c}.NewMultipartUpload(t.Context(), s.bucket, "upload", minio.PutObjectOptions{})
	if err != nil {
		cleanly(t, "a new upload on a full disk", err)
	}
	// The way out is to delete.
	freed := 0
	for key := range s.want {
		if len(s.want[key]) < 256<<10 || freed > 16<<20 {
			continue
		}
		if err := c.RemoveObject(t.Context(), s.bucket, key, minio.RemoveObjectOptions{}); err != nil {
			t.Fatalf("delete on a full disk: %v", err)
		}
		freed += len(s.want[key])
		delete(s.want, key)
	}
	fill(t, c, s, 2)
	if status, err := configmap(made); err != nil || status != http.StatusCreated {
		t.Errorf("the API after room was made: %d, %v", status, err)
	}
	if failed := s.check(t, c, "after room was made"); failed != 0 {
		t.Errorf("%d of %d objects cannot be read", failed, len(s.want))
	}
	// The tmpfs lives as long as the zone's processes do, so a restart of the cell
	// alone is what shows that the disk holds all of it.
	if _, err := z.CLI(t.Context(), "org", "seal", "health", "--dir", filepath.Join("/proc", fmt.Sprint(z.PID()), "root", z.Dir())); err != nil {
		t.Fatal(err)
	}
	if err := z.Unseal(t.Context(), "health"); err != nil {
		t.Fatal(err)
	}
	if failed := s.check(t, c, "after a seal"); failed != 0 {
		t.Errorf("after a seal %d of %d objects cannot be read", failed, len(s.want))
	}
}

// cleanly fails the test unless an error is an answer that says "not now" or "no room".
func cleanly(t *testing.T, what string, err error) {
	t.Helper()
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) || answer.StatusCode != http.StatusInsufficientStorage && answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%s: %v (status %d), want 507 or 503", what, err, answer.StatusCode)
	}
}
