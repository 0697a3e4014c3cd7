package objects

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// How a bucket, a project or an upload ends. Whoever ends it first marks its state
// entry as ending (flip): from then on no commit that demands the open state goes
// through. Then he looks at what is in it, and in one commit ends it or, if he may
// not, marks it open again (reopen). An intent in the store tells of the mark, so
// that after a crash, or if reopening failed on a full disk, whoever comes next
// opens it again. Inside the process a lock on the intent tells that somebody is at it.

// stateValue is the value of the state entry of a bucket or project. (An upload's
// record begins with its state.)
func stateValue(state byte, name string) []byte { return append([]byte{state}, name...) }

// bucketOpen is the precondition of every write into a bucket.
func bucketOpen(b *store.Batch, bk *bucketInfo) {
	b.IfEquals(stateKey(bk.id), stateValue(stateOpen, bk.name))
}

// keyLocks are locks by name.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]struct{}
}

func (k *keyLocks) tryLock(key []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.held[string(key)]; ok {
		return false
	}
	k.held[string(key)] = struct{}{}
	return true
}

func (k *keyLocks) unlock(key []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.held, string(key))
}

// maxWait bounds how long a writer waits for a delete's or a complete's verdict.
const maxWait = 10 * time.Second

func aborted(op string) error {
	return errs.Coded(errs.Conflict, op, codeAborted,
		"A conflicting conditional operation is currently in progress against this resource. Try again.")
}

// flip marks the state entry under key as ending and returns its open value. The
// caller then holds the lock on the intent. gone is returned if there is no such entry.
func (e *Engine) flip(ctx context.Context, op string, key, intent []byte, gone error) (open []byte, err error) {
	deadline := time.Now().Add(maxWait)
	for try := 0; !e.ends.tryLock(intent); try++ {
		if time.Now().After(deadline) {
			return nil, aborted(op)
		}
		if err := pause(ctx, try); err != nil {
			return nil, errs.WrapKind(errs.Unavailable, op, err)
		}
	}
	defer func() {
		if err != nil {
			e.ends.unlock(intent)
		}
	}()
	for {
		raw, err := e.get(ctx, key)
		switch {
		case err != nil:
			return nil, errs.Wrap(op, err)
		case raw == nil:
			return nil, gone
		case len(raw) == 0:
			return nil, corrupt(op, "state")
		}
		// An entry that is ending while nobody is at it was left so: it is taken over.
		open, ending := bytes.Clone(raw), bytes.Clone(raw)
		open[0], ending[0] = stateOpen, stateEnding
		var b store.Batch
		b.IfEquals(key, raw)
		b.Put(key, ending)
		b.Put(intent, key)
		if _, err = e.store.Commit(ctx, &b); err == nil {
			return open, nil
		}
		if !errs.Is(err, errs.Conflict) {
			return nil, errs.Wrap(op, err)
		}
	}
}

// reopen undoes flip. The caller holds the lock on the intent.
func (e *Engine) reopen(ctx context.Context, key, intent []byte) error {
	raw, err := e.get(ctx, key)
	if err != nil {
		return err
	}
	var b store.Batch
	if len(raw) > 0 && raw[0] == stateEnding {
		open := bytes.Clone(raw)
		open[0] = stateOpen
		b.IfEquals(key, raw)
		b.Put(key, open)
	}
	b.Delete(intent)
	_, err = e.store.Commit(ctx, &b)
	return err
}

// waitOpen returns nil if the state under key is open, after waiting for one that
// is ending, or opening it if nobody is at it. gone is returned when the entry has gone.
func (e *Engine) waitOpen(ctx context.Context, op string, key, intent []byte, gone error) error {
	deadline := time.Now().Add(maxWait)
	for try := 0; ; try++ {
		raw, err := e.get(ctx, key)
		switch {
		case err != nil:
			return errs.Wrap(op, err)
		case raw == nil:
			return gone
		case len(raw) == 0:
			return corrupt(op, "state")
		case raw[0] == stateOpen:
			return nil
		}
		if e.ends.tryLock(intent) {
			err := e.reopen(ctx, key, intent)
			e.ends.unlock(intent)
			if err != nil && !errs.Is(err, errs.Conflict) {
				return errs.Wrap(op, err)
			}
			continue
		}
		if time.Now().After(deadline) {
			return aborted(op)
		}
		if err := pause(ctx, try); err != nil {
			return errs.WrapKind(errs.Unavailable, op, err)
		}
	}
}

// pause waits a little longer and a little differently with each try, up to about 50 ms.
func pause(ctx context.Context, try int) error {
	d := time.Millisecond << min(try, 5)
	d += rand.N(d/2 + 1)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// conflicted handles a commit's failure in a loop that reads, decides and
// commits. retry is true if the loop should read again; else err is the answer.
func (e *Engine) conflicted(ctx context.Context, op string, bk *bucketInfo, try int, cause error) (retry bool, err error) {
	if !errs.Is(cause, errs.Conflict) {
		return false, errs.Wrap(op, cause)
	}
	if err := e.waitOpen(ctx, op, stateKey(bk.id), key2(pIntentB, bk.id), noSuchBucket(op, bk.name)); err != nil {
		return false, err
	}
	if try > 1 {
		if err := pause(ctx, min(try-2, 2)); err != nil {
			return false, errs.WrapKind(errs.Unavailable, op, err)
		}
	} else if err := ctx.Err(); err != nil {
		return false, errs.WrapKind(errs.Unavailable, op, err)
	}
	return true, nil
}

// entry is a key and its value.
type entry struct{ key, value []byte }

// collect reads all entries under a prefix; for what is few.
func (e *Engine) collect(ctx context.Context, prefix string) (out []entry, err error) {
	err = e.store.Scan(ctx, store.Prefix([]byte(prefix)), func(k, v []byte) (bool, error) {
		out = append(out, entry{bytes.Clone(k), bytes.Clone(v)})
		return true, nil
	})
	return out, err
}

// recover settles what an earlier process began: what was ending is open again,
// destructions of keys are finished.
func (e *Engine) recover(ctx context.Context) error {
	list, err := e.collect(ctx, pIntent)
	if err != nil {
		return err
	}
	for _, it := range list {
		if err := e.reopen(ctx, it.value, it.key); err != nil {
			return err
		}
	}
	return e.settle(ctx)
}

// settle finishes the destruction of keys whose bucket or project has gone.
func (e *Engine) settle(ctx context.Context) error {
	list, err := e.collect(ctx, pDoomedB)
	if err != nil {
		return err
	}
	for _, it := range list {
		if len(it.value) == 0 || it.value[0] != recordVersion {
			return corrupt("objects.settle", "doomed key")
		}
		if err := e.destroyBucketKey(ctx, string(it.value[1:]), string(it.key[len(pDoomedB):])); err != nil {
			return err
		}
	}
	if list, err = e.collect(ctx, pDoomedP); err != nil {
		return err
	}
	for _, it := range list {
		if err := e.destroyProjectKey(ctx, string(it.key[len(pDoomedP):])); err != nil {
			return err
		}
	}
	return nil
}
