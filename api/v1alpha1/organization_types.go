package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Project is what buckets, keys and grants belong to, inside an organization.
// It has a namespace of its own name, in which its buckets and access keys are.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=proj,categories=chancery
// +kubebuilder:printcolumn:name="Display Name",type=string,JSONPath=`.spec.displayName`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Key Gen",type=integer,priority=1,JSONPath=`.status.keyGeneration`
// +kubebuilder:printcolumn:name="Account",type=string,priority=1,JSONPath=`.status.accountID`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="a project has a namespace of its own name: the name must be a DNS label of at most 63 small letters, digits and hyphens"
// +kubebuilder:validation:XValidation:rule="self.metadata.name != 'default' && !self.metadata.name.startsWith('kube-')",message="the names default and kube-* are taken by the API server"
type Project struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	// +kubebuilder:default={}
	Spec ProjectSpec `json:"spec,omitempty"`
	// status is what is.
	// +optional
	Status ProjectStatus `json:"status,omitempty"`
}

// ProjectSpec is what is wanted of a project.
type ProjectSpec struct {
	// displayName is for people.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=200
	DisplayName string `json:"displayName,omitempty"`

	// keyGeneration is the generation of the project's key that is wanted, from 1.
	// Raise it to rotate: one new key is made, of that generation, and old data
	// stays readable. It never goes back, and rises by at most 1000 at a time.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +kubebuilder:validation:XValidation:rule="self >= oldSelf",message="keyGeneration never goes back: the keys of earlier generations are gone or closed; raise it to rotate"
	// +kubebuilder:validation:XValidation:rule="self - oldSelf <= 1000",message="keyGeneration rises by at most 1000 at a time; raise it by 1 to rotate once"
	KeyGeneration int64 `json:"keyGeneration,omitempty"`
}

// ProjectStatus is what a project is.
type ProjectStatus struct {
	// accountID is the project's stable identity, which outlives its name: the
	// owner of its buckets, and the account in ARNs and policies.
	// +optional
	AccountID string `json:"accountID,omitempty"`
	// keyGeneration is the generation of the project's key, as the key ring has it.
	// +optional
	KeyGeneration int64 `json:"keyGeneration,omitempty"`
	// conditions: Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ProjectList is a list of projects.
//
// +kubebuilder:object:root=true
type ProjectList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Project `json:"items"`
}

