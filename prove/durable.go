package prove

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"

	"chancery/internal/errs"
)

// checkDurable writes from several clients, kills the scratch organization's cell
// with SIGKILL while they write, and reads back all that was acknowledged.
func checkDurable(ctx context.Context, e *env) (f Finding, err error) {
	s, err := e.makeScratch(ctx)
	if err != nil {
		return f, err
	}
	if err := s.unseal(ctx); err != nil {
		return f, err
	}
	if err := s.furnish(ctx); err != nil {
		return f, err
	}
	f.Did = "Wrote objects from 6 clients, killed the cell with SIGKILL in the middle, restarted, unsealed, read all back."
	c, err := s.s3(e.o.S3)
	if err != nil {
		return f, err
	}
	bucket := "durable-" + randomHex(4)
	if err := c.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err != nil {
		return f, errs.WrapKind(errs.Unavailable, "prove.checkDurable", err)
	}
	pid, err := e.cellPID(s.name)
	if err != nil {
		return f, err
	}
	acknowledged := map[string][]byte{}
	var mu sync.Mutex
	var clients sync.WaitGroup
	for n := range 6 {
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("%d/%d", n, i)
				body := bytes.Repeat([]byte(randomHex(16)), []int{1, 500, 3000}[i%3])
				if _, err := c.PutObject(ctx, bucket, key, bytes.NewReader(body), int64(len(body)), minio.PutObjectOptions{}); err != nil {
					return // the kill
				}
				mu.Lock()
				acknowledged[key] = body
				mu.Unlock()
			}
		})
	}
	time.Sleep(700 * time.Millisecond)
	// The cell of the scratch organization was started at our word; no other is touched.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return f, errs.WrapKind(errs.Denied, "prove.checkDurable", err)
	}
	clients.Wait()
	if err := s.awaitRestart(ctx, pid); err != nil {
		return f, err
	}
	if err := s.unseal(ctx); err != nil {
		return f, err
	}
	lost := 0
	for key, want := range acknowledged {
		got, err := readObject(ctx, c, bucket, key)
		if err != nil || !bytes.Equal(got, want) {
			lost++
			evidence(&f, "%s: %d bytes of %d (%v)", key, len(got), len(want), err)
		}
	}
	evidence(&f, "killed process %d; it came back sealed and was unsealed by two custodians", pid)
	switch {
	case lost > 0:
		return broken(f, fmt.Sprintf("%d of %d acknowledged objects are lost or altered", lost, len(acknowledged)))
	case len(acknowledged) < 10:
		return broken(f, fmt.Sprintf("only %d objects were acknowledged before the kill: nothing was shown", len(acknowledged)))
	}
	f.Outcome = Kept
	f.Saw = fmt.Sprintf("%d acknowledged, 0 lost, 0 altered; the restarted cell was sealed.", len(acknowledged))
	return f, nil
}

// cellPID finds the process of an organization's cell: the one whose data directory is this organization's.
func (e *env) cellPID(org string) (int, error) {
	const op = "prove.cellPID"
	pid, err := e.o.CellPID(org)
	if err != nil {
		return 0, err
	}
	pids, err := cellsOf(e.o.PID)
	if err != nil {
		return 0, err
	}
	for _, p := range pids {
		if p == pid {
			return pid, nil
		}
	}
	return 0, errs.New(errs.NotFound, op, "the cell of %s does not run below the zone", org)
}

