package control

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"chancery/api/v1alpha1"
	"chancery/cell/objects"
	"chancery/cell/seal"
	"chancery/internal/errs"
	"chancery/wall"
)

// testCustody is a custody without shares: it rewraps the world's ring, and counts.
// The true one is tried in package cell.
type testCustody struct {
	mu       sync.Mutex
	world    *world
	present  seal.Present
	absent   bool
	fail     error
	rotated  int
	end      bool
	newToken string
}

func newTestCustody() *testCustody {
	return &testCustody{present: seal.Present{Ceremony: strings.Repeat("0", 32), Quorum: 1, Memory: "memfd_secret",
		Custodians: []wall.Custodian{{Name: "alice", Recipient: "age1pq1alice"}}}}
}

func (c *testCustody) Present() (seal.Present, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.present, !c.absent
}

func (c *testCustody) Rotate(ctx context.Context, in wall.Init) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	c.rotated++
	ceremony := strings.Repeat(fmt.Sprint(c.rotated), 32)
	_, token, err := c.world.keys.CreateCustodiansAdministrator(ctx, ceremony)
	if err != nil {
		return err
	}
	c.newToken = string(token)
	c.present.Ceremony, c.present.Quorum, c.present.Custodians = ceremony, in.Quorum, in.Custodians
	return c.world.ring.Rewrap(ctx, numberedRoot(c.rotated))
}

func (c *testCustody) Destroy(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	c.end = true
	return c.world.ring.DestroyOrganization(ctx)
}

type numberedRoot int

func (n numberedRoot) Derive(info string) ([]byte, error) {
	return hkdf.Key(sha256.New, bytes.Repeat([]byte{byte(n)}, 32), nil, info, 32)
}

func (w *world) patch(obj client.Object, json string) error {
	return w.client.Patch(context.Background(), obj, client.RawPatch("application/merge-patch+json", []byte(json)))
}

func (w *world) mustPatch(obj client.Object, json string) {
	w.t.Helper()
	if err := w.patch(obj, json); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) custodyObject() *v1alpha1.Custody {
	w.t.Helper()
	c := &v1alpha1.Custody{}
	w.ready(c, "", v1alpha1.CustodyName, metav1.ConditionTrue, reasonAvailable)
	return c
}

