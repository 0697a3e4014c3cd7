package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CustodyName is the name of the one Custody of an organization.
const CustodyName = "organization"

// Custody says who holds the organization's root key, and how old its keys are.
// There is one, named organization; the cell makes it, and it cannot be deleted.
//
// To change the custodians or the quorum is to make a new root key and split it
// anew: the shares that the custodians of before hold open nothing any more.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=custodies,singular=custody,shortName=cust,categories=chancery
// +kubebuilder:printcolumn:name="Quorum",type=integer,JSONPath=`.status.quorum`
// +kubebuilder:printcolumn:name="Custodians",type=string,JSONPath=`.status.custodians`
// +kubebuilder:printcolumn:name="Root Gen",type=integer,JSONPath=`.status.rootGeneration`
// +kubebuilder:printcolumn:name="Key Gen",type=integer,JSONPath=`.status.keyGeneration`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Purged",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Purged")].status`
// +kubebuilder:printcolumn:name="Handed Over",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="HandedOver")].status`
// +kubebuilder:printcolumn:name="Ceremony",type=string,priority=1,JSONPath=`.status.ceremony`
// +kubebuilder:printcolumn:name="Root Key In",type=string,priority=1,JSONPath=`.status.rootKeyMemory`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'organization'",message="there is one Custody, and its name is organization"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.destroy) || (has(self.status) && has(self.status.organization) && self.spec.destroy == 'DESTROY ' + self.status.organization)",message="to destroy the organization for ever, destroy must be DESTROY, a space, and the organization's name"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.rootGeneration) || !has(self.status) || !has(self.status.rootGeneration) || self.spec.rootGeneration <= self.status.rootGeneration + 1",message="rootGeneration is at most status.rootGeneration + 1: a new root key is made once at a time"
type Custody struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +required
	Spec CustodySpec `json:"spec"`
	// status is what is.
	// +optional
	Status CustodyStatus `json:"status,omitempty"`
}

// CustodySpec is what is wanted.
//
// +kubebuilder:validation:XValidation:rule="self.quorum <= size(self.custodians)",message="quorum must not be larger than the number of custodians, or nobody could ever unseal the organization"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.destroy) || (has(self.destroy) && self.destroy == oldSelf.destroy)",message="a destruction cannot be taken back"
type CustodySpec struct {
	// quorum is how many custodians must come together to unseal the organization.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	Quorum int32 `json:"quorum"`

	// custodians are the persons who each hold a share of the root key. A new list
	// (or quorum) makes a new root key, whose shares are encrypted to the new
	// custodians. Nobody checks that they hold the identities to their recipients:
	// let each of them make the identity, and read the recipient to you.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, b.recipient == a.recipient))",message="each custodian needs a recipient of their own: two shares under one key are one"
	Custodians []Custodian `json:"custodians"`

	// rootGeneration is the generation of the root key that is wanted, from 1. Set
	// it to status.rootGeneration + 1 to make a new root key for the same custodians. A change of the
	// custodians raises the generation by itself.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +kubebuilder:validation:XValidation:rule="self >= oldSelf",message="rootGeneration never goes back: the shares of earlier root keys are worthless"
	RootGeneration int64 `json:"rootGeneration,omitempty"`

	// keyGeneration is the generation (epoch) of the organization's key that is
	// wanted, from 1. Raise it to rotate: one new key is made, of that generation,
	// and old data stays readable. It never goes back, and rises by at most 1000 at a time.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +kubebuilder:validation:XValidation:rule="self >= oldSelf",message="keyGeneration never goes back: the keys of earlier generations are gone; raise it to rotate"
	// +kubebuilder:validation:XValidation:rule="self - oldSelf <= 1000",message="keyGeneration rises by at most 1000 at a time; raise it by 1 to rotate once"
	KeyGeneration int64 `json:"keyGeneration,omitempty"`

	// destroy ends the organization, at once and for ever: every key of it is
	// destroyed, and nobody can ever read its data again, its custodians included.
	// It must be the word DESTROY, a space, and the organization's name.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=80
	Destroy string `json:"destroy,omitempty"`
}

// CustodyStatus is what is.
type CustodyStatus struct {
	// organization is the organization's name.
	// +optional
	Organization string `json:"organization,omitempty"`
	// ceremony is the id of the splitting that the shares in force come from.
	// +optional
	Ceremony string `json:"ceremony,omitempty"`
	// quorum is how many custodians unseal the organization.
	// +optional
	Quorum int32 `json:"quorum,omitempty"`
	// custodians are the names of those who hold a share, in the order of their shares.
	// +optional
	// +listType=atomic
	Custodians []string `json:"custodians,omitempty"`
	// rootGeneration is the generation of the root key, as the key ring has it.
	// +optional
	RootGeneration int64 `json:"rootGeneration,omitempty"`
	// keyGeneration is the generation of the organization's key, as the key ring has it.
	// +optional
	KeyGeneration int64 `json:"keyGeneration,omitempty"`
	// rootKeyMemory says where the root key lies while the organization is unsealed:
	// memfd_secret, or a weaker kind and why.
	// +optional
	RootKeyMemory string `json:"rootKeyMemory,omitempty"`
	// conditions: Ready, Purged, HandedOver.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CustodyList is a list of custodies.
//
// +kubebuilder:object:root=true
type CustodyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Custody `json:"items"`
}
