package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// Purge implements store.Store. It waits for the snapshots that were open before it.
func (s *Store) Purge(ctx context.Context, r store.Range) error {
	const op = "store.Purge"
	lower, upper := bounds(r.Start, r.End)
	if len(r.Start) > store.MaxKey || len(r.End) > store.MaxKey {
		return errs.New(errs.Invalid, op, "a bound has at most %d bytes", store.MaxKey)
	}
	if bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	if err := s.gate.enter(op); err != nil {
		return err
	}
	defer s.gate.leave()

	// Write both ends of the range again, as they are. The table that this makes
	// spans the range, so that the compaction below must merge with every table
	// in it, and cannot pass one on unread. Then out of the journal.
	touch := &request{rotate: true, fill: func(_ store.Seq, b *pebble.Batch) error {
		for _, k := range [][]byte{lower, upper} {
			if err := rewrite(b, k); err != nil {
				return err
			}
		}
		return nil
	}}
	if err := s.submit(ctx, op, touch); err != nil {
		return err
	}
	for {
		older, changed := s.snaps.olderThan(touch.seq)
		if !older {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctxErr(op, ctx)
		}
	}
	select {
	case <-touch.wait:
	case <-ctx.Done():
		return ctxErr(op, ctx)
	case <-s.vfs.dead:
		return s.vfs.alive()
	}
	// A compaction that ends in a broken engine never answers, nor does one that
	// waits for its turn behind another that fails again and again.
	select {
	case <-s.vfs.stuck: // of earlier times
	default:
	}
	cctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.vfs.dead:
			cancel(nil)
		case <-s.vfs.stuck:
			cancel(errs.New(errs.Unavailable, op, "the engine cannot compact its files"))
		case <-cctx.Done():
		}
	}()
	if err := s.db.Compact(cctx, lower, upper, false); err != nil {
		if dead := s.vfs.alive(); dead != nil {
			return dead
		}
		if ctx.Err() != nil {
			return ctxErr(op, ctx)
		}
		if stuck := context.Cause(cctx); stuck != nil {
			return stuck
		}
		return engineErr(op, err)
	}
	return s.awaitRemovals(ctx, op, touch.journal)
}

// rewrite puts a key again as it is: its value, or that there is none.
func rewrite(b *pebble.Batch, key []byte) error {
	const op = "pebblestore.rewrite"
	v, closer, err := b.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return engineErr(op, b.Delete(key, nil))
	}
	if err != nil {
		return engineErr(op, err)
	}
	v = bytes.Clone(v)
	_ = closer.Close()
	return engineErr(op, b.Set(key, v, nil))
}

// awaitRemovals waits until the tables that were replaced and the journals before
// one are gone from the disk. A running Scan keeps the tables that it reads.
func (s *Store) awaitRemovals(ctx context.Context, op string, before uint64) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		gone, err := s.journalsGone(ctx, op, before)
		if err != nil {
			return err
		}
		if m := s.db.Metrics(); gone && m.Table.ZombieCount == 0 && m.Table.ObsoleteCount == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctxErr(op, ctx)
		case <-s.vfs.dead:
			return s.vfs.alive()
		}
	}
	for _, dir := range []string{s.opt.Dir, filepath.Join(s.opt.Dir, engineDir)} {
		if err := s.fs.SyncDir(dir); err != nil {
			return errs.Wrap(op, err)
		}
	}
	return errs.Wrap(op, s.vfs.alive())
}

// journalsGone asks the committer whether every journal before one is removed.
func (s *Store) journalsGone(ctx context.Context, op string, before uint64) (gone bool, err error) {
	c := &s.commit
	look := &request{fill: func(store.Seq, *pebble.Batch) error {
		if c.flushed == nil {
			if err := c.dropOld(s); err != nil {
				return err
			}
		}
		gone = len(c.old) == 0 || c.old[0] >= before
		return errNothing
	}}
	if err := s.submit(ctx, op, look); err != nil && !errors.Is(err, errNothing) {
		return false, err
	}
	return gone, nil
}
