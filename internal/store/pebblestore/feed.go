package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// feedState is what readers of the change feed wait on.
type feedState struct {
	mu    sync.Mutex
	last  store.Seq     // newest commit with a change
	grown chan struct{} // closed and replaced when last grows
}

func (f *feedState) init() { f.grown = make(chan struct{}) }

func (f *feedState) publish(seq store.Seq) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = seq
	close(f.grown)
	f.grown = make(chan struct{})
}

// load finds the state of the feed after recovery.
func (f *feedState) load(s *Store) error {
	trimmed, err := getSeq(s.db, metaTrimKey)
	if err != nil {
		return err
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceFeed}, UpperBound: []byte{spaceFeed + 1}})
	if err != nil {
		return engineErr("pebblestore.feed", err)
	}
	f.last = store.Seq(trimmed)
	if it.Last() {
		f.last, _, err = parseFeedKey(it.Key())
	}
	return errors.Join(err, engineErr("pebblestore.feed", it.Close()))
}

func feedKey(seq store.Seq, index uint32) []byte {
	k := append(make([]byte, 0, 13), spaceFeed)
	k = binary.BigEndian.AppendUint64(k, uint64(seq))
	return binary.BigEndian.AppendUint32(k, index)
}

func parseFeedKey(k []byte) (store.Seq, uint32, error) {
	if len(k) != 13 {
		return 0, 0, errs.New(errs.Corrupt, "pebblestore.feed", "a feed key of %d bytes", len(k))
	}
	return store.Seq(binary.BigEndian.Uint64(k[1:])), binary.BigEndian.Uint32(k[9:]), nil
}

func encodeChange(ch *store.Change) []byte {
	v := append(make([]byte, 0, 1+len(ch.Topic)+len(ch.Payload)), byte(len(ch.Topic)))
	return append(append(v, ch.Topic...), ch.Payload...)
}

func decodeChange(v []byte) (topic string, payload []byte, err error) {
	if len(v) == 0 || len(v) < 1+int(v[0]) {
		return "", nil, errs.New(errs.Corrupt, "pebblestore.feed", "a short change")
	}
	n := 1 + int(v[0])
	return string(v[1:n]), append([]byte(nil), v[n:]...), nil
}

// Feed implements store.Store.
func (s *Store) Feed() store.Feed { return feed{s} }

type feed struct{ s *Store }

// Read implements store.Feed.
func (f feed) Read(ctx context.Context, after store.Seq, limit int) (_ []store.Change, err error) {
	const op = "store.Feed.Read"
	if limit <= 0 {
		return nil, errs.New(errs.Invalid, op, "the limit must be positive")
	}
	if err := f.s.gate.enter(op); err != nil {
		return nil, err
	}
	defer f.s.gate.leave()
	if ctx.Err() != nil {
		return nil, ctxErr(op, ctx)
	}
	if after == math.MaxUint64 {
		return nil, nil
	}
	snap := f.s.db.NewSnapshot() // the changes and how far they were trimmed, as one state
	defer func() {
		if cerr := snap.Close(); err == nil {
			err = engineErr(op, cerr)
		}
	}()
	trimmed, err := getSeq(snap, metaTrimKey)
	if err != nil {
		return nil, err
	}
	if after < store.Seq(trimmed) {
		return nil, errs.Coded(errs.Conflict, op, store.CodeTrimmed, "changes up to %d were trimmed", trimmed)
	}
	it, err := snap.NewIterWithContext(ctx, &pebble.IterOptions{
		LowerBound: feedKey(after+1, 0), UpperBound: []byte{spaceFeed + 1},
	})
	if err != nil {
		return nil, engineErr(op, err)
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = engineErr(op, cerr)
		}
	}()
	var out []store.Change
	for ok := it.First(); ok; ok = it.Next() {
		if ctx.Err() != nil {
			return nil, ctxErr(op, ctx)
		}
		var ch store.Change
		if ch.Seq, ch.Index, err = parseFeedKey(it.Key()); err != nil {
			return nil, err
		}
		if len(out) >= limit && out[len(out)-1].Seq != ch.Seq {
			break
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, engineErr(op, err)
		}
		if ch.Topic, ch.Payload, err = decodeChange(v); err != nil {
			return nil, err
		}
		out = append(out, ch)
	}
	return out, engineErr(op, it.Error())
}

// Wait implements store.Feed.
func (f feed) Wait(ctx context.Context, after store.Seq) error {
	const op = "store.Feed.Wait"
	for {
		f.s.feed.mu.Lock()
		last, grown := f.s.feed.last, f.s.feed.grown
		f.s.feed.mu.Unlock()
		if last > after {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctxErr(op, ctx)
		case <-f.s.gate.done:
			return errClosed(op)
		}
	}
}

// Cursor implements store.Feed.
func (f feed) Cursor(ctx context.Context, name string) (store.Seq, error) {
	const op = "store.Feed.Cursor"
	if len(name) == 0 || len(name) > maxCursor {
		return 0, errs.New(errs.Invalid, op, "a cursor has a name of 1 to %d bytes", maxCursor)
	}
	if err := f.s.gate.enter(op); err != nil {
		return 0, err
	}
	defer f.s.gate.leave()
	if ctx.Err() != nil {
		return 0, ctxErr(op, ctx)
	}
	v, err := getSeq(f.s.db, append([]byte{spaceCursor}, name...))
	return store.Seq(v), errs.Wrap(op, err)
}

// Trim implements store.Feed. It is a commit of its own, in order with the others,
// so that no cursor can be registered or moved back in its midst.
func (f feed) Trim(ctx context.Context) (store.Seq, error) {
	const op = "store.Feed.Trim"
	if err := f.s.gate.enter(op); err != nil {
		return 0, err
	}
	defer f.s.gate.leave()
	var upTo store.Seq
	r := &request{fill: func(_ store.Seq, b *pebble.Batch) error {
		low, any, err := lowestCursor(b)
		if err != nil {
			return err
		}
		was, err := getSeq(b, metaTrimKey)
		if err != nil {
			return err
		}
		upTo = store.Seq(was)
		f.s.feed.mu.Lock()
		low = min(low, f.s.feed.last)
		f.s.feed.mu.Unlock()
		if !any || low <= upTo {
			return errNothing
		}
		upTo = low
		if err := b.DeleteRange(feedKey(0, 0), feedKey(upTo+1, 0), nil); err != nil {
			return engineErr(op, err)
		}
		return engineErr(op, b.Set(metaTrimKey, binary.BigEndian.AppendUint64(nil, uint64(upTo)), nil))
	}}
	if err := f.s.submit(ctx, op, r); err != nil && !errors.Is(err, errNothing) {
		return 0, err
	}
	return upTo, nil
}

var errNothing = errors.New("nothing to do")

func lowestCursor(r pebble.Reader) (low store.Seq, any bool, err error) {
	const op = "pebblestore.cursors"
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceCursor}, UpperBound: []byte{spaceCursor + 1}})
	if err != nil {
		return 0, false, engineErr(op, err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, verr := it.ValueAndErr()
		if verr != nil || len(v) != 8 {
			err = errors.Join(errs.New(errs.Corrupt, op, "a cursor of %d bytes", len(v)), verr)
			break
		}
		at := store.Seq(binary.BigEndian.Uint64(v))
		if !any || at < low {
			low, any = at, true
		}
	}
	return low, any, errors.Join(err, engineErr(op, it.Error()), engineErr(op, it.Close()))
}
