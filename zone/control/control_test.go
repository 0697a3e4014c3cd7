package control

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"chancery/api/v1alpha1"
	"chancery/wall"
	"chancery/zone/cells"
)

func TestLife(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	if err := w.client.Create(ctx, newOrg("health", 2, "c1", "c2", "c3")); err != nil {
		t.Fatal(err)
	}
	o := w.ready("health", reasonSealed)
	if o.Status.State != v1alpha1.OrganizationSealed || o.Status.Shares != "0/2" || o.Status.IdentityPin != "pin-1" || o.Status.CACertificate != "CA-PEM" {
		t.Errorf("status %+v", o.Status)
	}
	if e := o.Status.Endpoints; e == nil || e.S3 != "https://s3.health.zone.example:9000" || e.API != "https://api.health.zone.example:9443" || e.Seal != "https://seal.health.zone.example:9443" {
		t.Errorf("endpoints %+v", e)
	}
	if !meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionInitialized) || !meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionSealed) {
		t.Errorf("conditions %+v", o.Status.Conditions)
	}
	if len(o.Status.Unenforced) != 1 || o.Status.Unenforced[0] != "cgroup" {
		t.Errorf("unenforced %v", o.Status.Unenforced)
	}
	w.event("Initialized")
	cell := w.cells.cell("health")
	if cell.inits != 1 || len(cell.st.Custodians) != 3 {
		t.Errorf("%d inits with %v", cell.inits, cell.st.Custodians)
	}

	cell.set(func(s *wall.Status) { s.SharesGiven = 1 })
	w.eventually("one share", func() bool { return w.org("health").Status.Shares == "1/2" })
	cell.set(func(s *wall.Status) { s.State, s.SharesGiven = wall.Unsealed, 0 })
	o = w.ready("health", reasonUnsealed)
	if o.Status.Shares != "" || meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionSealed) {
		t.Errorf("unsealed, yet %+v", o.Status)
	}

	// A crash, and the zone's own restart.
	w.cells.change("health", func(s *cells.Status) { s.Phase, s.Restarts, s.LastExit = cells.Waiting, 1, "signal: killed" })
	o = w.ready("health", reasonCrashed)
	if o.Status.Restarts != 1 {
		t.Errorf("%d restarts", o.Status.Restarts)
	}
	w.event(reasonCrashed)
	w.cells.change("health", func(s *cells.Status) { s.Phase = cells.Running })
	w.ready("health", reasonUnsealed)
	w.stop()
	w.boot()
	w.ready("health", reasonUnsealed)
	if cell.inits != 1 {
		t.Errorf("%d inits after a restart", cell.inits)
	}

	// Stop and run again.
	if err := w.patch(o, `{"spec":{"desiredState":"Stopped"}}`); err != nil {
		t.Fatal(err)
	}
	w.ready("health", reasonStopped)
	if _, runs := w.cells.Status("health"); runs {
		t.Error("the cell still runs")
	}
	if err := w.patch(o, `{"spec":{"desiredState":"Running"}}`); err != nil {
		t.Fatal(err)
	}
	w.ready("health", reasonUnsealed)

	// Another identity than the one that custodians know.
	cell.set(func(s *wall.Status) { s.IdentityPin = "pin-2" })
	if o = w.ready("health", reasonIdentity); o.Status.IdentityPin != "pin-1" {
		t.Errorf("the pin was replaced by %s", o.Status.IdentityPin)
	}
	// A cell that forgot its root key never gets another.
	cell.set(func(s *wall.Status) { s.State, s.IdentityPin = wall.Uninitialized, "" })
	w.ready("health", reasonDataLost)
	w.event(reasonDataLost)
	if cell.inits != 1 {
		t.Errorf("%d inits: a second root key was made", cell.inits)
	}
}

