package apiserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestKubectl drives the server with the real kubectl over TLS.
func TestKubectl(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("no kubectl here")
	}
	h := newHarness(t)
	t.Logf("ready in %v", h.ready)
	config := h.listen()
	home := t.TempDir()
	run := func(stdin string, args ...string) (string, bool) {
		cmd := exec.Command(kubectl, args...)
		cmd.Env = []string{"KUBECONFIG=" + config, "HOME=" + home, "PATH=" + os.Getenv("PATH")}
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err == nil
	}
	widget := "apiVersion: test.chancery.cloud/v1\nkind: Widget\nmetadata: {name: w1, namespace: p1}\nspec: {colour: red, count: 3}\n"
	steps := []struct {
		stdin string
		args  string
		ok    bool
		want  []string
	}{
		{"", "version", true, []string{"Server Version: v1.37.2+chancery.0.1.0"}},
		{"", "get --raw /readyz", true, []string{"ok"}},
		{"", "get namespaces", true, []string{"default", "Active"}},
		{"", "create namespace p1", true, []string{"created"}},
		{"", "api-resources", true, []string{"widgets", "secrets", "events.k8s.io/v1", "namespaces", "ns"}},
		{widget, "apply -f -", true, []string{"created"}},
		{widget, "apply --server-side --force-conflicts -f -", true, []string{"serverside-applied"}},
		{strings.Replace(widget, "3", "4", 1), "diff -f -", false, []string{"count: 4"}},
		{"", "get wd -n p1 -o wide", true, []string{"COLOUR", "red"}},
		{"", "explain widget.spec", true, []string{"What is wanted.", "colour", "How many there are."}},
		{"", "explain secret.data", true, []string{"base64"}},
		{"", "explain namespace.status.conditions", true, []string{"lastTransitionTime"}},
		{strings.Replace(widget, "3", "11", 1), "apply -f -", false, []string{"at most ten widgets fit into a box"}},
		{strings.Replace(widget, "colour", "color", 1), "apply -f -", false, []string{"unknown field"}},
		{"", "create secret generic s1 -n p1 --from-literal=a=b", true, []string{"created"}},
		{"", "get secret s1 -n p1 -o jsonpath={.data.a}", true, []string{"Yg=="}},
		{"", "create configmap c1 -n p1 --from-literal=a=b", true, []string{"created"}},
		{"", "patch configmap c1 -n p1 -p {\"data\":{\"a\":\"c\"}}", true, []string{"patched"}},
		{"", "label widget w1 -n p1 size=big", true, []string{"labeled"}},
		{"", "get widgets -A -l size=big", true, []string{"w1"}},
		{"", "get widgets -A -l size=small", true, []string{"No resources found"}},
		{"", "auth can-i delete widgets -n p1", true, []string{"yes"}},
		{"", "auth whoami", true, []string{"admin", "chancery:administrators"}},
		{"", "get widgets -A --as somebody", false, []string{"not supported here"}},
		{"", "describe widget w1 -n p1", true, []string{"Colour:  red"}},
		{"", "events -n p1", true, nil},
		{"", "create secret generic bad -n nowhere --from-literal=a=b", false, []string{`namespaces "nowhere" not found`}},
		{"", "delete namespace default", false, []string{"may not be deleted"}},
		{"", "delete namespace p1 --timeout=30s", true, []string{"deleted"}},
		{"", "get wd -A", true, []string{"No resources found"}},
		{"", "delete crd widgets.test.chancery.cloud --timeout=30s", true, []string{"deleted"}},
		{"", "get wd -A", false, []string{"the server"}},
	}
	for _, s := range steps {
		out, ok := run(s.stdin, strings.Fields(s.args)...)
		if ok != s.ok {
			t.Errorf("kubectl %s: success %v, want %v\n%s", s.args, ok, s.ok, out)
			continue
		}
		for _, w := range s.want {
			if !strings.Contains(out, w) {
				t.Errorf("kubectl %s: no %q in\n%s", s.args, w, out)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(home, ".kube")); err != nil {
		t.Errorf("kubectl did not use its own home: %v", err)
	}
}
