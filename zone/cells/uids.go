package cells

import (
	"encoding/json"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/sandbox"
)

// Cells' host user ids are taken from a range that no distribution gives to
// people, services or containers (systemd, UIDS-GIDS.md: 0x70000001 to 0x7ffffffe
// is unused). Each zone takes a random block of it, so that two zones on one
// host do not share ids.
const (
	firstUID  = 0x70010000
	lastUID   = 0x7ffe0000
	blockSize = 1 << 16
)

// uids gives each organization a host user id, for ever: an id that is used
// again would give one organization's files to another.
type uids struct {
	path string
	mu   sync.Mutex
	list struct {
		First uint32            `json:"first"`
		Next  uint32            `json:"next"`
		Of    map[string]uint32 `json:"of"`
	}
}

// openUIDs returns nil where cells cannot have ids of their own.
func openUIDs(dir string, mode sandbox.Mode, log *slog.Logger) (*uids, error) {
	const op = "cells.openUIDs"
	if os.Getuid() != 0 || mode != sandbox.ModeNamespaces {
		return nil, nil
	}
	u := &uids{path: filepath.Join(dir, "uids.json")}
	b, err := files.ReadFile(files.OS(), u.path, 16<<20)
	switch {
	case errs.Is(err, errs.NotFound):
		u.list.First = firstUID + blockSize*rand.Uint32N((lastUID-firstUID)/blockSize)
		u.list.Next, u.list.Of = u.list.First, map[string]uint32{}
	case err != nil:
		return nil, errs.Wrap(op, err)
	default:
		if err := json.Unmarshal(b, &u.list); err != nil {
			return nil, errs.New(errs.Corrupt, op, "%s: %v", u.path, err)
		}
		if u.list.First < firstUID || u.list.Next < u.list.First || u.list.Of == nil {
			return nil, errs.New(errs.Corrupt, op, "%s holds user ids out of their range", u.path)
		}
	}
	// A root that is itself in a user namespace may not own this id.
	test := filepath.Join(dir, ".uid-test")
	if err := os.WriteFile(test, nil, 0o600); err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	defer func() { _ = os.Remove(test) }() // an empty file of ours
	if err := os.Chown(test, int(u.list.First), int(u.list.First)); err != nil {
		log.Warn("cells cannot have user ids of their own", "error", err)
		return nil, nil
	}
	return u, nil
}

// of returns the id of an organization; 0 where ids cannot be given.
func (u *uids) of(organization string) (uint32, error) {
	if u == nil {
		return 0, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if id, ok := u.list.Of[organization]; ok {
		return id, nil
	}
	if u.list.Next >= u.list.First+blockSize {
		return 0, errs.New(errs.Exhausted, "cells.uids", "all %d user ids of this zone are taken", blockSize)
	}
	id := u.list.Next
	u.list.Next++
	u.list.Of[organization] = id
	b, err := json.MarshalIndent(u.list, "", "  ")
	if err == nil {
		err = files.WriteFile(files.OS(), u.path, append(b, '\n'))
	}
	if err != nil {
		u.list.Next--
		delete(u.list.Of, organization)
		return 0, errs.Wrap("cells.uids", err)
	}
	return id, nil
}

// adopt gives a data directory to its cell's host user if another has it: it was
// made unprivileged, or came from another host. The cell does not run meanwhile.
// Links are changed themselves, never followed.
func adopt(dataDir string, uid uint32) error {
	if os.Getuid() != 0 {
		return nil
	}
	st, err := os.Lstat(dataDir)
	if err != nil {
		return errs.WrapKind(errs.Unavailable, "cells.adopt", err)
	}
	if st.Sys().(*syscall.Stat_t).Uid == uid {
		return nil
	}
	err = filepath.WalkDir(dataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dataDir {
			return err
		}
		return os.Lchown(path, int(uid), int(uid))
	})
	if err == nil {
		// Last, so that an adoption that was cut short is done again.
		err = os.Lchown(dataDir, int(uid), int(uid))
	}
	return errs.WrapKind(errs.Unavailable, "cells.adopt", err)
}
