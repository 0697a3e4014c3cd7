package revlog

import (
	"context"
	"strings"
	"sync"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// Event is one write. Its values are shared: do not change them.
type Event struct {
	Revision int64
	Key      string
	Deleted  bool
	// Current is nil when Deleted, Previous when the key was created.
	Current, Previous *KV
}

// Created tells whether the write made the key.
func (e *Event) Created() bool { return e.Previous == nil && !e.Deleted }

func (e *Event) size() int {
	n := 128 + len(e.Key)
	if e.Current != nil {
		n += len(e.Current.Value)
	}
	if e.Previous != nil {
		n += len(e.Previous.Value)
	}
	return n
}

// hub holds the newest events for watchers. It never waits for one: a watcher
// that falls behind the ring reads the stored log.
type hub struct {
	mu       sync.Mutex
	rev      int64
	ring     []*Event // ascending
	bytes    int
	maxCount int
	maxBytes int
	changed  chan struct{} // closed and replaced at every change
	asked    uint64        // counts requests for progress
	closed   bool
}

func newHub(rev int64, maxCount, maxBytes int) *hub {
	return &hub{rev: rev, maxCount: maxCount, maxBytes: maxBytes, changed: make(chan struct{})}
}

func (h *hub) revision() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rev
}

// wake must be called with mu held.
func (h *hub) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *hub) publish(rev int64, events []*Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rev = rev
	for _, e := range events {
		h.ring = append(h.ring, e)
		h.bytes += e.size()
	}
	drop := 0
	for len(h.ring)-drop > h.maxCount || (h.bytes > h.maxBytes && drop < len(h.ring)) {
		h.bytes -= h.ring[drop].size()
		h.ring[drop] = nil
		drop++
	}
	h.ring = h.ring[drop:]
	if !h.closed {
		h.wake()
	}
}

func (h *hub) progress() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	if !h.closed {
		h.wake()
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.changed)
	}
}

// view is what a watcher sees at one moment.
type view struct {
	events  []*Event
	rev     int64
	asked   uint64
	covered bool // the ring holds everything after the revision asked for
	changed <-chan struct{}
	closed  bool
}

// after returns the events above a revision, if the ring still has them all.
func (h *hub) after(rev int64) view {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := view{rev: h.rev, asked: h.asked, changed: h.changed, closed: h.closed, covered: true}
	if rev >= h.rev {
		return v
	}
	if len(h.ring) == 0 || h.ring[0].Revision > rev+1 {
		v.covered = false
		return v
	}
	// Revisions in the ring have no gaps.
	v.events = append(v.events, h.ring[rev+1-h.ring[0].Revision:]...)
	return v
}

// Watcher reads the events of one prefix in order. It is not safe for
// concurrent use, holds nothing that must be released, and cannot slow a writer.
type Watcher struct {
	log    *Log
	prefix string
	exact  bool
	after  int64
	asked  uint64
}

// catchUp bounds how many stored log entries one step of a watcher reads.
const catchUp = 500

// Watch starts after a revision. With exact only the key that equals prefix is watched.
func (l *Log) Watch(prefix string, exact bool, after int64) *Watcher {
	return &Watcher{log: l, prefix: prefix, exact: exact, after: after}
}

// Step is what a watcher learns at once.
type Step struct {
	Events []*Event
	// Revision up to which the watcher has now seen everything.
	Revision int64
	// Progress tells that somebody asked for this revision to be reported.
	Progress bool
}

func (w *Watcher) matches(key string) bool {
	if w.exact {
		return key == w.prefix
	}
	return strings.HasPrefix(key, w.prefix)
}

// Revision is how far the watcher has come: it has returned every event up to it.
func (w *Watcher) Revision() int64 { return w.after }

// Next waits for the next events that match, or for a request for progress. It
// fails with CodeCompacted when history that it needs is gone, and with
// errs.Unavailable when the log is closed.
func (w *Watcher) Next(ctx context.Context) (Step, error) {
	const op = "revlog.Watch"
	for {
		v := w.log.hub.after(w.after)
		if v.closed {
			return Step{}, errs.New(errs.Unavailable, op, "the API store is closed")
		}
		// Compacted is compacted, also where the ring could still help: what a
		// client gets must not depend on how busy the server was.
		if compacted := w.log.Compacted(); w.after < compacted {
			return Step{}, compactedError(op, w.after, compacted)
		}
		var step Step
		if v.covered {
			for _, e := range v.events {
				if w.matches(e.Key) {
					step.Events = append(step.Events, e)
				}
			}
			w.after = max(w.after, v.rev)
		} else {
			events, upTo, err := w.log.stored(ctx, w, catchUp)
			if err != nil {
				return Step{}, errs.Wrap(op, err)
			}
			step.Events, w.after = events, upTo
		}
		step.Revision = w.after
		if v.covered && v.asked != w.asked {
			w.asked = v.asked
			step.Progress = true
		}
		if len(step.Events) > 0 || step.Progress {
			return step, nil
		}
		if !v.covered {
			continue
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return Step{}, ctx.Err()
		}
	}
}

// stored reads up to limit entries of the stored log after w.after.
func (l *Log) stored(ctx context.Context, w *Watcher, limit int) ([]*Event, int64, error) {
	snap, err := l.st.Snapshot(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer snap.Close()
	if err := l.checkCompacted(ctx, snap, "revlog.Watch", w.after); err != nil {
		return nil, 0, err
	}
	type line struct {
		rev int64
		entry
	}
	var lines []line
	upTo, read := w.after, 0
	err = snap.Scan(ctx, store.Range{Start: l.keys.entry(w.after + 1), End: store.After(l.keys.with('l'))}, func(k, v []byte) (bool, error) {
		e, err := decodeEntry(v)
		if err != nil {
			return false, err
		}
		upTo++
		read++
		if want := l.keys.entry(upTo); string(k) != string(want) {
			return false, errs.New(errs.Corrupt, "revlog.Watch", "the log has no entry for revision %d", upTo)
		}
		if w.matches(e.key) {
			lines = append(lines, line{upTo, e})
		}
		return read < limit, nil
	})
	if err != nil {
		return nil, 0, err
	}
	events := make([]*Event, 0, len(lines))
	for _, ln := range lines {
		ev := &Event{Revision: ln.rev, Key: ln.key, Deleted: ln.flags&flagDeleted != 0}
		if !ev.Deleted {
			if ev.Current, err = l.at(ctx, snap, ln.key, ln.rev); err != nil {
				return nil, 0, err
			}
		}
		if ln.previous != 0 {
			if ev.Previous, err = l.at(ctx, snap, ln.key, ln.previous); err != nil {
				return nil, 0, err
			}
		}
		events = append(events, ev)
	}
	return events, upTo, nil
}

// at reads the value that was written to key at a revision.
func (l *Log) at(ctx context.Context, r store.Reader, key string, rev int64) (*KV, error) {
	raw, err := r.Get(ctx, l.keys.version(key, rev))
	if err == nil {
		kv, _, err := decodeRecord(key, raw)
		return kv, err
	}
	if !errs.Is(err, errs.NotFound) {
		return nil, err
	}
	kv, err := l.getCurrent(ctx, r, key)
	if err != nil {
		return nil, err
	}
	if kv == nil || kv.Modified != rev {
		return nil, errs.New(errs.Corrupt, "revlog.Watch", "the value of revision %d is missing", rev)
	}
	return kv, nil
}
