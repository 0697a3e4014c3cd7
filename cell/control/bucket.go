package control

import (
	"context"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"chancery/api/v1alpha1"
	"chancery/cell/objects"
	"chancery/internal/apiserver/controllers"
	"chancery/internal/errs"
)

// Codes of the objects layer that we tell apart.
const (
	codeBucketExists   = "BucketAlreadyExists"
	codeBucketOwned    = "BucketAlreadyOwnedByYou"
	codeBucketNotEmpty = "BucketNotEmpty"
)

// bucketReconciler makes the bucket that a Bucket asks for, and follows it.
type bucketReconciler struct {
	base
	mirror *mirror
}

func (r *bucketReconciler) add(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("bucket").
		For(&v1alpha1.Bucket{}).
		WatchesRawSource(source.Channel(r.mirror.buckets, &handler.EnqueueRequestForObject{})).
		Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *bucketReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	b := &v1alpha1.Bucket{}
	if err := r.client.Get(ctx, req.NamespacedName, b); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	project, hasProject, err := r.project(ctx, b.Namespace)
	if err != nil {
		return ctrl.Result{}, err
	}
	actual, err := r.opts.Objects.Bucket(ctx, b.Name)
	exists := err == nil
	if err != nil && !errs.Is(err, errs.NotFound) {
		return ctrl.Result{}, err
	}
	ours := exists && hasProject && actual.ProjectID == project.ID
	if b.DeletionTimestamp != nil {
		return r.remove(ctx, b, ours)
	}
	before := b.DeepCopy()
	switch known := bucketIDOf(b); {
	case known != "" && !ours:
		// It was there and was deleted through S3: the object follows, and
		// never makes a bucket again that somebody else deleted.
		return ctrl.Result{}, client.IgnoreNotFound(r.client.Delete(ctx, b, client.Preconditions{UID: &b.UID}))
	case !hasProject:
		return r.finish(ctx, before, b, noProject(b.Namespace))
	}
	if err := r.ensureFinalizer(ctx, b); err != nil {
		return ctrl.Result{}, err
	}
	before = b.DeepCopy()
	if !ours {
		actual, err = r.opts.Objects.CreateBucket(ctx, objects.CreateBucket{Name: b.Name, ProjectID: project.ID, Region: b.Spec.Region})
		switch {
		case errs.CodeOf(err) == codeBucketExists:
			return r.finish(ctx, before, b, controllers.Outcome{
				Reason: reasonBucketExists, Message: "Another project has a bucket of this name. Bucket names are unique in the organization: choose another.",
			})
		case errs.CodeOf(err) == codeBucketOwned:
			if actual, err = r.opts.Objects.Bucket(ctx, b.Name); err != nil {
				return ctrl.Result{}, err
			}
		case err != nil && refused(err):
			return r.finish(ctx, before, b, controllers.Outcome{Reason: reasonRefused, Message: err.Error()})
		case err != nil:
			return ctrl.Result{}, err
		}
	}
	created := metav1.NewTime(actual.Created.Truncate(1e9))
	b.Status.BucketID, b.Status.Created, b.Status.Region, b.Status.KeyID = actual.ID, &created, actual.Region, actual.KeyID
	b.Status.Endpoint = r.endpoint(b.Name)
	generation, outcome, err := r.rotate(ctx, b, "bucket", b.Spec.KeyGeneration, bucketKey{r.opts.Keys, project.ID, actual.ID})
	if err != nil {
		return ctrl.Result{}, err
	}
	if outcome != nil {
		return r.finish(ctx, before, b, *outcome)
	}
	b.Status.KeyGeneration = generation
	return r.finish(ctx, before, b, controllers.Outcome{Ready: true, Reason: reasonAvailable, Message: "The bucket is there."})
}

// bucketIDOf is the bucket that the object once showed, or was made to show.
func bucketIDOf(b *v1alpha1.Bucket) string {
	if b.Status.BucketID != "" {
		return b.Status.BucketID
	}
	return b.Annotations[v1alpha1.AnnotationMirrors]
}

// remove deletes the bucket if it is the object's own, empty, and not to be kept.
func (r *bucketReconciler) remove(ctx context.Context, b *v1alpha1.Bucket, ours bool) (ctrl.Result, error) {
	if ours && b.Spec.DeletionPolicy != v1alpha1.BucketRetain {
		err := r.opts.Objects.DeleteBucket(ctx, b.Name)
		switch {
		case errs.CodeOf(err) == codeBucketNotEmpty:
			return r.finish(ctx, b.DeepCopy(), b, controllers.Outcome{
				Reason: reasonNotEmpty, Message: "The bucket is not empty: delete its objects and unfinished uploads, and it goes by itself.",
			})
		case err != nil && !errs.Is(err, errs.NotFound):
			return ctrl.Result{}, err
		}
	}
	return r.release(ctx, b)
}

// endpoint is the bucket's URL, in path style.
func (r *bucketReconciler) endpoint(bucket string) string {
	u, err := url.JoinPath(r.opts.S3Endpoint, bucket)
	if err != nil {
		return ""
	}
	return u
}
