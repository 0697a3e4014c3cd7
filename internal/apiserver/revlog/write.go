package revlog

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// maxBatch bounds how many writes share one commit, maxBatchBytes their size.
const (
	maxBatch      = 256
	maxBatchBytes = 8 << 20
)

// request is one write on its way through the writer.
type request struct {
	key    string
	value  []byte
	delete bool
	// expect is the revision that the key must have: 0 for "does not exist".
	expect int64
	ttl    time.Duration

	done   chan struct{}
	result Result
	err    error
}

// Result of a conditional write.
type Result struct {
	// Done tells whether the key was at the expected revision, so that the write was made.
	Done bool
	// Revision of the write, or the newest one if it was not made.
	Revision int64
	// Previous is what the key held before; nil if it did not exist.
	Previous *KV
}

// Put writes value if the key is at revision expect (0: does not exist). A
// ttl of 0 is for ever; a longer one is rounded up to seconds. A condition that
// does not hold is no error: see Result.
func (l *Log) Put(ctx context.Context, key string, value []byte, expect int64, ttl time.Duration) (Result, error) {
	const op = "revlog.Put"
	if len(value) > MaxValue {
		return Result{}, errs.Coded(errs.Exhausted, op, CodeTooLarge, "the value is %d bytes long, at most %d are allowed", len(value), MaxValue)
	}
	return l.submit(ctx, op, &request{key: key, value: value, expect: expect, ttl: ttl})
}

// Delete removes the key if it is at revision expect. A key that does not exist
// gives a Result that is not Done and has no Previous.
func (l *Log) Delete(ctx context.Context, key string, expect int64) (Result, error) {
	return l.submit(ctx, "revlog.Delete", &request{key: key, delete: true, expect: expect})
}

func (l *Log) submit(ctx context.Context, op string, r *request) (Result, error) {
	if err := l.checkKey(op, r.key); err != nil {
		return Result{}, err
	}
	r.done = make(chan struct{})
	select {
	case l.requests <- r:
	case <-ctx.Done():
		return Result{}, errs.WrapKind(errs.Unavailable, op, ctx.Err())
	case <-l.ctx.Done():
		return Result{}, errs.New(errs.Unavailable, op, "the API store is closed")
	}
	// Once queued, the write may happen whether or not the caller waits. It
	// waits, so that a retry does not meet its own first attempt half way.
	select {
	case <-r.done:
		return r.result, errs.Wrap(op, r.err)
	case <-l.ctx.Done():
		select {
		case <-r.done:
			return r.result, errs.Wrap(op, r.err)
		default:
			return Result{}, errs.New(errs.Unavailable, op, "the API store closed before it answered: the write may or may not be durable")
		}
	}
}

// write is the only writer: it takes what is waiting, decides each write
// against the state that the ones before it leave, and commits all at once.
func (l *Log) write() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case first := <-l.requests:
			batch, size := []*request{first}, len(first.value)
		fill:
			for len(batch) < maxBatch && size < maxBatchBytes {
				select {
				case r := <-l.requests:
					batch = append(batch, r)
					size += len(r.value)
				default:
					break fill
				}
			}
			l.commit(batch)
			for _, r := range batch {
				close(r.done)
			}
		}
	}
}

