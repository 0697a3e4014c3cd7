package custodian

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"chancery/internal/errs"
	"chancery/wall"
)

// Known remembers, on the custodian's own machine, which cell an organization
// was, so that a whole forged organization put in its place is noticed: one that
// gives out forged shares with a forged pin and asks for nothing but trust.
// What is remembered is public. A nil Known remembers nothing.
type Known struct {
	// File is a JSON file; it need not exist yet.
	File string
	mu   sync.Mutex
}

type knownCell struct {
	// Pin and CA are those of wall.SharePayload.
	Pin string `json:"pin"`
	CA  string `json:"ca"`
}

// compare refuses (errs.Denied) a share that names another cell than the one remembered.
func (k *Known) compare(serverName string, p wall.SharePayload) error {
	const op = "custodian.Known"
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	all, err := k.load()
	if err != nil {
		return err
	}
	if c, ok := all[serverName]; ok && (c.Pin != p.Pin || c.CA != p.CA) {
		return errs.New(errs.Denied, op, "%s is another cell than the one you unsealed before. Nothing was sent. If the organization was created anew, remove its entry from %s", serverName, k.File)
	}
	return nil
}

// remember keeps what a share that the cell took said of the cell.
func (k *Known) remember(serverName string, p wall.SharePayload) error {
	const op = "custodian.Known"
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	all, err := k.load()
	if err != nil {
		return err
	}
	now := knownCell{Pin: p.Pin, CA: p.CA}
	if all[serverName] == now {
		return nil
	}
	all[serverName] = now
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return errs.WrapKind(errs.Internal, op, err)
	}
	return errs.WrapKind(errs.Unavailable, op, replaceFile(k.File, append(b, '\n')))
}

func (k *Known) load() (map[string]knownCell, error) {
	const op = "custodian.Known"
	all := map[string]knownCell{}
	f, err := os.Open(k.File)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	defer func() { _ = f.Close() }()
	b, err := readAll(f, maxIdentityFile)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	if json.Unmarshal(b, &all) != nil || all == nil {
		return nil, errs.New(errs.Invalid, op, "%s is malformed", k.File)
	}
	for _, c := range all {
		for _, h := range []string{c.Pin, c.CA} {
			if raw, err := hex.DecodeString(h); err != nil || len(raw) != sha256.Size {
				return nil, errs.New(errs.Invalid, op, "%s is malformed", k.File)
			}
		}
	}
	return all, nil
}

func replaceFile(name string, b []byte) error {
	// On a custodian's new machine there is no directory for it yet.
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".tmp-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(name))
}
