package control

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"chancery/api/v1alpha1"
	"chancery/cell/identity"
	"chancery/cell/objects"
	"chancery/internal/errs"
)

func TestProjectAndBucket(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	p := w.project("p1")
	account, err := w.objects.Project(ctx, "p1")
	if err != nil || account.ID != p.Status.AccountID {
		t.Fatalf("account %+v, %v; status %q", account, err, p.Status.AccountID)
	}
	if !w.get(&corev1.Namespace{}, "", "p1") {
		t.Fatal("no namespace")
	}

	// kubectl → S3.
	b := newBucket("p1", "letters")
	w.create(b)
	w.ready(b, "p1", "letters", metav1.ConditionTrue, reasonAvailable)
	made, err := w.objects.Bucket(ctx, "letters")
	if err != nil || made.ID != b.Status.BucketID || made.KeyID != b.Status.KeyID || made.ProjectID != account.ID {
		t.Fatalf("bucket %+v, %v; status %+v", made, err, b.Status)
	}
	if want := "https://s3.health.zone.example:9000/letters"; b.Status.Endpoint != want || b.Status.Created == nil || b.Status.Region != "lu-1" {
		t.Errorf("status %+v", b.Status)
	}
	w.event("p1", "letters", reasonAvailable)

	// S3 → kubectl, and back.
	if _, err := w.objects.CreateBucket(ctx, objects.CreateBucket{Name: "from-s3", ProjectID: account.ID}); err != nil {
		t.Fatal(err)
	}
	mirrored := &v1alpha1.Bucket{}
	w.ready(mirrored, "p1", "from-s3", metav1.ConditionTrue, reasonAvailable)
	if err := w.objects.DeleteBucket(ctx, "from-s3"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the object follows its bucket", func() bool { return !w.get(&v1alpha1.Bucket{}, "p1", "from-s3") })
	if _, err := w.objects.Bucket(ctx, "from-s3"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the bucket came back: %v", err)
	}

	// Deletion waits for emptiness.
	w.put("letters", "a", "content")
	if err := w.client.Delete(ctx, b); err != nil {
		t.Fatal(err)
	}
	w.ready(b, "p1", "letters", metav1.ConditionFalse, reasonNotEmpty)
	w.event("p1", "letters", reasonNotEmpty)
	if _, err := w.objects.Bucket(ctx, "letters"); err != nil {
		t.Fatalf("a bucket that was not empty is gone: %v", err)
	}

	// So does the project's, before it touches anything.
	key := &v1alpha1.AccessKey{ObjectMeta: metav1.ObjectMeta{Namespace: "p1", Name: "k"}, Spec: v1alpha1.AccessKeySpec{User: "u"}}
	w.create(key)
	w.ready(key, "p1", "k", metav1.ConditionTrue, reasonAvailable)
	if err := w.client.Delete(ctx, p); err != nil {
		t.Fatal(err)
	}
	w.ready(p, "", "p1", metav1.ConditionFalse, reasonNotEmpty)
	if k, err := w.keys.AccessKey(ctx, key.Status.AccessKeyID); err != nil || k.Disabled {
		t.Errorf("a key went although its project stays: %v", err)
	}
	if _, err := w.objects.Delete(ctx, objects.Delete{Bucket: "letters", Key: "a"}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the project is gone", func() bool { return !w.get(&v1alpha1.Project{}, "", "p1") })
	if _, err := w.objects.Project(ctx, "p1"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the account is still there: %v", err)
	}
	if w.get(&corev1.Namespace{}, "", "p1") {
		t.Error("the namespace is still there")
	}
	if _, err := w.keys.AccessKey(ctx, key.Status.AccessKeyID); !errs.Is(err, errs.NotFound) {
		t.Errorf("the access key is still there: %v", err)
	}
}

func TestBucketNameTaken(t *testing.T) {
	w := newWorld(t)
	w.project("p1")
	w.project("p2")
	first, second := newBucket("p1", "shared"), newBucket("p2", "shared")
	w.create(first)
	w.ready(first, "p1", "shared", metav1.ConditionTrue, reasonAvailable)
	w.create(second)
	w.ready(second, "p2", "shared", metav1.ConditionFalse, reasonBucketExists)
	w.event("p2", "shared", reasonBucketExists)

	// To delete the one that has no bucket must not touch the other's.
	if err := w.client.Delete(context.Background(), second); err != nil {
		t.Fatal(err)
	}
	w.eventually("second is gone", func() bool { return !w.get(&v1alpha1.Bucket{}, "p2", "shared") })
	if b, err := w.objects.Bucket(context.Background(), "shared"); err != nil || b.ID != first.Status.BucketID {
		t.Fatalf("the other project's bucket: %+v, %v", b, err)
	}

	// The name becomes free: whoever waits gets it.
	third := newBucket("p2", "shared")
	w.create(third)
	w.ready(third, "p2", "shared", metav1.ConditionFalse, reasonBucketExists)
	if err := w.client.Delete(context.Background(), first); err != nil {
		t.Fatal(err)
	}
	w.ready(third, "p2", "shared", metav1.ConditionTrue, reasonAvailable)

	orphan := newBucket("default", "no-project")
	w.create(orphan)
	w.ready(orphan, "default", "no-project", metav1.ConditionFalse, reasonNoProject)
	if err := w.client.Delete(context.Background(), orphan); err != nil {
		t.Fatal(err)
	}
	w.eventually("orphan is gone", func() bool { return !w.get(&v1alpha1.Bucket{}, "default", "no-project") })
}

func TestRetain(t *testing.T) {
	w := newWorld(t)
	p := w.project("p1")
	b := newBucket("p1", "kept")
	b.Spec.DeletionPolicy = v1alpha1.BucketRetain
	w.create(b)
	w.ready(b, "p1", "kept", metav1.ConditionTrue, reasonAvailable)
	if err := w.client.Delete(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	w.ready(p, "", "p1", metav1.ConditionFalse, reasonBucketsRemain)
	if err := w.client.Delete(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	w.eventually("the object is gone", func() bool { return !w.get(&v1alpha1.Bucket{}, "p1", "kept") })
	if _, err := w.objects.Bucket(context.Background(), "kept"); err != nil {
		t.Errorf("a bucket with Retain is gone: %v", err)
	}
}

func TestAccessKey(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	account := w.project("p1").Status.AccountID
	k := &v1alpha1.AccessKey{ObjectMeta: metav1.ObjectMeta{Namespace: "p1", Name: "app"}, Spec: v1alpha1.AccessKeySpec{User: "app@ward-3"}}
	w.create(k)
	w.ready(k, "p1", "app", metav1.ConditionTrue, reasonAvailable)
	secret := &corev1.Secret{}
	if !w.get(secret, "p1", "app") {
		t.Fatal("no secret")
	}
	key, err := w.keys.AccessKey(ctx, k.Status.AccessKeyID)
	if err != nil || key.Project != account || key.User != "app@ward-3" {
		t.Fatalf("%v, %v", key, err)
	}
	for field, want := range map[string]string{
		"accessKeyID": key.ID, "AWS_ACCESS_KEY_ID": key.ID, "secretAccessKey": key.Secret, "AWS_SECRET_ACCESS_KEY": key.Secret,
		"endpoint": "https://s3.health.zone.example:9000", "AWS_ENDPOINT_URL": "https://s3.health.zone.example:9000", "AWS_REGION": "lu-1", "ca.crt": "PEM",
	} {
		if got := string(secret.Data[field]); got != want {
			t.Errorf("secret field %s is wrong", field)
		}
	}

	// The secret is handed out once.
	if err := w.client.Delete(ctx, secret); err != nil {
		t.Fatal(err)
	}
	// Disabled and enabled again, which also makes the reconciler look at it.
	for _, disabled := range []bool{true, false} {
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"disabled":`+map[bool]string{true: "true", false: "false"}[disabled]+`}}`))
		if err := w.client.Patch(ctx, k, patch); err != nil {
			t.Fatal(err)
		}
		w.eventually("disabled follows", func() bool {
			key, err := w.keys.AccessKey(ctx, k.Status.AccessKeyID)
			return err == nil && key.Disabled == disabled
		})
	}
	w.ready(k, "p1", "app", metav1.ConditionTrue, reasonAvailable)
	if w.get(&corev1.Secret{}, "p1", "app") {
		t.Error("the secret was written a second time")
	}

	// A secret of somebody else's is not touched, and no key is made for it.
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "p1", Name: "mine"}, StringData: map[string]string{"a": "b"}})
	blocked := &v1alpha1.AccessKey{ObjectMeta: metav1.ObjectMeta{Namespace: "p1", Name: "blocked"}, Spec: v1alpha1.AccessKeySpec{User: "x", SecretName: "mine"}}
	w.create(blocked)
	w.ready(blocked, "p1", "blocked", metav1.ConditionFalse, reasonSecretExists)
	all, err := w.keys.ListAccessKeys(ctx, account)
	if err != nil || len(all) != 1 {
		t.Errorf("%d keys, %v: want 1", len(all), err)
	}
	foreign := &corev1.Secret{}
	if !w.get(foreign, "p1", "mine") || len(foreign.Data) != 1 {
		t.Error("a foreign secret was changed")
	}

	// Deleted elsewhere: told, not made again.
	other := &v1alpha1.AccessKey{ObjectMeta: metav1.ObjectMeta{Namespace: "p1", Name: "other"}, Spec: v1alpha1.AccessKeySpec{User: "y"}}
	w.create(other)
	w.ready(other, "p1", "other", metav1.ConditionTrue, reasonAvailable)
	if err := w.keys.DeleteAccessKey(ctx, other.Status.AccessKeyID); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Patch(ctx, other, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"look":"again"}}}`))); err != nil {
		t.Fatal(err)
	}
	w.ready(other, "p1", "other", metav1.ConditionFalse, reasonKeyGone)

	if err := w.client.Delete(ctx, k); err != nil {
		t.Fatal(err)
	}
	w.eventually("the key is gone", func() bool {
		_, err := w.keys.AccessKey(ctx, key.ID)
		return errs.Is(err, errs.NotFound) && !w.get(&v1alpha1.AccessKey{}, "p1", "app")
	})
}