func (w *world) read(bucket, key, want string) {
	w.t.Helper()
	_, r, err := w.objects.Get(context.Background(), objects.Get{Bucket: bucket, Key: key})
	if err != nil {
		w.t.Fatalf("%s: %v", key, err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != want {
		w.t.Fatalf("%s: %q, %v", key, got, err)
	}
}

// TestRotations turns the keys of a bucket, its project and the organization, and
// reads what was written under each of them.
func TestRotations(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	p := w.project("p1")
	b := newBucket("p1", "letters")
	w.create(b)
	w.ready(b, "p1", "letters", metav1.ConditionTrue, reasonAvailable)
	c := w.custodyObject()
	w.eventually("generations are told", func() bool {
		return w.get(p, "", "p1") && w.get(b, "p1", "letters") && p.Status.KeyGeneration == 1 && b.Status.KeyGeneration == 1 && c.Status.KeyGeneration == 1
	})
	w.put("letters", "first", "one")

	w.mustPatch(b, `{"spec":{"keyGeneration":2}}`)
	w.eventually("bucket rotated", func() bool { return w.get(b, "p1", "letters") && b.Status.KeyGeneration == 2 })
	w.event("p1", "letters", reasonKeyRotated)
	w.put("letters", "second", "two")
	w.mustPatch(p, `{"spec":{"keyGeneration":3}}`)
	w.eventually("project rotated", func() bool { return w.get(p, "", "p1") && p.Status.KeyGeneration == 3 })
	w.mustPatch(c, `{"spec":{"keyGeneration":2}}`)
	w.eventually("organization rotated", func() bool { return w.get(c, "", "organization") && c.Status.KeyGeneration == 2 })
	for key, want := range map[string]string{"first": "one", "second": "two"} {
		w.read("letters", key, want)
	}
	w.eventually("purged", func() bool {
		return w.get(c, "", "organization") && meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionPurged)
	})

	// What was asked for while nobody looked, and what was done without being told.
	w.stop()
	w.boot(false)
	w.mustPatch(p, `{"spec":{"keyGeneration":4}}`)
	w.mustPatch(b, `{"spec":{"keyGeneration":3}}`)
	if err := w.ring.RotateBucketTo(ctx, p.Status.AccountID, b.Status.BucketID, 3); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.boot(true)
	w.eventually("both are made good", func() bool {
		return w.get(p, "", "p1") && w.get(b, "p1", "letters") && p.Status.KeyGeneration == 4 && b.Status.KeyGeneration == 3
	})
	if n, err := w.ring.BucketGeneration(ctx, p.Status.AccountID, b.Status.BucketID); n != 3 || err != nil {
		t.Fatalf("rotated twice: %d, %v", n, err)
	}
	w.read("letters", "first", "one")
	w.read("letters", "second", "two")

	for want, err := range map[string]error{
		"keyGeneration never goes back":                       w.patch(b, `{"spec":{"keyGeneration":2}}`),
		"keyGeneration rises by at most 1000":                 w.patch(p, `{"spec":{"keyGeneration":1005}}`),
		"rootGeneration is at most status.rootGeneration + 1": w.patch(c, `{"spec":{"rootGeneration":3}}`),
		"there is one Custody":                                w.client.Create(ctx, &v1alpha1.Custody{ObjectMeta: metav1.ObjectMeta{Name: "another"}, Spec: c.Spec}),
		"should be greater than or equal to 1":                w.patch(b, `{"spec":{"keyGeneration":0}}`),
	} {
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
}

const threeCustodians = `{"spec":{"quorum":2,"custodians":[{"name":"bob","recipient":"age1pq1bob"},{"name":"carol","recipient":"age1pq1carol"},{"name":"dora","recipient":"age1pq1dora"}]}}`

// TestCustodians changes who holds the root key, and ends the credential of those
// who held it once the new ones have shown themselves.
func TestCustodians(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	c := w.custodyObject()
	if s := c.Status; s.Quorum != 1 || len(s.Custodians) != 1 || s.RootGeneration != 1 || s.RootKeyMemory != "memfd_secret" || s.Organization != "health" || s.Ceremony == "" {
		t.Fatalf("%+v", s)
	}
	if !meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionHandedOver) {
		t.Fatalf("%+v", c.Status.Conditions)
	}
	if err := w.client.Delete(ctx, c); !apierrors.IsForbidden(err) {
		t.Fatalf("deleted: %v", err)
	}
	if err := w.client.DeleteAllOf(ctx, &v1alpha1.Custody{}); !apierrors.IsForbidden(err) {
		t.Fatalf("all deleted: %v", err)
	}
	for want, patch := range map[string]string{
		"quorum must not be larger":  `{"spec":{"quorum":2}}`,
		"post-quantum":               `{"spec":{"custodians":[{"name":"bob","recipient":"age1bob"}]}}`,
		"a recipient of their own":   `{"spec":{"custodians":[{"name":"bob","recipient":"age1pq1x"},{"name":"carol","recipient":"age1pq1x"}]}}`,
		"destroy must be DESTROY":    `{"spec":{"destroy":"DESTROY wealth"}}`,
		"greater than or equal to 1": `{"spec":{"rootGeneration":0}}`,
	} {
		if err := w.patch(c, patch); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}

	// What the Keeper refuses or cannot do is told.
	w.custody.set(func(x *testCustody) { x.fail = errs.New(errs.Invalid, "test", "no such recipient") })
	w.mustPatch(c, threeCustodians)
	w.ready(c, "", "organization", metav1.ConditionFalse, reasonRefused)
	w.custody.set(func(x *testCustody) { x.fail = errs.New(errs.Exhausted, "test", "no room") })
	w.ready(c, "", "organization", metav1.ConditionFalse, reasonRotationFailed)
	w.custody.set(func(x *testCustody) { x.fail = nil })
	c = w.custodyObject()
	if s := c.Status; s.Quorum != 2 || len(s.Custodians) != 3 || s.Custodians[0] != "bob" || s.RootGeneration != 2 {
		t.Fatalf("%+v", s)
	}
	w.event("", "organization", reasonRootRotated)
	if meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionHandedOver) {
		t.Fatal("the new custodians have shown nothing yet")
	}
	// In another order they are the same.
	w.mustPatch(c, `{"spec":{"custodians":[{"name":"dora","recipient":"age1pq1dora"},{"name":"carol","recipient":"age1pq1carol"},{"name":"bob","recipient":"age1pq1bob"}]}}`)
	if err := w.patch(c, `{"spec":{"custodians":[{"name":"dora","recipient":"age1pq1dora"},{"name":"carol","recipient":"age1pq1carol\n"},{"name":"bob","recipient":"age1pq1bob"}]}}`); err != nil {
		t.Fatal(err)
	}

	// The old credential works until the new one is used.
	old := w.admin
	if err := w.clientWith(old).Get(ctx, client.ObjectKey{Name: "organization"}, c); err != nil {
		t.Fatal(err)
	}
	var fresh string
	w.custody.set(func(x *testCustody) { fresh = x.newToken })
	w.client = w.clientWith(fresh)
	w.admin = fresh
	if !w.get(c, "", "organization") {
		t.Fatal("the new credential does not work")
	}
	w.eventually("the old credential ends", func() bool {
		return apierrors.IsUnauthorized(w.clientWith(old).Get(ctx, client.ObjectKey{Name: "organization"}, &v1alpha1.Custody{})) &&
			w.get(c, "", "organization") && meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionHandedOver)
	})
	w.event("", "organization", reasonCredentialEnded)

	// A new root for the same custodians.
	w.mustPatch(c, `{"spec":{"rootGeneration":3}}`)
	w.eventually("root rotated", func() bool { return w.get(c, "", "organization") && c.Status.RootGeneration == 3 })
	w.custody.set(func(x *testCustody) {
		if x.rotated != 2 {
			t.Errorf("%d rotations, want 2", x.rotated)
		}
	})
}

func (c *testCustody) set(f func(*testCustody)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

// TestDestruction ends the organization by its name alone, and keeps trying.
func TestDestruction(t *testing.T) {
	w := newWorld(t)
	c := w.custodyObject()
	w.custody.set(func(x *testCustody) { x.fail = errs.New(errs.Exhausted, "test", "no room") })
	w.mustPatch(c, `{"spec":{"destroy":"DESTROY health"}}`)
	w.ready(c, "", "organization", metav1.ConditionFalse, reasonDestroyFailed)
	if err := w.patch(c, `{"spec":{"destroy":null}}`); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "cannot be taken back") {
		t.Fatal(err)
	}
	w.custody.set(func(x *testCustody) { x.fail = nil })
	w.eventually("the end", func() bool {
		_, _, err := w.ring.Generations(context.Background())
		return errs.Is(err, errs.Destroyed)
	})
}
