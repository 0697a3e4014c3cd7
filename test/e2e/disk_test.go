package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"chancery/test/harness"
)

// stock is what an organization held before bad luck struck.
type stock struct {
	bucket string
	want   map[string][]byte
}

// fill writes objects of every way of keeping them: inline, blob, several segments, multipart.
func fill(t *testing.T, c *minio.Client, s *stock, generation int) {
	t.Helper()
	for i, size := range []int{0, 1, 100, 4 << 10, 32 << 10, 32<<10 + 1, 64<<10 + 1, 200_000, 1 << 20} {
		key := fmt.Sprintf("generation %d/%d bytes/%d", generation, size, i)
		s.want[key] = random(size)
		put(t, c, s.bucket, key, s.want[key])
	}
	key := fmt.Sprintf("generation %d/parts", generation)
	s.want[key] = random(5<<20 + 70_000)
	if _, err := c.PutObject(t.Context(), s.bucket, key, bytes.NewReader(s.want[key]), int64(len(s.want[key])), minio.PutObjectOptions{PartSize: 5 << 20}); err != nil {
		t.Fatal(err)
	}
}

// check reads everything. Each object must be there as it was written or be an
// error that is not "not found"; it returns how many were errors.
func (s *stock) check(t *testing.T, c *minio.Client, what string) (failed int) {
	t.Helper()
	for key, want := range s.want {
		got, err := get(t.Context(), c, s.bucket, key)
		var answer minio.ErrorResponse
		switch {
		case err == nil && !bytes.Equal(got, want):
			t.Errorf("%s: %q: WRONG BYTES (%d of %d)", what, key, len(got), len(want))
		case errors.As(err, &answer) && (answer.Code == "NoSuchKey" || answer.Code == "NoSuchBucket"):
			t.Errorf("%s: %q is said not to exist: %v", what, key, err)
		case err != nil:
			failed++
		}
	}
	return failed
}

// files lists the files below a directory, by path below it.
func filesOf(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func flip(t *testing.T, path string, offset int64, bit uint) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
}

// copyTree copies with owners and modes, which the cell needs.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
}

// TestBlobsAttacked harms the files of blobs while the cell runs: the object that
// was hit is an error or a broken transfer, all others are whole.
func TestBlobsAttacked(t *testing.T) {
	z := sharedZone(t)
	c := client(t, project(t, z, "health", "wards"))
	s := &stock{"x-rays", map[string][]byte{}}
	blobs := filepath.Join(z.Data("health"), "blobs")
	before := filesOf(t, blobs)
	bucket(t, c, s.bucket)
	fill(t, c, s, 1)
	mine := slices.DeleteFunc(filesOf(t, blobs), func(f string) bool { return slices.Contains(before, f) })
	if len(mine) < 5 {
		t.Fatalf("only %d blobs: %q", len(mine), mine)
	}
	harmed := 0
	attack := func(what string, paths []string, harm func()) {
		t.Helper()
		saved := make(map[string][]byte)
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			saved[p] = b
		}
		harm()
		if failed := s.check(t, c, what); failed == 0 || failed > len(paths) {
			t.Errorf("%s: %d objects are errors, want at least one and at most %d", what, failed, len(paths))
		}
		for p, b := range saved {
			if _, err := os.Stat(p); err != nil { // it was deleted: its owner is to be the cell again
				info, err := os.Stat(filepath.Dir(p))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, b, 0o600); err != nil {
					t.Fatal(err)
				}
				chownLike(t, p, info)
				continue
			}
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		harmed++
	}
	for _, name := range mine {
		p := filepath.Join(blobs, name)
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, offset := range []int64{0, info.Size() / 2, info.Size() - 1} {
			attack(fmt.Sprintf("bit flipped at %d of %d", offset, info.Size()), []string{p}, func() { flip(t, p, offset, uint(rand.IntN(8))) })
		}
	}
	a, b := filepath.Join(blobs, mine[0]), filepath.Join(blobs, mine[1])
	attack("two blobs swapped", []string{a, b}, func() {
		x, _ := os.ReadFile(a)
		y, _ := os.ReadFile(b)
		if err := errors.Join(os.WriteFile(a, y, 0o600), os.WriteFile(b, x, 0o600)); err != nil {
			t.Fatal(err)
		}
	})
	size := func(p string) int64 { info, _ := os.Stat(p); return info.Size() }
	attack("last byte cut", []string{a}, func() { _ = os.Truncate(a, size(a)-1) })
	attack("cut at a segment", []string{b}, func() { _ = os.Truncate(b, size(b)/2) })
	attack("emptied", []string{a}, func() { _ = os.Truncate(a, 0) })
	attack("made longer", []string{a}, func() { _ = os.Truncate(a, size(a)+1) })
	attack("deleted", []string{b}, func() { _ = os.Remove(b) })
	if failed := s.check(t, c, "after all was put back"); failed != 0 {
		t.Errorf("%d objects are lost for good", failed)
	}
	t.Logf("%d attacks on %d blobs", harmed, len(mine))
}