// TestCrashes leaves the world as a crash would between the steps of the
// reconcilers, and starts it again.
func TestCrashes(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	account := w.project("p1").Status.AccountID
	w.stop()
	w.boot(false) // the API serves, nothing reconciles

	// A bucket was made, its object not yet told.
	w.create(newBucket("p1", "half"))
	half, err := w.objects.CreateBucket(ctx, objects.CreateBucket{Name: "half", ProjectID: account})
	if err != nil {
		t.Fatal(err)
	}
	// Made and deleted through S3 while nobody looked.
	if _, err := w.objects.CreateBucket(ctx, objects.CreateBucket{Name: "drift", ProjectID: account}); err != nil {
		t.Fatal(err)
	}
	ghost := newBucket("p1", "ghost")
	ghost.Annotations = map[string]string{v1alpha1.AnnotationMirrors: "gone"}
	w.create(ghost)
	// An access key was made, its Secret and status not yet.
	k := &v1alpha1.AccessKey{ObjectMeta: metav1.ObjectMeta{Namespace: "p1", Name: "k"}, Spec: v1alpha1.AccessKeySpec{User: "u"}}
	w.create(k)
	key, err := w.keys.CreateAccessKey(ctx, identity.NewAccessKey{Project: account, User: "u", Owner: string(k.UID)})
	if err != nil {
		t.Fatal(err)
	}
	// A project was made below the API.
	if _, err := w.objects.CreateProject(ctx, "below"); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.boot(true)

	b := &v1alpha1.Bucket{}
	w.ready(b, "p1", "half", metav1.ConditionTrue, reasonAvailable)
	if b.Status.BucketID != half.ID {
		t.Errorf("adopted %q, want %q", b.Status.BucketID, half.ID)
	}
	w.ready(&v1alpha1.Bucket{}, "p1", "drift", metav1.ConditionTrue, reasonAvailable)
	w.eventually("the ghost goes", func() bool { return !w.get(&v1alpha1.Bucket{}, "p1", "ghost") })
	if _, err := w.objects.Bucket(ctx, "ghost"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the ghost made a bucket: %v", err)
	}
	w.ready(k, "p1", "k", metav1.ConditionTrue, reasonAvailable)
	if k.Status.AccessKeyID != key.ID {
		t.Errorf("a second key was made: %s, want %s", k.Status.AccessKeyID, key.ID)
	}
	w.ready(&v1alpha1.Project{}, "", "below", metav1.ConditionTrue, reasonAvailable)
}

