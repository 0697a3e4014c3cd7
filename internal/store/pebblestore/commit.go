package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"chancery/internal/errs"
	"chancery/internal/store"
)

const (
	// maxBatch bounds the sum of keys, values and payloads of one batch, in bytes.
	maxBatch = 64 << 20
	// A group takes no more batches when it has reached one of these.
	maxGroupBytes   = 4 << 20
	maxGroupBatches = 512

	maxTopic  = 64
	maxCursor = 256
)

// committer owns the journal and the order of commits. All its fields but reqs
// and quit belong to its goroutine.
type committer struct {
	reqs chan *request
	quit chan struct{} // closed: commit what waits, then end
	done chan struct{} // closed when the goroutine has ended

	journal *journal
	seq     store.Seq
	// old are journals that the engine has not yet flushed, or that are not yet removed.
	old []uint64
	// flushed is closed by the engine when everything before the newest rotation
	// is in tables; nil when no flush is awaited.
	flushed <-chan struct{}
	// failed is set once it is unknown what the journal holds.
	failed error
}

// request is one batch on its way, or an inner step (fill).
type request struct {
	batch *store.Batch
	// fill adds inner work to the group's batch instead; an error leaves it out.
	fill func(seq store.Seq, b *pebble.Batch) error
	// rotate asks for a new journal and a flush after the group.
	rotate bool
	size   int
	// taken is won by the committer or by a caller that gives up.
	taken atomic.Bool
	// Set by the committer: the outcome and, after rotate, the new journal's number
	// and a channel that is closed when all up to this request is in tables.
	seq     store.Seq
	err     error
	journal uint64
	wait    <-chan struct{}
	reply   chan struct{}
}

func (c *committer) start(s *Store) {
	c.reqs = make(chan *request, maxGroupBatches)
	c.quit, c.done = make(chan struct{}), make(chan struct{})
	go c.run(s)
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, b *store.Batch) (store.Seq, error) {
	const op = "store.Commit"
	size, err := checkBatch(op, b)
	if err != nil {
		return 0, err
	}
	if err := s.gate.enter(op); err != nil {
		return 0, err
	}
	defer s.gate.leave()
	r := &request{batch: b, size: size}
	err = s.submit(ctx, op, r)
	return r.seq, err
}

// submit hands a request to the committer and waits for its end. ctx counts only
// until the committer has taken it: from then on the outcome is awaited, since a
// caller must learn whether its commit happened.
func (s *Store) submit(ctx context.Context, op string, r *request) error {
	if ctx.Err() != nil {
		return ctxErr(op, ctx)
	}
	r.reply = make(chan struct{})
	select {
	case s.commit.reqs <- r:
	case <-ctx.Done():
		return ctxErr(op, ctx)
	}
	select {
	case <-r.reply:
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return ctxErr(op, ctx)
		}
		<-r.reply
	}
	return errs.Wrap(op, r.err)
}

// checkBatch refuses what no state could accept, and returns the batch's size in bytes.
func checkBatch(op string, b *store.Batch) (int, error) {
	if b == nil {
		return 0, errs.New(errs.Invalid, op, "no batch")
	}
	size := 0
	for i := range b.Ops {
		o := &b.Ops[i]
		size += len(o.Key) + len(o.Value)
		if len(o.Value) > store.MaxValue {
			return 0, errs.New(errs.Invalid, op, "a value has at most %d bytes, not %d", store.MaxValue, len(o.Value))
		}
		switch o.Kind {
		case store.OpPut, store.OpDelete, store.OpIfAbsent, store.OpIfPresent, store.OpIfEquals:
			if err := checkKey(op, o.Key); err != nil {
				return 0, err
			}
		case store.OpDeleteRange:
			if len(o.Key) > store.MaxKey || len(o.Value) > store.MaxKey {
				return 0, errs.New(errs.Invalid, op, "a bound has at most %d bytes", store.MaxKey)
			}
		case store.OpSetCursor:
			if len(o.Key) == 0 || len(o.Key) > maxCursor || len(o.Value) != 8 {
				return 0, errs.New(errs.Invalid, op, "a cursor has a name of 1 to %d bytes", maxCursor)
			}
		default:
			return 0, errs.New(errs.Invalid, op, "unknown operation %d", o.Kind)
		}
	}
	for i := range b.Changes {
		ch := &b.Changes[i]
		size += len(ch.Topic) + len(ch.Payload)
		if len(ch.Topic) == 0 || len(ch.Topic) > maxTopic || len(ch.Payload) > store.MaxValue {
			return 0, errs.New(errs.Invalid, op, "a change has a topic of 1 to %d bytes and a payload of at most %d", maxTopic, store.MaxValue)
		}
	}
	if size > maxBatch {
		return 0, errs.New(errs.Invalid, op, "a batch has at most %d bytes, not %d", maxBatch, size)
	}
	return size, nil
}

func (c *committer) run(s *Store) {
	defer close(c.done)
	group := make([]*request, 0, maxGroupBatches)
	for {
		group = group[:0]
		select {
		case r := <-c.reqs:
			group = append(group, r)
		case <-c.flushed:
			c.afterFlush(s)
			continue
		case <-c.quit:
			select {
			case r := <-c.reqs:
				group = append(group, r)
			default:
				return
			}
		}
		// What waits already joins; nobody is waited for.
		size := group[0].size
	gather:
		for size < maxGroupBytes && len(group) < maxGroupBatches && !group[len(group)-1].rotate {
			select {
			case r := <-c.reqs:
				group = append(group, r)
				size += r.size
			default:
				break gather
			}
		}
		c.commit(s, slices.Clone(group))
		for _, r := range group {
			close(r.reply)
		}
		clear(group)
	}
}

