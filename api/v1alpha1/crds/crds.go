// Package crds carries the resource definitions that are generated from the
// types of api/v1alpha1, for our own API servers and for an existing Kubernetes
// cluster alike. Do not edit the YAML files: change the types and run
// `go generate ./api/v1alpha1`.
package crds

import (
	"embed"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"chancery/internal/errs"
)

//go:embed *.yaml
var files embed.FS

// Operator returns the definitions that the operator's endpoint serves.
func Operator() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	return load("organizations", "zones")
}

// Organization returns the definitions that an organization's endpoint serves.
func Organization() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	return load("projects", "buckets", "accesskeys", "custodies")
}

func load(plurals ...string) ([]*apiextensionsv1.CustomResourceDefinition, error) {
	const op = "crds.load"
	var out []*apiextensionsv1.CustomResourceDefinition
	for _, plural := range plurals {
		body, err := files.ReadFile("chancery.cloud_" + plural + ".yaml")
		if err != nil {
			return nil, errs.Wrap(op, err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(body, crd); err != nil {
			return nil, errs.Wrap(op, err)
		}
		out = append(out, crd)
	}
	return out, nil
}
