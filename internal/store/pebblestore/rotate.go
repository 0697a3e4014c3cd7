package pebblestore

import (
	"path/filepath"

	"chancery/internal/errs"
)

// rotate begins a new journal and lets the engine flush what the older ones hold.
// At most one flush is under way: that bounds memory. While it cannot go on for
// want of room, the error is errs.Exhausted and nothing has changed.
func (c *committer) rotate(s *Store) error {
	const op = "pebblestore.rotate"
	if c.flushed != nil {
		select {
		case <-s.vfs.full: // an old token
		default:
		}
		select {
		case <-c.flushed:
			c.afterFlush(s)
		case <-s.vfs.full:
			return errs.New(errs.Exhausted, op, "the disk has no room")
		case <-s.vfs.dead:
		}
		if err := c.usable(s); err != nil {
			return err
		}
	}
	j, named, err := createJournal(s.fs, s.opt.Dir, s.key, c.journal.num+1, c.seq)
	if err != nil {
		if named {
			c.failed = errs.WrapKind(errs.Unavailable, op, err)
			return c.failed
		}
		return errs.Wrap(op, err)
	}
	if err := c.journal.finish(); err != nil {
		// Its commits were synced one by one; only the trace to the next is missing.
		s.opt.Log.Warn("store: a journal was not finished", "error", err)
	}
	c.old = append(c.old, c.journal.num)
	c.journal = j
	s.journalDisk.Store(j.w.Size())
	if c.flushed, err = s.db.AsyncFlush(); err != nil {
		c.failed = errs.WrapKind(errs.Unavailable, op, err)
		return c.failed
	}
	return nil
}

// afterFlush removes the journals that a finished flush made superfluous.
func (c *committer) afterFlush(s *Store) {
	c.flushed = nil
	if err := c.dropOld(s); err != nil {
		s.opt.Log.Warn("store: an old journal stays", "error", err)
	}
}

// dropOld removes the old journals, the oldest first, if the engine is sound. One
// that cannot be removed stays in the list and does no harm.
func (c *committer) dropOld(s *Store) error {
	if err := s.vfs.alive(); err != nil {
		return err
	}
	for len(c.old) > 0 {
		err := s.fs.Remove(filepath.Join(s.opt.Dir, journalName(c.old[0])))
		if err != nil && !errs.Is(err, errs.NotFound) {
			return err
		}
		c.old = c.old[1:]
	}
	return nil
}

// Close implements store.Store. Commits that were begun are finished.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.gate.close()
		close(s.commit.quit)
		<-s.commit.done
		s.snaps.closeAll()
		err := s.commit.journal.f.Close()
		if cerr := s.closeEngine(); err == nil {
			err = cerr
		}
		clear(s.key)
		clear(s.vfs.key)
		if lerr := s.lock.Close(); err == nil {
			err = lerr
		}
		s.closeErr = errs.Wrap("store.Close", err)
	})
	return s.closeErr
}