// Bucket is an S3 bucket of the project whose namespace it is in. Its name is
// the bucket's name in S3, unique in the organization. A bucket that is made or
// deleted through S3 appears or disappears here by itself.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=bkt,categories=chancery
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.status.region`
// +kubebuilder:printcolumn:name="Deletion",type=string,priority=1,JSONPath=`.spec.deletionPolicy`
// +kubebuilder:printcolumn:name="Endpoint",type=string,priority=1,JSONPath=`.status.endpoint`
// +kubebuilder:printcolumn:name="Key",type=string,priority=1,JSONPath=`.status.keyID`
// +kubebuilder:printcolumn:name="Key Gen",type=integer,priority=1,JSONPath=`.status.keyGeneration`
// +kubebuilder:printcolumn:name="Created",type=date,JSONPath=`.status.created`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) >= 3 && size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9][a-z0-9.-]*[a-z0-9]$') && !self.metadata.name.contains('..')",message="a bucket name has 3 to 63 small letters, digits, hyphens and single dots, and begins and ends with a letter or digit"
type Bucket struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	// +kubebuilder:default={}
	Spec BucketSpec `json:"spec,omitempty"`
	// status is what is.
	// +optional
	Status BucketStatus `json:"status,omitempty"`
}

// BucketDeletionPolicy says what deletion of the Bucket object does to the bucket in S3.
type BucketDeletionPolicy string

// The deletion policies.
const (
	// BucketDeleteIfEmpty deletes the bucket, and waits while there is anything in it.
	BucketDeleteIfEmpty BucketDeletionPolicy = "DeleteIfEmpty"
	// BucketRetain forgets the object and keeps the bucket; it appears again when the controller starts.
	BucketRetain BucketDeletionPolicy = "Retain"
)

// BucketSpec is what is wanted of a bucket.
//
// +kubebuilder:validation:XValidation:rule="has(self.region) == has(oldSelf.region) && (!has(self.region) || self.region == oldSelf.region)",message="region cannot be changed once the bucket is made"
type BucketSpec struct {
	// region that S3 reports for the bucket; empty for the organization's own.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Region string `json:"region,omitempty"`

	// deletionPolicy says what deletion of this object does to the bucket:
	// DeleteIfEmpty deletes it and waits while there is anything in it, Retain keeps it.
	//
	// +optional
	// +kubebuilder:default=DeleteIfEmpty
	// +kubebuilder:validation:Enum=DeleteIfEmpty;Retain
	DeletionPolicy BucketDeletionPolicy `json:"deletionPolicy,omitempty"`

	// keyGeneration is the generation of the bucket's key that is wanted, from 1.
	// Raise it to rotate: one new key is made, of that generation, and old data
	// stays readable. It never goes back, and rises by at most 1000 at a time.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +kubebuilder:validation:XValidation:rule="self >= oldSelf",message="keyGeneration never goes back: the keys of earlier generations are gone or closed; raise it to rotate"
	// +kubebuilder:validation:XValidation:rule="self - oldSelf <= 1000",message="keyGeneration rises by at most 1000 at a time; raise it by 1 to rotate once"
	KeyGeneration int64 `json:"keyGeneration,omitempty"`
}

// BucketStatus is what a bucket is.
type BucketStatus struct {
	// bucketID is the bucket's stable identity. A bucket that was deleted and made again has another.
	// +optional
	BucketID string `json:"bucketID,omitempty"`
	// created is when the bucket was made in S3.
	// +optional
	Created *metav1.Time `json:"created,omitempty"`
	// region that S3 reports.
	// +optional
	Region string `json:"region,omitempty"`
	// keyID names the key that its objects are encrypted under.
	// +optional
	KeyID string `json:"keyID,omitempty"`
	// keyGeneration is the generation of the bucket's key that new objects are
	// encrypted under, as the key ring has it.
	// +optional
	KeyGeneration int64 `json:"keyGeneration,omitempty"`
	// endpoint is the bucket's URL.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`
	// conditions: Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BucketList is a list of buckets.
//
// +kubebuilder:object:root=true
type BucketList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Bucket `json:"items"`
}

// AccessKey is an S3 credential of the project whose namespace it is in. Its
// secret is written once, to a Secret in the same namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=ak,categories=chancery
// +kubebuilder:printcolumn:name="User",type=string,JSONPath=`.spec.user`
// +kubebuilder:printcolumn:name="Key ID",type=string,JSONPath=`.status.accessKeyID`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Disabled",type=boolean,JSONPath=`.spec.disabled`
// +kubebuilder:printcolumn:name="Secret",type=string,priority=1,JSONPath=`.status.secretName`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AccessKey struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +required
	Spec AccessKeySpec `json:"spec"`
	// status is what is.
	// +optional
	Status AccessKeyStatus `json:"status,omitempty"`
}

// AccessKeySpec is what is wanted of an access key.
//
// +kubebuilder:validation:XValidation:rule="has(self.secretName) == has(oldSelf.secretName) && (!has(self.secretName) || self.secretName == oldSelf.secretName)",message="secretName cannot be changed: the secret was written there once and is not kept for a second time"
type AccessKeySpec struct {
	// user is the name that records and owners of objects show for requests with this key.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.@-]*$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="user cannot be changed: make a new access key for another user"
	User string `json:"user"`

	// secretName is the Secret that the key is written to, once; empty for the
	// name of this object. A Secret of that name that exists already is not touched.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	SecretName string `json:"secretName,omitempty"`

	// disabled refuses every request with this key, and can be taken back.
	//
	// +optional
	Disabled bool `json:"disabled,omitempty"`
}

// AccessKeyStatus is what an access key is.
type AccessKeyStatus struct {
	// accessKeyID is the public part of the credential.
	// +optional
	AccessKeyID string `json:"accessKeyID,omitempty"`
	// secretName is where the secret was written.
	// +optional
	SecretName string `json:"secretName,omitempty"`
	// conditions: Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// AccessKeyList is a list of access keys.
//
// +kubebuilder:object:root=true
type AccessKeyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AccessKey `json:"items"`
}
