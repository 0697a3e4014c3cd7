package keys

import (
	"context"
	"strings"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// RotateOrganization implements Manager. The old organization key is gone when
// it returns: no project key is wrapped under it any more.
func (r *Ring) RotateOrganization(ctx context.Context) error {
	return r.rotateOrganization(ctx, byOne)
}

func (r *Ring) rotateOrganization(ctx context.Context, to target) error {
	const op = "keys.RotateOrganization"
	return r.changeAndPurgeSoon(ctx, op, func(b *store.Batch) (func(), error) {
		old, rec, err := r.organization(ctx, op, r.st)
		if err != nil {
			return nil, err
		}
		defer old.zero()
		b.IfEquals([]byte(orgKey), rec.encode())
		if err := r.unchanged(ctx, b, []byte(orgMembers)); err != nil {
			return nil, err
		}
		epoch, err := to.next(op, rec.current().version)
		if err != nil {
			return nil, err
		}
		top, err := rootKey(r.root)
		if err != nil {
			return nil, err
		}
		defer top.zero()
		key := newSecret()
		defer key.zero()
		e, err := wrap(top, key, r.orgPlace(epoch, rec.parent))
		if err != nil {
			return nil, err
		}
		b.Put([]byte(orgKey), (&record{stateLive, rec.parent, []entry{e}}).encode())
		return nil, r.rewrap(ctx, op, b, []byte(projectsKey), old, key, epoch, func(id string, version, parent uint32) place {
			return r.projectPlace(id, version, parent)
		})
	})
}

// RotateProject implements Manager. The old project key is gone when it returns:
// no bucket key is wrapped under it any more.
func (r *Ring) RotateProject(ctx context.Context, project string) error {
	return r.rotateProject(ctx, project, byOne)
}

func (r *Ring) rotateProject(ctx context.Context, project string, to target) error {
	const op = "keys.RotateProject"
	if err := checkID(op, project); err != nil {
		return err
	}
	return r.changeAndPurgeSoon(ctx, op, func(b *store.Batch) (func(), error) {
		old, rec, err := r.project(ctx, op, r.st, project)
		if err != nil {
			return nil, err
		}
		defer old.zero()
		b.IfEquals(projectKey(project), rec.encode())
		if err := r.unchanged(ctx, b, projectMembers(project)); err != nil {
			return nil, err
		}
		version, err := to.next(op, rec.current().version)
		if err != nil {
			return nil, err
		}
		org, _, err := r.organization(ctx, op, r.st)
		if err != nil {
			return nil, err
		}
		defer org.zero()
		key := newSecret()
		defer key.zero()
		e, err := wrap(org, key, r.projectPlace(project, version, rec.parent))
		if err != nil {
			return nil, err
		}
		b.Put(projectKey(project), (&record{stateLive, rec.parent, []entry{e}}).encode())
		return nil, r.rewrap(ctx, op, b, bucketsOf(project), old, key, version, func(id string, version, parent uint32) place {
			return r.bucketPlace(project, id, version, parent)
		})
	})
}

// RotateBucket implements Manager. Leases taken from now on seal under the new version.
func (r *Ring) RotateBucket(ctx context.Context, project, bucket string) error {
	return r.rotateBucket(ctx, project, bucket, byOne)
}

func (r *Ring) rotateBucket(ctx context.Context, project, bucket string, to target) error {
	const op = "keys.RotateBucket"
	if err := checkID(op, project, bucket); err != nil {
		return err
	}
	return r.changeAndPurgeSoon(ctx, op, func(b *store.Batch) (func(), error) {
		parent, _, err := r.project(ctx, op, r.st, project)
		if err != nil {
			return nil, err
		}
		defer parent.zero()
		rec, err := r.load(ctx, op, r.st, bucketKey(project, bucket), "bucket")
		if err != nil {
			return nil, err
		}
		b.IfEquals(bucketKey(project, bucket), rec.encode())
		version, err := to.next(op, rec.current().version)
		if err != nil {
			return nil, err
		}
		if len(rec.entries) == maxVersions {
			return nil, errs.New(errs.Exhausted, op, "a bucket has at most %d key versions", maxVersions)
		}
		key := newSecret()
		defer key.zero()
		e, err := wrap(parent, key, r.bucketPlace(project, bucket, version, rec.parent))
		if err != nil {
			return nil, err
		}
		rec.entries = append(rec.entries, e)
		b.Put(bucketKey(project, bucket), rec.encode())
		return func() { r.forget(project, bucket) }, nil
	})
}

// Rewrap hangs the organization's key on another root, in one commit. Nothing in
// the store's files opens under the old one once the purge is done (PurgeDue). If the commit's fate is
// unknown (errs.Unavailable), the root that Open accepts is the one in force.
func (r *Ring) Rewrap(ctx context.Context, root Root) error {
	const op = "keys.Rewrap"
	if root == nil {
		return errs.New(errs.Invalid, op, "no root")
	}
	return r.changeAndPurgeSoon(ctx, op, func(b *store.Batch) (func(), error) {
		key, rec, err := r.organization(ctx, op, r.st)
		if err != nil {
			return nil, err
		}
		defer key.zero()
		generation, err := byOne.next(op, rec.parent)
		if err != nil {
			return nil, err
		}
		top, err := rootKey(root)
		if err != nil {
			return nil, err
		}
		defer top.zero()
		e, err := wrap(top, key, r.orgPlace(rec.current().version, generation))
		if err != nil {
			return nil, err
		}
		b.IfEquals([]byte(orgKey), rec.encode())
		b.Put([]byte(orgKey), (&record{stateLive, generation, []entry{e}}).encode())
		return func() { r.root = root }, nil
	})
}

// rewrap adds to b every live record below prefix, wrapped under the new parent
// of version. at gives the place of a record by its id.
func (r *Ring) rewrap(ctx context.Context, op string, b *store.Batch, prefix []byte, from, to *secret, version uint32, at func(id string, version, parent uint32) place) error {
	return r.st.Scan(ctx, store.Prefix(prefix), func(k, raw []byte) (bool, error) {
		rec, err := parseRecord(raw)
		if err != nil {
			return false, errs.Wrap(op, err)
		}
		if rec.state == stateDestroyed {
			return true, nil
		}
		id := strings.TrimPrefix(string(k), string(prefix))
		for i := range rec.entries {
			e := &rec.entries[i]
			key, err := unwrap(from, e, at(id, e.version, rec.parent))
			if err != nil {
				return false, errs.Wrap(op, err)
			}
			*e, err = wrap(to, key, at(id, e.version, version))
			key.zero()
			if err != nil {
				return false, errs.Wrap(op, err)
			}
		}
		rec.parent = version
		b.Put([]byte(string(k)), rec.encode())
		return true, nil
	})
}
