package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/discovery"
)

var bg = context.Background()

func widget(namespace, name string, count int64) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "test.chancery.cloud/v1", "kind": "Widget",
		"metadata": map[string]any{"name": name, "namespace": namespace},
		"spec":     map[string]any{"colour": "red", "count": count},
	}}
}

func (h *harness) namespace(name string) {
	h.t.Helper()
	if _, err := h.kube().CoreV1().Namespaces().Create(bg, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

func rvOf(t testing.TB, o metav1.Object) int64 {
	t.Helper()
	rv, err := strconv.ParseInt(o.GetResourceVersion(), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return rv
}

func TestCRUD(t *testing.T) {
	h := newHarness(t)
	h.namespace("p1")
	c := h.dynamic().Resource(widgets).Namespace("p1")
	made, err := c.Create(bg, widget("p1", "w", 1), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(bg, widget("p1", "w", 1), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("create again: %v", err)
	}
	if _, err := c.Create(bg, widget("p1", "big", 11), metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "at most ten widgets fit into a box") {
		t.Errorf("CEL: %v", err)
	}
	changed := made.DeepCopy()
	_ = unstructured.SetNestedField(changed.Object, int64(2), "spec", "count")
	updated, err := c.Update(bg, changed, metav1.UpdateOptions{})
	if err != nil || rvOf(t, updated) <= rvOf(t, made) || updated.GetGeneration() != 2 {
		t.Fatalf("update: %v, %v", updated, err)
	}
	if _, err := c.Update(bg, changed, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("stale update: %v", err)
	}
	same, err := c.Update(bg, updated, metav1.UpdateOptions{})
	if err != nil || rvOf(t, same) != rvOf(t, updated) {
		t.Errorf("an update that changes nothing was written: %v", err)
	}
	// Status is apart: neither write reaches the other's half.
	withStatus := updated.DeepCopy()
	_ = unstructured.SetNestedField(withStatus.Object, int64(7), "status", "seen")
	_ = unstructured.SetNestedField(withStatus.Object, "blue", "spec", "colour")
	got, err := c.UpdateStatus(bg, withStatus, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	seen, _, _ := unstructured.NestedInt64(got.Object, "status", "seen")
	if colour, _, _ := unstructured.NestedString(got.Object, "spec", "colour"); seen != 7 || colour != "red" || got.GetGeneration() != 2 {
		t.Errorf("status update: seen %d, colour %s, generation %d", seen, colour, got.GetGeneration())
	}
	// Apply, with another manager's conflict.
	apply := widget("p1", "w", 5)
	if _, err := c.Apply(bg, "w", apply, metav1.ApplyOptions{FieldManager: "a"}); !apierrors.IsConflict(err) {
		t.Errorf("apply over another manager's field: %v", err)
	}
	if got, err = c.Apply(bg, "w", apply, metav1.ApplyOptions{FieldManager: "a", Force: true}); err != nil {
		t.Fatal(err)
	}
	if count, _, _ := unstructured.NestedInt64(got.Object, "spec", "count"); count != 5 {
		t.Errorf("applied count %d", count)
	}
	// Paged list at one revision, while it is changed.
	for i := range 5 {
		if _, err := c.Create(bg, widget("p1", fmt.Sprintf("x%d", i), 1), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := c.List(bg, metav1.ListOptions{Limit: 2})
	if err != nil || len(page.Items) != 2 || page.GetContinue() == "" || *page.GetRemainingItemCount() != 4 {
		t.Fatalf("first page: %v, %v", page, err)
	}
	if err := c.Delete(bg, "x3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n := len(page.Items)
	for page.GetContinue() != "" {
		if page, err = c.List(bg, metav1.ListOptions{Limit: 2, Continue: page.GetContinue()}); err != nil {
			t.Fatal(err)
		}
		n += len(page.Items)
	}
	if n != 6 {
		t.Errorf("%d items in consistent pages, want 6", n)
	}
	// Preconditions, many at once, and dry run.
	uid := types.UID("other")
	if err := c.Delete(bg, "w", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); !apierrors.IsConflict(err) {
		t.Errorf("delete of another uid: %v", err)
	}
	if err := c.Delete(bg, "w", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Error(err)
	}
	if err := c.DeleteCollection(bg, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if list, err := c.List(bg, metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("%d left, %v", len(list.Items), err)
	}
	if err := c.Delete(bg, "w", metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("delete again: %v", err)
	}
}

func TestCoreKinds(t *testing.T) {
	h := newHarness(t)
	h.namespace("p1")
	k := h.kube()
	s, err := k.CoreV1().Secrets("p1").Create(bg, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"a": "b"}}, metav1.CreateOptions{})
	if err != nil || string(s.Data["a"]) != "b" || s.Type != corev1.SecretTypeOpaque || len(s.StringData) != 0 {
		t.Fatalf("secret %v, %v", s, err)
	}
	s.Type = "other"
	if _, err := k.CoreV1().Secrets("p1").Update(bg, s, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("type changed: %v", err)
	}
	for name, bad := range map[string]*corev1.Secret{
		"key":  {ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Data: map[string][]byte{"../x": nil}},
		"name": {ObjectMeta: metav1.ObjectMeta{Name: "Bad_Name"}},
		"size": {ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Data: map[string][]byte{"a": make([]byte, maxData)}},
	} {
		if _, err := k.CoreV1().Secrets("p1").Create(bg, bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("secret with a bad %s: %v", name, err)
		}
	}
	yes := true
	cm, err := k.CoreV1().ConfigMaps("p1").Create(bg, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"a": "b"}, Immutable: &yes}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Data["a"] = "c"
	if _, err := k.CoreV1().ConfigMaps("p1").Update(bg, cm, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("immutable changed: %v", err)
	}
	if _, err := k.CoreV1().ConfigMaps("p1").Apply(bg, applycorev1.ConfigMap("d", "p1").WithData(map[string]string{"x": "y"}), metav1.ApplyOptions{FieldManager: "t"}); err != nil {
		t.Errorf("apply of a core kind: %v", err)
	}
	holder, seconds := "me", int32(15)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "l"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds}}
	if _, err := k.CoordinationV1().Leases("p1").Create(bg, lease, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	// An event posted to one face is seen in the other, and selected by what it is about.
	e := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "p1"}, EventTime: metav1.NowMicro(), Action: "Test", Reason: "Tested", Type: "Normal",
		ReportingController: "tester", ReportingInstance: "tester-1", Note: "it was tested", Regarding: corev1.ObjectReference{Kind: "Secret", Name: "s", Namespace: "p1"},
	}
	if _, err := k.EventsV1().Events("p1").Create(bg, e, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err := k.CoreV1().Events("p1").List(bg, metav1.ListOptions{FieldSelector: "involvedObject.name=s,reason=Tested"})
	if err != nil || len(list.Items) != 1 || list.Items[0].Message != "it was tested" || list.Items[0].InvolvedObject.Kind != "Secret" {
		t.Errorf("events by the core face: %v, %v", list, err)
	}
	if list, err := k.CoreV1().Events("p1").List(bg, metav1.ListOptions{FieldSelector: "involvedObject.name=other"}); err != nil || len(list.Items) != 0 {
		t.Errorf("selected %d, %v", len(list.Items), err)
	}
	if got, err := k.EventsV1().Events("p1").Get(bg, "e", metav1.GetOptions{}); err != nil || got.Note != "it was tested" || got.ReportingController != "tester" || got.APIVersion == "v1" {
		t.Errorf("event by its own face: %+v, %v", got, err)
	}
}

func TestWhoMay(t *testing.T) {
	h := newHarness(t)
	for name, tc := range map[string]struct {
		header, value, path string
		want                int
	}{
		"admin":                    {"Authorization", "Bearer " + adminToken, "/api/v1/namespaces", 200},
		"nobody":                   {"", "", "/api/v1/namespaces", 401},
		"nobody at discovery":      {"", "", "/apis", 401},
		"nobody at openapi":        {"", "", "/openapi/v2", 401},
		"nobody at health":         {"", "", "/readyz", 200},
		"nobody at version":        {"", "", "/version", 200},
		"nobody at health details": {"", "", "/readyz/ping", 401},
		"guest":                    {"Authorization", "Bearer guest-token", "/api/v1/namespaces", 403},
		"guest at discovery":       {"Authorization", "Bearer guest-token", "/apis", 403},
		"claims to be the system":  {"Authorization", "Bearer liar-token", "/api/v1/namespaces", 401},
		"wrong token at health":    {"Authorization", "Bearer nonsense", "/readyz", 401},
		"basic":                    {"Authorization", "Basic YTpi", "/api/v1/namespaces", 401},
		"admin as another":         {"Impersonate-User", "x", "/api/v1/namespaces", 403},
	} {
		r := httptest.NewRequest(http.MethodGet, tc.path, nil)
		if tc.header != "" {
			r.Header.Set(tc.header, tc.value)
		}
		if strings.HasPrefix(tc.header, "Impersonate") {
			r.Header.Set("Authorization", "Bearer "+adminToken)
		}
		w := httptest.NewRecorder()
		h.server.Handler().ServeHTTP(w, r)
		if w.Code != tc.want {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, tc.want, w.Body)
		}
	}
	// Nobody configured: nobody may.
	if o := (Options{}); o.Authenticate != nil || o.Authorize != nil {
		t.Fatal("defaults")
	}
	closed := Options{Store: h.store, Name: "closed", Prefix: []byte("closed/")}
	s, err := New(bg, closed)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if err := s.Ready(bg); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	r.Header.Set("Authorization", "Bearer "+adminToken)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("a server without an authenticator answers %d", w.Code)
	}
}

func TestDiscovery(t *testing.T) {
	h := newHarness(t)
	d, err := discovery.NewDiscoveryClientForConfig(h.config(adminToken))
	if err != nil {
		t.Fatal(err)
	}
	groups, _, err := d.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	old, err := d.WithLegacy().ServerGroups() // clients without aggregated discovery
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"apiextensions.k8s.io", "coordination.k8s.io", "events.k8s.io", "authorization.k8s.io", "authentication.k8s.io", "test.chancery.cloud"} {
		have := func(list []metav1.APIGroup) bool {
			for _, g := range list {
				if g.Name == want && g.PreferredVersion.Version == "v1" {
					return true
				}
			}
			return false
		}
		aggregated := []metav1.APIGroup{}
		for _, g := range groups {
			aggregated = append(aggregated, *g)
		}
		if !have(aggregated) || !have(old.Groups) {
			t.Errorf("group %s: aggregated %v, plain %v", want, have(aggregated), have(old.Groups))
		}
	}
	for path, want := range map[string]string{
		"/openapi/v3/apis/test.chancery.cloud/v1": "How many there are.",
		"/openapi/v3/api/v1":                      "io.k8s.api.core.v1.Secret",
		"/openapi/v2":                             "io.k8s.api.core.v1.Namespace",
	} {
		var body string
		eventually(t, path, func() bool {
			raw, err := d.RESTClient().Get().AbsPath(path).DoRaw(bg)
			body = string(raw)
			return err == nil && strings.Contains(body, want)
		})
		if !json.Valid([]byte(body)) {
			t.Errorf("%s is no JSON", path)
		}
	}
}

func TestRestart(t *testing.T) {
	h := newHarness(t)
	t.Logf("ready the first time in %v", h.ready)
	h.namespace("p1")
	c := h.dynamic().Resource(widgets).Namespace("p1")
	first, err := c.Create(bg, widget("p1", "w", 1), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(bg, metav1.ListOptions{ResourceVersion: first.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(bg, widget("p1", "seen", 1), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e := <-w.ResultChan()
	last := e.Object.(*unstructured.Unstructured)
	if e.Type != watch.Added || last.GetName() != "seen" {
		t.Fatalf("%+v", e)
	}
	// Changes that the watcher misses, the last just before the stop.
	w.Stop()
	if err := c.Delete(bg, "seen", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	missed, err := c.Create(bg, widget("p1", "missed", 1), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h.restart()
	t.Logf("ready again in %v", h.ready)
	if h.ready > 1500*time.Millisecond {
		t.Errorf("start took %v, want well below 1.5 s", h.ready)
	}
	c = h.dynamic().Resource(widgets).Namespace("p1")
	w, err = c.Watch(bg, metav1.ListOptions{ResourceVersion: last.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for _, want := range []string{"DELETED seen", "ADDED missed"} {
		select {
		case e := <-w.ResultChan():
			o, ok := e.Object.(metav1.Object)
			if !ok || fmt.Sprintf("%s %s", e.Type, o.GetName()) != want {
				t.Fatalf("resumed watch: %s %v, want %s", e.Type, e.Object, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no %s", want)
		}
	}
	got, err := c.Get(bg, "w", metav1.GetOptions{})
	if err != nil || got.GetUID() != first.GetUID() || got.GetResourceVersion() != first.GetResourceVersion() {
		t.Errorf("after the restart: %v, %v", got, err)
	}
	next, err := c.Create(bg, widget("p1", "next", 1), metav1.CreateOptions{})
	if err != nil || rvOf(t, next) <= rvOf(t, missed) {
		t.Errorf("resourceVersions go back: %v after %v, %v", next.GetResourceVersion(), missed.GetResourceVersion(), err)
	}
	// A changed definition is taken over at the next start.
	crd := widgetCRD()
	crd.Spec.Names.ShortNames = []string{"wdg"}
	h.opts.CRDs[0] = crd
	h.restart()
	d, err := discovery.NewDiscoveryClientForConfig(h.config(adminToken))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "new short name", func() bool {
		r, err := d.ServerResourcesForGroupVersion("test.chancery.cloud/v1")
		return err == nil && len(r.APIResources) > 0 && r.APIResources[0].ShortNames[0] == "wdg"
	})
}

// TestWriters has eight clients race for one counter and make objects of their own.
func TestWriters(t *testing.T) {
	h := newHarness(t)
	h.namespace("p1")
	k := h.kube().CoreV1().ConfigMaps("p1")
	if _, err := k.Create(bg, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "counter"}, Data: map[string]string{"n": "0"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const writers, each = 8, 15
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				if _, err := k.Create(bg, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c-%d-%d", i, j)}}, metav1.CreateOptions{}); err != nil {
					t.Error(err)
					return
				}
				for {
					c, err := k.Get(bg, "counter", metav1.GetOptions{})
					if err != nil {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(c.Data["n"])
					c.Data["n"] = strconv.Itoa(n + 1)
					if _, err = k.Update(bg, c, metav1.UpdateOptions{}); err == nil {
						break
					}
					if !apierrors.IsConflict(err) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	t.Logf("%d writes in %v: %.0f/s", 2*writers*each, took, 2*writers*each/took.Seconds())
	h.restart()
	k = h.kube().CoreV1().ConfigMaps("p1")
	c, err := k.Get(bg, "counter", metav1.GetOptions{})
	if err != nil || c.Data["n"] != strconv.Itoa(writers*each) {
		t.Errorf("counter %v, %v: want %d", c.Data, err, writers*each)
	}
	list, err := k.List(bg, metav1.ListOptions{})
	if err != nil || len(list.Items) != writers*each+1 {
		t.Errorf("%d objects, %v", len(list.Items), err)
	}
}

func TestTooLarge(t *testing.T) {
	h := newHarness(t)
	r := httptest.NewRequest(http.MethodPost, "/api/v1/namespaces/default/configmaps", io.LimitReader(neverEnding('x'), 10<<20))
	r.Header.Set("Authorization", "Bearer "+adminToken)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.server.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("10 MiB: %d", w.Code)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}
