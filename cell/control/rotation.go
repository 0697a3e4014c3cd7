package control

import (
	"context"
	"math"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"chancery/cell/keys"
	"chancery/internal/apiserver/controllers"
	"chancery/internal/errs"
)

// Keys is what this package needs of keys.Ring.
type Keys interface {
	Generations(ctx context.Context) (key, root uint32, err error)
	ProjectGeneration(ctx context.Context, project string) (uint32, error)
	BucketGeneration(ctx context.Context, project, bucket string) (uint32, error)
	RotateOrganizationTo(ctx context.Context, to uint32) error
	RotateProjectTo(ctx context.Context, project string, to uint32) error
	RotateBucketTo(ctx context.Context, project, bucket string, to uint32) error
	PurgeDue(ctx context.Context) (bool, error)
	RunPurges(ctx context.Context, report func(due bool, err error))
}

var _ Keys = (*keys.Ring)(nil)

// reasonKeyRotated is the reason of the event that tells of a rotation.
const reasonKeyRotated = "KeyRotated"

// rotated is a key of some level.
type rotated interface {
	generation(ctx context.Context) (uint32, error)
	rotateTo(ctx context.Context, to uint32) error
}

type organizationKey struct{ Keys }

func (k organizationKey) generation(ctx context.Context) (uint32, error) {
	key, _, err := k.Generations(ctx)
	return key, err
}

func (k organizationKey) rotateTo(ctx context.Context, to uint32) error {
	return k.RotateOrganizationTo(ctx, to)
}

type projectKey struct {
	Keys
	project string
}

func (k projectKey) generation(ctx context.Context) (uint32, error) {
	return k.ProjectGeneration(ctx, k.project)
}

func (k projectKey) rotateTo(ctx context.Context, to uint32) error {
	return k.RotateProjectTo(ctx, k.project, to)
}

type bucketKey struct {
	Keys
	project, bucket string
}

func (k bucketKey) generation(ctx context.Context) (uint32, error) {
	return k.BucketGeneration(ctx, k.project, k.bucket)
}

func (k bucketKey) rotateTo(ctx context.Context, to uint32) error {
	return k.RotateBucketTo(ctx, k.project, k.bucket, to)
}

// rotate brings a key to the generation that is wanted, and returns the one that
// it has, read from the key ring: a crash at any point neither loses a rotation nor
// does it twice. A wanted generation below the present one asks for nothing, so
// that an old manifest applied to an object that was rotated is harmless. outcome
// tells what a person must know instead.
func (b base) rotate(ctx context.Context, obj client.Object, what string, want int64, key rotated) (now int64, outcome *controllers.Outcome, err error) {
	have, err := key.generation(ctx)
	if err == nil && want > int64(have) && want <= math.MaxUint32 {
		if err = key.rotateTo(ctx, uint32(want)); err == nil {
			b.events.Eventf(obj, nil, corev1.EventTypeNormal, reasonKeyRotated, "Rotate", "The %s's key is of generation %d now. Older data stays readable.", what, want)
			have, err = key.generation(ctx)
		}
	}
	if errs.Is(err, errs.Destroyed) {
		return 0, &controllers.Outcome{Reason: reasonKeyDestroyed, Message: "The " + what + "'s key was destroyed: what was under it can never be read again."}, nil
	}
	return int64(have), nil, err
}
