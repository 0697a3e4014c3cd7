package control

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"chancery/api/v1alpha1"
	"chancery/internal/apiserver/controllers"
)

// zoneReconciler keeps the one Zone object true.
type zoneReconciler struct {
	opts    Options
	client  client.Client
	events  events.EventRecorder
	started time.Time
}

func (r *zoneReconciler) add(m manager.Manager) error {
	first := make(chan event.GenericEvent, 1)
	first <- event.GenericEvent{Object: &v1alpha1.Zone{ObjectMeta: metav1.ObjectMeta{Name: r.opts.Zone.Name}}}
	own := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: r.opts.Zone.Name}}}
	})
	return ctrl.NewControllerManagedBy(m).Named("zone").
		For(&v1alpha1.Zone{}).
		Watches(&v1alpha1.Organization{}, own).
		WatchesRawSource(source.Channel(first, &handler.EnqueueRequestForObject{})).
		Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *zoneReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	z := &v1alpha1.Zone{}
	err := r.client.Get(ctx, req.NamespacedName, z)
	info := r.opts.Zone
	if req.Name != info.Name {
		if err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		// The zone was renamed in its settings.
		return ctrl.Result{}, client.IgnoreNotFound(r.client.Delete(ctx, z))
	}
	if apierrors.IsNotFound(err) {
		z = &v1alpha1.Zone{ObjectMeta: metav1.ObjectMeta{Name: info.Name}, Spec: v1alpha1.ZoneSpec{Jurisdiction: info.Jurisdiction, Domain: info.Domain}}
		if err = r.client.Create(ctx, z); apierrors.IsAlreadyExists(err) {
			return ctrl.Result{RequeueAfter: time.Second}, nil
		}
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	var organizations v1alpha1.OrganizationList
	if err := r.client.List(ctx, &organizations); err != nil {
		return ctrl.Result{}, err
	}
	before := z.DeepCopy()
	at := metav1.NewTime(r.started.Truncate(time.Second))
	z.Status.Ports = v1alpha1.ZonePorts{S3: int32(info.S3Port), API: int32(info.APIPort), Operator: int32(info.OperatorPort)}
	z.Status.Version, z.Status.Demonstration, z.Status.Started = r.opts.Version, info.Demonstration, &at
	z.Status.Organizations = int64(len(organizations.Items))
	outcome := controllers.Outcome{Ready: true, Reason: "Serving", Message: "The zone serves."}
	if z.Spec.Jurisdiction != info.Jurisdiction || z.Spec.Domain != info.Domain {
		outcome = controllers.Outcome{Reason: "SettingsDiffer", Message: "The settings file of the zone names another jurisdiction or domain than this object, which shows what they were at first."}
	}
	return ctrl.Result{}, controllers.Finish(ctx, r.client, r.events, before, z, outcome)
}
