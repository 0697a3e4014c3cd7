package pebblestore

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

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

func (s *Store) openEngine(mustExist bool) (err error) {
	const op = "pebblestore.engine"
	quiet := &engineLog{s: s, log: s.opt.Log}
	opts := &pebble.Options{
		FS:                    s.vfs,
		FormatMajorVersion:    formatVersion,
		DisableWAL:            true, // the journal is ours
		ErrorIfNotExists:      mustExist,
		CacheSize:             s.opt.CacheBytes,
		MaxOpenFiles:          256,
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
			DataCorruption:  func(pebble.DataCorruptionInfo) { quiet.log.Error("store engine: a table is damaged") },
		},
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	// Pebble panics where it holds a state for impossible.
	defer func() {
		if r := recover(); r != nil {
			err = errs.WrapKind(errs.Internal, op, fmt.Errorf("panic: %v", r))
		}
	}()
	db, err := pebble.Open(filepath.Join(s.opt.Dir, engineDir), opts)
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		return errs.WrapKind(errs.Corrupt, op, err)
	}
	if err != nil {
		return engineErr(op, errors.Join(err, s.vfs.alive()))
	}
	s.db = db
	return s.vfs.alive()
}

// closeEngine closes Pebble. After kill its state is of no use and closing may
// panic; what counts is in journals and tables.
func (s *Store) closeEngine() (err error) {
	s.vfs.serving.Store(false)
	defer func() {
		if r := recover(); r != nil {
			err = errs.WrapKind(errs.Internal, "pebblestore.Close", fmt.Errorf("panic: %v", r))
		}
	}()
	return engineErr("pebblestore.Close", s.db.Close())
}

// apply puts a journaled batch into the engine's memory and shows it. It frees the batch.
func (s *Store) apply(b *pebble.Batch) error {
	defer b.Close()
	return engineErr("pebblestore.apply", s.db.Apply(b, pebble.NoSync))
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

// engineLog receives Pebble's log. Pebble expects Fatalf not to return, but then
// only a MANIFEST whose state on disk is unknown is behind it: freezing the files
// keeps what is there for recovery, and lets reads go on.
type engineLog struct {
	s   *Store
	log *slog.Logger
}

func (l *engineLog) Infof(string, ...any) {}

func (l *engineLog) Errorf(format string, args ...any) {
	l.log.Warn("store engine", "error", fmt.Sprintf(format, args...))
}

func (l *engineLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.log.Error("store engine stopped", "error", err)
	l.s.vfs.kill(err)
}
