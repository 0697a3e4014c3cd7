package pebblestore

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"chancery/internal/errs"
	"chancery/internal/files"
)

// Keyspaces inside the engine, told apart by the first byte of a key.
const (
	spaceCursor = 'c' // name of a feed reader → Seq
	spaceFeed   = 'f' // Seq, index → change
	spaceMeta   = 'm'
	spaceUser   = 'u' // the keys of the store's users
)

var (
	metaSeqKey  = []byte{spaceMeta, 's'} // Seq of the newest commit
	metaTrimKey = []byte{spaceMeta, 't'} // highest Seq trimmed from the feed
)

// formatVersion is Pebble's format that we write. It is pinned: raising it is a
// decision, since older binaries cannot open the store afterwards.
const formatVersion = pebble.FormatValueSeparation

func (s *Store) openEngine(mustExist bool) error {
	const op = "pebblestore.engine"
	quiet := &engineLog{s: s, log: s.opt.Log}
	opts := &pebble.Options{
		FS:                 s.vfs,
		FormatMajorVersion: formatVersion,
		DisableWAL:         true, // the journal is ours
		ErrorIfNotExists:   mustExist,
		CacheSize:          s.opt.CacheBytes,
		MaxOpenFiles:       256,
		// No sync in the middle of a table (default: each 512 KiB): a table's last
		// segment is sealed at its sync, so nothing may be written after it.
		BytesPerSync:          1 << 62,
		MaxManifestFileSize:   1 << 20,
		MemTableSize:          uint64(max(s.opt.JournalBytes, 1<<20)),
		L0CompactionThreshold: 4,
		// The committer bounds memory itself (see rotate): Pebble's own stalls
		// would hang a commit while the disk is full.
		MemTableStopWritesThreshold: 1 << 10,
		L0StopWritesThreshold:       1 << 10,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, 1 },
		Logger:                      quiet,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { quiet.log.Warn("store engine", "error", err) },
			FlushEnd:        func(info pebble.FlushInfo) { s.vfs.flushEnded(info.Err) },
			CompactionEnd:   func(info pebble.CompactionInfo) { s.vfs.compactionEnded(info.Err) },
			DataCorruption:  func(pebble.DataCorruptionInfo) { quiet.log.Error("store engine: a table is damaged") },
		},
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	s.sched.before = s.vfs.compactionPause
	opts.Experimental.CompactionScheduler = &s.sched
	var db *pebble.DB
	err, ended := s.vfs.guard(func() (err error) {
		db, err = pebble.Open(filepath.Join(s.opt.Dir, engineDir), opts)
		return err
	})
	if !ended {
		return s.vfs.alive()
	}
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		return errs.WrapKind(errs.Corrupt, op, err)
	}
	if err != nil {
		return engineErr(op, err)
	}
	s.db = db
	return s.vfs.alive()
}

// closeEngine closes Pebble, or abandons it after kill: what counts is in journals
// and tables.
func (s *Store) closeEngine() error {
	s.vfs.serving.Store(false)
	close(s.vfs.closing)
	err, ended := s.vfs.guard(s.db.Close)
	if dead := s.vfs.alive(); dead != nil || !ended {
		s.vfs.closeAll()
		return dead
	}
	return engineErr("pebblestore.Close", err)
}

// abandonAfter is how long Pebble has to return from opening or closing once its
// files are frozen. It may wait then for a goroutine that has ended.
const abandonAfter = 100 * time.Millisecond

// guard runs a call into Pebble that may never return, panic or end its goroutine
// once the files are frozen. ended is false if it did not return.
func (c *cryptFS) guard(call func() error) (err error, ended bool) {
	type result struct {
		err   error
		ended bool
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				// Pebble panics where it holds a failure for impossible.
				c.kill(fmt.Errorf("panic: %v", p))
			}
			done <- r
		}()
		r = result{call(), true}
	}()
	select {
	case r := <-done:
		return r.err, r.ended
	case <-c.dead:
	}
	select {
	case r := <-done:
		return r.err, r.ended
	case <-time.After(abandonAfter):
		return nil, false
	}
}

// flush brings what is in the engine's memory into tables, durably.
func (s *Store) flush() error {
	const op = "pebblestore.flush"
	done, err := s.db.AsyncFlush()
	if err != nil {
		return engineErr(op, err)
	}
	select {
	case <-done:
	case <-s.vfs.full:
		return errs.New(errs.Exhausted, op, "the disk has no room")
	case <-s.vfs.dead:
	}
	return s.vfs.alive()
}

// apply puts a journaled batch into the engine's memory and shows it. It frees the batch.
func (s *Store) apply(b *pebble.Batch) error {
	defer b.Close()
	if err := s.db.Apply(b, pebble.NoSync); err != nil {
		return engineErr("pebblestore.apply", err)
	}
	return s.vfs.alive() // see Fatalf
}

// engineErr gives an error of Pebble its kind. Errors of files and frames keep theirs.
func engineErr(op string, err error) error {
	if err == nil {
		return nil
	}
	kind := errs.KindOf(err)
	switch {
	case files.IsFull(err):
		kind = errs.Exhausted
	case kind == errs.Internal && pebble.IsCorruptionError(err):
		kind = errs.Corrupt
	case kind == errs.NotFound:
		// A file that the engine counts on is missing; to the caller that is no absence.
		kind = errs.Corrupt
	}
	return errs.WrapKind(kind, op, err)
}

// engineLog receives Pebble's log.
type engineLog struct {
	s   *Store
	log *slog.Logger
}

func (l *engineLog) Infof(string, ...any) {}

func (l *engineLog) Errorf(format string, args ...any) {
	l.log.Warn("store engine", "error", fmt.Sprintf(format, args...))
}

// Fatalf is told of what Pebble cannot go on after. Ending the process would seal
// the cell, so it ends what it must: the state on disk is frozen for recovery,
// commits are refused, reads go on.
func (l *engineLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.log.Error("store engine stopped", "error", err)
	l.s.vfs.kill(err)
	switch {
	case strings.Contains(err.Error(), "commit error"):
		// In the committer, which asks alive after.
	case strings.HasPrefix(err.Error(), "MANIFEST"):
		// In a flush or compaction, which would be tried again at once and without
		// end: end its goroutine. Its locks are released by defer.
		runtime.Goexit()
	default:
		// An invariant of the engine does not hold: better no answer than a wrong one.
		panic(err)
	}
}
