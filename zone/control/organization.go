package control

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"chancery/api/v1alpha1"
	"chancery/internal/apiserver/controllers"
	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/wall"
	"chancery/zone/cells"
)

// organizationReconciler makes the cell of each Organization run, lets it make
// its root key once, and tells what it is.
type organizationReconciler struct {
	opts   Options
	client client.Client
	events events.EventRecorder
	log    *slog.Logger
}

const (
	// ensureTime is how long one step waits for a cell to answer. It goes on starting after that.
	ensureTime = 3 * time.Second
	// initTime bounds the making and splitting of a root key.
	initTime = time.Minute
	// slowRetry is how often a state is looked at that only a person can change.
	slowRetry = 30 * time.Second
	// parallel organizations; a cell that hangs must not hold up the others.
	parallel = 4
)

func (r *organizationReconciler) add(m manager.Manager) error {
	w := newWatcher(r.opts.Cells, r.client)
	if err := m.Add(manager.RunnableFunc(w.run)); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(m).Named("organization").
		For(&v1alpha1.Organization{}).
		WatchesRawSource(source.Channel(w.changed, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: parallel}).
		Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *organizationReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	o := &v1alpha1.Organization{}
	if err := r.client.Get(ctx, req.NamespacedName, o); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if o.DeletionTimestamp != nil {
		return r.remove(ctx, o)
	}
	if !controllerutil.ContainsFinalizer(o, v1alpha1.Finalizer) {
		before := o.DeepCopy()
		controllerutil.AddFinalizer(o, v1alpha1.Finalizer)
		if err := r.client.Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
			return ctrl.Result{}, err
		}
	}
	before := o.DeepCopy()
	outcome, err := r.advance(ctx, o)
	if err != nil {
		return ctrl.Result{}, err
	}
	o.Status.ObservedGeneration = o.Generation
	if err := controllers.Finish(ctx, r.client, r.events, before, o, outcome); err != nil {
		return ctrl.Result{}, err
	}
	switch outcome.Reason {
	case reasonUnsealed, reasonSealed, reasonStopped:
		return ctrl.Result{}, nil // the watcher tells of changes
	case reasonStarting, reasonSilent, reasonCrashed:
		return ctrl.Result{RequeueAfter: ensureTime}, nil
	}
	return ctrl.Result{RequeueAfter: slowRetry}, nil
}

// advance takes one step towards what is wanted and fills in the status.
func (r *organizationReconciler) advance(ctx context.Context, o *v1alpha1.Organization) (controllers.Outcome, error) {
	if o.Spec.DesiredState == v1alpha1.DesiredStopped {
		if err := r.opts.Cells.Remove(ctx, o.Name); err != nil && !errs.Is(err, errs.NotFound) {
			return controllers.Outcome{}, err
		}
		return stopped(o), nil
	}
	r.endpoints(o)
	ensure, cancel := context.WithTimeout(ctx, ensureTime)
	err := r.opts.Cells.Ensure(ensure, r.config(o.Name))
	cancel()
	if err != nil && !errs.Is(err, errs.Unavailable) {
		return controllers.Outcome{Reason: reasonRefused, Message: err.Error()}, nil
	}
	st, ok := r.opts.Cells.Status(o.Name)
	if !ok || st.Phase != cells.Running {
		return notAnswering(o, st), nil
	}
	cell := st.Cell
	if cell.State == wall.Uninitialized {
		made := o.Status.IdentityPin != ""
		if !made {
			outcome, err := r.init(ctx, o)
			if outcome != nil || err != nil {
				return *orZero(outcome), err
			}
		}
		// What was heard last may be from before the ceremony: ask again, before saying that all is lost.
		c, err := r.opts.Cells.Client(o.Name)
		if err != nil {
			return controllers.Outcome{}, err
		}
		if cell, err = c.Status(ctx); err != nil {
			return controllers.Outcome{}, err
		}
		if made && cell.State == wall.Uninitialized {
			return dataLost(o), nil
		}
	}
	return mirror(o, st, cell), nil
}

func orZero(o *controllers.Outcome) *controllers.Outcome {
	if o == nil {
		return &controllers.Outcome{}
	}
	return o
}

