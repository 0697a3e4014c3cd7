// Package e2e attacks a real zone, made from the real binary as an operator would
// make it, from outside: as one organization against another, as a thief at its
// disk, as bad luck, as clients that misbehave. It holds tests only. The zone that
// most tests share is made once; a test that harms a zone makes its own.
package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"

	"chancery/test/harness"
)

var shared struct {
	once sync.Once
	dir  string
	z    *harness.Real
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.z != nil {
		if err := shared.z.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if code != 0 {
			fmt.Fprintf(os.Stderr, "the shared zone's log:\n%s\n", shared.z.Logs())
		}
	}
	if shared.dir != "" {
		if err := os.RemoveAll(shared.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// sharedZone starts the zone with the first test that needs it.
func sharedZone(t *testing.T) *harness.Real {
	t.Helper()
	shared.once.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "chancery-e2e-"); shared.err == nil {
			// Not the test's context: the zone outlives it.
			shared.z, shared.err = harness.StartReal(context.Background(), harness.RealOptions{Dir: shared.dir})
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.z
}

// ownZone starts a zone for one test, with the one organization "health".
func ownZone(t *testing.T, o harness.RealOptions) *harness.Real {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if len(o.Organizations) == 0 {
		o.Organizations = []string{"health"}
	}
	z, err := harness.StartReal(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := z.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the zone's log:\n%s", z.Logs())
		}
	})
	return z
}

func project(t *testing.T, z *harness.Real, org, name string) *harness.Project {
	t.Helper()
	p, err := z.Org(org).Project(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func client(t *testing.T, p *harness.Project) *minio.Client {
	t.Helper()
	c, err := p.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bucket makes a bucket and removes it, with what is in it, after the test.
func bucket(t *testing.T, c *minio.Client, name string) {
	t.Helper()
	if err := c.MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		for info := range c.ListObjects(ctx, name, minio.ListObjectsOptions{Recursive: true}) {
			if info.Err == nil {
				info.Err = c.RemoveObject(ctx, name, info.Key, minio.RemoveObjectOptions{})
			}
			if info.Err != nil {
				t.Error(info.Err)
				return
			}
		}
		for u := range c.ListIncompleteUploads(ctx, name, "", true) {
			if u.Err == nil {
				u.Err = minio.Core{Client: c}.AbortMultipartUpload(ctx, name, u.Key, u.UploadID)
			}
			if u.Err != nil {
				t.Error(u.Err)
				return
			}
		}
		if err := c.RemoveBucket(ctx, name); err != nil {
			t.Errorf("remove bucket %s: %v", name, err)
		}
	})
}

func put(t *testing.T, c *minio.Client, bucket, key string, body []byte) {
	t.Helper()
	if _, err := c.PutObject(t.Context(), bucket, key, bytes.NewReader(body), int64(len(body)), minio.PutObjectOptions{}); err != nil {
		t.Fatalf("put %q (%d bytes): %v", key, len(body), err)
	}
}

// get reads a whole object.
func get(ctx context.Context, c *minio.Client, bucket, key string) ([]byte, error) {
	o, err := c.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, err
	}
	defer o.Close()
	return io.ReadAll(o)
}

// holds fails the test unless an object is there with these bytes.
func holds(t *testing.T, c *minio.Client, bucket, key string, want []byte) {
	t.Helper()
	got, err := get(t.Context(), c, bucket, key)
	if err != nil {
		t.Errorf("get %q: %v", key, err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("get %q: %d bytes that differ from the %d stored", key, len(got), len(want))
	}
}

// random is n bytes that no compression or luck makes equal to others.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// refused fails the test unless err is an S3 error of one of the codes.
func refused(t *testing.T, what string, err error, codes ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: allowed", what)
		return
	}
	got := minio.ErrorResponse{}
	if !errors.As(err, &got) {
		t.Errorf("%s: no answer of S3: %v", what, err)
		return
	}
	for _, c := range codes {
		if got.Code == c {
			return
		}
	}
	t.Errorf("%s: %s (%s), want %v", what, got.Code, got.Message, codes)
}
