package seal

import (
	"path/filepath"
	"strings"

	"chancery/internal/errs"
	"chancery/internal/files"
)

// disk is the Keeper's few files in the cell's data directory.
type disk struct {
	dir string
	fs  files.FS
}

// read gives a whole file of at most limit bytes; nil and false if it is not there.
func (d disk) read(name string, limit int64) ([]byte, bool, error) {
	b, err := files.ReadFile(d.fs, filepath.Join(d.dir, name), limit)
	if errs.Is(err, errs.NotFound) {
		return nil, false, nil
	}
	if errs.Is(err, errs.Invalid) { // too large: not what we wrote
		return nil, false, errs.WrapKind(errs.Corrupt, "seal.read", err)
	}
	return b, err == nil, errs.Wrap("seal.read", err)
}

// write replaces a file at once and durably.
func (d disk) write(name string, data []byte) error {
	return errs.Wrap("seal.write", files.WriteFile(d.fs, filepath.Join(d.dir, name), data))
}

// remove removes a file durably; a missing one is no error.
func (d disk) remove(name string) error {
	err := d.fs.Remove(filepath.Join(d.dir, name))
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err == nil {
		err = d.fs.SyncDir(d.dir)
	}
	return errs.Wrap("seal.remove", err)
}

// fresh refuses (errs.Exists) a directory with anything in it but the sealed
// identity, empty directories and leftovers of unfinished writes.
func (d disk) fresh() error {
	const op = "seal.fresh"
	all, err := d.fs.ReadDir(d.dir)
	if err != nil {
		return errs.Wrap(op, err)
	}
	for _, i := range all {
		if i.Dir {
			inside, err := d.fs.ReadDir(filepath.Join(d.dir, i.Name))
			if err != nil {
				return errs.Wrap(op, err)
			}
			if len(inside) == 0 {
				continue
			}
		}
		if i.Name != identityFile && !(i.Regular && strings.HasSuffix(i.Name, files.TempSuffix)) {
			return errs.New(errs.Exists, op, "the data directory holds %s but no seal.json; restore seal.json, or remove all of it to begin anew", i.Name)
		}
	}
	return nil
}
