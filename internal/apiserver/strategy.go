package apiserver

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/names"
)

// namespaceFinalizer keeps a namespace until the collector has emptied it.
const namespaceFinalizer = "chancery.cloud/namespace-contents"

// maxData bounds the data of a secret or config map, in bytes, as Kubernetes does.
const maxData = 1 << 20

// strategy is what the resources that we serve ourselves have in common. nil
// functions do nothing.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	namespaced bool
	// prepare completes a new or changed object; old is nil for a new one.
	prepare func(obj, old runtime.Object)
	// validate checks it; old is nil for a new one.
	validate func(obj, old runtime.Object) field.ErrorList
}

func (s strategy) NamespaceScoped() bool                                            { return s.namespaced }
func (s strategy) AllowCreateOnUpdate(context.Context) bool                         { return true }
func (s strategy) AllowUnconditionalUpdate(context.Context) bool                    { return true }
func (s strategy) Canonicalize(runtime.Object)                                      {}
func (s strategy) WarningsOnCreate(context.Context, runtime.Object) []string        { return nil }
func (s strategy) WarningsOnUpdate(_ context.Context, _, _ runtime.Object) []string { return nil }

func (s strategy) PrepareForCreate(_ context.Context, obj runtime.Object) {
	if s.prepare != nil {
		s.prepare(obj, nil)
	}
}

func (s strategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	if s.prepare != nil {
		s.prepare(obj, old)
	}
}

func (s strategy) Validate(_ context.Context, obj runtime.Object) field.ErrorList {
	return s.validate(obj, nil)
}

func (s strategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	return s.validate(obj, old)
}

func checkName(name string, is func(string) []string) (out field.ErrorList) {
	for _, msg := range is(name) {
		out = append(out, field.Invalid(field.NewPath("metadata", "name"), name, msg))
	}
	return out
}

func subdomainName(obj, _ runtime.Object) field.ErrorList {
	return checkName(obj.(interface{ GetName() string }).GetName(), validation.IsDNS1123Subdomain)
}

func prepareNamespace(obj, old runtime.Object) {
	ns := obj.(*corev1.Namespace)
	if old == nil {
		ns.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
		ns.Finalizers = appendMissing(ns.Finalizers, namespaceFinalizer)
		return
	}
	ns.Status = old.(*corev1.Namespace).Status
}

// prepareNamespaceStatus keeps everything but the status.
func prepareNamespaceStatus(obj, old runtime.Object) {
	if old != nil {
		ns, was := obj.(*corev1.Namespace), old.(*corev1.Namespace)
		ns.Spec, ns.Labels, ns.Annotations, ns.Finalizers, ns.OwnerReferences = was.Spec, was.Labels, was.Annotations, was.Finalizers, was.OwnerReferences
	}
}

func validateNamespace(obj, _ runtime.Object) field.ErrorList {
	return checkName(obj.(*corev1.Namespace).Name, validation.IsDNS1123Label)
}

