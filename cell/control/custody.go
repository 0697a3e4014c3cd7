package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"chancery/api/v1alpha1"
	"chancery/cell/identity"
	"chancery/cell/seal"
	"chancery/internal/apiserver"
	"chancery/internal/apiserver/controllers"
	"chancery/internal/errs"
	"chancery/wall"
)

// Custody is what this package needs of the cell's custody of its root key. Rotate
// and Destroy may seal the organization, and with it end whoever called them: they
// return when ctx ends, and go on.
type Custody interface {
	// Present is the ceremony in force; ok is false unless the organization is
	// unsealed and no rotation of the root is under way.
	Present() (p seal.Present, ok bool)
	// Rotate makes a new root key and splits it. Errors: errs.Invalid, errs.Sealed, others.
	Rotate(ctx context.Context, in wall.Init) error
	// Destroy ends the organization for ever.
	Destroy(ctx context.Context) error
}

// Reasons of the Custody's conditions and events.
const (
	reasonRootRotated     = "RootRotated"
	reasonRotationFailed  = "RotationFailed"
	reasonDestroying      = "Destroying"
	reasonDestroyFailed   = "DestructionFailed"
	reasonPurged          = "Purged"
	reasonPurging         = "Purging"
	reasonHandedOver      = "HandedOver"
	reasonAwaitsNew       = "NewCredentialUnused"
	reasonCredentialEnded = "OldCredentialRevoked"
)

// custodyRetry is how soon the custody is looked at again that is being changed.
const custodyRetry = time.Second

// authorize is what administrators may do: everything, but for the end of the
// Custody, which stands for something that cannot be deleted.
func authorize(ctx context.Context, a authorizer.Attributes) bool {
	if a.GetAPIGroup() == v1alpha1.GroupName && a.GetResource() == "custodies" && (a.GetVerb() == "delete" || a.GetVerb() == "deletecollection") {
		return false
	}
	return apiserver.Administrators(Administrators)(ctx, a)
}

// witness remembers which custodians' credential was used last: whoever uses it
// could open the bootstrap file, so the new custodians can. Safe for concurrent use.
type witness struct {
	mu   sync.Mutex
	used string // ceremony
	wake chan event.GenericEvent
}

func newWitness() *witness { return &witness{wake: make(chan event.GenericEvent, 1)} }

func (w *witness) saw(t identity.Token) {
	if t.Ceremony == "" {
		return
	}
	w.mu.Lock()
	first := w.used != t.Ceremony
	w.used = t.Ceremony
	w.mu.Unlock()
	if first {
		w.look()
	}
}

func (w *witness) proved(ceremony string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.used == ceremony
}

// look has the Custody reconciled.
func (w *witness) look() {
	select {
	case w.wake <- event.GenericEvent{Object: &v1alpha1.Custody{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.CustodyName}}}:
	default: // it will be looked at
	}
}

// custodyReconciler keeps the one Custody true: who holds shares, the generations
// of root and organization key, the end of credentials that went to custodians of
// before, and the destruction of it all.
type custodyReconciler struct {
	base
	witness *witness
	// opened is the ceremony whose custodians unsealed the organization this time.
	opened string
}

func (r *custodyReconciler) add(m manager.Manager) error {
	if err := m.Add(manager.RunnableFunc(func(ctx context.Context) error {
		r.opts.Keys.RunPurges(ctx, func(_ bool, err error) {
			if err != nil {
				r.log.Warn("old wrapped keys are not purged from the store's files yet", "error", err)
			}
			r.witness.look()
		})
		return nil
	})); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(m).Named("custody").
		For(&v1alpha1.Custody{}).
		WatchesRawSource(source.Channel(r.witness.wake, &handler.EnqueueRequestForObject{})).
		WatchesRawSource(source.Func(func(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			q.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: v1alpha1.CustodyName}}) // also if there is none yet
			return nil
		})).
		Complete(r)
}

