package apiserver

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"

	"chancery/internal/apiserver/kubestore"
	"chancery/internal/apiserver/revlog"
)

// coreGroup stands for the empty group in storage keys.
const coreGroup = "core"

// resourcePrefix is where a resource's objects live: /GROUP/RESOURCE, below it
// NAMESPACE/NAME or NAME.
func resourcePrefix(gr schema.GroupResource) string {
	group := gr.Group
	if group == "" {
		group = coreGroup
	}
	return "/" + group + "/" + gr.Resource
}

// restOptions gives every resource its storage: straight on the log, without a
// watch cache. The log holds the newest events in memory and reads are local,
// so that a cache would cost memory and start-up time, and answer 429 until it
// is filled, for nothing at the sizes of one organization.
type restOptions struct {
	log *revlog.Log
	// codec by group; nil for custom resources, which bring their own.
	codec func(schema.GroupResource) runtime.Codec
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (o restOptions) GetRESTOptions(gr schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	config := storagebackend.NewDefaultConfig("", o.codec(gr))
	return generic.RESTOptions{
		StorageConfig:           config.ForResource(gr),
		Decorator:               o.decorate,
		EnableGarbageCollection: true,
		DeleteCollectionWorkers: 4,
		ResourcePrefix:          resourcePrefix(gr),
	}, nil
}

func (o restOptions) decorate(
	config *storagebackend.ConfigForResource, prefix string, _ func(runtime.Object) (string, error),
	newFunc, _ func() runtime.Object, _ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	s, err := kubestore.New(kubestore.Config{Log: o.log, Codec: config.Codec, ResourcePrefix: prefix, NewFunc: newFunc})
	return s, func() {}, err
}

// unstructuredCodec stores custom resources as the JSON that clients see.
func unstructuredCodec(schema.GroupResource) runtime.Codec {
	return runtime.NewCodec(unstructured.UnstructuredJSONScheme, unstructured.UnstructuredJSONScheme)
}

// splitKey reads a storage key.
func splitKey(key string) (gr schema.GroupResource, namespace, name string, ok bool) {
	parts := strings.Split(strings.TrimPrefix(key, "/"), "/")
	switch len(parts) {
	case 3:
		name = parts[2]
	case 4:
		namespace, name = parts[2], parts[3]
	default:
		return gr, "", "", false
	}
	gr = schema.GroupResource{Group: parts[0], Resource: parts[1]}
	if gr.Group == coreGroup {
		gr.Group = ""
	}
	return gr, namespace, name, true
}
