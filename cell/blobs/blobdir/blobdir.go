// Package blobdir is the blobs engine on a directory tree: one file for each
// blob, at DIR/x/y/ID, where ID is the id in hexadecimal and x and y its first
// two digits. Names are random; nothing on disk tells what a blob is of.
//
// A file is made under its final name and written in sequence; it is a blob once
// Commit has synced the file and its directory. What a crash leaves is an orphan
// for blobs.Store.Sweep. The package must never see plaintext, and does no file
// operation but through files.FS.
package blobdir

import (
	"context"
	"io"
	"iter"
	"path/filepath"
	"sync"

	"chancery/cell/blobs"
	"chancery/internal/errs"
	"chancery/internal/files"
)

// marker names the file that tells the layout. It is written last, so where it
// is, the directories are there and durable.
const (
	marker = "layout"
	layout = "chancery blobs in directories, version 1\n"
)

const digits = "0123456789abcdef"

// Engine implements blobs.Engine. The zero Engine refuses. One process at a time
// may use a directory: its owner sees to that (the store beside it is locked).
type Engine struct {
	dir string
	fs  files.FS
}

// Open opens or makes the tree at dir. All 256 directories are made at once, the
// first time, so that no write ever waits for a new directory to become durable.
// The directory above dir is the caller's to make durable. A dir with another
// layout is errs.Unsupported.
func Open(dir string, fsys files.FS) (*Engine, error) {
	const op = "blobdir.Open"
	e := &Engine{dir, fsys}
	text, err := files.ReadFile(fsys, e.path(marker), 1024)
	switch {
	case err == nil && string(text) == layout:
		return e, nil
	case err == nil:
		return nil, errs.New(errs.Unsupported, op, "the blob directory has another layout")
	case !errs.Is(err, errs.NotFound):
		return nil, fail(op, err)
	}
	if err := e.make(); err != nil {
		return nil, fail(op, err)
	}
	return e, nil
}

func (e *Engine) path(elem ...string) string {
	return filepath.Join(append([]string{e.dir}, elem...)...)
}

// make makes the tree, or finishes what a crash left half made: a directory that
// is there may not be durable yet, so every parent is synced anew.
func (e *Engine) make() error {
	if err := files.MkdirAll(e.fs, e.dir); err != nil {
		return err
	}
	// All directories first, then all syncs: the first sync then makes a journaling
	// file system write them all at once, and the others find nothing to do.
	unsynced := []string{filepath.Dir(e.dir), e.dir}
	mkdir := func(name string) error {
		if err := e.fs.Mkdir(name); err != nil && !errs.Is(err, errs.Exists) {
			return err
		}
		return nil
	}
	for _, x := range digits {
		if err := mkdir(e.path(string(x))); err != nil {
			return err
		}
		for _, y := range digits {
			if err := mkdir(e.path(string(x), string(y))); err != nil {
				return err
			}
		}
		unsynced = append(unsynced, e.path(string(x)))
	}
	for _, name := range unsynced {
		if err := e.fs.SyncDir(name); err != nil {
			return err
		}
	}
	return files.WriteFile(e.fs, e.path(marker), []byte(layout))
}

func (e *Engine) name(id blobs.ID) (leaf, file string) {
	s := id.String()
	leaf = e.path(s[:1], s[1:2])
	return leaf, filepath.Join(leaf, s)
}

func (e *Engine) ready(ctx context.Context, op string) error {
	if e == nil || e.fs == nil {
		return errs.New(errs.Invalid, op, "the zero engine")
	}
	if ctx.Err() != nil {
		return errs.WrapKind(errs.Unavailable, op, context.Cause(ctx))
	}
	return nil
}

// Create implements blobs.Engine.
func (e *Engine) Create(ctx context.Context, id blobs.ID) (blobs.Writer, error) {
	const op = "blobdir.Create"
	if err := e.ready(ctx, op); err != nil {
		return nil, err
	}
	leaf, name := e.name(id)
	f, err := e.fs.Create(name)
	if errs.Is(err, errs.NotFound) { // somebody removed the empty directory
		if err = files.MkdirAll(e.fs, leaf); err == nil {
			f, err = e.fs.Create(name)
		}
	}
	if err != nil {
		return nil, fail(op, err)
	}
	return &writer{fs: e.fs, f: f, leaf: leaf, name: name}, nil
}