// awaitRestart waits until another process serves the organization, and makes
// sure that it came back sealed.
func (s *scratch) awaitRestart(ctx context.Context, old int) error {
	const op = "prove.awaitRestart"
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if pid, err := s.e.cellPID(s.name); err == nil && pid != old {
			if st, err := s.seal().Status(ctx); err == nil {
				if st.State != "Sealed" {
					return errs.New(errs.Denied, op, "the restarted cell is %s, not sealed", st.State)
				}
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errs.New(errs.Unavailable, op, "the cell did not come back")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func readObject(ctx context.Context, c *minio.Client, bucket, key string) ([]byte, error) {
	object, err := c.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, err
	}
	defer object.Close()
	return io.ReadAll(object)
}

// checkErased destroys a bucket (and so its key), puts its ciphertext files back
// on the disk, and tries to get at the content by a new bucket of the same name.
func checkErased(ctx context.Context, e *env) (f Finding, err error) {
	s, err := e.makeScratch(ctx)
	if err != nil {
		return f, err
	}
	if err := s.unseal(ctx); err != nil {
		return f, err
	}
	if err := s.furnish(ctx); err != nil {
		return f, err
	}
	f.Did = "Copied a bucket's ciphertext from the disk, deleted the bucket, put the copies back, made a bucket of the same name, restarted."
	c, err := s.s3(e.o.S3)
	if err != nil {
		return f, err
	}
	blobDir := filepath.Join(e.cellDir(s.name), "data", "blobs")
	before, err := readTree(blobDir)
	if err != nil {
		return f, err
	}
	bucket, key := "erased-"+randomHex(4), "document"
	body := bytes.Repeat([]byte(randomHex(16)), 5000)
	if err := c.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err != nil {
		return f, errs.WrapKind(errs.Unavailable, "prove.checkErased", err)
	}
	if _, err := c.PutObject(ctx, bucket, key, bytes.NewReader(body), int64(len(body)), minio.PutObjectOptions{}); err != nil {
		return f, errs.WrapKind(errs.Unavailable, "prove.checkErased", err)
	}
	copies, err := readTree(blobDir)
	if err != nil {
		return f, err
	}
	for name := range before {
		delete(copies, name)
	}
	if len(copies) == 0 {
		return f, errs.New(errs.Internal, "prove.checkErased", "the object left no file on the disk: the check cannot be made")
	}
	if err := c.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{}); err != nil {
		return f, errs.WrapKind(errs.Unavailable, "prove.checkErased", err)
	}
	if err := c.RemoveBucket(ctx, bucket); err != nil {
		return f, errs.WrapKind(errs.Unavailable, "prove.checkErased", err)
	}
	after, err := readTree(blobDir)
	if err != nil {
		return f, err
	}
	left := 0
	for name := range copies {
		if _, ok := after[name]; ok {
			left++
		}
	}
	for name, content := range copies {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return f, errs.WrapKind(errs.Unavailable, "prove.checkErased", err)
		}
		if err := os.WriteFile(name, content, 0o600); err != nil {
			return f, errs.WrapKind(errs.Unavailable, "prove.checkErased", err)
		}
		if err := chownLike(name, blobDir); err != nil {
			return f, err
		}
	}
	if err := c.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err != nil {
		return f, errs.WrapKind(errs.Unavailable, "prove.checkErased", err)
	}
	if err := s.sealNow(ctx); err != nil {
		return f, err
	}
	if err := s.unseal(ctx); err != nil {
		return f, err
	}
	got, err := readObject(ctx, c, bucket, key)
	evidence(&f, "%d ciphertext files of the bucket were copied; after the deletion %d of them were left on the disk", len(copies), left)
	evidence(&f, "with the copies put back and a new bucket of the same name: %v", err)
	if err == nil || len(got) > 0 || left > 0 {
		return broken(f, "the destroyed bucket's content is still within reach")
	}
	f.Outcome, f.Saw = Kept, "The bucket's key is gone: its files left the disk, and put back they are noise that nobody serves."
	return f, nil
}

func readTree(dir string) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		body, err := os.ReadFile(path)
		out[path] = body
		return err
	})
	return out, errs.WrapKind(errs.Unavailable, "prove.readTree", err)
}

// chownLike gives a file, and the directories above it, to the owner of the tree, as a careful attacker would.
func chownLike(name, like string) error {
	info, err := os.Stat(like)
	if err != nil {
		return errs.WrapKind(errs.Unavailable, "prove.chownLike", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errs.New(errs.Internal, "prove.chownLike", "no owner is known of %s", like)
	}
	for p := name; p != like && len(p) > len(like); p = filepath.Dir(p) {
		if err := os.Chown(p, int(owner.Uid), int(owner.Gid)); err != nil {
			return errs.WrapKind(errs.Denied, "prove.chownLike", err)
		}
	}
	return nil
}
