package keys

import (
	"context"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// DestroyBucket implements Manager. Destroying twice is errs.Destroyed; the
// second call still ends a purge that the first could not.
func (r *Ring) DestroyBucket(ctx context.Context, project, bucket string) error {
	const op = "keys.DestroyBucket"
	if err := checkID(op, project, bucket); err != nil {
		return err
	}
	return r.changeAndPurgeSoon(ctx, op, func(b *store.Batch) (func(), error) {
		// A damaged key can be destroyed too: nothing is unwrapped here.
		if err := r.undestroyed(ctx, op, []byte(orgKey), "organization"); err != nil {
			return nil, err
		}
		if err := r.undestroyed(ctx, op, projectKey(project), "project"); err != nil {
			return nil, err
		}
		if err := r.undestroyed(ctx, op, bucketKey(project, bucket), "bucket"); err != nil {
			return nil, err
		}
		b.Put(bucketKey(project, bucket), tombstone.encode())
		return func() {
			r.endLeases(errDestroyed(op, "bucket"), func(l *lease) bool { return l.project == project && l.bucket == bucket })
		}, nil
	})
}

// DestroyProject implements Manager: the project's key and those of all its buckets.
func (r *Ring) DestroyProject(ctx context.Context, project string) error {
	const op = "keys.DestroyProject"
	if err := checkID(op, project); err != nil {
		return err
	}
	return r.changeAndPurgeSoon(ctx, op, func(b *store.Batch) (func(), error) {
		if err := r.undestroyed(ctx, op, []byte(orgKey), "organization"); err != nil {
			return nil, err
		}
		if err := r.undestroyed(ctx, op, projectKey(project), "project"); err != nil {
			return nil, err
		}
		// By range, so that a bucket created at this moment goes too; one created
		// later fails on the project's tombstone.
		b.DeleteRange(bucketsOf(project), store.After(bucketsOf(project)))
		b.Delete(projectMembers(project))
		b.Put(projectKey(project), tombstone.encode())
		return func() {
			r.endLeases(errDestroyed(op, "project"), func(l *lease) bool { return l.project == project })
		}, nil
	})
}

// DestroyOrganization implements Manager: every key there is.
func (r *Ring) DestroyOrganization(ctx context.Context) error {
	const op = "keys.DestroyOrganization"
	return r.change(ctx, op, func(b *store.Batch) (func(), error) {
		if err := r.undestroyed(ctx, op, []byte(orgKey), "organization"); err != nil {
			return nil, err
		}
		b.DeleteRange([]byte(prefix), store.After([]byte(prefix)))
		b.Put([]byte(orgKey), tombstone.encode())
		return func() {
			r.endLeases(errDestroyed(op, "organization"), func(*lease) bool { return true })
		}, nil
	})
}

// undestroyed is nil if there is a record to destroy, even a damaged one.
func (r *Ring) undestroyed(ctx context.Context, op string, key []byte, what string) error {
	_, err := r.load(ctx, op, r.st, key, what)
	if errs.Is(err, errs.Corrupt) {
		return nil
	}
	return err
}
