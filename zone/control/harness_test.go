package control

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"chancery/api/v1alpha1"
	"chancery/internal/errs"
	"chancery/internal/store/pebblestore"
	"chancery/wall"
	"chancery/zone/cells"
)

// fakeCell answers the messages of the wall on a real socket.
type fakeCell struct {
	mu    sync.Mutex
	st    wall.Status
	inits int
	stop  func()
}

func (c *fakeCell) set(f func(*wall.Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.st)
}

func (c *fakeCell) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.URL.Path {
	case wall.PathStatus:
		_ = json.NewEncoder(w).Encode(c.st)
	case wall.PathInit:
		var in wall.Init
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || c.st.State != wall.Uninitialized {
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(wall.Failure{Kind: errs.Exists.String(), Message: "there is a root key"})
			return
		}
		c.inits++
		c.st.State, c.st.Quorum, c.st.IdentityPin, c.st.CACertificate = wall.SealedState, in.Quorum, "pin-1", "CA-PEM"
		for _, p := range in.Custodians {
			c.st.Custodians = append(c.st.Custodians, p.Name)
		}
		_ = json.NewEncoder(w).Encode(wall.Initialized{IdentityPin: "pin-1", Shares: map[string]string{"c1": "ENCRYPTED-SHARE"}})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// fakeCells is a supervisor without processes.
type fakeCells struct {
	t   *testing.T
	dir string

	mu      sync.Mutex
	cells   map[string]*fakeCell // those that have data
	running map[string]cells.Status
	configs map[string]wall.Config
}

var _ Cells = (*fakeCells)(nil)

func (f *fakeCells) runDir(org string) string { return filepath.Join(f.dir, "cells", org, "run") }

func (f *fakeCells) Ensure(_ context.Context, c wall.Config) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.configs[c.Organization] = c
	if _, ok := f.running[c.Organization]; ok {
		return nil
	}
	cell := f.cells[c.Organization]
	if cell == nil {
		cell = &fakeCell{st: wall.Status{Organization: c.Organization, State: wall.Uninitialized, Version: "0.1.0", Enforced: []wall.Measure{{Name: "landlock", Enforced: true}, {Name: "cgroup", Enforced: false}}}}
		f.cells[c.Organization] = cell
	}
	if err := os.MkdirAll(f.runDir(c.Organization), 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(f.dir, "cells", c.Organization, "data"), 0o700); err != nil {
		return err
	}
	l, err := net.Listen("unix", filepath.Join(f.runDir(c.Organization), wall.SocketWall))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: cell}
	go func() { _ = srv.Serve(l) }()
	cell.stop = func() { _ = srv.Close() }
	f.running[c.Organization] = cells.Status{Organization: c.Organization, Phase: cells.Running, Started: time.Now()}
	return nil
}

func (f *fakeCells) Remove(_ context.Context, org string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.running[org]; !ok {
		return errs.New(errs.NotFound, "fake", "none")
	}
	delete(f.running, org)
	f.cells[org].stop()
	return nil
}

func (f *fakeCells) Status(org string) (cells.Status, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, ok := f.running[org]
	if ok {
		c := f.cells[org]
		c.mu.Lock()
		st.Cell = c.st
		c.mu.Unlock()
	}
	return st, ok
}

func (f *fakeCells) Client(org string) (*cells.Client, error) {
	return cells.NewClient(f.runDir(org)), nil
}

func (f *fakeCells) change(org string, fn func(*cells.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.running[org]
	fn(&st)
	f.running[org] = st
}

func (f *fakeCells) cell(org string) *fakeCell {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cells[org]
}

type world struct {
	t       *testing.T
	dir     string
	store   *pebblestore.Store
	cells   *fakeCells
	control *Control
	client  client.Client
	stop    func()
}

func newWorld(t *testing.T) *world {
	// Socket paths are short: not below t.TempDir's long name.
	dir, err := os.MkdirTemp("", "zc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, cells: &fakeCells{t: t, dir: dir, cells: map[string]*fakeCell{}, running: map[string]cells.Status{}, configs: map[string]wall.Config{}}}
	w.boot()
	t.Cleanup(func() {
		w.stop()
		for _, c := range w.cells.cells {
			c.stop()
		}
	})
	return w
}

func (w *world) boot() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	var err error
	must(os.MkdirAll(filepath.Join(w.dir, "zone"), 0o700))
	w.store, err = pebblestore.Open(ctx, pebblestore.Options{Dir: filepath.Join(w.dir, "zone", "store"), Key: bytes.Repeat([]byte{9}, 32)})
	must(err)
	w.control, err = New(ctx, Options{
		Store: w.store, Cells: w.cells, Dir: w.dir, Version: "0.1.0",
		Zone:   Zone{Name: "lu-1", Jurisdiction: "LU", Domain: "zone.example", DefaultOrganization: "demo", S3Port: 9000, APIPort: 9443, OperatorPort: 9444},
		Server: "https://127.0.0.1:9444", CACertificate: []byte("PEM"), Kubeconfig: filepath.Join(w.dir, "zone", "operator.kubeconfig"),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	must(err)
	ready, done := context.WithTimeout(ctx, 30*time.Second)
	defer done()
	must(w.control.Ready(ready))
	ended := make(chan error, 1)
	go func() { ended <- w.control.Run(ctx) }()
	scheme := runtime.NewScheme()
	must(clientscheme.AddToScheme(scheme))
	must(v1alpha1.AddToScheme(scheme))
	token, err := os.ReadFile(filepath.Join(w.dir, "zone", "operator.token"))
	must(err)
	config := rest.CopyConfig(w.control.Client())
	config.BearerToken = string(token)
	w.client, err = client.New(config, client.Options{Scheme: scheme})
	must(err)
	w.stop = func() {
		w.stop = func() {}
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
		w.control.Stop()
		if err := w.store.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	w.t.Fatalf("%s: not within 20 s", what)
}

func (w *world) org(name string) *v1alpha1.Organization {
	w.t.Helper()
	o := &v1alpha1.Organization{}
	if err := w.client.Get(context.Background(), client.ObjectKey{Name: name}, o); err != nil {
		if client.IgnoreNotFound(err) != nil {
			w.t.Fatal(err)
		}
		return nil
	}
	return o
}

// ready waits for the Ready condition's reason and returns the object.
func (w *world) ready(name, reason string) *v1alpha1.Organization {
	w.t.Helper()
	var o *v1alpha1.Organization
	w.eventually(name+" is "+reason, func() bool {
		if o = w.org(name); o == nil {
			return false
		}
		c := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady)
		return c != nil && c.Reason == reason && (c.Status == metav1.ConditionTrue) == (reason == reasonUnsealed)
	})
	return o
}

func (w *world) event(reason string) {
	w.t.Helper()
	w.eventually("event "+reason, func() bool {
		list := &corev1.EventList{}
		if err := w.client.List(context.Background(), list); err != nil {
			w.t.Fatal(err)
		}
		for _, e := range list.Items {
			if e.Reason == reason {
				return true
			}
		}
		return false
	})
}

const recipient = "age1pq1qqqq"

func newOrg(name string, quorum int32, names ...string) *v1alpha1.Organization {
	o := &v1alpha1.Organization{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.OrganizationSpec{Quorum: quorum}}
	for _, n := range names {
		o.Spec.Custodians = append(o.Spec.Custodians, v1alpha1.Custodian{Name: n, Recipient: recipient + strings.ToLower(n)})
	}
	return o
}

func (w *world) patch(o *v1alpha1.Organization, body string) error {
	return w.client.Patch(context.Background(), o, client.RawPatch("application/merge-patch+json", []byte(body)))
}