// commit does one group and sets the outcome of each request.
func (c *committer) commit(s *Store, group []*request) {
	group = slices.DeleteFunc(group, func(r *request) bool {
		return !r.taken.CompareAndSwap(false, true) // its caller gave up
	})
	fail := func(err error) {
		for _, r := range group {
			r.seq, r.err = 0, err
		}
	}
	if err := c.usable(s); err != nil {
		fail(err)
		return
	}
	// While a flush is under way the journal may grow to twice its size; only then
	// a commit waits for it.
	if size := c.journal.w.Size(); size > s.opt.JournalBytes && (c.flushed == nil || size > 2*s.opt.JournalBytes) {
		if err := c.rotate(s); err != nil {
			fail(err)
			return
		}
	}
	batch := s.db.NewIndexedBatch()
	first, changed := c.seq+1, store.Seq(0)
	seq := c.seq
	rotate := false
	for _, r := range group {
		if r.err = c.fill(batch, seq+1, r); r.err != nil {
			continue
		}
		seq++
		r.seq = seq
		rotate = rotate || r.rotate
		if r.batch != nil && len(r.batch.Changes) > 0 {
			changed = seq
		}
	}
	if seq == c.seq {
		_ = batch.Close()
		return
	}
	undo := func(err error) {
		for _, r := range group {
			if r.seq != 0 {
				r.seq, r.err = 0, err
			}
		}
	}
	if err := batch.Set(metaSeqKey, binary.BigEndian.AppendUint64(nil, uint64(seq)), nil); err != nil {
		_ = batch.Close()
		undo(engineErr("pebblestore.commit", err))
		return
	}
	before := c.journal.w.Size()
	known, err := c.journal.append(first, seq, batch.Repr())
	if err != nil {
		_ = batch.Close()
		undo(c.journalFailed(known, err))
		return
	}
	s.syncs.Add(1)
	s.journaled.Add(uint64(c.journal.w.Size() - before))
	s.journalDisk.Store(c.journal.w.Size())
	c.seq = seq
	if err := s.apply(batch); err != nil {
		// Durable, but not to be seen before the store is opened again.
		c.failed = errs.WrapKind(errs.Unavailable, "pebblestore.commit", err)
		undo(c.failed)
		return
	}
	s.commits.Add(uint64(seq - first + 1))
	if changed > 0 {
		s.feed.publish(changed)
	}
	if rotate {
		err := c.rotate(s)
		for _, r := range group {
			if r.rotate && r.err == nil {
				r.wait, r.err, r.journal = c.flushed, err, c.journal.num
			}
		}
	}
}

// journalFailed turns a failed append into what the callers get.
func (c *committer) journalFailed(known bool, err error) error {
	if known {
		if errs.Is(err, errs.Exhausted) {
			return errs.WrapKind(errs.Exhausted, "pebblestore.commit", err)
		}
		return errs.WrapKind(errs.Unavailable, "pebblestore.commit", err)
	}
	c.failed = errs.WrapKind(errs.Unavailable, "pebblestore.commit", err)
	return c.failed
}

func (c *committer) usable(s *Store) error {
	if c.failed != nil {
		return c.failed
	}
	return s.vfs.alive()
}

// fill checks the preconditions of a request against the state that the group has
// so far, and adds its operations. After an error nothing was added.
func (c *committer) fill(batch *pebble.Batch, seq store.Seq, r *request) error {
	if r.fill != nil {
		return r.fill(seq, batch)
	}
	for i := range r.batch.Ops {
		if err := checkOp(batch, &r.batch.Ops[i]); err != nil {
			return err
		}
	}
	// From here on only the size of the batch could fail, and that was checked.
	for i := range r.batch.Ops {
		o := &r.batch.Ops[i]
		var err error
		switch o.Kind {
		case store.OpPut:
			err = batch.Set(userKey(o.Key), o.Value, nil)
		case store.OpDelete:
			err = batch.Delete(userKey(o.Key), nil)
		case store.OpDeleteRange:
			if lower, upper := bounds(o.Key, o.Value); bytes.Compare(lower, upper) < 0 {
				err = batch.DeleteRange(lower, upper, nil)
			}
		case store.OpSetCursor:
			err = batch.Set(append([]byte{spaceCursor}, o.Key...), o.Value, nil)
		}
		if err != nil {
			return engineErr("pebblestore.commit", err)
		}
	}
	for i := range r.batch.Changes {
		ch := &r.batch.Changes[i]
		if err := batch.Set(feedKey(seq, uint32(i)), encodeChange(ch), nil); err != nil {
			return engineErr("pebblestore.commit", err)
		}
	}
	return nil
}

func checkOp(state pebble.Reader, o *store.Op) error {
	if o.Kind != store.OpIfAbsent && o.Kind != store.OpIfPresent && o.Kind != store.OpIfEquals {
		return nil
	}
	v, closer, err := state.Get(userKey(o.Key))
	found := err == nil
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return engineErr("pebblestore.commit", err)
	}
	holds := found == (o.Kind != store.OpIfAbsent)
	if found {
		if o.Kind == store.OpIfEquals {
			holds = bytes.Equal(v, o.Value)
		}
		_ = closer.Close()
	}
	if !holds {
		return errs.WrapKind(errs.Conflict, "store.Commit", &store.PreconditionError{Key: o.Key})
	}
	return nil
}