func prepareSecret(obj, _ runtime.Object) {
	s := obj.(*corev1.Secret)
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	for k, v := range s.StringData { // write-only convenience of the API
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
}

func validateSecret(obj, old runtime.Object) field.ErrorList {
	s := obj.(*corev1.Secret)
	out, size := subdomainName(obj, nil), 0
	for k, v := range s.Data {
		out = append(out, checkDataKey(k)...)
		size += len(k) + len(v)
	}
	out = append(out, checkDataSize(size)...)
	if old != nil {
		was := old.(*corev1.Secret)
		if s.Type != was.Type {
			out = append(out, field.Invalid(field.NewPath("type"), s.Type, "field is immutable"))
		}
		if was.Immutable != nil && *was.Immutable {
			if s.Immutable == nil || !*s.Immutable {
				out = append(out, field.Forbidden(field.NewPath("immutable"), "field is immutable when `immutable` is set"))
			}
			if !apiequality.Semantic.DeepEqual(s.Data, was.Data) {
				out = append(out, field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set"))
			}
		}
	}
	return out
}

func validateConfigMap(obj, old runtime.Object) field.ErrorList {
	c := obj.(*corev1.ConfigMap)
	out, size := subdomainName(obj, nil), 0
	for k, v := range c.Data {
		out = append(out, checkDataKey(k)...)
		size += len(k) + len(v)
		if _, twice := c.BinaryData[k]; twice {
			out = append(out, field.Invalid(field.NewPath("data").Key(k), k, "duplicate of key present in binaryData"))
		}
	}
	for k, v := range c.BinaryData {
		out = append(out, checkDataKey(k)...)
		size += len(k) + len(v)
	}
	out = append(out, checkDataSize(size)...)
	if old != nil {
		was := old.(*corev1.ConfigMap)
		if was.Immutable != nil && *was.Immutable &&
			(c.Immutable == nil || !*c.Immutable || !apiequality.Semantic.DeepEqual(c.Data, was.Data) || !apiequality.Semantic.DeepEqual(c.BinaryData, was.BinaryData)) {
			out = append(out, field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set"))
		}
	}
	return out
}

func checkDataKey(key string) (out field.ErrorList) {
	for _, msg := range validation.IsConfigMapKey(key) {
		out = append(out, field.Invalid(field.NewPath("data").Key(key), key, msg))
	}
	return out
}

func checkDataSize(size int) field.ErrorList {
	if size > maxData {
		return field.ErrorList{field.TooLong(field.NewPath("data"), "", maxData)}
	}
	return nil
}

func validateEvent(obj, _ runtime.Object) field.ErrorList {
	e := obj.(*corev1.Event)
	out := subdomainName(obj, nil)
	// Events about cluster-wide things live in "default".
	if want := e.InvolvedObject.Namespace; want != e.Namespace && (want != "" || e.Namespace != "default") {
		out = append(out, field.Invalid(field.NewPath("involvedObject", "namespace"), want, fmt.Sprintf("does not match event.namespace %q", e.Namespace)))
	}
	if len(e.Message) > 64<<10 {
		out = append(out, field.TooLong(field.NewPath("message"), "", 64<<10))
	}
	return out
}

func validateLease(obj, _ runtime.Object) field.ErrorList {
	l := obj.(*coordinationv1.Lease)
	out := subdomainName(obj, nil)
	if d := l.Spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		out = append(out, field.Invalid(field.NewPath("spec", "leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	return out
}

// eventFields are the field selectors of events: kubectl describe uses them.
func eventFields(e *corev1.Event) fields.Set {
	o := e.InvolvedObject
	reporting := e.ReportingController
	if reporting == "" {
		reporting = e.Source.Component
	}
	return fields.Set{
		"metadata.name": e.Name, "metadata.namespace": e.Namespace,
		"involvedObject.kind": o.Kind, "involvedObject.namespace": o.Namespace, "involvedObject.name": o.Name,
		"involvedObject.uid": string(o.UID), "involvedObject.apiVersion": o.APIVersion,
		"involvedObject.resourceVersion": o.ResourceVersion, "involvedObject.fieldPath": o.FieldPath,
		"reason": e.Reason, "reportingComponent": reporting, "source": reporting, "type": e.Type,
	}
}

// eventFieldLabel allows the selectors of both faces of events.
func eventFieldLabel(label, value string) (string, string, error) {
	if len(label) > 10 && label[:10] == "regarding." {
		label = "involvedObject." + label[10:]
	}
	if label == "reportingController" {
		label = "reportingComponent"
	}
	if _, ok := eventFields(&corev1.Event{})[label]; !ok {
		return "", "", fmt.Errorf("field label not supported: %s", label)
	}
	return label, value, nil
}

func eventAttrs(obj runtime.Object) (labels.Set, fields.Set, error) {
	e, ok := obj.(*corev1.Event)
	if !ok {
		return nil, nil, fmt.Errorf("%T is not an event", obj)
	}
	return e.Labels, eventFields(e), nil
}

var _ storage.AttrFunc = eventAttrs

func appendMissing(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}