// kindOf groups a cell's files, so that one of each kind is hit.
func kindOf(path string) string {
	base := filepath.Base(path)
	switch {
	case strings.HasPrefix(base, "journal-"):
		return "journal"
	case strings.HasPrefix(base, "MANIFEST-"):
		return "manifest"
	case strings.HasPrefix(base, "OPTIONS-"):
		return "options"
	case strings.HasPrefix(base, "marker."):
		return base[:strings.LastIndex(base, ".")]
	case strings.HasSuffix(base, ".sst"):
		return "table"
	case strings.HasSuffix(base, ".log"):
		return "log"
	case strings.HasPrefix(path, "blobs/") && base != "layout":
		return "" // TestBlobsAttacked
	}
	return base
}

// TestDataAttacked flips a bit in every kind of file of a stopped cell. When it
// comes back it either refuses to open, and tells so in its log, or serves; and
// then every object is an error or is what it was.
func TestDataAttacked(t *testing.T) {
	z := ownZone(t, harness.RealOptions{})
	p := project(t, z, "health", "wards")
	c := client(t, p)
	s := &stock{"x-rays", map[string][]byte{}}
	if err := c.MakeBucket(t.Context(), s.bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	fill(t, c, s, 1)
	if err := z.Restart(t.Context()); err != nil { // so that there are tables
		t.Fatal(err)
	}
	fill(t, c, s, 2)
	if err := z.Kill(); err != nil { // so that the journal and the log are not empty
		t.Fatal(err)
	}
	data, saved := z.Data("health"), filepath.Join(t.TempDir(), "saved")
	copyTree(t, data, saved)
	kinds := map[string][]string{}
	for _, f := range filesOf(t, data) {
		if k := kindOf(f); k != "" {
			kinds[k] = append(kinds[k], f)
		}
	}
	rounds := 1
	if large() {
		rounds = 8
	}
	opened, refusals := 0, 0
	for kind, files := range kinds {
		for range rounds {
			file := files[rand.IntN(len(files))]
			path := filepath.Join(data, file)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() == 0 {
				continue
			}
			offset := rand.Int64N(info.Size())
			what := fmt.Sprintf("%s (%s), bit flipped at %d of %d", kind, file, offset, info.Size())
			flip(t, path, offset, uint(rand.IntN(8)))
			if err := z.Serve(t.Context()); err != nil {
				t.Fatalf("%s: the zone does not serve: %v", what, err)
			}
			ok, said := tryUnseal(t, z, "health")
			if ok {
				opened++
				failed := s.check(t, c, what)
				t.Logf("%s: opened, %d of %d objects are errors", what, failed, len(s.want))
			} else {
				refusals++
				log, _ := os.ReadFile(filepath.Join(z.Dir(), "cells", "health", "log"))
				last := lastLine(string(log))
				t.Logf("%s: refused: %s | %s", what, strings.TrimSpace(said), last)
				if !strings.Contains(last, "corrupt") && !strings.Contains(said, "corrupt") && !strings.Contains(last, "ERROR") && !strings.Contains(said, "denied") {
					t.Errorf("%s: nobody tells why it does not open", what)
				}
			}
			if err := z.Stop(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			copyTree(t, saved, data)
		}
	}
	if err := z.Serve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := z.Unseal(t.Context(), "health"); err != nil {
		t.Fatal(err)
	}
	if failed := s.check(t, c, "after all was put back"); failed != 0 {
		t.Errorf("%d objects are lost for good", failed)
	}
	t.Logf("%d kinds of files: %d times opened, %d times refused", len(kinds), opened, refusals)
}

// tryUnseal has the custodians try, and gives up soon: a cell that cannot start answers nothing.
func tryUnseal(t *testing.T, z *harness.Real, org string) (ok bool, said string) {
	t.Helper()
	for i := range 2 {
		deadline := time.Now().Add(4 * time.Second)
		for {
			out, err := z.CLI(t.Context(), "org", "unseal", org, "--dir", z.Dir(), "--identity", z.Identity(org, i))
			if err == nil {
				said = out
				break
			}
			if !strings.Contains(out, "remote error") && !strings.Contains(out, "EOF") && !strings.Contains(out, "reset") || time.Now().After(deadline) {
				return false, out
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return strings.Contains(said, "is unsealed"), said
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for _, l := range slices.Backward(lines) {
		if strings.Contains(l, `"ERROR"`) {
			return l
		}
	}
	return lines[len(lines)-1]
}
