package keys

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// A wrapped key that was replaced or deleted stays in journals and tables of the
// store until they are rewritten. Every rotation and destruction therefore puts a
// mark into its own commit, so that a crash cannot forget the purge that is due;
// the mark's value is new each time, so that a purge that began before a change
// cannot take that change's mark away.

// purging is the state of the purges of a Ring.
type purging struct {
	one     sync.Mutex // one purge at a time
	wake    chan struct{}
	running atomic.Bool // RunPurges is there to do it
}

func newPurging() purging { return purging{wake: make(chan struct{}, 1)} }

// soon wakes RunPurges.
func (p *purging) soon() {
	select {
	case p.wake <- struct{}{}:
	default: // it is awake
	}
}

// purgeRetry is how long RunPurges waits after a purge that failed.
const purgeRetry = 5 * time.Second

// RunPurges purges in the background until ctx ends. While it runs, every rotation,
// Rewrap, DestroyBucket and DestroyProject return as soon as the change is durable
// (a destroyed key can be used by nobody any more), and the purge of what is left
// in the store's files follows: it takes seconds when much was written lately.
// DestroyOrganization waits for it. report is told when a purge
// becomes due, when it is done (due false) and when it failed.
func (r *Ring) RunPurges(ctx context.Context, report func(due bool, err error)) {
	if r == nil || r.st == nil {
		return
	}
	r.purging.running.Store(true)
	defer r.purging.running.Store(false)
	for {
		due, err := r.PurgeDue(ctx)
		if err == nil && due {
			report(true, nil)
			err = r.purge(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		wait := (<-chan time.Time)(nil)
		switch {
		case err != nil:
			report(true, err)
			wait = time.After(purgeRetry)
		case due:
			report(false, nil)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.purging.wake:
		case <-wait:
		}
	}
}

// PurgeDue tells whether old wrapped keys may still be in the store's files.
func (r *Ring) PurgeDue(ctx context.Context) (bool, error) {
	const op = "keys.PurgeDue"
	if r == nil || r.st == nil {
		return false, errSealed(op)
	}
	_, err := r.st.Get(ctx, []byte(purgeKey))
	if errs.Is(err, errs.NotFound) {
		return false, nil
	}
	return err == nil, errs.Wrap(op, err)
}

// purge purges if that is due.
func (r *Ring) purge(ctx context.Context) error {
	r.purging.one.Lock()
	defer r.purging.one.Unlock()
	for {
		mark, err := r.st.Get(ctx, []byte(purgeKey))
		if errs.Is(err, errs.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.st.Purge(ctx, store.Prefix([]byte(prefix))); err != nil {
			return err
		}
		var b store.Batch
		b.IfEquals([]byte(purgeKey), mark)
		b.Delete([]byte(purgeKey))
		if _, err = r.st.Commit(ctx, &b); !errs.Is(err, errs.Conflict) {
			return err
		}
		// Another change came meanwhile: its keys are to go too.
	}
}

// purgeAfter purges after a change, whose error it is given. A change that was
// refused still ends a purge that an earlier one could not.
func (r *Ring) purgeAfter(ctx context.Context, op string, changed error) error {
	if r == nil || r.st == nil {
		return changed
	}
	err := r.purge(context.WithoutCancel(ctx))
	if err != nil {
		r.purging.soon()
	}
	if changed != nil || err == nil {
		return changed
	}
	return &errs.Error{Kind: errs.KindOf(err), Op: op, Err: err,
		Message: "done, but old wrapped keys may still be in the store's files; this is tried again by the next change and at the next unsealing"}
}

// changeAndPurgeSoon is change, but for the purge: RunPurges does it if it runs.
func (r *Ring) changeAndPurgeSoon(ctx context.Context, op string, f func(b *store.Batch) (after func(), err error)) error {
	err := r.changeOnly(ctx, op, f)
	if r == nil || !r.purging.running.Load() {
		return r.purgeAfter(ctx, op, err)
	}
	r.purging.soon()
	return err
}
