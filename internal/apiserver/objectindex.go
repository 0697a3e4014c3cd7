package apiserver

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"chancery/internal/apiserver/revlog"
	"chancery/internal/errs"
)

// node is what the collector knows of one stored object: no content, only how
// it hangs together with others.
type node struct {
	key, namespace, name string
	resource             schema.GroupVersionResource
	rev                  int64
	uid                  types.UID
	owners               []metav1.OwnerReference
	finalizers           []string
	deleting             bool
}

func (n *node) isNamespace() bool {
	return n.resource.Group == "" && n.resource.Resource == "namespaces"
}

func (n *node) has(finalizer string) bool {
	for _, f := range n.finalizers {
		if f == finalizer {
			return true
		}
	}
	return false
}

// stored is the part of every stored object that the index reads.
type stored struct {
	APIVersion string `json:"apiVersion"`
	Metadata   struct {
		UID               types.UID               `json:"uid"`
		OwnerReferences   []metav1.OwnerReference `json:"ownerReferences"`
		Finalizers        []string                `json:"finalizers"`
		DeletionTimestamp *metav1.Time            `json:"deletionTimestamp"`
	} `json:"metadata"`
}

func decodeNode(kv *revlog.KV) (*node, error) {
	gr, namespace, name, ok := splitKey(kv.Key)
	if !ok {
		return nil, errs.New(errs.Corrupt, "apiserver.index", "a storage key has an unknown form")
	}
	var s stored
	if err := json.Unmarshal(kv.Value, &s); err != nil {
		return nil, errs.WrapKind(errs.Corrupt, "apiserver.index", err)
	}
	gv, err := schema.ParseGroupVersion(s.APIVersion)
	if err != nil {
		return nil, errs.WrapKind(errs.Corrupt, "apiserver.index", err)
	}
	return &node{
		key: kv.Key, namespace: namespace, name: name, rev: kv.Modified,
		resource: gr.WithVersion(gv.Version), uid: s.Metadata.UID, owners: s.Metadata.OwnerReferences,
		finalizers: s.Metadata.Finalizers, deleting: s.Metadata.DeletionTimestamp != nil,
	}, nil
}

// index finds objects by key, by uid, by owner and by namespace. It is fed from
// the log in order, so that it is one consistent state at any time. Not safe
// for concurrent use.
type index struct {
	byKey       map[string]*node
	byUID       map[types.UID]*node
	dependents  map[types.UID]map[string]*node
	byNamespace map[string]map[string]*node
}

func newIndex() *index {
	return &index{
		byKey: map[string]*node{}, byUID: map[types.UID]*node{},
		dependents: map[types.UID]map[string]*node{}, byNamespace: map[string]map[string]*node{},
	}
}

func link[K comparable](m map[K]map[string]*node, k K, n *node) {
	if m[k] == nil {
		m[k] = map[string]*node{}
	}
	m[k][n.key] = n
}

func unlink[K comparable](m map[K]map[string]*node, k K, key string) {
	delete(m[k], key)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

func (x *index) put(n *node) {
	x.remove(n.key)
	x.byKey[n.key] = n
	x.byUID[n.uid] = n
	for _, o := range n.owners {
		link(x.dependents, o.UID, n)
	}
	if n.namespace != "" {
		link(x.byNamespace, n.namespace, n)
	}
}

// remove forgets a key and returns what it was; nil if it was not there.
func (x *index) remove(key string) *node {
	n := x.byKey[key]
	if n == nil {
		return nil
	}
	delete(x.byKey, key)
	if x.byUID[n.uid] == n {
		delete(x.byUID, n.uid)
	}
	for _, o := range n.owners {
		unlink(x.dependents, o.UID, key)
	}
	if n.namespace != "" {
		unlink(x.byNamespace, n.namespace, key)
	}
	return n
}

// owner finds the owner that a reference names. An owner is in the same
// namespace or has none: a reference across namespaces names nobody.
func (x *index) owner(of *node, ref metav1.OwnerReference) *node {
	o := x.byUID[ref.UID]
	if o == nil || o.name != ref.Name || (o.namespace != "" && o.namespace != of.namespace) {
		return nil
	}
	return o
}

func namespaceKey(name string) string {
	return resourcePrefix(schema.GroupResource{Resource: "namespaces"}) + "/" + name
}