// Reconcile implements reconcile.Reconciler. One runs at a time.
func (r *custodyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if req.Name != v1alpha1.CustodyName {
		return ctrl.Result{}, nil
	}
	present, ok := r.opts.Custody.Present()
	if !ok { // the unsealing is about to end, or a rotation
		return ctrl.Result{RequeueAfter: custodyRetry}, nil
	}
	if r.opened == "" {
		r.opened = present.Ceremony
	}
	c := &v1alpha1.Custody{}
	if err := r.client.Get(ctx, req.NamespacedName, c); apierrors.IsNotFound(err) {
		return ctrl.Result{}, r.create(ctx, present)
	} else if err != nil {
		return ctrl.Result{}, err
	}
	before := c.DeepCopy()
	if c.Spec.Destroy != "" && c.Spec.Destroy == "DESTROY "+r.opts.Organization {
		return r.destroy(ctx, before, c)
	}
	outcome, err := r.advance(ctx, c, &present)
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.tell(ctx, c, present); err != nil {
		return ctrl.Result{}, err
	}
	if outcome == nil {
		outcome = &controllers.Outcome{Ready: true, Reason: reasonAvailable, Message: fmt.Sprintf("Any %d of %d custodians unseal the organization.", present.Quorum, len(present.Custodians))}
	}
	return r.finish(ctx, before, c, *outcome)
}

// create makes the Custody as things are.
func (r *custodyReconciler) create(ctx context.Context, p seal.Present) error {
	key, root, err := r.opts.Keys.Generations(ctx)
	if err != nil {
		return err
	}
	c := &v1alpha1.Custody{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.CustodyName}, Spec: v1alpha1.CustodySpec{
		Quorum: int32(p.Quorum), KeyGeneration: int64(key), RootGeneration: int64(root), //nolint:gosec // at most 255
	}}
	for _, h := range p.Custodians {
		c.Spec.Custodians = append(c.Spec.Custodians, v1alpha1.Custodian{Name: h.Name, Recipient: h.Recipient})
	}
	return ignoreExists(r.client.Create(ctx, c))
}

// advance rotates what is to be rotated. present is what is in force afterwards.
func (r *custodyReconciler) advance(ctx context.Context, c *v1alpha1.Custody, present *seal.Present) (*controllers.Outcome, error) {
	_, root, err := r.opts.Keys.Generations(ctx)
	if err != nil {
		return nil, err
	}
	if c.Spec.RootGeneration > int64(root)+1 {
		return &controllers.Outcome{Reason: reasonRefused, Message: fmt.Sprintf("rootGeneration is at most %d: a new root key is made once at a time.", root+1)}, nil
	}
	if c.Spec.RootGeneration > int64(root) || !same(c.Spec, *present) {
		outcome, err := r.rotateRoot(ctx, c, present)
		if outcome != nil || err != nil {
			return outcome, err
		}
	}
	_, outcome, err := r.rotate(ctx, c, "organization", c.Spec.KeyGeneration, organizationKey{r.opts.Keys})
	return outcome, err
}

// same tells whether the custodians and quorum of the spec are those in force, in whatever order.
func same(spec v1alpha1.CustodySpec, p seal.Present) bool {
	if int(spec.Quorum) != p.Quorum || len(spec.Custodians) != len(p.Custodians) {
		return false
	}
	for _, c := range spec.Custodians {
		if !slices.Contains(p.Custodians, wall.Custodian{Name: c.Name, Recipient: strings.TrimSpace(c.Recipient)}) {
			return false
		}
	}
	return true
}

func (r *custodyReconciler) rotateRoot(ctx context.Context, c *v1alpha1.Custody, present *seal.Present) (*controllers.Outcome, error) {
	in := wall.Init{Quorum: int(c.Spec.Quorum)}
	for _, h := range c.Spec.Custodians {
		in.Custodians = append(in.Custodians, wall.Custodian{Name: h.Name, Recipient: strings.TrimSpace(h.Recipient)})
	}
	err := r.opts.Custody.Rotate(ctx, in)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && refused(err):
		return &controllers.Outcome{Reason: reasonRefused, Message: "The custodians were not changed: " + err.Error()}, nil
	case err != nil:
		return &controllers.Outcome{Reason: reasonRotationFailed, Message: "The custodians were not changed, and it is tried again: " + err.Error()}, nil
	}
	now, ok := r.opts.Custody.Present()
	if !ok {
		return nil, errs.New(errs.Sealed, "control.Custody", "the organization was sealed meanwhile")
	}
	*present = now
	r.events.Eventf(c, nil, corev1.EventTypeNormal, reasonRootRotated, "Rotate",
		"There is a new root key: any %d of %s unseal the organization. Earlier shares open nothing any more.", now.Quorum, strings.Join(namesOf(now), ", "))
	return nil, nil
}

