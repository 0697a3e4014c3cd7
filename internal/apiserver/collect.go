package apiserver

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/workqueue"

	"chancery/internal/apiserver/revlog"
)

// collector empties deleted namespaces and deletes objects whose owners are
// gone, as kube-controller-manager does elsewhere. It learns of everything from
// the log itself, so that it holds no watch and no copy of any object, and acts
// through the API like any client, with the uid and the resourceVersion that it
// saw: what changed since is looked at again.
type collector struct {
	s      *Server
	client dynamic.Interface
	queue  workqueue.TypedRateLimitingInterface[string] // storage keys

	mu    sync.Mutex
	index *index
}

func newCollector(s *Server) *collector {
	return &collector{s: s, index: newIndex(), queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](20*time.Millisecond, 30*time.Second))}
}

// run collects until the server stops.
func (c *collector) run() {
	client, err := dynamic.NewForConfig(c.s.LoopbackConfig())
	if err != nil { // cannot happen with our own configuration
		c.s.opts.Logger.Error("collector does not run", "error", err)
		return
	}
	c.client = client
	var wg sync.WaitGroup
	wg.Go(c.work)
	for c.s.ctx.Err() == nil {
		if err := c.follow(); c.s.ctx.Err() == nil {
			c.s.opts.Logger.Warn("collector starts over", "error", err)
			select {
			case <-c.s.ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	c.queue.ShutDown()
	wg.Wait()
}

// follow builds the index and keeps it up to date; it ends only by an error: start over.
func (c *collector) follow() error {
	ctx := c.s.ctx
	fresh := newIndex()
	q := revlog.Query{Prefix: "/", Limit: 500}
	for {
		page, err := c.s.log.List(ctx, q)
		if err != nil {
			return err
		}
		for _, kv := range page.KVs {
			if n, err := decodeNode(kv); err != nil {
				c.s.opts.Logger.Warn("collector cannot read an object", "error", err)
			} else {
				fresh.put(n)
			}
		}
		q.Revision = page.Revision
		if int64(len(page.KVs)) == page.Count {
			break
		}
		q.From = page.KVs[len(page.KVs)-1].Key + "\x00"
	}
	c.mu.Lock()
	c.index = fresh
	for key, n := range fresh.byKey {
		if n.deleting || len(n.owners) > 0 {
			c.queue.Add(key)
		}
	}
	c.mu.Unlock()
	w := c.s.log.Watch("/", false, q.Revision)
	for {
		step, err := w.Next(ctx)
		if err != nil {
			return err
		}
		c.mu.Lock()
		for _, e := range step.Events {
			c.apply(e)
		}
		c.mu.Unlock()
	}
}

// apply puts one event into the index and queues whatever it may concern.
func (c *collector) apply(e *revlog.Event) {
	old := c.index.byKey[e.Key]
	if e.Deleted {
		c.index.remove(e.Key)
	} else {
		n, err := decodeNode(e.Current)
		if err != nil {
			c.s.opts.Logger.Warn("collector cannot read an object", "error", err)
			return
		}
		c.index.put(n)
		c.touch(n)
		if n.deleting || len(n.owners) > 0 {
			c.queue.Add(n.key)
		}
	}
	if old != nil {
		c.touch(old)
		if e.Deleted || c.index.byKey[e.Key].uid != old.uid {
			for key := range c.index.dependents[old.uid] {
				c.queue.Add(key)
			}
		}
	}
}

// touch queues those who may be waiting for n: its owners and its namespace.
func (c *collector) touch(n *node) {
	for _, ref := range n.owners {
		if o := c.index.byUID[ref.UID]; o != nil && o.deleting {
			c.queue.Add(o.key)
		}
	}
	if n.namespace != "" {
		if ns := c.index.byKey[namespaceKey(n.namespace)]; ns != nil && ns.deleting {
			c.queue.Add(ns.key)
		}
	}
}

func (c *collector) work() {
	for {
		key, shutdown := c.queue.Get()
		if shutdown {
			return
		}
		err := c.process(c.s.ctx, key)
		c.queue.Done(key)
		if err != nil && c.s.ctx.Err() == nil {
			c.queue.AddRateLimited(key)
		} else {
			c.queue.Forget(key)
		}
	}
}

// action is one request that the state of the index asks for.
type action func(ctx context.Context) error

func (c *collector) process(ctx context.Context, key string) error {
	c.mu.Lock()
	n := c.index.byKey[key]
	var todo []action
	if n != nil {
		todo = c.decide(n)
	}
	c.mu.Unlock()
	var first error
	for _, do := range todo {
		if err := do(ctx); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// decide looks at one object. It is called with mu held, and sends nothing.
func (c *collector) decide(n *node) (todo []action) {
	switch {
	case n.deleting && n.isNamespace() && n.has(namespaceFinalizer):
		return c.emptyNamespace(n)
	case n.deleting && n.has(metav1.FinalizerDeleteDependents):
		blocked := false
		for _, d := range c.index.dependents[n.uid] {
			if !d.deleting {
				todo = append(todo, c.remove(d, metav1.DeletePropagationForeground))
			}
			blocked = blocked || blocks(d, n.uid)
		}
		if !blocked {
			todo = append(todo, c.dropFinalizer(n, metav1.FinalizerDeleteDependents))
		}
		return todo
	case n.deleting && n.has(metav1.FinalizerOrphanDependents):
		for _, d := range c.index.dependents[n.uid] {
			todo = append(todo, c.dropOwners(d, func(ref metav1.OwnerReference) bool { return ref.UID == n.uid }))
		}
		if len(todo) == 0 {
			todo = append(todo, c.dropFinalizer(n, metav1.FinalizerOrphanDependents))
		}
		return todo
	case n.deleting || len(n.owners) == 0:
		return nil
	}
	present, waiting, gone := 0, 0, map[types.UID]bool{}
	for _, ref := range n.owners {
		switch o := c.index.owner(n, ref); {
		case o == nil:
			gone[ref.UID] = true
		case o.deleting && o.has(metav1.FinalizerDeleteDependents):
			waiting++
		default:
			present++
		}
	}
	switch {
	case present == 0 && waiting > 0:
		todo = append(todo, c.remove(n, metav1.DeletePropagationForeground))
	case present == 0:
		todo = append(todo, c.remove(n, metav1.DeletePropagationBackground))
	case len(gone) > 0:
		todo = append(todo, c.dropOwners(n, func(ref metav1.OwnerReference) bool { return gone[ref.UID] }))
	}
	return todo
}

// blocks tells whether a dependent holds up the deletion of its owner.
func blocks(d *node, owner types.UID) bool {
	for _, ref := range d.owners {
		if ref.UID == owner && ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion {
			return true
		}
	}
	return false
}

func (c *collector) emptyNamespace(n *node) (todo []action) {
	content := c.index.byNamespace[n.name]
	if len(content) == 0 {
		return []action{c.dropFinalizer(n, namespaceFinalizer)}
	}
	todo = append(todo, c.patch(n, "status", map[string]any{"status": map[string]any{"phase": "Terminating"}}))
	for _, d := range content {
		if !d.deleting {
			todo = append(todo, c.remove(d, metav1.DeletePropagationBackground))
		}
	}
	return todo
}

func (c *collector) on(n *node) dynamic.ResourceInterface {
	if n.namespace != "" {
		return c.client.Resource(n.resource).Namespace(n.namespace)
	}
	return c.client.Resource(n.resource)
}

func (c *collector) remove(n *node, how metav1.DeletionPropagation) action {
	return func(ctx context.Context) error {
		err := c.on(n).Delete(ctx, n.name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(n.uid)), PropagationPolicy: &how})
		return ignoreGone(err)
	}
}

func (c *collector) dropFinalizer(n *node, finalizer string) action {
	rest := []string{}
	for _, f := range n.finalizers {
		if f != finalizer {
			rest = append(rest, f)
		}
	}
	return c.patch(n, "", metadataPatch(n, "finalizers", rest))
}

func (c *collector) dropOwners(n *node, drop func(metav1.OwnerReference) bool) action {
	rest := []metav1.OwnerReference{}
	for _, ref := range n.owners {
		if !drop(ref) {
			rest = append(rest, ref)
		}
	}
	return c.patch(n, "", metadataPatch(n, "ownerReferences", rest))
}

// metadataPatch changes one list of exactly the object that was seen.
func metadataPatch(n *node, field string, value any) map[string]any {
	return map[string]any{"metadata": map[string]any{
		"uid": n.uid, "resourceVersion": strconv.FormatInt(n.rev, 10), field: value,
	}}
}

func (c *collector) patch(n *node, subresource string, patch map[string]any) action {
	return func(ctx context.Context) error {
		body, err := json.Marshal(patch)
		if err != nil {
			return err
		}
		var sub []string
		if subresource != "" {
			sub = []string{subresource}
		}
		_, err = c.on(n).Patch(ctx, n.name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: "collector"}, sub...)
		return ignoreGone(err)
	}
}

// ignoreGone: what is gone, or was replaced by another object of the name, needs nothing more.
func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
