package control

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"io"
	"log/slog"
	"os"
	"path/filepath"
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
	"chancery/cell/blobs"
	"chancery/cell/blobs/blobdir"
	"chancery/cell/identity"
	"chancery/cell/keys"
	"chancery/cell/objects"
	"chancery/internal/apiserver/controllers"
	"chancery/internal/files"
	"chancery/internal/store/pebblestore"
)

// testRoot is a root key that is not secret.
type testRoot struct{}

func (testRoot) Derive(info string) ([]byte, error) {
	return hkdf.Key(sha256.New, []byte("a root key for tests only, 32 B.."), nil, info, 32)
}

// world is a whole organization but for S3 and the sandbox, on disk.
type world struct {
	t       *testing.T
	dir     string
	store   *pebblestore.Store
	objects *objects.Engine
	keys    *identity.Directory
	ring    *keys.Ring
	custody *testCustody
	control *Control
	client  client.Client
	admin   string // bearer token
	stop    func()
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir()}
	w.boot(true)
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) boot(run bool) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	var err error
	w.store, err = pebblestore.Open(ctx, pebblestore.Options{Dir: filepath.Join(w.dir, "store"), Key: bytes.Repeat([]byte{7}, 32)})
	must(err)
	disk, err := blobdir.Open(filepath.Join(w.dir, "blobs"), files.OS())
	must(err)
	bl := blobs.New(disk)
	ring, err := keys.Open(ctx, w.store, testRoot{}, "health")
	must(err)
	w.ring = ring
	w.objects, err = objects.New(ctx, objects.Options{Store: w.store, Blobs: bl, Keys: ring, Organization: "health", Region: "lu-1", Now: time.Now})
	must(err)
	w.keys = identity.Open(w.store)
	if w.admin == "" {
		_, token, err := w.keys.CreateBootstrapAdministrator(ctx)
		must(err)
		w.admin = string(token)
	}
	if w.custody == nil {
		w.custody = newTestCustody()
	}
	w.custody.world = w
	w.control, err = New(ctx, Options{
		Store: w.store, Objects: w.objects, Directory: w.keys, Keys: ring, Custody: w.custody, Organization: "health", Region: "lu-1",
		S3Endpoint: "https://s3.health.zone.example:9000", CACertificate: []byte("PEM"), Version: "0.1.0",
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	must(err)
	ready, done := context.WithTimeout(ctx, 30*time.Second)
	defer done()
	must(w.control.Ready(ready))
	ended := make(chan error, 1)
	if run {
		go func() { ended <- w.control.Run(ctx) }()
	} else {
		ended <- nil
	}
	w.client = w.clientWith(w.admin)
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
		_ = disk
	}
}

// clientWith is a client with a bearer token of its own.
func (w *world) clientWith(token string) client.Client {
	config := rest.CopyConfig(w.control.Client())
	config.BearerToken = token
	scheme := runtime.NewScheme()
	if err := clientscheme.AddToScheme(scheme); err != nil {
		w.t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		w.t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) create(obj client.Object) {
	w.t.Helper()
	if err := w.client.Create(context.Background(), obj); err != nil {
		w.t.Fatal(err)
	}
}

// get reads an object; false if it is not there.
func (w *world) get(obj client.Object, namespace, name string) bool {
	w.t.Helper()
	err := w.client.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, obj)
	if client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	return err == nil
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

// ready waits until an object's Ready condition has a status and a reason.
func (w *world) ready(obj controllers.Conditioned, namespace, name string, status metav1.ConditionStatus, reason string) {
	w.t.Helper()
	w.eventually(name+" is "+reason, func() bool {
		if !w.get(obj, namespace, name) {
			return false
		}
		c := meta.FindStatusCondition(*obj.GetConditions(), v1alpha1.ConditionReady)
		return c != nil && c.Status == status && c.Reason == reason
	})
}

// event waits for an event about an object.
func (w *world) event(namespace, name, reason string) {
	w.t.Helper()
	w.eventually("event "+reason, func() bool {
		list := &corev1.EventList{}
		if err := w.client.List(context.Background(), list, client.InNamespace(namespace)); err != nil {
			w.t.Fatal(err)
		}
		for _, e := range list.Items {
			if e.InvolvedObject.Name == name && e.Reason == reason && e.Message != "" {
				return true
			}
		}
		return false
	})
}

func (w *world) project(name string) *v1alpha1.Project {
	w.t.Helper()
	p := &v1alpha1.Project{ObjectMeta: metav1.ObjectMeta{Name: name}}
	w.create(p)
	w.ready(p, "", name, metav1.ConditionTrue, reasonAvailable)
	return p
}

func newBucket(project, name string) *v1alpha1.Bucket {
	return &v1alpha1.Bucket{ObjectMeta: metav1.ObjectMeta{Namespace: project, Name: name}}
}

// body is an objects.Body without checksums.
type body struct{ io.Reader }

func (body) Finish() (objects.Sums, error) { return objects.Sums{}, nil }

func (w *world) put(bucket, key, content string) {
	w.t.Helper()
	_, err := w.objects.Put(context.Background(), objects.Put{Bucket: bucket, Key: key, Size: int64(len(content)), Body: body{bytes.NewReader([]byte(content))}})
	if err != nil {
		w.t.Fatal(err)
	}
}
