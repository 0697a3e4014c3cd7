package apiserver

import (
	"fmt"
	"reflect"
	"strings"

	extensionsopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// openAPIDefinitions describes every type that we serve: those of the CRD
// server from its generated code, the few core kinds by reflection on their
// types and their SwaggerDoc. The generated code for core/v1 would bring all of
// pods, volumes and nodes along.
func openAPIDefinitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	out := extensionsopenapi.GetOpenAPIDefinitions(ref)
	b := openAPIBuilder{ref: ref, out: out}
	for gvk, t := range coreScheme.AllKnownTypes() {
		if gvk.Version != runtime.APIVersionInternal && strings.HasPrefix(t.PkgPath(), "k8s.io/api/") {
			b.add(t)
		}
	}
	return out
}

type openAPIBuilder struct {
	ref common.ReferenceCallback
	out map[string]common.OpenAPIDefinition
}

// mergeKeys are lists that server-side apply merges by a key. Reflection cannot
// see the markers of the source.
var mergeKeys = map[string]string{
	"io.k8s.api.core.v1.NamespaceStatus.conditions": "type",
}

// atomicTypes are replaced as a whole by server-side apply.
var atomicTypes = map[string]bool{"io.k8s.api.core.v1.ObjectReference": true}

func modelName(t reflect.Type) string {
	return util.GetCanonicalTypeName(reflect.New(t).Interface())
}

// add describes a struct and all that it refers to.
func (b openAPIBuilder) add(t reflect.Type) {
	name := modelName(t)
	if _, done := b.out[name]; done {
		return
	}
	b.out[name] = common.OpenAPIDefinition{} // ends recursion
	docs := map[string]string{}
	if d, ok := reflect.New(t).Interface().(interface{ SwaggerDoc() map[string]string }); ok {
		docs = d.SwaggerDoc()
	}
	def := common.OpenAPIDefinition{Schema: spec.Schema{SchemaProps: spec.SchemaProps{
		Description: docs[""], Type: []string{"object"}, Properties: map[string]spec.Schema{},
	}}}
	if atomicTypes[name] {
		def.Schema.AddExtension("x-kubernetes-map-type", "atomic")
	}
	deps := map[string]bool{}
	b.fields(t, name, docs, &def.Schema, deps)
	for d := range deps {
		def.Dependencies = append(def.Dependencies, d)
	}
	b.out[name] = def
}

func (b openAPIBuilder) fields(t reflect.Type, owner string, docs map[string]string, schema *spec.Schema, deps map[string]bool) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && name == "" {
			embedded := map[string]string{}
			if d, ok := reflect.New(f.Type).Interface().(interface{ SwaggerDoc() map[string]string }); ok {
				embedded = d.SwaggerDoc()
			}
			b.fields(f.Type, owner, embedded, schema, deps)
			continue
		}
		if name == "" {
			continue
		}
		p := b.schemaOf(f.Type, deps)
		p.Description = docs[name]
		if len(p.Ref.String()) > 0 {
			// A reference cannot carry a description beside it.
			p = spec.Schema{SchemaProps: spec.SchemaProps{Description: docs[name], Default: map[string]any{}, AllOf: nil, Ref: p.Ref}}
			if f.Type.Kind() == reflect.Pointer || strings.Contains(options, "omitempty") {
				p.Default = nil
			}
		}
		if key := mergeKeys[owner+"."+name]; key != "" {
			p.AddExtension("x-kubernetes-list-type", "map")
			p.AddExtension("x-kubernetes-list-map-keys", []any{key})
		} else if p.Type.Contains("array") {
			p.AddExtension("x-kubernetes-list-type", "atomic")
		}
		schema.Properties[name] = p
		if !strings.Contains(options, "omit") && f.Type.Kind() != reflect.Pointer && name != "metadata" {
			schema.Required = append(schema.Required, name)
		}
	}
}

func (b openAPIBuilder) schemaOf(t reflect.Type, deps map[string]bool) spec.Schema {
	typed := func(kind, format string) spec.Schema {
		return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{kind}, Format: format}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return b.schemaOf(t.Elem(), deps)
	case reflect.String:
		return typed("string", "")
	case reflect.Bool:
		return typed("boolean", "")
	case reflect.Int32, reflect.Uint32:
		return typed("integer", "int32")
	case reflect.Int64, reflect.Int:
		return typed("integer", "int64")
	case reflect.Map:
		value := b.schemaOf(t.Elem(), deps)
		s := typed("object", "")
		s.AdditionalProperties = &spec.SchemaOrBool{Allows: true, Schema: &value}
		return s
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return typed("string", "byte")
		}
		item := b.schemaOf(t.Elem(), deps)
		s := typed("array", "")
		s.Items = &spec.SchemaOrArray{Schema: &item}
		return s
	case reflect.Struct:
		name := modelName(t)
		if strings.HasPrefix(t.PkgPath(), "k8s.io/api/") {
			b.add(t)
		}
		deps[name] = true
		return spec.Schema{SchemaProps: spec.SchemaProps{Ref: b.ref(name)}}
	}
	// A kind that we add to coreScheme must be describable: fail its first test.
	panic(fmt.Sprintf("apiserver: no OpenAPI schema for %v", t))
}
