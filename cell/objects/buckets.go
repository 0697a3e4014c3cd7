package objects

import (
	"context"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// CreateBucket makes a bucket and its key in one commit.
func (e *Engine) CreateBucket(ctx context.Context, in CreateBucket) (Bucket, error) {
	const op = "objects.CreateBucket"
	if err := e.ready(op); err != nil {
		return Bucket{}, err
	}
	if err := checkBucketName(op, in.Name); err != nil {
		return Bucket{}, err
	}
	if in.Region != "" && in.Region != e.opt.Region {
		return Bucket{}, errs.Coded(errs.Invalid, op, codeLocation, "The specified location-constraint is not valid")
	}
	if err := e.room(op, 0); err != nil {
		return Bucket{}, err
	}
	noProject := errs.New(errs.NotFound, op, "there is no such project")
	for try := 0; ; try++ {
		if raw, err := e.get(ctx, bucketKey(in.Name)); err != nil {
			return Bucket{}, errs.Wrap(op, err)
		} else if raw != nil {
			old, err := decodeBucket(in.Name, raw)
			if err != nil {
				return Bucket{}, err
			}
			if old.project == in.ProjectID {
				return Bucket{}, errs.Coded(errs.Exists, op, codeBucketOwned,
					"Your previous request to create the named bucket succeeded and you already own it.")
			}
			return Bucket{}, errs.Coded(errs.Exists, op, codeBucketExists,
				"The requested bucket name is not available. Select a different name and try again.")
		}
		state, err := e.get(ctx, projectIDKey(in.ProjectID))
		if err != nil {
			return Bucket{}, errs.Wrap(op, err)
		}
		if len(state) == 0 {
			return Bucket{}, noProject
		}
		bk := &bucketInfo{id: newID(), name: in.Name, project: in.ProjectID, region: e.opt.Region, created: e.now().UnixMilli()}
		var b store.Batch
		b.IfEquals(projectIDKey(in.ProjectID), stateValue(stateOpen, string(state[1:])))
		b.IfAbsent(bucketKey(in.Name))
		b.IfAbsent(stateKey(bk.id))
		b.Put(bucketKey(in.Name), bk.encode())
		b.Put(stateKey(bk.id), stateValue(stateOpen, in.Name))
		b.Put(ownedKey(in.ProjectID, in.Name), []byte{recordVersion})
		b.Change(TopicBucket, BucketChange{Created, bk.id, in.Name, in.ProjectID}.encode())
		if err := e.opt.Keys.CreateBucket(ctx, &b, in.ProjectID, bk.id); err != nil {
			return Bucket{}, errs.Wrap(op, err)
		}
		_, err = e.store.Commit(ctx, &b)
		if err == nil {
			return e.withKeyID(ctx, bk), nil
		}
		if !errs.Is(err, errs.Conflict) || try > 20 {
			return Bucket{}, errs.Wrap(op, err)
		}
		if err := e.waitOpen(ctx, op, projectIDKey(in.ProjectID), key2(pIntentP, in.ProjectID), noProject); err != nil {
			return Bucket{}, err
		}
		if err := pause(ctx, 0); err != nil {
			return Bucket{}, errs.WrapKind(errs.Unavailable, op, err)
		}
	}
}

// withKeyID fills KeyID; it stays empty if the bucket's key cannot be leased, so
// that a bucket whose key is destroyed can still be seen and deleted.
func (e *Engine) withKeyID(ctx context.Context, bk *bucketInfo) Bucket {
	b := bk.bucket()
	if l, err := e.lease(ctx, "objects.Bucket", bk); err == nil {
		b.KeyID = l.KeyID()
	}
	return b
}

// Bucket finds a bucket; NoSuchBucket if there is none.
func (e *Engine) Bucket(ctx context.Context, name string) (Bucket, error) {
	bk, err := e.findBucket(ctx, "objects.Bucket", name)
	if err != nil {
		return Bucket{}, err
	}
	return e.withKeyID(ctx, bk), nil
}

// Buckets lists buckets by name. KeyID is left empty: a listing unwraps no keys.
func (e *Engine) Buckets(ctx context.Context, projectID string) ([]Bucket, error) {
	const op = "objects.Buckets"
	if err := e.ready(op); err != nil {
		return nil, err
	}
	snap, err := e.store.Snapshot(ctx)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	defer snap.Close()
	var out []Bucket
	add := func(name string, raw []byte) (bool, error) {
		bk, err := decodeBucket(name, raw)
		if err != nil {
			return false, err
		}
		out = append(out, bk.bucket())
		return true, nil
	}
	if projectID == "" {
		err = snap.Scan(ctx, store.Prefix([]byte(pBucket)), func(k, v []byte) (bool, error) {
			return add(string(k[len(pBucket):]), v)
		})
		return out, errs.Wrap(op, err)
	}
	prefix := ownedKey(projectID, "")
	var names []string
	err = snap.Scan(ctx, store.Prefix(prefix), func(k, v []byte) (bool, error) {
		names = append(names, string(k[len(prefix):]))
		return true, nil
	})
	for _, n := range names {
		if err != nil {
			break
		}
		var raw []byte
		if raw, err = snap.Get(ctx, bucketKey(n)); err == nil {
			_, err = add(n, raw)
		}
	}
	return out, errs.Wrap(op, err)
}

// bucketUsed reports whether a bucket has objects or uploads.
func (e *Engine) bucketUsed(ctx context.Context, id string) (bool, error) {
	for _, p := range []string{pObject, pUpload} {
		if has, err := e.any(ctx, inBucket(p, id, "")); has || err != nil {
			return has, err
		}
	}
	return false, nil
}

// DeleteBucket deletes an empty bucket and destroys its key. The bucket is first
// marked as ending, which stops every write, then looked through; so no object
// can slip in. A bucket whose key is destroyed is deleted with all its remains,
// since nobody can read them, nor list them to delete them one by one.
func (e *Engine) DeleteBucket(ctx context.Context, name string) error {
	const op = "objects.DeleteBucket"
	bk, err := e.findBucket(ctx, op, name)
	if err != nil {
		return err
	}
	_, err = e.lease(ctx, op, bk)
	erased := errs.Is(err, errs.Destroyed)
	if err != nil && !erased {
		return err
	}
	notEmpty := errs.Coded(errs.Conflict, op, codeBucketNotEmpty, "The bucket you tried to delete is not empty")
	if !erased { // a first look that stops nobody
		if used, err := e.bucketUsed(ctx, bk.id); err != nil {
			return errs.Wrap(op, err)
		} else if used {
			return notEmpty
		}
	}
	state, intent := stateKey(bk.id), key2(pIntentB, bk.id)
	if _, err := e.flip(ctx, op, state, intent, noSuchBucket(op, name)); err != nil {
		return err
	}
	defer e.ends.unlock(intent)
	// From here on the end must be settled either way, whatever becomes of the caller.
	ctx = context.WithoutCancel(ctx)
	undo := func(cause error) error {
		if err := e.reopen(ctx, state, intent); err != nil {
			return errs.Wrap(op, err)
		}
		return cause
	}
	if erased {
		if err := e.removeRemains(ctx, bk); err != nil {
			return undo(errs.Wrap(op, err))
		}
	}
	if used, err := e.bucketUsed(ctx, bk.id); err != nil {
		return undo(errs.Wrap(op, err))
	} else if used {
		return undo(notEmpty)
	}
	var b store.Batch
	b.IfEquals(state, stateValue(stateEnding, name))
	b.Delete(state)
	b.Delete(intent)
	b.Delete(bucketKey(name))
	b.Delete(ownedKey(bk.project, name))
	done := inBucket(pDone, bk.id, "")
	b.DeleteRange(done, store.After(done))
	b.Put(key2(pDoomedB, bk.id), append([]byte{recordVersion}, bk.project...))
	b.Change(TopicBucket, BucketChange{Removed, bk.id, name, bk.project}.encode())
	_, err = e.store.Commit(ctx, &b)
	e.buckets.forget(name)
	if err != nil {
		if neverCommitted(err) {
			return undo(errs.Wrap(op, err))
		}
		return errs.Wrap(op, err)
	}
	return errs.Wrap(op, e.destroyBucketKey(ctx, bk.project, bk.id))
}