// commit decides and commits a batch. It fills in the results.
func (l *Log) commit(batch []*request) {
	var (
		b       store.Batch
		events  []*Event
		overlay = map[string]*KV{} // nil: deleted in this batch
		start   = l.hub.revision()
		rev     = start
		expiry  = false
	)
	fail := func(err error) {
		for _, r := range batch {
			r.result, r.err = Result{}, err
		}
	}
	// Whoever else writes below this prefix makes this commit fail.
	b.IfEquals(l.keys.revision(), be64(start))
	for _, r := range batch {
		current, seen := overlay[r.key]
		if !seen {
			var err error
			if current, err = l.getCurrent(l.ctx, l.st, r.key); err != nil {
				r.err = err
				continue
			}
		}
		r.result.Previous = current
		if (current == nil && (r.expect != 0 || r.delete)) || (current != nil && current.Modified != r.expect) {
			continue
		}
		rev++
		r.result.Done, r.result.Revision = true, rev
		event := &Event{Revision: rev, Key: r.key, Previous: current, Deleted: r.delete}
		line := entry{key: r.key}
		if current != nil {
			line.previous = current.Modified
			b.Put(l.keys.version(r.key, current.Modified), encodeRecord(current, rev))
		}
		if r.delete {
			line.flags = flagDeleted
			b.Delete(l.keys.current(r.key))
		} else {
			event.Current = &KV{Key: r.key, Value: r.value, Created: rev, Modified: rev}
			if current == nil {
				line.flags = flagCreated
			} else {
				event.Current.Created = current.Created
			}
			b.Put(l.keys.current(r.key), encodeRecord(event.Current, 0))
			if r.ttl > 0 {
				at := l.opts.Now().Unix() + int64(math.Ceil(r.ttl.Seconds()))
				b.Put(l.keys.expiry(at, r.key), be64(rev))
				expiry = true
			}
		}
		b.Put(l.keys.entry(rev), line.encode())
		overlay[r.key] = event.Current
		events = append(events, event)
	}
	if rev != start {
		b.Put(l.keys.revision(), be64(rev))
		if _, err := l.st.Commit(l.ctx, &b); err != nil {
			if errs.Is(err, errs.Conflict) {
				err = errs.WrapKind(errs.Unavailable, "revlog: another server writes to the same store", err)
			}
			fail(err)
			return
		}
		l.hub.publish(rev, events)
	}
	for _, r := range batch {
		if r.err == nil && !r.result.Done {
			r.result.Revision = rev
		}
	}
	if expiry {
		select {
		case l.expirySet <- struct{}{}:
		default:
		}
	}
}

// getCurrent reads what a key holds; nil if it does not exist.
func (l *Log) getCurrent(ctx context.Context, r store.Reader, key string) (*KV, error) {
	raw, err := r.Get(ctx, l.keys.current(key))
	if errs.Is(err, errs.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	kv, _, err := decodeRecord(key, raw)
	return kv, err
}

// expire deletes values whose time has come. It sleeps until the next one.
func (l *Log) expire() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.expirySet:
		case <-timer.C:
		}
		next, err := l.expireDue()
		wait := time.Hour
		switch {
		case err != nil:
			wait = 10 * time.Second // the store is in trouble: do not hammer it
		case next > 0:
			wait = min(wait, max(time.Second, time.Unix(next, 0).Sub(l.opts.Now())))
		}
		timer.Reset(wait)
	}
}

// expireDue deletes what is due and returns the time of the next expiry, 0 if there is none.
func (l *Log) expireDue() (next int64, err error) {
	type due struct {
		entry []byte
		key   string
		rev   int64
	}
	var all []due
	now, head := l.opts.Now().Unix(), len(l.keys)+1
	err = l.st.Scan(l.ctx, store.Prefix(l.keys.with('t')), func(k, v []byte) (bool, error) {
		if len(k) < head+9 || len(v) != 8 {
			return false, errs.New(errs.Corrupt, "revlog.expire", "an expiry entry has an unknown format")
		}
		at := int64(binary.BigEndian.Uint64(k[head:]))
		if at > now {
			next = at
			return false, nil
		}
		all = append(all, due{append([]byte(nil), k...), string(k[head+8:]), int64(binary.BigEndian.Uint64(v))})
		return len(all) < maxBatch, nil
	})
	if err != nil || len(all) == 0 {
		return next, err
	}
	var b store.Batch
	for _, d := range all {
		// A value written since has another revision, and stays.
		if _, err := l.Delete(l.ctx, d.key, d.rev); err != nil {
			return 0, err
		}
		b.Delete(d.entry)
	}
	if _, err := l.st.Commit(l.ctx, &b); err != nil {
		return 0, err
	}
	return now, nil // look again at once: there may be more
}
