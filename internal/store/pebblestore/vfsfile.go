package pebblestore

import (
	"bytes"
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/store/frame"
)

// noFile refuses everything; the kinds of file below override what they can do.
type noFile struct{ c *cryptFS }

func (n noFile) Close() error                          { return nil }
func (n noFile) Read([]byte) (int, error)              { return 0, n.c.unsupported("read") }
func (n noFile) ReadAt([]byte, int64) (int, error)     { return 0, n.c.unsupported("read at") }
func (n noFile) Write([]byte) (int, error)             { return 0, n.c.unsupported("write") }
func (n noFile) WriteAt([]byte, int64) (int, error)    { return 0, n.c.unsupported("write at") }
func (n noFile) Stat() (vfs.FileInfo, error)           { return nil, n.c.unsupported("stat") }
func (n noFile) Sync() error                           { return n.c.unsupported("sync") }
func (n noFile) SyncData() error                       { return n.c.unsupported("sync") }
func (n noFile) Preallocate(_, _ int64) error          { return nil }        // a hint
func (n noFile) SyncTo(int64) (fullSync bool, _ error) { return false, nil } // a hint, promises nothing
func (n noFile) Prefetch(_, _ int64) error             { return nil }        // a hint
func (n noFile) Fd() uintptr                           { return vfs.InvalidFd }

// dirFile is a directory that can be synced.
type dirFile struct {
	noFile
	c    *cryptFS
	name string
}

// Sync makes names durable. Pebble panics in the background if this fails, so a
// failure freezes all files instead: nothing that would rely on this sync can
// happen any more, neither a removal nor a commit.
func (d *dirFile) Sync() error {
	if d.c.alive() != nil {
		return nil
	}
	if err := d.c.base.SyncDir(d.name); err != nil {
		d.c.kill(err)
	}
	return nil
}

func (d *dirFile) SyncData() error { return d.Sync() }

// writeFile is a file that Pebble made and writes. Log kinds gather what is
// written until Sync, which makes one frame of it.
type writeFile struct {
	noFile
	c       *cryptFS
	f       files.File
	closer  io.Closer
	name    string
	role    role
	table   *frame.TableWriter
	log     *frame.LogWriter
	pending []byte
	err     error
}

func newWriteFile(c *cryptFS, f files.File, name string, r role) (*writeFile, error) {
	w := &writeFile{noFile: noFile{c}, c: c, f: f, closer: c.track(f), name: name, role: r}
	var err error
	switch {
	case r.table:
		w.table, err = frame.NewTableWriter(w.disk(), c.key, r.name)
	case !r.marker:
		w.log, err = frame.NewLogWriter(w.disk(), c.key, r.name)
		if err == nil {
			w.log.Retry = func(err error) bool { return c.room(err, r.must) }
		}
	}
	if err != nil {
		_ = w.closer.Close()
		return nil, err
	}
	return w, nil
}

// disk is the raw file below, with the freeze and the count.
func (w *writeFile) disk() *diskFile { return &diskFile{c: w.c, f: w.f, must: w.role.must} }

func (w *writeFile) Write(p []byte) (int, error) {
	switch {
	case w.role.marker:
		return 0, w.c.unsupported("write to a marker")
	case w.table != nil:
		return w.table.Write(p)
	}
	w.pending = append(w.pending, p...)
	return len(p), nil
}

// seal puts everything that was written into the file below.
func (w *writeFile) seal() error {
	if w.table != nil {
		return w.table.Finish()
	}
	if w.err == nil && len(w.pending) > 0 {
		w.err = w.log.Append(w.pending)
		w.pending = w.pending[:0]
	}
	return w.err
}

func (w *writeFile) Sync() error {
	if err := w.seal(); err != nil {
		return err
	}
	return w.disk().Sync()
}

func (w *writeFile) SyncData() error { return w.Sync() }

func (w *writeFile) Close() error {
	err := w.seal()
	if cerr := w.closer.Close(); err == nil {
		err = cerr
	}
	return err
}

