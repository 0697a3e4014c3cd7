package client

import (
	"context"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"chancery/api/v1alpha1"
	"chancery/internal/errs"
)

// Operator speaks to a zone's own API server.
type Operator struct{ kube kube.WithWatch }

// OpenOperator reads the operator's kubeconfig.
func OpenOperator(kubeconfig string) (*Operator, error) {
	config, err := fromKubeconfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	c, err := open(config)
	if err != nil {
		return nil, err
	}
	return &Operator{c}, nil
}

// zoneTime is how long Zone waits: a zone at its very first start writes its Zone
// object a moment after it begins to serve.
const zoneTime = 15 * time.Second

// Zone returns the one Zone object.
func (o *Operator) Zone(ctx context.Context) (*v1alpha1.Zone, error) {
	const op = "client.Zone"
	ctx, cancel := context.WithTimeout(ctx, zoneTime)
	defer cancel()
	var list v1alpha1.ZoneList
	err := poll(ctx, op, func() (bool, error) {
		if err := o.kube.List(ctx, &list); err != nil {
			return false, wrap(op, err)
		}
		if len(list.Items) != 1 {
			return false, errs.New(errs.NotFound, op, "the zone has not written its Zone object yet")
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return &list.Items[0], nil
}

// Organizations lists the zone's organizations by name.
func (o *Operator) Organizations(ctx context.Context) ([]v1alpha1.Organization, error) {
	var list v1alpha1.OrganizationList
	if err := o.kube.List(ctx, &list); err != nil {
		return nil, wrap("client.Organizations", err)
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.Organization) int { return strings.Compare(a.Name, b.Name) })
	return list.Items, nil
}

// Organization returns one organization.
func (o *Operator) Organization(ctx context.Context, name string) (*v1alpha1.Organization, error) {
	var org v1alpha1.Organization
	if err := o.kube.Get(ctx, kube.ObjectKey{Name: name}, &org); err != nil {
		return nil, wrap("client.Organization", err)
	}
	return &org, nil
}

// CreateOrganization asks for an organization; the zone makes its cell, which makes
// its root key and splits it. With dryRun the request is only checked.
func (o *Operator) CreateOrganization(ctx context.Context, name string, quorum int, custodians []v1alpha1.Custodian, protected, dryRun bool) error {
	org := &v1alpha1.Organization{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.OrganizationSpec{Quorum: int32(quorum), Custodians: custodians, Protected: &protected},
	}
	var opts []kube.CreateOption
	if dryRun {
		opts = append(opts, kube.DryRunAll)
	}
	return wrap("client.CreateOrganization", o.kube.Create(ctx, org, opts...))
}

// WaitOrganization waits until the organization is in one of the states.
func (o *Operator) WaitOrganization(ctx context.Context, name string, states ...v1alpha1.OrganizationState) (*v1alpha1.Organization, error) {
	var org *v1alpha1.Organization
	err := poll(ctx, "client.WaitOrganization", func() (bool, error) {
		var err error
		if org, err = o.Organization(ctx, name); err != nil {
			return false, err
		}
		if slices.Contains(states, org.Status.State) {
			return true, nil
		}
		return false, errs.New(errs.Unavailable, "client", "organization %s is %s", name, orPending(org.Status.State))
	})
	return org, err
}

func orPending(s v1alpha1.OrganizationState) v1alpha1.OrganizationState {
	if s == "" {
		return v1alpha1.OrganizationPending
	}
	return s
}

// DeleteOrganization deletes an organization that is not protected, with all its
// data, and waits until it is gone.
func (o *Operator) DeleteOrganization(ctx context.Context, name string) error {
	const op = "client.DeleteOrganization"
	org, err := o.Organization(ctx, name)
	if err != nil {
		return err
	}
	if err := o.kube.Delete(ctx, org); err != nil {
		return wrap(op, err)
	}
	return poll(ctx, op, func() (bool, error) {
		_, err := o.Organization(ctx, name)
		if errs.Is(err, errs.NotFound) {
			return true, nil
		}
		return false, err
	})
}
