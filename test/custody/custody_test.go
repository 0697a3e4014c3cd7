// Package custody tries, from outside and with kubectl, what an administrator does
// with an organization's keys: rotation of every level, other custodians, the end.
package custody

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"chancery/test/harness"
)

type tester struct {
	t       *testing.T
	z       *harness.Real
	dir     string
	config  string
	client  *minio.Client
	objects map[string][]byte
}

// run runs the product's command line.
func (x *tester) run(args ...string) string {
	x.t.Helper()
	out, err := x.z.CLI(x.t.Context(), args...)
	if err != nil {
		x.t.Fatalf("%v\n%s", err, x.z.Logs())
	}
	return out
}

func (x *tester) tryKubectl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(x.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig", x.config}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+x.dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (x *tester) kubectl(args ...string) string {
	x.t.Helper()
	out, err := x.tryKubectl(args...)
	if err != nil {
		x.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// until waits until kubectl prints something.
func (x *tester) until(want string, args ...string) {
	x.t.Helper()
	var out string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if out, _ = x.tryKubectl(args...); out == want {
			return
		}
	}
	x.t.Fatalf("kubectl %s: %q, want %q\n%s", strings.Join(args, " "), out, want, x.z.Logs())
}

func (x *tester) patch(kind, name, spec string, more ...string) {
	x.t.Helper()
	x.kubectl(append([]string{"patch", kind, name, "--type", "merge", "-p", `{"spec":` + spec + `}`}, more...)...)
}

func (x *tester) put(key string, size int) {
	x.t.Helper()
	body := make([]byte, size)
	rand.Read(body)
	if _, err := x.client.PutObject(x.t.Context(), "letters", key, bytes.NewReader(body), int64(size), minio.PutObjectOptions{}); err != nil {
		x.t.Fatal(err)
	}
	x.objects[key] = body
}

func (x *tester) readAll(when string) {
	x.t.Helper()
	for key, want := range x.objects {
		o, err := x.client.GetObject(x.t.Context(), "letters", key, minio.GetObjectOptions{})
		if err != nil {
			x.t.Fatal(err)
		}
		got, err := io.ReadAll(o)
		o.Close()
		if err != nil || !bytes.Equal(got, want) {
			x.t.Fatalf("%s: %s: %d bytes of %d, %v", when, key, len(got), len(want), err)
		}
	}
}

// fetchConfig has a custodian get the administrator's kubeconfig.
func (x *tester) fetchConfig(identity string) string {
	x.t.Helper()
	out := filepath.Join(x.dir, filepath.Base(identity)+".kubeconfig")
	x.run("kubeconfig", "--dir", x.z.Dir(), "--org", "health", "--identity", identity, "--out", out)
	return out
}

// unseal has one custodian give a share; a cell that is just starting is waited for.
func (x *tester) unseal(identity string) (out string, err error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		out, err = x.z.CLI(x.t.Context(), "org", "unseal", "health", "--dir", x.z.Dir(), "--identity", identity)
		if err == nil || !strings.Contains(out, "internal error") && !strings.Contains(out, "unrecognized name") && !strings.Contains(out, "EOF") {
			return out, err
		}
	}
	return out, err
}

