// Package clients runs the S3 clients that people really use, unmodified, against
// a real zone started from the real binary, and compares what comes back bit for
// bit. It holds tests only.
package clients

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chancery/test/harness"
)

// zone is shared by the tests of this package: each works in buckets of its own.
var zone struct {
	once sync.Once
	z    *harness.Zone
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if zone.z != nil {
		if err := zone.z.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if code != 0 {
			fmt.Fprintf(os.Stderr, "the zone's log:\n%s\n", zone.z.Logs())
		}
		if err := os.RemoveAll(filepath.Dir(zone.z.Dir())); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// sharedZone starts the zone with the first test that needs it.
func sharedZone(t *testing.T) *harness.Zone {
	t.Helper()
	zone.once.Do(func() {
		dir, err := os.MkdirTemp("", "chancery-clients-")
		if err != nil {
			zone.err = err
			return
		}
		// The context of the first test ends with it; the zone lives on until TestMain stops it.
		if zone.z, zone.err = harness.Start(t.Context(), harness.Options{Dir: filepath.Join(dir, "data")}); zone.err != nil {
			zone.z = nil
			zone.err = errors.Join(zone.err, os.RemoveAll(dir))
		}
	})
	if zone.err != nil {
		t.Fatal(zone.err)
	}
	return zone.z
}

// stalled is below the time limit of the clients' reads (60 s in botocore) and far
// above what any command here needs on small inputs.
const stalled = 45 * time.Second

// large tells whether to use large inputs (`make soak`).
func large() bool { return os.Getenv("SOAK") != "" }

// program returns the path of a client. If it is missing the test is skipped with
// a reason, but in CI, where `make test` installs it, that is a failure.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not in PATH; scripts/setup-test.sh installs it", name)
		}
		t.Skipf("%s is not in PATH; scripts/setup-test.sh installs it", name)
	}
	return path
}

// client runs programs with demo.env and nothing else of ours: its own home
// directory, so that no configuration of the user's leads it elsewhere.
type client struct {
	t     *testing.T
	z     *harness.Zone
	home  string
	extra []string
	// prefix are arguments that come first in every call.
	prefix []string
	// without names a variable of demo.env that this client must not see.
	without string
}

func newClient(t *testing.T, extra ...string) *client {
	t.Helper()
	return &client{t: t, z: sharedZone(t), home: t.TempDir(), extra: extra}
}

// in is the same client for a subtest.
func (c *client) in(t *testing.T) *client {
	sub := *c
	sub.t = t
	return &sub
}

// try runs a program and returns what it printed.
func (c *client) try(path string, args ...string) (string, error) {
	c.t.Helper()
	args = append(slices.Clone(c.prefix), args...)
	cmd := exec.CommandContext(c.t.Context(), path, args...)
	cmd.Dir = c.home
	env := slices.DeleteFunc(c.z.Environ(), func(v string) bool { return c.without != "" && strings.HasPrefix(v, c.without+"=") })
	cmd.Env = append(env, append([]string{"HOME=" + c.home, "XDG_CONFIG_HOME=" + c.home, "XDG_CACHE_HOME=" + c.home, "LC_ALL=C.UTF-8"}, c.extra...)...)
	// pyenv's shims find their programs by this variable, or under the true home.
	if root := os.Getenv("PYENV_ROOT"); root == "" {
		if home, err := os.UserHomeDir(); err == nil {
			cmd.Env = append(cmd.Env, "PYENV_ROOT="+filepath.Join(home, ".pyenv"))
		}
	}
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(begun)
	c.t.Logf("%s %s (%v)", filepath.Base(path), strings.Join(args, " "), took.Round(time.Millisecond))
	if took > stalled && !large() {
		c.t.Errorf("%s took %v: a request waits for its client's time limit, and the retry hides it", filepath.Base(path), took)
	}
	return string(out), err
}

// run is try for what must succeed.
func (c *client) run(path string, args ...string) string {
	c.t.Helper()
	out, err := c.try(path, args...)
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s", path, strings.Join(args, " "), err, out)
	}
	return out
}

// refused is try for what must fail, with a message that holds want.
func (c *client) refused(want, path string, args ...string) {
	c.t.Helper()
	out, err := c.try(path, args...)
	if err == nil {
		c.t.Fatalf("%s %s succeeded, want an error with %q:\n%s", path, strings.Join(args, " "), want, out)
	}
	if !strings.Contains(out, want) {
		c.t.Fatalf("%s %s: %v, want %q in:\n%s", path, strings.Join(args, " "), err, want, out)
	}
}

// bucketName is a fresh valid bucket name.
func bucketName(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:12]) }

// randomFile writes size random bytes.
func randomFile(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.CopyN(f, rand.Reader, size)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// tree writes n files with names that trip clients and servers (spaces, unicode,
// plus, percent, deep folders, empty files) and sizes from 0 to a few hundred KiB.
func tree(t *testing.T, dir string, n int) {
	t.Helper()
	seed := mrand.New(mrand.NewPCG(1, uint64(n)))
	names := []string{"plain.txt", "with space", "ünïcödé-文件", "plus+and&amp", "100%done", "quote'd", "semi;colon", "tilde~", "equals=", "brackets[1]", "hash#tag", "comma,dot..", "(paren)"}
	for i := range n {
		size := seed.Int64N(8 << 10)
		switch {
		case i%50 == 0:
			size = 0
		case i%40 == 1:
			size = seed.Int64N(600 << 10)
		}
		name := fmt.Sprintf("d%02d/sub %d/%04d %s", i%17, i%3, i, names[i%len(names)])
		randomFile(t, filepath.Join(dir, name), size)
	}
}

// hashes returns the SHA-256 of every regular file below dir, by relative path.
func hashes(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		sums[rel], err = hashFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sameTree fails the test unless two directories hold the same files, bit for bit.
func sameTree(t *testing.T, want, got string) {
	t.Helper()
	a, b := hashes(t, want), hashes(t, got)
	if len(a) == 0 {
		t.Fatalf("%s is empty: nothing was compared", want)
	}
	for name, sum := range a {
		if other, ok := b[name]; !ok {
			t.Errorf("%q is missing", name)
		} else if other != sum {
			t.Errorf("%q differs", name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			t.Errorf("%q was not there before", name)
		}
	}
}

// sameFile fails the test unless two files are equal.
func sameFile(t *testing.T, want, got string) {
	t.Helper()
	a, err := hashFile(want)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hashFile(got)
	if err != nil {
		t.Fatal(err)
	}
	if a != b {
		t.Errorf("%s and %s differ", want, got)
	}
}

// TestComparisonsCanFail shows that the helpers above see a difference.
func TestComparisonsCanFail(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, 60)
	sums := hashes(t, dir)
	if len(sums) != 60 {
		t.Fatalf("%d files, want 60", len(sums))
	}
	var victim string
	for name := range sums {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Size() > 0 {
			victim = filepath.Join(dir, name)
		}
	}
	body, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(body)
	changed[0] ^= 1
	if err := os.WriteFile(victim, changed, 0o644); err != nil {
		t.Fatal(err)
	}
	differing := 0
	for name, sum := range hashes(t, dir) {
		if sums[name] != sum {
			differing++
		}
	}
	if differing != 1 {
		t.Errorf("%d files differ, want 1", differing)
	}
}
