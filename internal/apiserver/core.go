package apiserver

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/storage/names"
)

// resource describes one kind that we serve ourselves.
type resource struct {
	gv               schema.GroupVersion
	plural, singular string
	short            []string
	strategy         strategy
	newFunc, newList func() runtime.Object
	columns          columns
	ttl              uint64 // seconds; 0 is for ever
	options          generic.StoreOptions
}

func coreResources(eventTTL uint64) []resource {
	base := func(namespaced bool) strategy {
		return strategy{ObjectTyper: coreScheme, NameGenerator: names.SimpleNameGenerator, namespaced: namespaced, validate: subdomainName}
	}
	namespace, secret, configMap, event, lease := base(false), base(true), base(true), base(true), base(true)
	namespace.prepare, namespace.validate = prepareNamespace, validateNamespace
	secret.prepare, secret.validate = prepareSecret, validateSecret
	configMap.validate, event.validate, lease.validate = validateConfigMap, validateEvent, validateLease
	return []resource{
		{
			gv: corev1.SchemeGroupVersion, plural: "namespaces", singular: "namespace", short: []string{"ns"}, strategy: namespace, columns: namespaceColumns,
			newFunc: func() runtime.Object { return &corev1.Namespace{} }, newList: func() runtime.Object { return &corev1.NamespaceList{} },
		},
		{
			gv: corev1.SchemeGroupVersion, plural: "secrets", singular: "secret", strategy: secret, columns: secretColumns,
			newFunc: func() runtime.Object { return &corev1.Secret{} }, newList: func() runtime.Object { return &corev1.SecretList{} },
		},
		{
			gv: corev1.SchemeGroupVersion, plural: "configmaps", singular: "configmap", short: []string{"cm"}, strategy: configMap, columns: configMapColumns,
			newFunc: func() runtime.Object { return &corev1.ConfigMap{} }, newList: func() runtime.Object { return &corev1.ConfigMapList{} },
		},
		{
			gv: corev1.SchemeGroupVersion, plural: "events", singular: "event", short: []string{"ev"}, strategy: event, columns: eventColumns, ttl: eventTTL,
			newFunc: func() runtime.Object { return &corev1.Event{} }, newList: func() runtime.Object { return &corev1.EventList{} },
			options: generic.StoreOptions{AttrFunc: eventAttrs},
		},
		{
			gv: coordinationv1.SchemeGroupVersion, plural: "leases", singular: "lease", strategy: lease, columns: leaseColumns,
			newFunc: func() runtime.Object { return &coordinationv1.Lease{} }, newList: func() runtime.Object { return &coordinationv1.LeaseList{} },
		},
	}
}

// registry is a stock store with short names for kubectl.
type registry struct {
	*genericregistry.Store
	short []string
}

// ShortNames implements rest.ShortNamesProvider.
func (r registry) ShortNames() []string { return r.short }

func newRegistry(r resource, options generic.RESTOptionsGetter) (registry, error) {
	gr := r.gv.WithResource(r.plural).GroupResource()
	s := &genericregistry.Store{
		NewFunc: r.newFunc, NewListFunc: r.newList,
		DefaultQualifiedResource:  gr,
		SingularQualifiedResource: r.gv.WithResource(r.singular).GroupResource(),
		CreateStrategy:            r.strategy, UpdateStrategy: r.strategy, DeleteStrategy: r.strategy,
		TableConvertor: r.columns,
	}
	if r.ttl > 0 {
		s.TTLFunc = func(runtime.Object, uint64, bool) (uint64, error) { return r.ttl, nil }
	}
	opts := r.options
	opts.RESTOptions = options
	if err := s.CompleteWithOptions(&opts); err != nil {
		return registry{}, err
	}
	return registry{s, r.short}, nil
}

// namespaceStatus is namespaces/status: the stock store with another strategy.
type namespaceStatus struct{ store *genericregistry.Store }

var (
	_ rest.Patcher = namespaceStatus{}
	_ rest.Storage = namespaceStatus{}
)

func (n namespaceStatus) New() runtime.Object { return n.store.New() }
func (n namespaceStatus) Destroy()            {}
func (n namespaceStatus) Get(ctx context.Context, name string, o *metav1.GetOptions) (runtime.Object, error) {
	return n.store.Get(ctx, name, o)
}

func (n namespaceStatus) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, cv rest.ValidateObjectFunc, uv rest.ValidateObjectUpdateFunc, _ bool, o *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return n.store.Update(ctx, name, info, cv, uv, false, o)
}

// installCore adds the resources that we serve ourselves to the server, and
// returns the registry of namespaces for admission.
func installCore(s *genericapiserver.GenericAPIServer, options generic.RESTOptionsGetter, az authorizer.Authorizer, eventTTL uint64) (*genericregistry.Store, error) {
	groups := map[string]map[string]rest.Storage{}
	put := func(group, name string, r rest.Storage) {
		if groups[group] == nil {
			groups[group] = map[string]rest.Storage{}
		}
		groups[group][name] = r
	}
	var namespaces *genericregistry.Store
	for _, r := range coreResources(eventTTL) {
		reg, err := newRegistry(r, options)
		if err != nil {
			return nil, err
		}
		put(r.gv.Group, r.plural, reg)
		switch r.plural {
		case "namespaces":
			namespaces = reg.Store
			status := *reg.Store
			st := r.strategy
			st.prepare = prepareNamespaceStatus
			status.CreateStrategy, status.UpdateStrategy = nil, st
			put(r.gv.Group, "namespaces/status", namespaceStatus{&status})
		case "events":
			put(eventsv1.GroupName, r.plural, reg) // the same store under its other face
		}
	}
	put(authorizationv1.GroupName, "selfsubjectaccessreviews", accessReview{az})
	put(authenticationv1.GroupName, "selfsubjectreviews", selfReview{})

	var infos []*genericapiserver.APIGroupInfo
	for _, group := range []string{corev1.GroupName, coordinationv1.GroupName, eventsv1.GroupName, authorizationv1.GroupName, authenticationv1.GroupName} {
		info := genericapiserver.NewDefaultAPIGroupInfo(group, coreScheme, metav1.ParameterCodec, coreCodecs)
		info.VersionedResourcesStorageMap["v1"] = groups[group]
		if group == corev1.GroupName {
			if err := s.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, &info); err != nil {
				return nil, err
			}
			continue
		}
		infos = append(infos, &info)
	}
	return namespaces, s.InstallAPIGroups(infos...)
}

// coreCodec stores the resources that we serve ourselves as JSON of version v1.
func coreCodec(gr schema.GroupResource) runtime.Codec {
	return coreCodecs.LegacyCodec(schema.GroupVersion{Group: gr.Group, Version: "v1"})
}
