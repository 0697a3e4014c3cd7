package crds

import (
	"reflect"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"chancery/api/v1alpha1"
)

// TestUpToDate compares each generated schema with its Go type, field by field
// both ways: a type that was changed without `go generate` fails here.
func TestUpToDate(t *testing.T) {
	kinds := map[string]any{
		"Organization": v1alpha1.Organization{}, "Zone": v1alpha1.Zone{},
		"Project": v1alpha1.Project{}, "Bucket": v1alpha1.Bucket{}, "AccessKey": v1alpha1.AccessKey{},
		"Custody": v1alpha1.Custody{},
	}
	operator, err := Operator()
	if err != nil {
		t.Fatal(err)
	}
	organization, err := Organization()
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range append(operator, organization...) {
		kind := crd.Spec.Names.Kind
		typ, ok := kinds[kind]
		if !ok {
			t.Errorf("%s has no Go type here", kind)
			continue
		}
		delete(kinds, kind)
		if crd.Spec.Group != v1alpha1.GroupName || crd.Spec.Versions[0].Name != v1alpha1.SchemeGroupVersion.Version || crd.Spec.Versions[0].Subresources.Status == nil {
			t.Errorf("%s: wrong group, version or no status", kind)
		}
		compare(t, kind, reflect.TypeOf(typ), *crd.Spec.Versions[0].Schema.OpenAPIV3Schema)
	}
	for kind := range kinds {
		t.Errorf("%s has no definition; run go generate ./api/v1alpha1", kind)
	}
}

func compare(t *testing.T, path string, typ reflect.Type, schema apiextensionsv1.JSONSchemaProps) {
	t.Helper()
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch {
	case typ.Kind() == reflect.Slice:
		if schema.Items == nil || schema.Items.Schema == nil {
			t.Errorf("%s: not a list in the schema", path)
			return
		}
		compare(t, path+"[]", typ.Elem(), *schema.Items.Schema)
		return
	case typ.Kind() != reflect.Struct || typ == reflect.TypeFor[metav1.Time]() || typ == reflect.TypeFor[metav1.ObjectMeta]() || typ == reflect.TypeFor[metav1.Condition]():
		return
	}
	seen := map[string]bool{}
	for f := range typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if strings.Contains(options, "inline") {
			seen["apiVersion"], seen["kind"] = true, true
			continue
		}
		seen[name] = true
		prop, ok := schema.Properties[name]
		if !ok {
			t.Errorf("%s.%s is not in the schema; run go generate ./api/v1alpha1", path, name)
			continue
		}
		if name != "metadata" && prop.Description == "" && !strings.HasSuffix(path, "[]") {
			t.Errorf("%s.%s has no description for kubectl explain", path, name)
		}
		compare(t, path+"."+name, f.Type, prop)
	}
	for name := range schema.Properties {
		if !seen[name] {
			t.Errorf("%s.%s is in the schema only; run go generate ./api/v1alpha1", path, name)
		}
	}
}