// files are the bytes of every file of the cell, by path.
func (x *tester) files() map[string][]byte {
	x.t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(x.z.Data("health"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		out[path] = b
		return err
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return out
}

func TestCustodyFromOutside(t *testing.T) {
	if _, err := exec.LookPath("kubectl"); err != nil {
		t.Skip("no kubectl here")
	}
	z, err := harness.StartReal(t.Context(), harness.RealOptions{Dir: t.TempDir(), Organizations: []string{"health"}, Custodians: 1, Quorum: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := z.Stop(); err != nil {
			t.Error(err)
		}
	}()
	x := &tester{t: t, z: z, dir: t.TempDir(), config: z.Org("health").Kubeconfig, objects: map[string][]byte{}}
	project, err := z.Org("health").Project(t.Context(), "ward")
	if err != nil {
		t.Fatal(err)
	}
	if x.client, err = project.Client(); err != nil {
		t.Fatal(err)
	}
	if err := x.client.MakeBucket(t.Context(), "letters", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	x.put("small-1", 1000)
	x.put("large-1", 300_000)
	x.until("1 1", "get", "custody", "organization", "-o", "jsonpath={.status.keyGeneration} {.status.rootGeneration}")

	// Every level but the root.
	x.until("1", "-n", "ward", "get", "bucket", "letters", "-o", "jsonpath={.status.keyGeneration}")
	x.patch("bucket", "letters", `{"keyGeneration":2}`, "-n", "ward")
	x.until("2", "-n", "ward", "get", "bucket", "letters", "-o", "jsonpath={.status.keyGeneration}")
	x.put("small-2", 1000)
	x.put("large-2", 300_000)
	x.patch("project", "ward", `{"keyGeneration":2}`)
	x.until("2", "get", "project", "ward", "-o", "jsonpath={.status.keyGeneration}")
	x.patch("custody", "organization", `{"keyGeneration":2}`)
	x.until("2", "get", "custody", "organization", "-o", "jsonpath={.status.keyGeneration}")
	x.readAll("after three rotations")
	if out, err := x.tryKubectl("delete", "custody", "organization"); err == nil || !strings.Contains(out, "Forbidden") {
		t.Fatalf("kubectl delete custody: %v\n%s", err, out)
	}

	// Other custodians.
	var ids, list []string
	for _, name := range []string{"anne", "bernd", "chloe"} {
		id := filepath.Join(x.dir, name+".identity")
		x.run("custodian", "keygen", "--out", id)
		ids = append(ids, id)
		list = append(list, fmt.Sprintf(`{"name":%q,"recipient":%q}`, name, strings.TrimSpace(x.run("custodian", "recipient", id))))
	}
	wrapped := x.files()[filepath.Join(z.Data("health"), "store.key")]
	old := z.Identity("health", 0)
	x.patch("custody", "organization", `{"quorum":2,"custodians":[`+strings.Join(list, ",")+`]}`)
	x.until("2 [\"anne\",\"bernd\",\"chloe\"] 2", "get", "custody", "organization", "-o", "jsonpath={.status.quorum} {.status.custodians} {.status.rootGeneration}")
	x.until("True", "get", "custody", "organization", "-o", `jsonpath={.status.conditions[?(@.type=="Purged")].status}`)
	x.readAll("under the new root")
	// The old credential works until the new one has.
	x.until("False", "get", "custody", "organization", "-o", `jsonpath={.status.conditions[?(@.type=="HandedOver")].status}`)
	before := x.config
	x.config = x.fetchConfig(ids[1])
	x.until("True", "get", "custody", "organization", "-o", `jsonpath={.status.conditions[?(@.type=="HandedOver")].status}`)
	x.config, before = before, x.config
	if out, err := x.tryKubectl("get", "custody"); err == nil {
		t.Fatalf("the credential of the old custodian still works:\n%s", out)
	}
	x.config = before
	t.Logf("\n%s", x.kubectl("get", "custody", "-o", "wide"))

	// The disk holds nothing of the old ceremony: not its share, not the store's key under its root.
	for path, body := range x.files() {
		if bytes.Contains(body, wrapped) || bytes.Contains(body, []byte(`"c1"`)) {
			t.Errorf("%s holds what was under the old root", path)
		}
		for key, plain := range x.objects {
			if bytes.Contains(body, plain[:64]) || bytes.Contains(body, []byte(key)) {
				t.Errorf("%s holds %s in the clear", path, key)
			}
		}
	}

	// A restart needs two of the new ones; the old one is refused.
	if err := z.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := z.Serve(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		identity, says string
		ok             bool
	}{{ids[2], "1 of 2", true}, {old, "share", false}, {ids[0], "is unsealed", true}} {
		out, err := x.unseal(step.identity)
		if (err == nil) != step.ok || !strings.Contains(out, step.says) {
			t.Fatalf("%s: %v\n%s", filepath.Base(step.identity), err, out)
		}
	}
	x.config = x.fetchConfig(ids[2])
	x.until("2 2 True", "get", "custody", "organization", "-o", `jsonpath={.status.rootGeneration} {.status.keyGeneration} {.status.conditions[?(@.type=="Ready")].status}`)
	x.readAll("after a restart with the new custodians")
	t.Logf("\n%s", x.kubectl("get", "events", "--field-selector", "involvedObject.kind=Custody"))

	// The end.
	if out, err := x.tryKubectl("patch", "custody", "organization", "--type", "merge", "-p", `{"spec":{"destroy":"DESTROY heath"}}`); err == nil || !strings.Contains(out, "destroy must be DESTROY") {
		t.Fatalf("%v\n%s", err, out)
	}
	x.patch("custody", "organization", `{"destroy":"DESTROY health"}`)
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, _ := x.tryKubectl("get", "custody")
		if strings.Contains(out, "was destroyed") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not destroyed: %s\n%s", out, z.Logs())
		}
	}
	x.gone()
	if err := z.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := z.Serve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := x.unseal(ids[0]); err == nil || !strings.Contains(out, "destroyed") {
		t.Fatalf("unseal after the end: %v\n%s", err, out)
	}
	x.gone()
	var state struct{ Destroyed bool }
	for path, body := range x.files() {
		if filepath.Base(path) == "seal.json" && json.Unmarshal(body, &state) == nil && state.Destroyed {
			continue
		}
		if name := filepath.Base(path); name != "sealed-identity.pem" && name != "seal.json" {
			t.Errorf("%s is left", path)
		}
	}
	if !state.Destroyed {
		t.Error("seal.json does not tell of the destruction")
	}
}

// gone checks that S3 says so. The certificate is the organization's own before a
// restart, and the sealed identity after it: only the answer is looked at.
func (x *tester) gone() {
	x.t.Helper()
	tr := x.z.Org("health").Transport("s3").Clone()
	tr.TLSClientConfig.InsecureSkipVerify = true
	client := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	var last string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		resp, err := client.Get("https://" + x.z.Org("health").Host("s3") + "/letters/small-1")
		if err != nil {
			last = err.Error()
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if last = fmt.Sprintf("%d %s", resp.StatusCode, b); resp.StatusCode == http.StatusGone && strings.Contains(last, "<Code>Destroyed</Code>") {
			return
		}
	}
	x.t.Fatalf("S3 of a destroyed organization: %s", last)
}