// init lets the cell make its root key. The cell refuses a second time, so that
// a crash between this and the status is harmless.
func (r *organizationReconciler) init(ctx context.Context, o *v1alpha1.Organization) (*controllers.Outcome, error) {
	c, err := r.opts.Cells.Client(o.Name)
	if err != nil {
		return nil, err
	}
	in := wall.Init{Quorum: int(o.Spec.Quorum)}
	for _, p := range o.Spec.Custodians {
		in.Custodians = append(in.Custodians, wall.Custodian{Name: p.Name, Recipient: p.Recipient})
	}
	ctx, cancel := context.WithTimeout(ctx, initTime)
	defer cancel()
	made, err := c.Init(ctx, in)
	switch {
	case errs.Is(err, errs.Exists):
		return nil, nil
	case errs.Is(err, errs.Invalid):
		return &controllers.Outcome{Reason: reasonRefused, Message: "The cell refuses the custodians: " + err.Error()}, nil
	case err != nil:
		return nil, err
	}
	r.events.Eventf(o, nil, "Normal", "Initialized", "Init", "The organization made its root key inside its cell and split it among %d custodians, %d of whom can unseal it.", len(in.Custodians), in.Quorum)
	if made.Warning != "" {
		r.events.Eventf(o, nil, "Warning", "InitWarning", "Init", "%s", made.Warning)
	}
	return nil, nil
}

// config is what the cell is told at its start.
func (r *organizationReconciler) config(organization string) wall.Config {
	z := r.opts.Zone
	c := wall.Config{
		Organization: organization, Zone: z.Name, Jurisdiction: z.Jurisdiction, Domain: z.Domain,
		S3Port: z.S3Port, APIPort: z.APIPort,
	}
	if organization == z.DefaultOrganization {
		// It answers clients that connect to an address and name no server.
		c.ExtraNames = []string{"localhost", "127.0.0.1", "::1"}
	}
	return c
}

func (r *organizationReconciler) endpoints(o *v1alpha1.Organization) {
	url := func(service string, port int) string {
		return fmt.Sprintf("https://%s.%s.%s:%d", service, o.Name, r.opts.Zone.Domain, port)
	}
	o.Status.Endpoints = &v1alpha1.OrganizationEndpoints{
		S3: url("s3", r.opts.Zone.S3Port), API: url("api", r.opts.Zone.APIPort), Seal: url("seal", r.opts.Zone.APIPort),
	}
}

// remove ends the cell and deletes its directory. Admission let the deletion
// in only because the organization was not protected; whoever protects it
// again in time stops the deletion here.
func (r *organizationReconciler) remove(ctx context.Context, o *v1alpha1.Organization) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(o, v1alpha1.Finalizer) {
		return ctrl.Result{}, nil
	}
	if o.Spec.Protected == nil || *o.Spec.Protected {
		before := o.DeepCopy()
		err := controllers.Finish(ctx, r.client, r.events, before, o, controllers.Outcome{
			Reason: reasonProtected, Message: "The organization was protected again while it was being deleted: its data stays. Set spec.protected to false to go on.",
		})
		return ctrl.Result{RequeueAfter: slowRetry}, err
	}
	if err := r.opts.Cells.Remove(ctx, o.Name); err != nil && !errs.Is(err, errs.NotFound) {
		return ctrl.Result{}, err
	}
	if err := removeData(files.OS(), r.opts.Dir, o.Name); err != nil {
		return ctrl.Result{}, err
	}
	r.events.Eventf(o, nil, "Normal", "Deleted", "Delete", "The organization's cell was ended and its data deleted.")
	before := o.DeepCopy()
	controllerutil.RemoveFinalizer(o, v1alpha1.Finalizer)
	err := r.client.Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// removeData deletes a cell's directory. It follows no link that a cell may
// have planted, and may be repeated after a crash at any point.
func removeData(fs files.FS, dir, organization string) error {
	const op = "control.removeData"
	if !wall.IsLabel(organization) {
		return errs.New(errs.Invalid, op, "organization %q: want a DNS label", organization)
	}
	parent := filepath.Join(dir, "cells")
	if err := os.RemoveAll(filepath.Join(parent, organization)); err != nil {
		return errs.WrapKind(errs.Unavailable, op, err)
	}
	err := fs.SyncDir(parent)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	return errs.Wrap(op, err)
}