func TestWhoMay(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	token, err := w.keys.CreateToken(ctx, identity.Token{Name: "clerk"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		token string
		check func(error) bool
	}{
		"administrator": {w.admin, func(err error) bool { return err == nil }},
		"no role":       {string(token), apierrors.IsForbidden},
		"wrong token":   {w.admin[:len(w.admin)-1] + "x", apierrors.IsUnauthorized},
		"no token":      {"", apierrors.IsUnauthorized},
	} {
		c := w.clientWith(tc.token)
		for kind, err := range map[string]error{
			"read":  c.Get(ctx, client.ObjectKey{Name: "default"}, &corev1.Namespace{}),
			"write": c.Create(ctx, &v1alpha1.Project{ObjectMeta: metav1.ObjectMeta{Name: "by-somebody"}}, client.DryRunAll),
		} {
			if s := (apierrors.APIStatus)(nil); err != nil && !errors.As(err, &s) {
				t.Errorf("%s, %s: %v is no status", name, kind, err)
			}
			if !tc.check(err) {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
		}
	}
	// A revoked token ends at once.
	admin2, err := w.keys.CreateToken(ctx, identity.Token{Name: "second", Administrator: true})
	if err != nil {
		t.Fatal(err)
	}
	c := w.clientWith(string(admin2))
	if err := c.Get(ctx, client.ObjectKey{Name: "default"}, &corev1.Namespace{}); err != nil {
		t.Fatal(err)
	}
	if err := w.keys.RevokeToken(ctx, "second"); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(ctx, client.ObjectKey{Name: "default"}, &corev1.Namespace{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a revoked token: %v", err)
	}
}

// TestExplains checks that each rule refuses with words that help.
func TestExplains(t *testing.T) {
	w := newWorld(t)
	w.project("p1")
	b := newBucket("p1", "fine")
	b.Spec.Region = "lu-1"
	w.create(b)
	w.ready(b, "p1", "fine", metav1.ConditionTrue, reasonAvailable)
	moved := b.DeepCopy()
	moved.Spec.Region = "fr-1"
	for want, err := range map[string]error{
		"a bucket name has 3 to 63":           w.client.Create(context.Background(), newBucket("p1", "x..y")),
		"region cannot be changed":            w.client.Update(context.Background(), moved),
		"must be a DNS label":                 w.client.Create(context.Background(), &v1alpha1.Project{ObjectMeta: metav1.ObjectMeta{Name: "a.b"}}),
		"the names default and kube-*":        w.client.Create(context.Background(), &v1alpha1.Project{ObjectMeta: metav1.ObjectMeta{Name: "default"}}),
		"supported values: \"DeleteIfEmpty\"": w.client.Create(context.Background(), &v1alpha1.Bucket{ObjectMeta: metav1.ObjectMeta{Namespace: "p1", Name: "odd"}, Spec: v1alpha1.BucketSpec{DeletionPolicy: "Burn"}}),
		"spec.user":                           w.client.Create(context.Background(), &v1alpha1.AccessKey{ObjectMeta: metav1.ObjectMeta{Namespace: "p1", Name: "odd"}}),
	} {
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
	// A region that this organization does not have is refused below, and told.
	far := newBucket("p1", "far-away")
	far.Spec.Region = "mars-1"
	w.create(far)
	w.ready(far, "p1", "far-away", metav1.ConditionFalse, reasonRefused)
}

func TestHandlerAfterStop(t *testing.T) {
	w := newWorld(t)
	h := w.control.Handler()
	w.stop()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if rec.Code != http.StatusServiceUnavailable {
		t.Errorf("a stopped server answers %d", rec.Code)
	}
}
