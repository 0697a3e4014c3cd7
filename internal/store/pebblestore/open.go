// Package pebblestore is the embedded engine of the store: Pebble over an
// encrypting file system, with an own journal in front of it. One goroutine
// commits: it gathers the batches that wait, checks their preconditions, writes
// them as one frame to the journal with one sync, and only then shows them.
//
// It must never acknowledge what is not durable, show what is not durable, or
// take damage for absence. Formats and recovery rules are in docs/formats/store.md,
// the reasons in docs/adr/0002-store-engine.md.
package pebblestore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/store"
	"chancery/internal/store/frame"
)

// Options say what to open.
type Options struct {
	// Dir is the directory of the store, made if missing. Nothing else may be in it.
	Dir string
	// FS does the file operations; nil is the operating system.
	FS files.FS
	// Key is the secret key of the store, 32 bytes. It is copied.
	Key []byte
	// MustExist refuses (errs.NotFound) to make a new store: for callers that
	// know there was one, so that a vanished directory is not taken for an empty store.
	MustExist bool
	// Log gets what the engine has to say; nil drops it. No keys or values are in it.
	Log *slog.Logger
	// CacheBytes bounds the cache of plaintext blocks in memory; 0 is 16 MiB.
	CacheBytes int64
	// JournalBytes is how much is journaled before the engine's memory is flushed
	// to tables; 0 is 8 MiB. It bounds memory and the time that recovery takes.
	JournalBytes int64
}

// Store implements store.Store.
type Store struct {
	opt    Options
	fs     files.FS
	vfs    *cryptFS
	key    []byte // of the journals
	lock   io.Closer
	db     *pebble.DB
	sched  scheduler
	gate   gate
	commit committer
	feed   feedState
	snaps  snapshots

	commits, syncs, journaled atomic.Uint64
	journalDisk               atomic.Int64
	closeOnce                 sync.Once
	closeErr                  error
}

var _ store.Store = (*Store)(nil)

const (
	lockName  = "LOCK"
	storeName = "STORE"
	engineDir = "engine"
)