func namesOf(p seal.Present) []string {
	var out []string
	for _, h := range p.Custodians {
		out = append(out, h.Name)
	}
	return out
}

// tell fills in the status, and ends credentials that are to end.
func (r *custodyReconciler) tell(ctx context.Context, c *v1alpha1.Custody, p seal.Present) error {
	key, root, err := r.opts.Keys.Generations(ctx)
	if err != nil {
		return err
	}
	s := &c.Status
	s.Organization, s.Ceremony, s.Quorum, s.Custodians = r.opts.Organization, p.Ceremony, int32(p.Quorum), namesOf(p) //nolint:gosec // at most 255
	s.KeyGeneration, s.RootGeneration, s.RootKeyMemory = int64(key), int64(root), p.Memory
	due, err := r.opts.Keys.PurgeDue(ctx)
	if err != nil {
		return err
	}
	condition(c, v1alpha1.ConditionPurged, !due,
		reasonPurged, "No wrapped key that was replaced or destroyed is left in the organization's files.",
		reasonPurging, "Keys were destroyed, and what is left of them is being removed from the organization's files.")
	return r.handOver(ctx, c, p)
}

// handOver ends administrators' credentials that went to custodians of before, as
// soon as it is sure that the present ones can open theirs: they have unsealed the
// organization, or somebody has used their credential. Until then nobody is locked
// out by a recipient that was a mistake.
func (r *custodyReconciler) handOver(ctx context.Context, c *v1alpha1.Custody, p seal.Present) error {
	old, err := r.opts.Directory.OldBootstrap(ctx, p.Ceremony)
	if err != nil {
		return err
	}
	if len(old) > 0 && (r.opened == p.Ceremony || r.witness.proved(p.Ceremony)) {
		for _, name := range old {
			if err := r.opts.Directory.RevokeToken(ctx, name); err != nil && !errs.Is(err, errs.NotFound) {
				return err
			}
		}
		r.events.Eventf(c, nil, corev1.EventTypeNormal, reasonCredentialEnded, "HandOver",
			"Administrators' credentials of earlier custodians are revoked: %s.", strings.Join(old, ", "))
		old = nil
	}
	condition(c, v1alpha1.ConditionHandedOver, len(old) == 0,
		reasonHandedOver, "No administrator's credential of earlier custodians is in force.",
		reasonAwaitsNew, "The administrator's credential of the earlier custodians works until that of the new ones is first used (chancery kubeconfig), or they unseal the organization.")
	return nil
}

// condition sets a condition one way or the other.
func condition(c *v1alpha1.Custody, typ string, holds bool, yes, yesMessage, no, noMessage string) {
	cond := metav1.Condition{Type: typ, Status: metav1.ConditionTrue, Reason: yes, Message: yesMessage, ObservedGeneration: c.Generation}
	if !holds {
		cond.Status, cond.Reason, cond.Message = metav1.ConditionFalse, no, noMessage
	}
	meta.SetStatusCondition(&c.Status.Conditions, cond)
}

// destroy ends the organization. If it succeeds there is soon nobody left to tell.
func (r *custodyReconciler) destroy(ctx context.Context, before, c *v1alpha1.Custody) (ctrl.Result, error) {
	if _, err := r.finish(ctx, before, c, controllers.Outcome{Reason: reasonDestroying, Message: "The organization is being destroyed, for ever."}); err != nil {
		r.log.Warn("the destruction could not be announced", "error", err)
	}
	err := r.opts.Custody.Destroy(ctx)
	if err == nil || ctx.Err() != nil {
		return ctrl.Result{}, nil
	}
	return r.finish(ctx, c.DeepCopy(), c, controllers.Outcome{Reason: reasonDestroyFailed, Message: "The organization could not be destroyed, and it is tried again: " + err.Error()})
}
