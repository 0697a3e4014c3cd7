package apiserver

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"chancery/internal/apiserver/revlog"
)

// TestStoredForm pins under which names, and in which form, objects lie in the
// revision log: docs/formats/api.md.
func TestStoredForm(t *testing.T) {
	h := newHarness(t)
	h.namespace("p1")
	k := h.kube()
	if _, err := k.CoreV1().Secrets("p1").Create(bg, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Data: map[string][]byte{"a": []byte("b")}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "p1"}, EventTime: metav1.NowMicro(), Action: "Test", Reason: "Tested", Type: "Normal",
		ReportingController: "tester", ReportingInstance: "tester-1", Regarding: corev1.ObjectReference{Kind: "Secret", Name: "s", Namespace: "p1"},
	}
	if _, err := k.EventsV1().Events("p1").Create(bg, e, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	page, err := h.server.log.List(bg, revlog.Query{Prefix: "/"})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, kv := range page.KVs {
		var o struct {
			APIVersion, Kind string
			Metadata         map[string]any
		}
		if err := json.Unmarshal(kv.Value, &o); err != nil {
			t.Fatalf("%s: %v", kv.Key, err)
		}
		if o.Metadata["resourceVersion"] != nil {
			t.Errorf("%s holds its own revision", kv.Key)
		}
		kinds[kv.Key] = o.APIVersion + " " + o.Kind
	}
	for key, want := range map[string]string{
		"/core/namespaces/p1": "v1 Namespace",
		"/core/secrets/p1/s":  "v1 Secret",
		"/core/events/p1/e":   "v1 Event",
		"/apiextensions.k8s.io/customresourcedefinitions/widgets.test.chancery.cloud": "apiextensions.k8s.io/v1 CustomResourceDefinition",
	} {
		if kinds[key] != want {
			t.Errorf("%s holds %q, want %q", key, kinds[key], want)
		}
	}
	for key := range kinds {
		if strings.HasPrefix(key, "/events.k8s.io/") {
			t.Errorf("%s: an event is stored twice", key)
		}
	}
}
