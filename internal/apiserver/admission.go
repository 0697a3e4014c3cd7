package apiserver

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
)

// namespaceCheck lets nothing be made in a namespace that does not exist or is
// going away. It reads the namespace from storage each time: a cache could be
// behind, and then something would be left over in a namespace that is gone.
type namespaceCheck struct {
	// namespaces is set before the server serves.
	namespaces *genericregistry.Store
	// more is what the caller has to say; nil is nothing.
	more func(context.Context, admission.Attributes) error
}

var _ admission.ValidationInterface = (*namespaceCheck)(nil)

// protected namespaces cannot be deleted: events about cluster-wide things live there.
var protectedNamespaces = map[string]bool{metav1.NamespaceDefault: true}

// Handles implements admission.Interface.
func (c *namespaceCheck) Handles(admission.Operation) bool { return true }

// Validate implements admission.ValidationInterface.
func (c *namespaceCheck) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if c.more != nil {
		if err := c.more(ctx, a); err != nil {
			return err
		}
	}
	gr := a.GetResource().GroupResource()
	if gr.Group == "" && gr.Resource == "namespaces" {
		// A deletion of many names each one only in its old object.
		if old, ok := a.GetOldObject().(*corev1.Namespace); ok && a.GetOperation() == admission.Delete && protectedNamespaces[old.Name] {
			return apierrors.NewForbidden(gr, old.Name, fmt.Errorf("this namespace may not be deleted"))
		}
		return nil
	}
	if a.GetOperation() != admission.Create || a.GetNamespace() == "" {
		return nil
	}
	obj, err := c.namespaces.Get(ctx, a.GetNamespace(), &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(corev1.Resource("namespaces"), a.GetNamespace())
	}
	if err != nil {
		return err
	}
	if ns := obj.(*corev1.Namespace); ns.DeletionTimestamp != nil {
		forbidden := apierrors.NewForbidden(gr, a.GetName(), fmt.Errorf("unable to create new content in namespace %s because it is being terminated", ns.Name))
		forbidden.ErrStatus.Details.Causes = append(forbidden.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: corev1.NamespaceTerminatingCause, Message: "namespace is being terminated", Field: "metadata.namespace",
		})
		return forbidden
	}
	return nil
}
