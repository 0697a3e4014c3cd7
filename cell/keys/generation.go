package keys

import (
	"context"
	"math"

	"chancery/internal/errs"
)

// Generations are read from the records themselves, so that whoever wants "at
// least generation n" can ask again after a crash and never rotates twice.

// target says where a rotation leads: 0 to the next version, else to that version,
// unless the key is there or beyond already.
type target uint32

const byOne target = 0

// errUnchanged ends a change that has nothing to do. It never leaves the package.
var errUnchanged error = errs.New(errs.Exists, "keys.rotate", "the key is of that generation already")

func (t target) next(op string, version uint32) (uint32, error) {
	switch {
	case t != byOne && uint32(t) <= version:
		return 0, errUnchanged
	case t != byOne:
		return uint32(t), nil
	case version == math.MaxUint32:
		return 0, errs.New(errs.Exhausted, op, "the versions are used up")
	}
	return version + 1, nil
}

func checkTarget(op string, to uint32) error {
	if to == 0 {
		return errs.New(errs.Invalid, op, "generations begin with 1")
	}
	return nil
}

// Generations returns the organization's key epoch and the generation of the root
// that it is wrapped under; both begin with 1. Errors: errs.Destroyed, errs.Sealed.
func (r *Ring) Generations(ctx context.Context) (key, root uint32, err error) {
	rec, err := r.look(ctx, "keys.Generations", []byte(orgKey), "organization")
	if err != nil {
		return 0, 0, err
	}
	return rec.current().version, rec.parent, nil
}

// ProjectGeneration returns the version of a project's key.
// Errors: errs.NotFound, errs.Destroyed, errs.Sealed.
func (r *Ring) ProjectGeneration(ctx context.Context, project string) (uint32, error) {
	const op = "keys.ProjectGeneration"
	if err := checkID(op, project); err != nil {
		return 0, err
	}
	rec, err := r.look(ctx, op, projectKey(project), "project")
	if err != nil {
		return 0, err
	}
	return rec.current().version, nil
}

// BucketGeneration returns the newest version of a bucket's key.
// Errors: errs.NotFound, errs.Destroyed, errs.Sealed.
func (r *Ring) BucketGeneration(ctx context.Context, project, bucket string) (uint32, error) {
	const op = "keys.BucketGeneration"
	if err := checkID(op, project, bucket); err != nil {
		return 0, err
	}
	rec, err := r.look(ctx, op, bucketKey(project, bucket), "bucket")
	if err != nil {
		return 0, err
	}
	return rec.current().version, nil
}

func (r *Ring) look(ctx context.Context, op string, key []byte, what string) (*record, error) {
	if r == nil {
		return nil, errSealed(op)
	}
	r.gate.RLock()
	defer r.gate.RUnlock()
	if err := r.ready(op); err != nil {
		return nil, err
	}
	return r.load(ctx, op, r.st, key, what)
}

// RotateOrganizationTo rotates, once, so that the organization's key is of epoch
// to. It does nothing if it is, or beyond. A key is made for that number alone,
// not for those that were jumped over.
func (r *Ring) RotateOrganizationTo(ctx context.Context, to uint32) error {
	if err := checkTarget("keys.RotateOrganizationTo", to); err != nil {
		return err
	}
	return r.rotateOrganization(ctx, target(to))
}

// RotateProjectTo is RotateOrganizationTo for a project's key.
func (r *Ring) RotateProjectTo(ctx context.Context, project string, to uint32) error {
	if err := checkTarget("keys.RotateProjectTo", to); err != nil {
		return err
	}
	return r.rotateProject(ctx, project, target(to))
}

// RotateBucketTo is RotateOrganizationTo for a bucket's key.
func (r *Ring) RotateBucketTo(ctx context.Context, project, bucket string, to uint32) error {
	if err := checkTarget("keys.RotateBucketTo", to); err != nil {
		return err
	}
	return r.rotateBucket(ctx, project, bucket, target(to))
}
