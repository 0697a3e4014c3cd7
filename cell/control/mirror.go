package control

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"chancery/api/v1alpha1"
	"chancery/cell/objects"
	"chancery/internal/errs"
	"chancery/internal/store"
)

// The mirror shows in the API what was made or deleted below it: it makes the
// missing Project and Bucket objects, and wakes the reconcilers of those whose
// counterpart is gone. It looks at the state, not at the events: the change
// feed only tells where to look, and a full look at each start finds the rest.
type mirror struct {
	base
	// buckets and projects wake the reconcilers.
	buckets, projects chan event.GenericEvent
	queue             workqueue.TypedRateLimitingInterface[reconcile.Request]
	started           chan struct{}
}

const (
	// cursorName is the mirror's position in the change feed.
	cursorName = "control/mirror"
	// feedPause lets changes gather: most are of objects and none of ours.
	feedPause = 100 * time.Millisecond
	feedBatch = 1000
	// cursorEvery bounds how long a cursor that moved past nothing of ours stays unwritten.
	cursorEvery = 10 * time.Second
	// resyncEvery repeats the full look.
	resyncEvery = 10 * time.Minute

	kindBucket  = "bucket"
	kindProject = "project"
)

func newMirror(b base) *mirror {
	return &mirror{base: b, buckets: make(chan event.GenericEvent), projects: make(chan event.GenericEvent), started: make(chan struct{})}
}

func (m *mirror) add(mgr manager.Manager) error {
	c, err := controller.New("mirror", mgr, controller.Options{Reconciler: m})
	if err != nil {
		return err
	}
	if err := c.Watch(source.Func(func(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		m.queue = q
		close(m.started)
		return nil
	})); err != nil {
		return err
	}
	return mgr.Add(manager.RunnableFunc(m.follow))
}

func (m *mirror) look(kind, name string) {
	m.queue.Add(reconcile.Request{NamespacedName: types.NamespacedName{Namespace: kind, Name: name}})
}

// follow reads the change feed for ever.
func (m *mirror) follow(ctx context.Context) error {
	select {
	case <-m.started:
	case <-ctx.Done():
		return nil
	}
	for ctx.Err() == nil {
		if err := m.tail(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("mirror of the change feed starts over", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

func (m *mirror) tail(ctx context.Context) error {
	feed := m.opts.Store.Feed()
	at, err := feed.Cursor(ctx, cursorName)
	if err != nil {
		return err
	}
	saved, savedAt := at, time.Now()
	if at == 0 {
		// Register, so that what comes from now on is kept for us.
		if err := m.save(ctx, 0); err != nil {
			return err
		}
	}
	if err := m.lookAtAll(ctx); err != nil {
		return err
	}
	looked := time.Now()
	for {
		changes, err := feed.Read(ctx, at, feedBatch)
		if err != nil {
			return err
		}
		for _, c := range changes {
			if err := m.change(c); err != nil {
				return err
			}
			at = c.Seq
		}
		if at != saved && (len(changes) == 0 || time.Since(savedAt) >= cursorEvery) && time.Since(savedAt) >= time.Second {
			if err := m.save(ctx, at); err != nil {
				return err
			}
			saved, savedAt = at, time.Now()
		}
		if time.Since(looked) >= resyncEvery {
			if err := m.lookAtAll(ctx); err != nil {
				return err
			}
			looked = time.Now()
		}
		if len(changes) >= feedBatch {
			continue
		}
		wait, cancel := context.WithTimeout(ctx, cursorEvery)
		err = feed.Wait(wait, at)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && wait.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(feedPause):
		}
	}
}

func (m *mirror) save(ctx context.Context, at store.Seq) error {
	var b store.Batch
	b.SetCursor(cursorName, at)
	_, err := m.opts.Store.Commit(ctx, &b)
	return err
}

func (m *mirror) change(c store.Change) error {
	switch c.Topic {
	case objects.TopicBucket:
		b, err := objects.DecodeBucketChange(c.Payload)
		if err != nil {
			return err
		}
		m.look(kindBucket, b.Name)
	case objects.TopicProject:
		p, err := objects.DecodeProjectChange(c.Payload)
		if err != nil {
			return err
		}
		m.look(kindProject, p.Name)
	}
	return nil
}

// lookAtAll compares everything, once.
func (m *mirror) lookAtAll(ctx context.Context) error {
	projects, err := m.opts.Objects.Projects(ctx)
	if err != nil {
		return err
	}
	for _, p := range projects {
		m.look(kindProject, p.Name)
	}
	buckets, err := m.opts.Objects.Buckets(ctx, "")
	if err != nil {
		return err
	}
	for _, b := range buckets {
		m.look(kindBucket, b.Name)
	}
	return nil
}

// Reconcile implements reconcile.Reconciler: the request's namespace is the
// kind, its name that of a bucket or project.
func (m *mirror) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if req.Namespace == kindProject {
		return ctrl.Result{}, m.showProject(ctx, req.Name)
	}
	return ctrl.Result{}, m.showBucket(ctx, req.Name)
}

func (m *mirror) showProject(ctx context.Context, name string) error {
	account, exists, err := m.project(ctx, name)
	if err != nil {
		return err
	}
	obj := &v1alpha1.Project{}
	err = m.client.Get(ctx, types.NamespacedName{Name: name}, obj)
	if err == nil {
		return wake(ctx, m.projects, obj)
	}
	if !apierrors.IsNotFound(err) || !exists {
		return client.IgnoreNotFound(err)
	}
	obj.ObjectMeta = metav1.ObjectMeta{Name: name, Annotations: map[string]string{v1alpha1.AnnotationMirrors: account.ID}}
	return ignoreExists(m.client.Create(ctx, obj))
}

func (m *mirror) showBucket(ctx context.Context, name string) error {
	// Whoever has an object of this name may now get the bucket, or has lost it.
	all := &v1alpha1.BucketList{}
	if err := m.client.List(ctx, all); err != nil {
		return err
	}
	found := map[string]bool{}
	for i := range all.Items {
		if b := &all.Items[i]; b.Name == name {
			found[b.Namespace] = true
			if err := wake(ctx, m.buckets, b); err != nil {
				return err
			}
		}
	}
	actual, err := m.opts.Objects.Bucket(ctx, name)
	if err != nil {
		if errs.Is(err, errs.NotFound) {
			return nil
		}
		return err
	}
	projects, err := m.opts.Objects.Projects(ctx)
	if err != nil {
		return err
	}
	for _, p := range projects {
		if p.ID != actual.ProjectID || found[p.Name] {
			continue
		}
		ns := &corev1.Namespace{}
		if err := m.client.Get(ctx, types.NamespacedName{Name: p.Name}, ns); err != nil {
			return err // its Project makes it; look again
		}
		if ns.DeletionTimestamp != nil {
			return nil
		}
		return ignoreExists(m.client.Create(ctx, &v1alpha1.Bucket{ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Name, Name: name, Annotations: map[string]string{v1alpha1.AnnotationMirrors: actual.ID},
		}}))
	}
	return nil
}

func wake(ctx context.Context, to chan event.GenericEvent, obj client.Object) error {
	select {
	case to <- event.GenericEvent{Object: obj}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
