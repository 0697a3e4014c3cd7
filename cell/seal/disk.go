package seal

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"chancery/internal/errs"
)

// Disk is the few durable file operations that the Keeper needs.
type Disk interface {
	// Read reads a whole file of at most limit bytes; fs.ErrNotExist if it is not there.
	Read(name string, limit int64) ([]byte, error)
	// Write replaces the file (mode 0600) at once and durably: after a crash it is the old or the new.
	Write(name string, data []byte) error
	// Remove removes a file durably; a missing file is no error.
	Remove(name string) error
}

type dirDisk struct{ dir string }

func (d dirDisk) Read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(d.dir, name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, errs.New(errs.Corrupt, "seal.read", "%s is larger than %d bytes", name, limit)
	}
	return b, nil
}

func (d dirDisk) Write(name string, data []byte) (err error) {
	tmp := filepath.Join(d.dir, name+".tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(d.dir, name))
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return d.sync()
}

func (d dirDisk) Remove(name string) error {
	if err := os.Remove(filepath.Join(d.dir, name)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return d.sync()
}

func (d dirDisk) sync() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
