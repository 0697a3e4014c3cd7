package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"chancery/internal/errs"
)

// OS returns the FS of the operating system.
func OS() FS { return osFS{} }

type osFS struct{}

const noFollow = unix.O_NOFOLLOW | unix.O_CLOEXEC

func (osFS) Create(name string) (File, error) {
	return open("create", name, os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow)
}

func (osFS) Open(name string) (File, error) {
	// O_NONBLOCK: opening a planted FIFO must not hang; it has no effect on regular files.
	return openRegular(name, os.O_RDONLY|noFollow|unix.O_NONBLOCK)
}

func (osFS) OpenWrite(name string) (File, error) {
	f, err := openRegular(name, os.O_RDWR|noFollow|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if _, err := f.(*osFile).f.Seek(0, io.SeekEnd); err != nil {
		_ = f.Close()
		return nil, classify("seek", err)
	}
	return f, nil
}

func openRegular(name string, flags int) (File, error) {
	f, err := open("open", name, flags)
	if err != nil {
		return nil, err
	}
	st, err := f.(*osFile).f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: syscall.EINVAL}
	}
	if err != nil {
		_ = f.Close()
		return nil, classify("open", err)
	}
	return f, nil
}

func open(op, name string, flags int) (File, error) {
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, classify(op, err)
	}
	return &osFile{f}, nil
}

func (osFS) Rename(oldName, newName string) error {
	return classify("rename", os.Rename(oldName, newName))
}

func (osFS) Remove(name string) error { return classify("remove", os.Remove(name)) }

func (osFS) Mkdir(name string) error { return classify("mkdir", os.Mkdir(name, 0o700)) }

func (osFS) ReadDir(name string) ([]Info, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, classify("readdir", err)
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, classify("readdir", err)
		}
		infos = append(infos, infoOf(fi))
	}
	return infos, nil
}

func (osFS) Stat(name string) (Info, error) {
	fi, err := os.Lstat(name)
	if err != nil {
		return Info{}, classify("stat", err)
	}
	return infoOf(fi), nil
}

func infoOf(fi fs.FileInfo) Info {
	return Info{Name: fi.Name(), Size: fi.Size(), Modified: fi.ModTime(), Dir: fi.IsDir(), Regular: fi.Mode().IsRegular()}
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return classify("syncdir", err)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return classify("syncdir", err)
}

// Lock uses flock(2): the lock belongs to the open file, so that a second
// opener in the same process is refused too, and the kernel drops it when the process ends.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, classify("lock", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, classify("lock", &fs.PathError{Op: "lock", Path: name, Err: err})
	}
	return f, nil
}

type osFile struct{ f *os.File }

func (o *osFile) Name() string { return o.f.Name() }

func (o *osFile) Read(p []byte) (int, error) {
	n, err := o.f.Read(p)
	return n, readErr("read", err)
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.f.ReadAt(p, off)
	return n, readErr("read", err)
}

func (o *osFile) Write(p []byte) (int, error) {
	n, err := o.f.Write(p)
	return n, classify("write", err)
}

func (o *osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.f.WriteAt(p, off)
	return n, classify("write", err)
}

func (o *osFile) Close() error              { return classify("close", o.f.Close()) }
func (o *osFile) Sync() error               { return classify("sync", o.f.Sync()) }
func (o *osFile) Truncate(size int64) error { return classify("truncate", o.f.Truncate(size)) }

func (o *osFile) Allocate(size int64) error {
	for {
		err := unix.Fallocate(int(o.f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return classify("allocate", o.f.Truncate(size))
		}
		return classify("allocate", err)
	}
}

func (o *osFile) Size() (int64, error) {
	fi, err := o.f.Stat()
	if err != nil {
		return 0, classify("stat", err)
	}
	return fi.Size(), nil
}

// readErr leaves io.EOF bare, as io.Reader wants it.
func readErr(op string, err error) error {
	if err == io.EOF {
		return err
	}
	return classify(op, err)
}

// classify gives an error of the operating system its kind.
func classify(op string, err error) error {
	if err == nil {
		return nil
	}
	kind := errs.Internal
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = errs.NotFound
	case errors.Is(err, fs.ErrExist):
		kind = errs.Exists
	case IsFull(err):
		kind = errs.Exhausted
	case errors.Is(err, unix.EWOULDBLOCK):
		kind = errs.Unavailable
	}
	return errs.WrapKind(kind, "files."+op, err)
}

// IsFull reports whether err says that there is no room: disk full, or over quota.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
