package files_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/files"
)

func TestWriteFileReplacesWhole(t *testing.T) {
	fsys, name := files.OS(), filepath.Join(t.TempDir(), "f")
	for _, s := range []string{"one", "longer two", "3"} {
		if err := files.WriteFile(fsys, name, []byte(s)); err != nil {
			t.Fatal(err)
		}
		got, err := files.ReadFile(fsys, name, 100)
		if err != nil || string(got) != s {
			t.Fatalf("read %q, %v; want %q", got, err, s)
		}
	}
	if _, err := files.ReadFile(fsys, name, 0); !errs.Is(err, errs.Invalid) {
		t.Errorf("over the limit: %v", err)
	}
	if fi, _ := os.Stat(name); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	list, err := fsys.ReadDir(filepath.Dir(name))
	if err != nil || len(list) != 1 {
		t.Errorf("left over: %v %v", list, err)
	}
}

func TestLinksAreRefused(t *testing.T) {
	dir, fsys := t.TempDir(), files.OS()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if _, err := fsys.Open(link); err == nil {
		t.Error("a link was opened")
	}
	if _, err := fsys.OpenWrite(link); err == nil {
		t.Error("a link was opened for writing")
	}
	if _, err := fsys.Lock(link); err == nil {
		t.Error("a link was locked")
	}
	if _, err := fsys.Create(link); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a link: %v", err)
	}
	if _, err := fsys.Open(dir); err == nil {
		t.Error("a directory was opened as a file")
	}
}

func TestAppendAndErrors(t *testing.T) {
	dir, fsys := t.TempDir(), files.OS()
	if err := files.MkdirAll(fsys, filepath.Join(dir, "a", "b")); err != nil {
		t.Fatal(err)
	}
	if fi, _ := os.Stat(filepath.Join(dir, "a")); fi.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", fi.Mode())
	}
	name := filepath.Join(dir, "a", "b", "c")
	if _, err := fsys.Open(name); !errs.Is(err, errs.NotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	f, err := fsys.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("ab"))
	f.Close()
	f, err = fsys.OpenWrite(name)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("cd"))
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 8)
	if n, err := f.ReadAt(p, 1); n != 3 || err != io.EOF || string(p[:n]) != "bcd" {
		t.Errorf("%d %v %q", n, err, p[:n])
	}
	f.Close()
	if err := files.MkdirAll(fsys, name); !errs.Is(err, errs.Exists) {
		t.Errorf("directory over a file: %v", err)
	}
}

func TestLockExcludesSecondOpener(t *testing.T) {
	name, fsys := filepath.Join(t.TempDir(), "LOCK"), files.OS()
	l, err := fsys.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsys.Lock(name); !errs.Is(err, errs.Unavailable) {
		t.Errorf("second lock: %v", err)
	}
	l.Close()
	l, err = fsys.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestAllocate(t *testing.T) {
	f, err := files.OS().Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Allocate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("begin")); err != nil { // at the beginning, not behind the room
		t.Fatal(err)
	}
	if err := f.Allocate(10); err != nil { // never shortens
		t.Fatal(err)
	}
	got := make([]byte, 8)
	if size, err := f.Size(); err != nil || size != 1<<20 {
		t.Errorf("size %d, %v", size, err)
	}
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "begin\x00\x00\x00" {
		t.Errorf("%q, %v", got, err)
	}
	if err := f.Allocate(1 << 60); err == nil {
		t.Error("an exabyte was allocated")
	}
}
