package control

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"

	"chancery/api/v1alpha1"
)

// admit refuses to delete a protected organization, and to make or delete a
// Zone. It must do so at the door: a deletion that was once accepted can never
// be taken back.
func admit(_ context.Context, a admission.Attributes) error {
	gr := a.GetResource().GroupResource()
	if gr.Group != v1alpha1.GroupName {
		return nil
	}
	if gr.Resource == "zones" && (a.GetUserInfo() == nil || a.GetUserInfo().GetName() != user.APIServerUser) {
		switch a.GetOperation() {
		case admission.Create, admission.Delete:
			return apierrors.NewForbidden(gr, a.GetName(), errors.New("the one Zone object shows this installation: the zone itself makes and keeps it"))
		}
	}
	if a.GetOperation() != admission.Delete {
		return nil
	}
	old, ok := a.GetOldObject().(*unstructured.Unstructured)
	switch {
	case !ok:
		return nil // asked before the object was read; asked again with it
	case gr.Resource == "organizations":
		if protected, found, err := unstructured.NestedBool(old.Object, "spec", "protected"); err != nil || !found || protected {
			return apierrors.NewForbidden(gr, old.GetName(), errors.New("the organization is protected: deletion destroys its data for ever; set spec.protected to false first"))
		}
	}
	return nil
}
