// Package v1alpha1 holds the resource kinds that users write, and nothing else:
// no behaviour, no client, no secret. Organization and Zone are served by the
// operator's endpoint, Project, Bucket, AccessKey and Custody by each organization's own.
//
// +kubebuilder:object:generate=true
// +groupName=chancery.cloud
package v1alpha1

//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0 object crd:crdVersions=v1 paths=. output:crd:dir=crds

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of all our kinds.
const GroupName = "chancery.cloud"

// SchemeGroupVersion is the group and version of this package's kinds.
var SchemeGroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// Annotations and finalizers that we set.
const (
	// Finalizer keeps an object until what it stands for is gone.
	Finalizer = GroupName + "/finalizer"
	// AnnotationMirrors names the S3 bucket, by its id, that a Bucket was made to
	// show. Such an object never makes a bucket; it goes when the bucket does.
	AnnotationMirrors = GroupName + "/mirrors"
)

// Condition types that kinds of this package carry.
const (
	// ConditionReady: what was asked for is there and can be used.
	ConditionReady = "Ready"
	// ConditionInitialized: the organization's root key was made and split among its custodians.
	ConditionInitialized = "Initialized"
	// ConditionSealed: the organization's root key is not in memory.
	ConditionSealed = "Sealed"
	// ConditionPurged: no wrapped key that was replaced or destroyed is left in the organization's files.
	ConditionPurged = "Purged"
	// ConditionHandedOver: no administrator's credential of earlier custodians is in force.
	ConditionHandedOver = "HandedOver"
)

// AddToScheme registers the kinds.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(SchemeGroupVersion,
		&Organization{}, &OrganizationList{}, &Zone{}, &ZoneList{},
		&Project{}, &ProjectList{}, &Bucket{}, &BucketList{}, &AccessKey{}, &AccessKeyList{},
		&Custody{}, &CustodyList{})
	metav1.AddToGroupVersion(s, SchemeGroupVersion)
	return nil
}
