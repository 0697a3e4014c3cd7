package blobdir_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chancery/cell/blobs"
	"chancery/cell/blobs/blobdir"
	"chancery/cell/blobs/blobtest"
	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/segment"
)

var (
	ctx     = context.Background()
	key     = segment.Key{7}
	binding = segment.Binding{Organization: "o", Bucket: "b", Object: "SECRET-OBJECT-NAME", Content: [16]byte{1}}
)

func open(t testing.TB, dir string) *blobdir.Engine {
	t.Helper()
	e, err := blobdir.Open(dir, files.OS())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestContract(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blobs.Engine { return open(t, filepath.Join(t.TempDir(), "a", "blobs")) })
}

func TestZeroEngineRefuses(t *testing.T) {
	var e blobdir.Engine
	if _, err := e.Create(ctx, blobs.NewID()); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
	if _, err := e.Open(ctx, blobs.NewID()); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
	if err := e.Remove(ctx, blobs.NewID()); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
	for _, err := range e.All(ctx) {
		if !errs.Is(err, errs.Invalid) {
			t.Fatal(err)
		}
	}
}

// TestDiskTellsNothing: neither bytes nor names of objects are on the disk, and
// every file is private.
func TestDiskTellsNothing(t *testing.T) {
	dir := t.TempDir()
	s := blobs.New(open(t, dir))
	for _, n := range []int{100, 300_000} {
		if _, _, err := s.Write(ctx, key, binding, bytes.NewReader(blobtest.Pattern(n))); err != nil {
			t.Fatal(err)
		}
	}
	found := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		found++
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if bytes.Contains(raw, blobtest.Pattern(16)) || bytes.Contains(raw, []byte(binding.Object)) || strings.Contains(name, binding.Object) {
			t.Errorf("%s tells plaintext", name)
		}
		if fi, err := d.Info(); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, fi.Mode(), err)
		}
		return nil
	})
	if err != nil || found != 3 { // two blobs and the layout file
		t.Fatalf("%d files, %v", found, err)
	}
}

// TestForeignFiles: files that are not blobs are neither listed nor removed.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	for _, name := range []string{"notes", "ABCDEF00112233445566778899aabbcc", "00112233445566778899aabbccddee"} {
		if err := os.WriteFile(filepath.Join(dir, "0", "0", name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "0", "0", strings.Repeat("0", 32)), 0o700); err != nil {
		t.Fatal(err)
	}
	n, _, err := blobs.New(e).Sweep(ctx, 0, func(blobs.ID) (bool, error) { return false, nil })
	if n != 0 || err != nil {
		t.Fatal(n, err)
	}
	// A link in place of a blob is not followed.
	id := blobs.NewID()
	target := filepath.Join(t.TempDir(), "target")
	os.WriteFile(target, []byte("secret"), 0o600)
	s := id.String()
	if err := os.Symlink(target, filepath.Join(dir, s[:1], s[1:2], s)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Open(ctx, id); err == nil {
		t.Fatal("a link was followed")
	}
	if _, err := e.Create(ctx, id); !errs.Is(err, errs.Exists) {
		t.Fatal(err)
	}
}

func TestLayout(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	id := blobtest.Put(t, e, []byte("x"))
	if got := blobtest.Get(t, open(t, dir), id); string(got) != "x" {
		t.Fatalf("after opening again: %q", got)
	}
	// A directory that somebody tidied away comes back.
	s := id.String()
	if err := os.RemoveAll(filepath.Join(dir, s[:1])); err != nil {
		t.Fatal(err)
	}
	w, err := e.Create(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	w.Abort()
	for _, err := range e.All(ctx) {
		t.Fatal("listing the thinned tree:", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "layout"), []byte("of tomorrow"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blobdir.Open(dir, files.OS()); !errs.Is(err, errs.Unsupported) {
		t.Fatal(err)
	}
	if _, err := blobdir.Open(filepath.Join(dir, "layout", "x"), files.OS()); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// TestExpect: what a writer was told to expect makes room and is held against nobody.
func TestExpect(t *testing.T) {
	const step = 1 << 20
	for name, c := range map[string]struct{ expected, written int64 }{
		"as told":   {40 << 20, 40 << 20},
		"much less": {1 << 40, 3 << 20},
		"less":      {18<<20 + 1, 40 << 20},
		"more":      {1, 3 << 20},
		"nothing":   {40 << 20, 0},
		"negative":  {-1, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			e, id, piece := open(t, t.TempDir()), blobs.NewID(), bytes.Repeat([]byte("x"), step)
			w, err := e.Create(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Abort()
			w.Expect(c.expected)
			for n := int64(0); n < c.written; n += step {
				if _, err := w.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			r, err := e.Open(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if r.Size() != c.written {
				t.Fatalf("%d bytes, want %d", r.Size(), c.written)
			}
			for at := int64(0); at < c.written; at += step {
				got := make([]byte, step)
				if _, err := r.ReadAt(got, at); err != nil || !bytes.Equal(got, piece) {
					t.Fatalf("at %d: %v", at, err)
				}
			}
		})
	}
}
