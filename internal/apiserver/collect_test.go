package apiserver

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// family makes an owner and a dependent in a namespace.
func (h *harness) family(namespace string, block bool) (owner *corev1.ConfigMap, dependent *corev1.Secret) {
	h.t.Helper()
	h.namespace(namespace)
	k := h.kube().CoreV1()
	owner, err := k.ConfigMaps(namespace).Create(bg, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	dependent, err = k.Secrets(namespace).Create(bg, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "dependent", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.UID, BlockOwnerDeletion: &block},
	}}}, metav1.CreateOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	return owner, dependent
}

func (h *harness) gone(get func() error) func() bool {
	return func() bool { return apierrors.IsNotFound(get()) }
}

func TestOwnerReferences(t *testing.T) {
	h := newHarness(t)
	k := h.kube().CoreV1()
	secret := func(ns string) func() error {
		return func() error { _, err := k.Secrets(ns).Get(bg, "dependent", metav1.GetOptions{}); return err }
	}
	owner := func(ns string) func() error {
		return func() error { _, err := k.ConfigMaps(ns).Get(bg, "owner", metav1.GetOptions{}); return err }
	}
	del := func(ns string, how metav1.DeletionPropagation) {
		t.Helper()
		if err := k.ConfigMaps(ns).Delete(bg, "owner", metav1.DeleteOptions{PropagationPolicy: &how}); err != nil {
			t.Fatal(err)
		}
	}

	h.family("background", true)
	del("background", metav1.DeletePropagationBackground)
	if err := owner("background")(); !apierrors.IsNotFound(err) {
		t.Errorf("background: the owner waits: %v", err)
	}
	eventually(t, "background", h.gone(secret("background")))

	h.family("orphan", true)
	del("orphan", metav1.DeletePropagationOrphan)
	eventually(t, "orphan: owner", h.gone(owner("orphan")))
	left, err := k.Secrets("orphan").Get(bg, "dependent", metav1.GetOptions{})
	if err != nil || len(left.OwnerReferences) != 0 {
		t.Errorf("orphan: %v, %v", left.OwnerReferences, err)
	}

	// In the foreground the owner waits for the dependent, which waits for a finalizer.
	_, d := h.family("foreground", true)
	d.Finalizers = []string{"test.chancery.cloud/wait"}
	if d, err = k.Secrets("foreground").Update(bg, d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	del("foreground", metav1.DeletePropagationForeground)
	eventually(t, "foreground: dependent is being deleted", func() bool {
		d, err = k.Secrets("foreground").Get(bg, "dependent", metav1.GetOptions{})
		return err == nil && d.DeletionTimestamp != nil
	})
	time.Sleep(200 * time.Millisecond)
	if err := owner("foreground")(); err != nil {
		t.Errorf("foreground: the owner went first: %v", err)
	}
	if _, err := k.Secrets("foreground").Patch(bg, "dependent", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "foreground: dependent", h.gone(secret("foreground")))
	eventually(t, "foreground: owner", h.gone(owner("foreground")))

	// One owner of two goes: the reference goes, the object stays.
	o1, d := h.family("two", false)
	o2, err := k.ConfigMaps("two").Create(bg, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "second"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.OwnerReferences = append(d.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "second", UID: o2.UID})
	if _, err := k.Secrets("two").Update(bg, d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	del("two", metav1.DeletePropagationBackground)
	eventually(t, "two: reference", func() bool {
		d, err = k.Secrets("two").Get(bg, "dependent", metav1.GetOptions{})
		return err == nil && len(d.OwnerReferences) == 1 && d.OwnerReferences[0].UID == o2.UID
	})
	_ = o1

	// An owner that never was, or one in another namespace, owns nothing.
	h.namespace("lost")
	for name, uid := range map[string]types.UID{"never": "00000000-0000-0000-0000-000000000000", "elsewhere": o2.UID} {
		if _, err := k.Secrets("lost").Create(bg, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: "second", UID: uid},
		}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, name, h.gone(func() error { _, err := k.Secrets("lost").Get(bg, name, metav1.GetOptions{}); return err }))
	}
}

// TestCollectAfterRestart deletes an owner while nobody collects.
func TestCollectAfterRestart(t *testing.T) {
	h := newHarness(t)
	_, d := h.family("p1", true)
	k := h.kube().CoreV1()
	how := metav1.DeletePropagationBackground
	if err := k.ConfigMaps("p1").Delete(bg, "owner", metav1.DeleteOptions{PropagationPolicy: &how}); err != nil {
		t.Fatal(err)
	}
	h.restart() // wherever the collector was
	k = h.kube().CoreV1()
	eventually(t, "dependent", h.gone(func() error { _, err := k.Secrets("p1").Get(bg, d.Name, metav1.GetOptions{}); return err }))
}

func TestNamespaceDeletion(t *testing.T) {
	h := newHarness(t)
	h.namespace("p1")
	h.namespace("p2")
	k := h.kube().CoreV1()
	w := widget("p1", "held", 1)
	w.SetFinalizers([]string{"test.chancery.cloud/wait"})
	c := h.dynamic().Resource(widgets)
	if _, err := c.Namespace("p1").Create(bg, w, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{"p1", "p2"} {
		if _, err := c.Namespace(ns).Create(bg, widget(ns, "free", 1), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Secrets(ns).Create(bg, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Namespaces().Delete(bg, "p1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all but what is held", h.gone(func() error { _, err := k.Secrets("p1").Get(bg, "s", metav1.GetOptions{}); return err }))
	eventually(t, "phase", func() bool {
		ns, err := k.Namespaces().Get(bg, "p1", metav1.GetOptions{})
		return err == nil && ns.Status.Phase == corev1.NamespaceTerminating
	})
	_, err := k.Secrets("p1").Create(bg, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "late"}}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("something was made in a namespace that goes away: %v", err)
	}
	h.restart()
	k, c = h.kube().CoreV1(), h.dynamic().Resource(widgets)
	if _, err := c.Namespace("p1").Patch(bg, "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace", h.gone(func() error { _, err := k.Namespaces().Get(bg, "p1", metav1.GetOptions{}); return err }))
	if _, err := c.Namespace("p2").Get(bg, "free", metav1.GetOptions{}); err != nil {
		t.Errorf("the neighbour: %v", err)
	}
	// Not even by deleting all.
	how := metav1.DeletePropagationBackground
	_ = k.RESTClient().Delete().Resource("namespaces").Body(&metav1.DeleteOptions{PropagationPolicy: &how}).Do(bg).Error()
	if _, err := k.Namespaces().Get(bg, "default", metav1.GetOptions{}); err != nil {
		t.Errorf("default: %v", err)
	}
}
