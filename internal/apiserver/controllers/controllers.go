// Package controllers sets up controller-runtime for reconcilers that live in
// the same process as their API server: no metrics port, no health port, no
// leader election, no webhook, and no cache of secrets. It must never open a socket.
package controllers

import (
	"context"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"chancery/api/v1alpha1"
	"chancery/internal/errs"
)

// NewManager returns a manager for our kinds and the core ones.
func NewManager(config *rest.Config, logger *slog.Logger) (manager.Manager, error) {
	const op = "controllers.NewManager"
	scheme := runtime.NewScheme()
	if err := clientscheme.AddToScheme(scheme); err != nil {
		return nil, errs.Wrap(op, err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, errs.Wrap(op, err)
	}
	log := logr.FromSlogHandler(logger.Handler())
	ctrllog.SetLogger(log)
	grace, skip := 5*time.Second, true
	m, err := ctrl.NewManager(config, manager.Options{
		Scheme: scheme, Logger: log,
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		GracefulShutdownTimeout: &grace,
		// A server can be started again in one process after a seal; names repeat then.
		Controller: ctrlconfig.Controller{SkipNameValidation: &skip},
		Client:     client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}, &corev1.Namespace{}}}},
	})
	return m, errs.Wrap(op, err)
}

// Conditioned is an object of ours with conditions in its status.
type Conditioned interface {
	client.Object
	GetConditions() *[]metav1.Condition
}

// Outcome is the Ready condition that a reconciler arrived at.
type Outcome struct {
	// Ready tells whether what was asked for is there.
	Ready bool
	// Reason is one CamelCase word, Message one plain sentence.
	Reason, Message string
	// Quiet makes no event of a change to this outcome.
	Quiet bool
}

// Set puts the outcome into the object's Ready condition and tells whether its reason changed.
func (o Outcome) Set(obj Conditioned) (changed bool) {
	status := metav1.ConditionFalse
	if o.Ready {
		status = metav1.ConditionTrue
	}
	old := meta.FindStatusCondition(*obj.GetConditions(), v1alpha1.ConditionReady)
	changed = old == nil || old.Reason != o.Reason || old.Status != status
	meta.SetStatusCondition(obj.GetConditions(), metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: status, Reason: o.Reason, Message: o.Message, ObservedGeneration: obj.GetGeneration(),
	})
	return changed
}

// Finish writes the object's status if it differs from before, and an event if
// the outcome is new. before is a copy from the start of the reconciliation.
func Finish(ctx context.Context, c client.Client, recorder events.EventRecorder, before, obj Conditioned, o Outcome) error {
	changed := o.Set(obj)
	if !apiequality.Semantic.DeepEqual(before, obj) {
		if err := c.Status().Patch(ctx, obj, client.MergeFrom(before)); err != nil {
			return client.IgnoreNotFound(err)
		}
	}
	if changed && !o.Quiet {
		kind := corev1.EventTypeNormal
		if !o.Ready {
			kind = corev1.EventTypeWarning
		}
		recorder.Eventf(obj, nil, kind, o.Reason, "Reconcile", "%s", o.Message)
	}
	return nil
}