func (w *writeFile) Stat() (vfs.FileInfo, error) { return w.c.Stat(w.name) }

// diskFile is the ciphertext side of a file being written.
type diskFile struct {
	c    *cryptFS
	f    files.File
	must bool
}

func (d *diskFile) Write(p []byte) (int, error) {
	if err := d.c.alive(); err != nil {
		return 0, err
	}
	n, err := d.f.Write(p)
	d.c.written.Add(uint64(n))
	if err != nil {
		d.c.room(err, false) // only to tell, and to slow down
	}
	return n, err
}

func (d *diskFile) WriteAt(p []byte, off int64) (int, error) {
	if err := d.c.alive(); err != nil {
		return 0, err
	}
	n, err := d.f.WriteAt(p, off)
	d.c.written.Add(uint64(n))
	return n, err
}

func (d *diskFile) Truncate(size int64) error { return d.f.Truncate(size) }

func (d *diskFile) Sync() error {
	if err := d.c.alive(); err != nil {
		return err
	}
	err := d.f.Sync()
	if err == nil {
		return nil
	}
	if d.must {
		// After a failed sync the kernel may have dropped the pages: trying again
		// could succeed over lost bytes. Pebble would end the process.
		d.c.kill(err)
	}
	d.c.room(err, false)
	return err
}

// readFile is a file that Pebble reads.
type readFile struct {
	noFile
	c     *cryptFS
	f     io.Closer
	name  string
	table *frame.TableReader
	off   int64 // of Read in a table
	log   *frame.LogReader
	frame bytes.Reader // what Read has left of the current frame
	err   error
}

func newReadFile(c *cryptFS, f files.File, name string, r role) (*readFile, error) {
	if r.marker {
		return nil, c.unsupported("read of a marker")
	}
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	rf := &readFile{noFile: noFile{c}, c: c, name: name}
	if r.table {
		rf.table, err = frame.NewTableReader(f, size, c.key, r.name)
	} else {
		rf.log, err = frame.NewLogReader(f, size, c.key, r.name)
		if errors.Is(err, frame.ErrTorn) {
			if !r.wal {
				return nil, errs.New(errs.Corrupt, "pebblestore.vfs", "%s has no header", r.name)
			}
			err, rf.err = nil, io.EOF // never synced, and there is nothing to lose in it
		}
	}
	if err != nil {
		return nil, damage(err)
	}
	rf.f = c.track(f)
	return rf, nil
}

func (r *readFile) Close() error                { return r.f.Close() }
func (r *readFile) Stat() (vfs.FileInfo, error) { return r.c.Stat(r.name) }

func (r *readFile) ReadAt(p []byte, off int64) (int, error) {
	if r.table == nil {
		return r.noFile.ReadAt(p, off)
	}
	n, err := r.table.ReadAt(p, off)
	return n, damage(err)
}

// damage makes Pebble know a corrupt file when it meets one, so that it leaves it
// out of compactions instead of trying again and again.
func damage(err error) error {
	if errs.Is(err, errs.Corrupt) {
		return &corruption{err}
	}
	return err
}

type corruption struct{ error }

func (c *corruption) Unwrap() error        { return c.error }
func (c *corruption) Is(target error) bool { return target == pebble.ErrCorruption }

// Read reads on. Damage is an error that Pebble does not know and therefore does
// not take for the end of a log, as it would take bytes that fail its own checksum.
func (r *readFile) Read(p []byte) (int, error) {
	if r.table != nil {
		n, err := r.table.ReadAt(p, r.off)
		r.off += int64(n)
		if n > 0 && err == io.EOF {
			err = nil
		}
		return n, err
	}
	for r.frame.Len() == 0 {
		if r.err != nil {
			return 0, r.err
		}
		b, err := r.log.Next()
		if errors.Is(err, frame.ErrTorn) {
			err = io.EOF
		}
		if r.err = err; err == nil {
			r.frame.Reset(b)
		}
	}
	return r.frame.Read(p)
}
