package control

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"chancery/api/v1alpha1"
	"chancery/cell/identity"
	"chancery/internal/apiserver/controllers"
	"chancery/internal/errs"
)

// Keys of the Secret that an access key is written to. The names in capitals
// are those that S3 clients read from their environment (`envFrom`).
const (
	fieldAccessKeyID     = "accessKeyID"
	fieldSecretAccessKey = "secretAccessKey"
	fieldEndpoint        = "endpoint"
	fieldRegion          = "region"
	fieldCA              = "ca.crt"
	envAccessKeyID       = "AWS_ACCESS_KEY_ID"
	envSecretAccessKey   = "AWS_SECRET_ACCESS_KEY"
	envEndpoint          = "AWS_ENDPOINT_URL"
	envRegion            = "AWS_REGION"
)

// accessKeyReconciler makes access keys and hands each secret out once.
type accessKeyReconciler struct{ base }

func (r *accessKeyReconciler) add(m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("accesskey").For(&v1alpha1.AccessKey{}).Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *accessKeyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	k := &v1alpha1.AccessKey{}
	if err := r.client.Get(ctx, req.NamespacedName, k); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if k.DeletionTimestamp != nil {
		return r.remove(ctx, k)
	}
	before := k.DeepCopy()
	project, ok, err := r.project(ctx, k.Namespace)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !ok {
		return r.finish(ctx, before, k, noProject(k.Namespace))
	}
	if err := r.ensureFinalizer(ctx, k); err != nil {
		return ctrl.Result{}, err
	}
	before = k.DeepCopy()
	if k.Status.AccessKeyID == "" {
		outcome, err := r.create(ctx, k, project.ID)
		if err != nil {
			return ctrl.Result{}, err
		}
		if outcome != nil {
			return r.finish(ctx, before, k, *outcome)
		}
	}
	actual, err := r.opts.Directory.AccessKey(ctx, k.Status.AccessKeyID)
	if errs.Is(err, errs.NotFound) {
		return r.finish(ctx, before, k, controllers.Outcome{Reason: reasonKeyGone, Message: "The key was deleted. Make a new AccessKey: a secret is handed out once only."})
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	if actual.Disabled != k.Spec.Disabled {
		if err := r.opts.Directory.SetAccessKeyDisabled(ctx, actual.ID, k.Spec.Disabled); err != nil {
			return ctrl.Result{}, err
		}
	}
	if k.Spec.Disabled {
		return r.finish(ctx, before, k, controllers.Outcome{Reason: reasonDisabled, Message: "The key is disabled: every request with it is refused."})
	}
	return r.finish(ctx, before, k, controllers.Outcome{Ready: true, Reason: reasonAvailable, Message: "The key works."})
}

// create makes the key and writes its secret, or tells what is in the way. It
// may be repeated after a crash at any point: the directory gives the same key
// to the same owner, and the Secret is ours if it carries our uid.
func (r *accessKeyReconciler) create(ctx context.Context, k *v1alpha1.AccessKey, project string) (*controllers.Outcome, error) {
	name := k.Spec.SecretName
	if name == "" {
		name = k.Name
	}
	existing := &corev1.Secret{}
	err := r.client.Get(ctx, types.NamespacedName{Namespace: k.Namespace, Name: name}, existing)
	if client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if err == nil && !metav1.IsControlledBy(existing, k) {
		return &controllers.Outcome{Reason: reasonSecretExists, Message: "There is a Secret " + name + " already, and it is not touched: delete it, or make a new AccessKey with another spec.secretName."}, nil
	}
	exists := err == nil
	made, err := r.opts.Directory.CreateAccessKey(ctx, identity.NewAccessKey{Project: project, User: k.Spec.User, Owner: string(k.UID)})
	if err != nil {
		if refused(err) {
			return &controllers.Outcome{Reason: reasonRefused, Message: err.Error()}, nil
		}
		return nil, err
	}
	if !exists {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: name},
			Type:       corev1.SecretTypeOpaque,
			Data: map[string][]byte{
				fieldAccessKeyID: []byte(made.ID), fieldSecretAccessKey: []byte(made.Secret),
				fieldEndpoint: []byte(r.opts.S3Endpoint), fieldRegion: []byte(r.opts.Region), fieldCA: r.opts.CACertificate,
				envAccessKeyID: []byte(made.ID), envSecretAccessKey: []byte(made.Secret),
				envEndpoint: []byte(r.opts.S3Endpoint), envRegion: []byte(r.opts.Region),
			},
		}
		if err := controllerutil.SetControllerReference(k, secret, r.client.Scheme()); err != nil {
			return nil, err
		}
		if err := r.client.Create(ctx, secret); err != nil {
			if apierrors.IsAlreadyExists(err) {
				return nil, errs.New(errs.Conflict, "control.AccessKey", "the Secret was made meanwhile")
			}
			return nil, err
		}
	}
	k.Status.AccessKeyID, k.Status.SecretName = made.ID, name
	return nil, nil
}

// remove deletes the key; its Secret goes by its owner reference.
func (r *accessKeyReconciler) remove(ctx context.Context, k *v1alpha1.AccessKey) (ctrl.Result, error) {
	ids := []string{}
	if k.Status.AccessKeyID != "" {
		ids = append(ids, k.Status.AccessKeyID)
	} else {
		// A crash may have come between the key and its mention here.
		all, err := r.opts.Directory.ListAccessKeys(ctx, "")
		if err != nil {
			return ctrl.Result{}, err
		}
		for _, have := range all {
			if have.Owner == string(k.UID) {
				ids = append(ids, have.ID)
			}
		}
	}
	for _, id := range ids {
		if err := r.opts.Directory.DeleteAccessKey(ctx, id); err != nil && !errs.Is(err, errs.NotFound) {
			return ctrl.Result{}, err
		}
	}
	return r.release(ctx, k)
}
