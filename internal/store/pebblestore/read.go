package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"chancery/internal/errs"
	"chancery/internal/store"
)

func userKey(key []byte) []byte {
	k := make([]byte, 0, len(key)+1)
	return append(append(k, spaceUser), key...)
}

// bounds turns a range of user keys into one of the engine's.
func bounds(start, end []byte) (lower, upper []byte) {
	lower, upper = userKey(start), []byte{spaceUser + 1}
	if end != nil {
		upper = userKey(end)
	}
	return lower, upper
}

func checkKey(op string, key []byte) error {
	if len(key) == 0 || len(key) > store.MaxKey {
		return errs.New(errs.Invalid, op, "a key has 1 to %d bytes, not %d", store.MaxKey, len(key))
	}
	return nil
}

func ctxErr(op string, ctx context.Context) error {
	return errs.WrapKind(errs.Unavailable, op, ctx.Err())
}

// Get implements store.Reader.
func (s *Store) Get(ctx context.Context, key []byte) ([]byte, error) {
	const op = "store.Get"
	if err := s.gate.enter(op); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	return get(ctx, op, s.db, key)
}

// Scan implements store.Reader. It reads the state as of its call.
func (s *Store) Scan(ctx context.Context, r store.Range, fn func(key, value []byte) (bool, error)) error {
	const op = "store.Scan"
	if err := s.gate.enter(op); err != nil {
		return err
	}
	defer s.gate.leave()
	return scan(ctx, op, s.db, r, fn)
}

func get(ctx context.Context, op string, r pebble.Reader, key []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, ctxErr(op, ctx)
	}
	if err := checkKey(op, key); err != nil {
		return nil, err
	}
	v, closer, err := r.Get(userKey(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, errs.New(errs.NotFound, op, "no such key")
	}
	if err != nil {
		return nil, engineErr(op, err)
	}
	defer closer.Close()
	return append(make([]byte, 0, len(v)), v...), nil
}

func scan(ctx context.Context, op string, r pebble.Reader, rg store.Range, fn func(key, value []byte) (bool, error)) (err error) {
	lower, upper := bounds(rg.Start, rg.End)
	if bytes.Compare(lower, upper) >= 0 {
		return nil // an empty interval
	}
	it, err := r.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return engineErr(op, err)
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = engineErr(op, cerr)
		}
	}()
	first, step := it.First, it.Next
	if rg.Reverse {
		first, step = it.Last, it.Prev
	}
	ok := first()
	for ; ok; ok = step() {
		if ctx.Err() != nil {
			return ctxErr(op, ctx)
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return engineErr(op, err)
		}
		more, err := fn(it.Key()[1:], v)
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return engineErr(op, it.Error())
}

// snapshots are the open ones, so that Close can end and Purge can wait for them.
type snapshots struct {
	mu      sync.Mutex
	open    map[*snapshot]struct{}
	changed chan struct{} // closed and replaced when one is closed
}

func (s *snapshots) init() {
	s.open, s.changed = map[*snapshot]struct{}{}, make(chan struct{})
}

// olderThan returns whether a snapshot before seq is open, and a channel that is
// closed when that may have changed.
func (s *snapshots) olderThan(seq store.Seq) (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sn := range s.open {
		if sn.seq < seq {
			return true, s.changed
		}
	}
	return false, s.changed
}

type snapshot struct {
	s    *Store
	snap *pebble.Snapshot
	seq  store.Seq
	gate gate
	once sync.Once
	err  error
}

// Snapshot implements store.Store.
func (s *Store) Snapshot(ctx context.Context) (store.Snapshot, error) {
	const op = "store.Snapshot"
	if err := s.gate.enter(op); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	if ctx.Err() != nil {
		return nil, ctxErr(op, ctx)
	}
	sn := &snapshot{s: s}
	sn.gate.init()
	// Under the lock: Purge must not miss a snapshot that is about to be listed.
	s.snaps.mu.Lock()
	defer s.snaps.mu.Unlock()
	sn.snap = s.db.NewSnapshot()
	seq, err := getSeq(sn.snap, metaSeqKey)
	if err != nil {
		_ = sn.snap.Close()
		return nil, errs.Wrap(op, err)
	}
	sn.seq = store.Seq(seq)
	s.snaps.open[sn] = struct{}{}
	return sn, nil
}

func (sn *snapshot) Seq() store.Seq { return sn.seq }

func (sn *snapshot) Get(ctx context.Context, key []byte) ([]byte, error) {
	const op = "store.Snapshot.Get"
	if err := sn.gate.enter(op); err != nil {
		return nil, err
	}
	defer sn.gate.leave()
	return get(ctx, op, sn.snap, key)
}

func (sn *snapshot) Scan(ctx context.Context, r store.Range, fn func(key, value []byte) (bool, error)) error {
	const op = "store.Snapshot.Scan"
	if err := sn.gate.enter(op); err != nil {
		return err
	}
	defer sn.gate.leave()
	return scan(ctx, op, sn.snap, r, fn)
}

// Close ends the snapshot when its running reads have ended. It may be called again.
func (sn *snapshot) Close() error {
	sn.once.Do(func() {
		sn.gate.close()
		sn.err = engineErr("store.Snapshot.Close", sn.snap.Close())
		s := &sn.s.snaps
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, sn)
		close(s.changed)
		s.changed = make(chan struct{})
	})
	return sn.err
}

// closeAll ends what callers left open.
func (s *snapshots) closeAll() {
	s.mu.Lock()
	all := make([]*snapshot, 0, len(s.open))
	for sn := range s.open {
		all = append(all, sn)
	}
	s.mu.Unlock()
	for _, sn := range slices.All(all) {
		_ = sn.Close()
	}
}