// Open implements blobs.Engine.
func (e *Engine) Open(ctx context.Context, id blobs.ID) (blobs.Reader, error) {
	const op = "blobdir.Open"
	if err := e.ready(ctx, op); err != nil {
		return nil, err
	}
	_, name := e.name(id)
	f, err := e.fs.Open(name)
	if err != nil {
		return nil, fail(op, err)
	}
	size, err := f.Size()
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, fail(op, err)
	}
	return &reader{f, size}, nil
}

// Remove implements blobs.Engine. The removal is not synced: after a power loss
// the blob may be there again, as an orphan.
func (e *Engine) Remove(ctx context.Context, id blobs.ID) error {
	const op = "blobdir.Remove"
	if err := e.ready(ctx, op); err != nil {
		return err
	}
	_, name := e.name(id)
	if err := e.fs.Remove(name); err != nil && !errs.Is(err, errs.NotFound) {
		return fail(op, err)
	}
	return nil
}

// All implements blobs.Engine. Files that are not named like a blob are passed over.
func (e *Engine) All(ctx context.Context) iter.Seq2[blobs.Info, error] {
	const op = "blobdir.All"
	return func(yield func(blobs.Info, error) bool) {
		for i := range len(digits) * len(digits) {
			if err := e.ready(ctx, op); err != nil {
				yield(blobs.Info{}, err)
				return
			}
			list, err := e.fs.ReadDir(e.path(digits[i/16:i/16+1], digits[i%16:i%16+1]))
			if err != nil && !errs.Is(err, errs.NotFound) {
				yield(blobs.Info{}, fail(op, err))
				return
			}
			for _, fi := range list {
				id, err := blobs.ParseID(fi.Name)
				if err != nil || !fi.Regular {
					continue
				}
				if !yield(blobs.Info{ID: id, Size: fi.Size, Modified: fi.Modified}, nil) {
					return
				}
			}
		}
	}
}

// reader implements blobs.Reader.
type reader struct {
	f    files.File
	size int64
}

func (r *reader) Size() int64  { return r.size }
func (r *reader) Close() error { return fail("blobdir.Close", r.f.Close()) }

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.f.ReadAt(p, off)
	if err == io.EOF {
		return n, err
	}
	return n, fail("blobdir.Read", err)
}

// writer implements blobs.Writer.
type writer struct {
	fs         files.FS
	leaf, name string

	mu  sync.Mutex // Abort may come from another goroutine
	f   files.File // nil once ended
	err error      // sticky: after a failed write nothing may be committed
	// In bytes: what will be written in all (0: not known), what there is room for, what was written.
	expected, allocated, written int64
}

// Expect implements blobs.Writer.
func (w *writer) Expect(size int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expected = size
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ready(); err != nil {
		return 0, err
	}
	if w.err = w.allocate(w.written + int64(len(p))); w.err != nil {
		return 0, w.err
	}
	n, err := w.f.Write(p)
	w.written += int64(n)
	w.err = fail("blobdir.Write", err)
	return n, w.err
}

// allocateStep is how much room is made at once, in bytes. Room taken early costs
// a file system less than block by block; a bound on it keeps clients who promise
// much and send little from filling the disk.
const allocateStep = 16 << 20

// allocate makes room for what comes next, up to need bytes at least.
func (w *writer) allocate(need int64) error {
	if need <= w.allocated || need > w.expected {
		return nil
	}
	w.allocated = min(w.expected, need+allocateStep)
	return fail("blobdir.Write", w.f.Allocate(w.allocated))
}

// Commit implements blobs.Writer. If anything fails the file is removed: after a
// failed sync nobody can say what is on the disk.
func (w *writer) Commit() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.ready()
	if w.f == nil {
		return err
	}
	if err == nil && w.allocated > w.written {
		err = w.f.Truncate(w.written)
	}
	if err == nil {
		err = w.f.Sync()
	}
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	w.f = nil
	if err == nil {
		err = w.fs.SyncDir(w.leaf)
	}
	if err != nil {
		_ = w.fs.Remove(w.name) // else an orphan
	}
	return fail("blobdir.Commit", err)
}

func (w *writer) Abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return
	}
	_ = w.f.Close()
	w.f = nil
	_ = w.fs.Remove(w.name) // else an orphan
}

func (w *writer) ready() error {
	if w.err != nil {
		return w.err
	}
	if w.f == nil {
		return errs.New(errs.Invalid, "blobdir.Write", "the writer has ended")
	}
	return nil
}

// fail gives an error of the file system its kind for this engine: what the
// system does not explain is a passing condition of the disk, not a defect of ours.
func fail(op string, err error) error {
	if errs.Is(err, errs.Internal) {
		return errs.WrapKind(errs.Unavailable, op, err)
	}
	return errs.Wrap(op, err)
}
