package revlog

import (
	"context"
	"encoding/binary"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// compactChunk bounds the log entries that one commit removes.
const compactChunk = 500

// Compact forgets history up to and including a revision. What holds at that
// revision can still be listed, what came before cannot. Compacting again to
// an older revision does nothing.
func (l *Log) Compact(ctx context.Context, rev int64) error {
	const op = "revlog.Compact"
	l.compactMu.Lock()
	defer l.compactMu.Unlock()
	if current := l.hub.revision(); rev > current {
		return errs.Coded(errs.Invalid, op, CodeFuture, "revision %d has not happened yet, the newest is %d", rev, current)
	}
	for l.compacted.Load() < rev {
		if err := l.compactSome(ctx, rev); err != nil {
			return errs.Wrap(op, err)
		}
	}
	return nil
}

// compactSome removes a chunk: one commit, so that a crash leaves a consistent state.
func (l *Log) compactSome(ctx context.Context, rev int64) error {
	var b store.Batch
	upTo, head, n := rev, len(l.keys)+1, 0
	r := store.Range{Start: l.keys.with('l'), End: l.keys.entry(rev + 1)}
	err := l.st.Scan(ctx, r, func(k, v []byte) (bool, error) {
		e, err := decodeEntry(v)
		if err != nil {
			return false, err
		}
		if len(k) != head+8 {
			return false, errs.New(errs.Corrupt, "revlog.Compact", "a log entry's key has the wrong length")
		}
		if n == compactChunk {
			return false, nil
		}
		n++
		if e.previous != 0 {
			b.Delete(l.keys.version(e.key, e.previous))
		}
		b.Delete(append([]byte(nil), k...))
		if n == compactChunk {
			upTo = int64(binary.BigEndian.Uint64(k[head:]))
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	b.Put(l.keys.compacted(), be64(upTo))
	if _, err := l.st.Commit(ctx, &b); err != nil {
		return err
	}
	l.compacted.Store(upTo)
	return nil
}

// compactForEver keeps history within Options.Keep and Options.KeepRevisions.
// An error is left to the next round: more history than wanted harms nothing.
func (l *Log) compactForEver() {
	// A quarter of the time bounds how far past KeepRevisions a burst can get.
	ticker := time.NewTicker(max(l.opts.Keep/4, time.Millisecond))
	defer ticker.Stop()
	mark, marked := l.hub.revision(), l.opts.Now()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-ticker.C:
		}
		current, to := l.hub.revision(), int64(0)
		if now := l.opts.Now(); now.Sub(marked) >= l.opts.Keep {
			to, mark, marked = mark, current, now
		}
		to = max(to, current-l.opts.KeepRevisions)
		if to > l.compacted.Load() {
			_ = l.Compact(l.ctx, to)
		}
	}
}
