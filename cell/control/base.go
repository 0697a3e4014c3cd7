package control

import (
	"context"
	"log/slog"

	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"chancery/api/v1alpha1"
	"chancery/cell/objects"
	"chancery/internal/apiserver/controllers"
	"chancery/internal/errs"
)

// base is what the reconcilers share.
type base struct {
	opts   Options
	client client.Client
	events events.EventRecorder
	log    *slog.Logger
}

// Reasons of the Ready condition; events carry them too.
const (
	reasonAvailable     = "Available"
	reasonDisabled      = "Disabled"
	reasonNoProject     = "NoProject"
	reasonBucketExists  = "BucketAlreadyExists"
	reasonNotEmpty      = "NotEmpty"
	reasonBucketsRemain = "BucketsRemain"
	reasonDeleting      = "Deleting"
	reasonRefused       = "Refused"
	reasonSecretExists  = "SecretAlreadyExists"
	reasonKeyGone       = "KeyGone"
	reasonKeyDestroyed  = "KeyDestroyed"
)

// ensureFinalizer adds our finalizer to an object that lacks it.
func (b base) ensureFinalizer(ctx context.Context, obj client.Object) error {
	if controllerutil.ContainsFinalizer(obj, v1alpha1.Finalizer) {
		return nil
	}
	before := obj.DeepCopyObject().(client.Object)
	controllerutil.AddFinalizer(obj, v1alpha1.Finalizer)
	return b.client.Patch(ctx, obj, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

// release takes our finalizer off: what the object stood for is gone.
func (b base) release(ctx context.Context, obj client.Object) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(obj, v1alpha1.Finalizer) {
		return ctrl.Result{}, nil
	}
	before := obj.DeepCopyObject().(client.Object)
	controllerutil.RemoveFinalizer(obj, v1alpha1.Finalizer)
	err := b.client.Patch(ctx, obj, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// finish writes the outcome. An outcome that is not ready is looked at again.
func (b base) finish(ctx context.Context, before, obj controllers.Conditioned, o controllers.Outcome) (ctrl.Result, error) {
	if err := controllers.Finish(ctx, b.client, b.events, before, obj, o); err != nil {
		return ctrl.Result{}, err
	}
	if o.Ready || o.Reason == reasonDisabled || o.Reason == reasonKeyGone {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: slowRetry}, nil
}

// project finds the project that a namespace belongs to; ok is false if there is none.
func (b base) project(ctx context.Context, namespace string) (objects.Project, bool, error) {
	p, err := b.opts.Objects.Project(ctx, namespace)
	if errs.Is(err, errs.NotFound) {
		return objects.Project{}, false, nil
	}
	return p, err == nil, err
}

// refused tells whether an error is a final answer about the object's own content.
func refused(err error) bool {
	return errs.Is(err, errs.Invalid) || errs.Is(err, errs.Denied) || errs.Is(err, errs.Unsupported)
}

func noProject(namespace string) controllers.Outcome {
	return controllers.Outcome{Reason: reasonNoProject, Message: "The namespace " + namespace + " belongs to no project: make a Project of that name first."}
}
