package control

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"chancery/api/v1alpha1"
	"chancery/cell/objects"
	"chancery/internal/apiserver/controllers"
	"chancery/internal/errs"
)

// projectReconciler keeps each Project and its account in the objects layer one.
type projectReconciler struct {
	base
	mirror *mirror
}

func (r *projectReconciler) add(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("project").
		For(&v1alpha1.Project{}).
		Owns(&corev1.Namespace{}, builder.OnlyMetadata).
		WatchesRawSource(source.Channel(r.mirror.projects, &handler.EnqueueRequestForObject{})).
		Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *projectReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	p := &v1alpha1.Project{}
	if err := r.client.Get(ctx, req.NamespacedName, p); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	account, exists, err := r.project(ctx, p.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	if p.DeletionTimestamp != nil {
		return r.remove(ctx, p, account, exists)
	}
	if !exists && r.accountOf(p) != "" {
		// It was there and was deleted below: the object follows.
		return ctrl.Result{}, client.IgnoreNotFound(r.client.Delete(ctx, p, client.Preconditions{UID: &p.UID}))
	}
	if err := r.ensureFinalizer(ctx, p); err != nil {
		return ctrl.Result{}, err
	}
	before := p.DeepCopy()
	if !exists {
		account, err = r.opts.Objects.CreateProject(ctx, p.Name)
		switch {
		case errs.Is(err, errs.Exists):
			return ctrl.Result{}, err // made meanwhile: look again
		case err != nil && refused(err):
			return r.finish(ctx, before, p, controllers.Outcome{Reason: reasonRefused, Message: err.Error()})
		case err != nil:
			return ctrl.Result{}, err
		}
	}
	p.Status.AccountID = account.ID
	if err := r.ensureNamespace(ctx, p); err != nil {
		return ctrl.Result{}, err
	}
	generation, outcome, err := r.rotate(ctx, p, "project", p.Spec.KeyGeneration, projectKey{r.opts.Keys, account.ID})
	if err != nil {
		return ctrl.Result{}, err
	}
	if outcome != nil {
		return r.finish(ctx, before, p, *outcome)
	}
	p.Status.KeyGeneration = generation
	return r.finish(ctx, before, p, controllers.Outcome{Ready: true, Reason: reasonAvailable, Message: "The project is there."})
}

// accountOf is the account that the object once showed, or was made to show.
func (r *projectReconciler) accountOf(p *v1alpha1.Project) string {
	if p.Status.AccountID != "" {
		return p.Status.AccountID
	}
	return p.Annotations[v1alpha1.AnnotationMirrors]
}

// ensureNamespace makes the project's namespace, or takes over one of its name.
func (r *projectReconciler) ensureNamespace(ctx context.Context, p *v1alpha1.Project) error {
	ns := &corev1.Namespace{}
	err := r.client.Get(ctx, types.NamespacedName{Name: p.Name}, ns)
	if apierrors.IsNotFound(err) {
		ns = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.Name}}
		if err := controllerutil.SetControllerReference(p, ns, r.client.Scheme()); err != nil {
			return err
		}
		return r.client.Create(ctx, ns)
	}
	if err != nil || metav1.IsControlledBy(ns, p) {
		return err
	}
	if ns.DeletionTimestamp != nil {
		return errs.New(errs.Unavailable, "control.Project", "the namespace %s is being deleted", ns.Name)
	}
	before := ns.DeepCopy()
	if err := controllerutil.SetControllerReference(p, ns, r.client.Scheme()); err != nil {
		return err
	}
	return r.client.Patch(ctx, ns, client.MergeFrom(before))
}

// remove deletes a project from its content up: nothing at all while a bucket
// holds anything, then the namespace with its objects, then the account.
func (r *projectReconciler) remove(ctx context.Context, p *v1alpha1.Project, account objects.Project, exists bool) (ctrl.Result, error) {
	before := p.DeepCopy()
	if exists && (p.Status.AccountID == "" || p.Status.AccountID == account.ID) {
		outcome, err := r.obstacle(ctx, p, account)
		if err != nil {
			return ctrl.Result{}, err
		}
		if outcome != nil {
			return r.finish(ctx, before, p, *outcome)
		}
	}
	ns := &corev1.Namespace{}
	err := r.client.Get(ctx, types.NamespacedName{Name: p.Name}, ns)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	if err == nil && metav1.IsControlledBy(ns, p) {
		if ns.DeletionTimestamp == nil {
			if err := r.client.Delete(ctx, ns, client.Preconditions{UID: &ns.UID}); client.IgnoreNotFound(err) != nil {
				return ctrl.Result{}, err
			}
		}
		// Its disappearance brings us back here.
		return r.finish(ctx, before, p, controllers.Outcome{Reason: reasonDeleting, Message: "What is in the project is being deleted.", Quiet: true})
	}
	if exists && (p.Status.AccountID == "" || p.Status.AccountID == account.ID) {
		keys, err := r.opts.Directory.ListAccessKeys(ctx, account.ID)
		if err != nil {
			return ctrl.Result{}, err
		}
		for _, k := range keys {
			if err := r.opts.Directory.DeleteAccessKey(ctx, k.ID); err != nil && !errs.Is(err, errs.NotFound) {
				return ctrl.Result{}, err
			}
		}
		if err := r.opts.Objects.DeleteProject(ctx, p.Name); err != nil && !errs.Is(err, errs.NotFound) {
			if errs.Is(err, errs.Conflict) {
				return r.finish(ctx, before, p, controllers.Outcome{Reason: reasonBucketsRemain, Message: "The project still has buckets: delete them first."})
			}
			return ctrl.Result{}, err
		}
	}
	return r.release(ctx, p)
}

// obstacle names what keeps a project from being deleted; nil if nothing does.
func (r *projectReconciler) obstacle(ctx context.Context, p *v1alpha1.Project, account objects.Project) (*controllers.Outcome, error) {
	buckets, err := r.opts.Objects.Buckets(ctx, account.ID)
	if err != nil {
		return nil, err
	}
	for _, b := range buckets {
		empty, err := r.empty(ctx, b.Name)
		if err != nil {
			return nil, err
		}
		if !empty {
			return &controllers.Outcome{Reason: reasonNotEmpty, Message: fmt.Sprintf("The bucket %s is not empty: delete its objects and unfinished uploads first.", b.Name)}, nil
		}
		obj := &v1alpha1.Bucket{}
		err = r.client.Get(ctx, types.NamespacedName{Namespace: p.Name, Name: b.Name}, obj)
		if client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		if err == nil && obj.Spec.DeletionPolicy == v1alpha1.BucketRetain {
			return &controllers.Outcome{Reason: reasonBucketsRemain, Message: fmt.Sprintf("The bucket %s has the deletion policy Retain: delete it through S3 first, or change its policy.", b.Name)}, nil
		}
	}
	return nil, nil
}

// empty tells whether a bucket has neither objects nor uploads. A bucket that is gone is empty.
func (b base) empty(ctx context.Context, bucket string) (bool, error) {
	list, err := b.opts.Objects.List(ctx, objects.List{Bucket: bucket, Max: 1})
	if errs.Is(err, errs.NotFound) {
		return true, nil
	}
	if err != nil || len(list.Objects) > 0 {
		return false, err
	}
	uploads, err := b.opts.Objects.ListUploads(ctx, objects.ListUploads{Bucket: bucket, Max: 1})
	if errs.Is(err, errs.NotFound) {
		return true, nil
	}
	return err == nil && len(uploads.Uploads) == 0, err
}