// Open opens the store in a directory, or makes it. A second opener gets
// errs.Unavailable; a wrong key, a missing or an altered file errs.Corrupt.
func Open(ctx context.Context, opt Options) (_ *Store, err error) {
	const op = "pebblestore.Open"
	if len(opt.Key) != frame.KeySize || opt.Dir == "" {
		return nil, errs.New(errs.Invalid, op, "a store needs a directory and a key of %d bytes", frame.KeySize)
	}
	if err := ctx.Err(); err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	if opt.FS == nil {
		opt.FS = files.OS()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.CacheBytes <= 0 {
		opt.CacheBytes = 16 << 20
	}
	if opt.JournalBytes <= 0 {
		opt.JournalBytes = 8 << 20
	}
	if opt.MustExist {
		if _, err := opt.FS.Stat(filepath.Join(opt.Dir, storeName)); err != nil {
			return nil, errs.Wrap(op, err)
		}
	}
	if err := files.MkdirAll(opt.FS, opt.Dir); err != nil {
		return nil, errs.Wrap(op, err)
	}
	lock, err := opt.FS.Lock(filepath.Join(opt.Dir, lockName))
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	s := &Store{opt: opt, fs: opt.FS, lock: lock}
	s.opt.Key = nil // only derived keys stay
	s.gate.init()
	s.snaps.init()
	s.feed.init()
	defer func() {
		if err != nil {
			switch {
			case s.db != nil:
				_ = s.closeEngine()
			case s.vfs != nil:
				s.vfs.closeAll()
			}
			_ = lock.Close()
			err = errs.Wrap(op, err)
		}
	}()

	id, ready, err := s.identity(opt.Key)
	if err != nil {
		return nil, err
	}
	engineKey, err := frame.Derive(opt.Key, id[:], "chancery store engine v1")
	if err != nil {
		return nil, err
	}
	if s.key, err = frame.Derive(opt.Key, id[:], "chancery store journal v1"); err != nil {
		return nil, err
	}
	nums, err := s.listJournals()
	if err != nil {
		return nil, err
	}
	if ready && len(nums) == 0 {
		return nil, errs.New(errs.Corrupt, op, "the journal of the store is missing")
	}
	s.vfs = newCryptFS(s.fs, engineKey)
	if err := s.openEngine(ready); err != nil {
		return nil, err
	}
	if err := s.recover(nums); err != nil {
		return nil, err
	}
	if !ready {
		if err := s.writeIdentity(opt.Key, id, true); err != nil {
			return nil, err
		}
	}
	if err := s.feed.load(s); err != nil {
		return nil, err
	}
	s.vfs.serving.Store(true)
	s.sched.enable()
	s.commit.start(s)
	return s, nil
}

// identity reads the STORE file, or makes it. ready says that the store was once
// made to the end, so that from then on a missing part is damage.
func (s *Store) identity(key []byte) (id [16]byte, ready bool, err error) {
	const op = "pebblestore.identity"
	name := filepath.Join(s.opt.Dir, storeName)
	f, err := s.fs.Open(name)
	if errs.Is(err, errs.NotFound) {
		// Without this file nothing in the directory can be read: what looks like
		// a store is one that lost it.
		infos, err := s.fs.ReadDir(s.opt.Dir)
		if err != nil {
			return id, false, errs.Wrap(op, err)
		}
		for _, info := range infos {
			if info.Name == engineDir || strings.HasPrefix(info.Name, journalPrefix) {
				return id, false, errs.New(errs.Corrupt, op, "the STORE file is missing")
			}
		}
		rand.Read(id[:]) // never fails (crypto/rand)
		return id, false, s.writeIdentity(key, id, false)
	}
	if err != nil {
		return id, false, errs.Wrap(op, err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return id, false, errs.Wrap(op, err)
	}
	r, err := frame.NewLogReader(f, size, key, storeName)
	var p []byte
	if err == nil {
		p, err = r.Next()
	}
	if errs.Is(err, errs.Corrupt) || err == io.EOF || errors.Is(err, frame.ErrTorn) || err == nil && (len(p) != 18 || p[0] != 1 || p[1] > 1) {
		return id, false, errs.New(errs.Corrupt, op, "the key does not open this store, or its STORE file was altered")
	}
	if err != nil {
		return id, false, errs.Wrap(op, err)
	}
	copy(id[:], p[2:])
	return id, p[1] == 1, nil
}

func (s *Store) writeIdentity(key []byte, id [16]byte, ready bool) error {
	var buf memFile
	w, err := frame.NewLogWriter(&buf, key, storeName)
	if err != nil {
		return err
	}
	p := append([]byte{1, 0}, id[:]...)
	if ready {
		p[1] = 1
	}
	if err := w.Append(p); err != nil {
		return err
	}
	return files.WriteFile(s.fs, filepath.Join(s.opt.Dir, storeName), buf)
}

// memFile lets a log be written to memory.
type memFile []byte

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	*m = append((*m)[:off], p...)
	return len(p), nil
}
func (m *memFile) Truncate(size int64) error { *m = (*m)[:size]; return nil }
func (m *memFile) Sync() error               { return nil }

// listJournals returns the numbers of the journals in order, and removes the
// leftovers of a crash.
func (s *Store) listJournals() ([]uint64, error) {
	infos, err := s.fs.ReadDir(s.opt.Dir)
	if err != nil {
		return nil, err
	}
	var nums []uint64
	for _, info := range infos {
		if num, ok := journalNum(info.Name); ok {
			nums = append(nums, num)
		} else if strings.HasSuffix(info.Name, files.TempSuffix) {
			if err := s.fs.Remove(filepath.Join(s.opt.Dir, info.Name)); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(nums)
	return nums, nil
}

// recover brings the engine up to the journals, makes that durable in tables, and
// begins a new journal. What was replayed is flushed before anything builds on
// it: after a failed sync a journal may be readable now and gone after the next
// power loss.
func (s *Store) recover(nums []uint64) error {
	applied, err := s.readSeq()
	if err != nil {
		return err
	}
	replayed := 0
	last, err := replay(s.fs, s.opt.Dir, s.key, nums, applied, func(_ store.Seq, repr []byte) error {
		replayed++
		b := s.db.NewBatch()
		if err := b.SetRepr(slices.Clone(repr)); err != nil {
			return errs.WrapKind(errs.Corrupt, "pebblestore.recover", err)
		}
		return s.apply(b)
	})
	if err != nil {
		return err
	}
	got, err := s.readSeq()
	if err != nil {
		return err
	}
	if got != last {
		return errs.New(errs.Corrupt, "pebblestore.recover", "the replay of the journal ended at commit %d, not %d", got, last)
	}
	if replayed > 0 {
		if err := s.flush(); err != nil {
			return err
		}
	}
	next := uint64(1)
	if len(nums) > 0 {
		next = nums[len(nums)-1] + 1
	}
	j, _, err := createJournal(s.fs, s.opt.Dir, s.key, next, last)
	if err != nil {
		return err
	}
	s.commit.journal, s.commit.seq, s.commit.old = j, last, nums
	s.journalDisk.Store(j.w.Size())
	if err := s.commit.dropOld(s); err != nil {
		_ = j.f.Close()
		return err
	}
	s.opt.Log.Debug("store recovered", "commits", replayed, "seq", uint64(last))
	return nil
}

// readSeq reads the Seq that the engine's state is at.
func (s *Store) readSeq() (store.Seq, error) {
	v, err := getSeq(s.db, metaSeqKey)
	return store.Seq(v), err
}

func getSeq(r pebble.Reader, key []byte) (uint64, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, engineErr("pebblestore.get", err)
	}
	defer closer.Close()
	if len(v) != 8 {
		return 0, errs.New(errs.Corrupt, "pebblestore.get", "a number of %d bytes", len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// Stats implements store.Store.
func (s *Store) Stats() store.Stats {
	if s.gate.enter("store.Stats") != nil {
		return store.Stats{}
	}
	defer s.gate.leave()
	return store.Stats{
		Commits:      s.commits.Load(),
		Syncs:        s.syncs.Load(),
		BytesWritten: s.journaled.Load() + s.vfs.written.Load(),
		DiskBytes:    s.db.Metrics().DiskSpaceUsage() + uint64(s.journalDisk.Load()),
	}
}
