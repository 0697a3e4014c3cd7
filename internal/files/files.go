// Package files holds every durable file operation of the project, so that the
// rules of durability are in one place: what is acknowledged was synced, a new
// or renamed name counts only after its directory was synced, files are private
// (0600, directories 0700), and a symbolic link is never followed as a file.
//
// It must never be bypassed by code that promises durability: what goes through
// an FS can be tested against power loss, full disks and read errors with
// files/faultfs. It knows nothing of what is in the files.
package files

import (
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"chancery/internal/errs"
)

// FS is a file system as durable code needs it. Names are paths of the
// operating system. Errors match fs.ErrNotExist, fs.ErrExist and syscall.ENOSPC
// by errors.Is, and carry an errs kind: NotFound, Exists, Exhausted (no room),
// Unavailable (the lock is held), else Internal. Safe for concurrent use.
type FS interface {
	// Create makes a new file for reading and writing; fs.ErrExist if the name
	// is taken by anything, a link too. The name is durable after SyncDir of its directory.
	Create(name string) (File, error)
	// Open opens a regular file for reading. Links are refused.
	Open(name string) (File, error)
	// OpenWrite opens an existing regular file for reading and writing; Write appends.
	OpenWrite(name string) (File, error)
	// Rename moves a file over newName, which it replaces. Durable after SyncDir
	// of the directories of both names.
	Rename(oldName, newName string) error
	// Remove deletes a file or an empty directory. Durable after SyncDir.
	Remove(name string) error
	// Mkdir makes one directory; fs.ErrExist if the name is taken.
	Mkdir(name string) error
	// ReadDir lists a directory in the order of names.
	ReadDir(name string) ([]Info, error)
	// Stat describes a name; a link is described, not followed.
	Stat(name string) (Info, error)
	// SyncDir makes the names of a directory durable.
	SyncDir(name string) error
	// Lock takes an exclusive lock on a file that it makes if need be, and holds
	// it until Close or the end of the process. Held elsewhere: errs.Unavailable at once.
	Lock(name string) (io.Closer, error)
}

// File is an open file. ReadAt may be called concurrently; the rest not.
type File interface {
	io.Reader
	io.ReaderAt
	// Write writes at the end of what this handle wrote, or, after OpenWrite, at
	// the end of the file.
	io.Writer
	io.WriterAt
	io.Closer
	// Sync returns after content and size are durable. The name is not: see SyncDir.
	Sync() error
	// Truncate sets the size in bytes.
	Truncate(size int64) error
	// Allocate gives the file room for size bytes at once, where the file system
	// can; a shorter file becomes that long and reads as zeros. No room for it is
	// errs.Exhausted.
	Allocate(size int64) error
	// Size returns the size in bytes.
	Size() (int64, error)
	// Name returns the name it was opened with.
	Name() string
}

// Info describes a name. Name is the last element of the path, Size is in bytes.
type Info struct {
	Name     string
	Size     int64
	Modified time.Time
	// Dir and Regular tell directories and plain files; both false is anything else.
	Dir, Regular bool
}

// TempSuffix ends the name of every unfinished file of WriteFile. After a crash
// such files are garbage: the owner of a directory removes them when it opens it.
const TempSuffix = ".tmp"

// WriteFile replaces the file name with data, at once and durably: after an
// error or a crash the old or the new content is there, whole. Only one caller
// at a time may write a given name.
func WriteFile(fsys FS, name string, data []byte) error {
	const op = "files.WriteFile"
	tmp := name + TempSuffix
	if err := fsys.Remove(tmp); err != nil && !errs.Is(err, errs.NotFound) {
		return errs.Wrap(op, err)
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return errs.Wrap(op, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		// Best effort: what is left over ends in TempSuffix and is replaced next time.
		_ = fsys.Remove(tmp)
		return errs.Wrap(op, err)
	}
	return errs.Wrap(op, fsys.SyncDir(filepath.Dir(name)))
}

// ReadFile reads a whole file of at most max bytes; a larger one is errs.Invalid.
func ReadFile(fsys FS, name string, max int64) ([]byte, error) {
	const op = "files.ReadFile"
	f, err := fsys.Open(name)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	defer func() { _ = f.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	if int64(len(b)) > max {
		return nil, errs.New(errs.Invalid, op, "%s is larger than %d bytes", filepath.Base(name), max)
	}
	return b, nil
}

// MkdirAll makes a directory and the missing ones above it, each durable.
// An existing directory is no error.
func MkdirAll(fsys FS, name string) error {
	const op = "files.MkdirAll"
	info, err := fsys.Stat(name)
	if err == nil {
		if info.Dir {
			return nil
		}
		// A link to a directory (such as /tmp on some systems) may stand above
		// our own; the operating system decides when a name below is used.
		if !info.Regular {
			return nil
		}
		return errs.WrapKind(errs.Exists, op, &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist})
	}
	if !errs.Is(err, errs.NotFound) {
		return errs.Wrap(op, err)
	}
	parent := filepath.Dir(name)
	if parent != name {
		if err := MkdirAll(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.Mkdir(name); err != nil && !errs.Is(err, errs.Exists) {
		return errs.Wrap(op, err)
	}
	return errs.Wrap(op, fsys.SyncDir(parent))
}