func TestDeletion(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	if err := w.client.Create(ctx, newOrg("health", 1, "c1")); err != nil {
		t.Fatal(err)
	}
	o := w.ready("health", reasonSealed)
	dir := filepath.Join(w.dir, "cells", "health")
	for name, err := range map[string]error{
		"one":  w.client.Delete(ctx, o),
		"many": w.client.DeleteAllOf(ctx, &v1alpha1.Organization{}),
	} {
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "set spec.protected to false first") {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	if w.org("health").DeletionTimestamp != nil {
		t.Fatal("a refused deletion left a mark")
	}
	// A link that a cell planted must not lead the deletion elsewhere.
	outside := filepath.Join(w.dir, "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(w.dir, filepath.Join(dir, "data", "link")); err != nil {
		t.Fatal(err)
	}
	if err := w.patch(o, `{"spec":{"protected":false}}`); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Delete(ctx, o); err != nil {
		t.Fatal(err)
	}
	w.eventually("the organization is gone", func() bool { return w.org("health") == nil })
	if _, runs := w.cells.Status("health"); runs {
		t.Error("the cell still runs")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("the deletion followed a link: %v", err)
	}
}

func TestExplains(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	dry := func(o *v1alpha1.Organization) error { return w.client.Create(ctx, o, client.DryRunAll) }
	spoil := func(f func(*v1alpha1.Organization)) error {
		o := newOrg("health", 2, "c1", "c2", "c3")
		f(o)
		return dry(o)
	}
	if err := spoil(func(*v1alpha1.Organization) {}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Create(ctx, newOrg("fixed", 1, "c1", "c2")); err != nil {
		t.Fatal(err)
	}
	fixed := w.ready("fixed", reasonSealed)
	for want, err := range map[string]error{
		"quorum must not be larger":        spoil(func(o *v1alpha1.Organization) { o.Spec.Quorum = 4 }),
		"greater than or equal to 1":       spoil(func(o *v1alpha1.Organization) { o.Spec.Quorum = 0 }),
		"begins with age1pq1":              spoil(func(o *v1alpha1.Organization) { o.Spec.Custodians[0].Recipient = "age1qqqq" }),
		"Duplicate value":                  spoil(func(o *v1alpha1.Organization) { o.Spec.Custodians[1].Name = "c1" }),
		"two shares under one key are one": spoil(func(o *v1alpha1.Organization) { o.Spec.Custodians[1].Recipient = o.Spec.Custodians[0].Recipient }),
		"it must be a DNS label":           spoil(func(o *v1alpha1.Organization) { o.Name = "a.b" }),
		"custodians cannot be changed":     w.patch(fixed, `{"spec":{"custodians":[{"name":"c1","recipient":"age1pq1other"}]}}`),
		"quorum cannot be changed":         w.patch(fixed, `{"spec":{"quorum":2}}`),
		"supported values: \"Running\"":    w.patch(fixed, `{"spec":{"desiredState":"Flying"}}`),
	} {
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
	z := &v1alpha1.Zone{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: v1alpha1.ZoneSpec{Jurisdiction: "FR", Domain: "x.example"}}
	if err := w.client.Create(ctx, z); !apierrors.IsForbidden(err) {
		t.Errorf("a second zone: %v", err)
	}
}

func TestZone(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	z := &v1alpha1.Zone{}
	w.eventually("the zone is there", func() bool {
		return w.client.Get(ctx, client.ObjectKey{Name: "lu-1"}, z) == nil && meta.IsStatusConditionTrue(z.Status.Conditions, v1alpha1.ConditionReady)
	})
	if z.Spec.Jurisdiction != "LU" || z.Status.Ports.S3 != 9000 || z.Status.Version != "0.1.0" || z.Status.Started == nil {
		t.Errorf("zone %+v", z)
	}
	if err := w.client.Delete(ctx, z); !apierrors.IsForbidden(err) {
		t.Errorf("delete: %v", err)
	}
	if err := w.client.Patch(ctx, z, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"domain":"evil.example"}}`))); !apierrors.IsInvalid(err) {
		t.Errorf("change: %v", err)
	}
	// The default organization answers for addresses without a name.
	if err := w.client.Create(ctx, newOrg("demo", 1, "c1")); err != nil {
		t.Fatal(err)
	}
	w.ready("demo", reasonSealed)
	w.eventually("counted", func() bool {
		return w.client.Get(ctx, client.ObjectKey{Name: "lu-1"}, z) == nil && z.Status.Organizations == 1
	})
	w.cells.mu.Lock()
	c := w.cells.configs["demo"]
	w.cells.mu.Unlock()
	if strings.Join(c.ExtraNames, " ") != "localhost 127.0.0.1 ::1" || c.Zone != "lu-1" || c.S3Port != 9000 || c.Domain != "zone.example" {
		t.Errorf("config %+v", c)
	}
}

func TestCredential(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.dir, "zone", "operator.kubeconfig")
	token, err := os.ReadFile(filepath.Join(w.dir, "zone", "operator.token"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, filepath.Join(w.dir, "zone", "operator.token")} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", p, info.Mode(), err)
		}
	}
	k, err := clientcmd.LoadFromFile(path)
	if err != nil || k.AuthInfos["operator@lu-1"].Token != string(token) || k.Clusters["operator@lu-1"].Server != "https://127.0.0.1:9444" {
		t.Errorf("kubeconfig: %v", err)
	}
	w.stop()
	w.boot()
	if again, err := os.ReadFile(filepath.Join(w.dir, "zone", "operator.token")); err != nil || !bytes.Equal(again, token) {
		t.Errorf("the token changed: %v", err)
	}
	ok := authenticate(string(token))
	for _, bad := range []string{"", "x", string(token)[1:], string(token) + "x"} {
		if _, _, known := ok(context.Background(), bad); known {
			t.Errorf("token %q is taken", bad)
		}
	}
}
