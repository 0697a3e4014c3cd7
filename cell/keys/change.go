package keys

import (
	"context"
	"crypto/rand"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// CreateProject implements Manager. The commit of b is errs.Conflict if the
// organization's key was rotated in between: build the batch anew. Errors:
// errs.Exists, errs.Destroyed (a tombstone's id is never used again).
func (r *Ring) CreateProject(ctx context.Context, b *store.Batch, project string) error {
	const op = "keys.CreateProject"
	if err := checkID(op, project); err != nil {
		return err
	}
	r.gate.RLock()
	defer r.gate.RUnlock()
	if err := r.ready(op); err != nil {
		return err
	}
	if err := r.absent(ctx, op, projectKey(project), "project"); err != nil {
		return err
	}
	org, orgRec, err := r.organization(ctx, op, r.st)
	if err != nil {
		return err
	}
	defer org.zero()
	epoch := orgRec.current().version
	key := newSecret()
	defer key.zero()
	e, err := wrap(org, key, r.projectPlace(project, 1, epoch))
	if err != nil {
		return errs.Wrap(op, err)
	}
	b.IfEquals([]byte(orgKey), orgRec.encode())
	b.IfAbsent(projectKey(project))
	b.Put(projectKey(project), (&record{stateLive, epoch, []entry{e}}).encode())
	b.Put([]byte(orgMembers), fresh())
	return nil
}

// CreateBucket implements Manager. The commit of b is errs.Conflict if the
// project's key was rotated or destroyed in between: build the batch anew.
// Errors: errs.NotFound (no such project), errs.Exists, errs.Destroyed.
func (r *Ring) CreateBucket(ctx context.Context, b *store.Batch, project, bucket string) error {
	const op = "keys.CreateBucket"
	if err := checkID(op, project, bucket); err != nil {
		return err
	}
	r.gate.RLock()
	defer r.gate.RUnlock()
	if err := r.ready(op); err != nil {
		return err
	}
	parent, parentRec, err := r.project(ctx, op, r.st, project)
	if err != nil {
		return err
	}
	defer parent.zero()
	if err := r.absent(ctx, op, bucketKey(project, bucket), "bucket"); err != nil {
		return err
	}
	version := parentRec.current().version
	key := newSecret()
	defer key.zero()
	e, err := wrap(parent, key, r.bucketPlace(project, bucket, 1, version))
	if err != nil {
		return errs.Wrap(op, err)
	}
	b.IfEquals(projectKey(project), parentRec.encode())
	b.IfAbsent(bucketKey(project, bucket))
	b.Put(bucketKey(project, bucket), (&record{stateLive, version, []entry{e}}).encode())
	b.Put(projectMembers(project), fresh())
	return nil
}

// fresh is the value of a members key: whoever rewraps all members demands that
// it has not changed since they were listed, so that none is left behind.
func fresh() []byte {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return b
}

func (r *Ring) absent(ctx context.Context, op string, key []byte, what string) error {
	_, err := r.load(ctx, op, r.st, key, what)
	switch {
	case err == nil:
		return errs.New(errs.Exists, op, "the %s has a key already", what)
	case errs.Is(err, errs.NotFound):
		return nil
	}
	return err
}

// change runs one change of the hierarchy: f fills the batch and returns what to
// do once it is durable, still before any lease can begin. Old wrapped keys are
// then purged from the store's files (see purge.go).
//
// An errs.Conflict means that a project or bucket was created at the same time;
// f then runs again.
func (r *Ring) change(ctx context.Context, op string, f func(b *store.Batch) (after func(), err error)) error {
	return r.purgeAfter(ctx, op, r.changeOnly(ctx, op, f))
}

func (r *Ring) changeOnly(ctx context.Context, op string, f func(b *store.Batch) (after func(), err error)) error {
	if r == nil || r.st == nil {
		return errSealed(op)
	}
	r.op.Lock()
	defer r.op.Unlock()
	var err error
	for range 10 {
		if err = r.changeOnce(ctx, op, f); !errs.Is(err, errs.Conflict) {
			break
		}
	}
	if err == errUnchanged { //nolint:errorlint // ours, never wrapped
		return nil
	}
	return errs.Wrap(op, err)
}

func (r *Ring) changeOnce(ctx context.Context, op string, f func(b *store.Batch) (func(), error)) error {
	r.gate.Lock()
	defer r.gate.Unlock()
	if err := r.ready(op); err != nil {
		return err
	}
	var b store.Batch
	after, err := f(&b)
	if err != nil {
		return err
	}
	b.Put([]byte(purgeKey), fresh())
	if _, err := r.st.Commit(ctx, &b); err != nil {
		if errs.Is(err, errs.Unavailable) { // perhaps it is durable: nothing goes on under the old state
			r.endLeases(errExpired(op), func(*lease) bool { return true })
		}
		return err
	}
	if after != nil {
		after()
	}
	return nil
}

// unchanged adds the precondition that a key has the value it has now.
func (r *Ring) unchanged(ctx context.Context, b *store.Batch, key []byte) error {
	raw, err := r.st.Get(ctx, key)
	switch {
	case err == nil:
		b.IfEquals(key, raw)
	case errs.Is(err, errs.NotFound):
		b.IfAbsent(key)
	default:
		return err
	}
	return nil
}
