package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Organization is a customer of this zone, with a dedicated environment (a
// cell) that the operator starts and stops but cannot look into.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=org,categories=chancery
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Shares",type=string,priority=1,JSONPath=`.status.shares`
// +kubebuilder:printcolumn:name="Restarts",type=integer,JSONPath=`.status.restarts`
// +kubebuilder:printcolumn:name="S3",type=string,priority=1,JSONPath=`.status.endpoints.s3`
// +kubebuilder:printcolumn:name="API",type=string,priority=1,JSONPath=`.status.endpoints.api`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="the name of an organization becomes part of its host names: it must be a DNS label of at most 63 small letters, digits and hyphens"
type Organization struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +required
	Spec OrganizationSpec `json:"spec"`
	// status is what is, as the zone last saw it.
	// +optional
	Status OrganizationStatus `json:"status,omitempty"`
}

// OrganizationSpec is what is wanted of an organization.
//
// +kubebuilder:validation:XValidation:rule="self.quorum <= size(self.custodians)",message="quorum must not be larger than the number of custodians, or nobody could ever unseal the organization"
type OrganizationSpec struct {
	// quorum is how many custodians must come together to unseal the
	// organization, as it is made. It cannot be changed here: the organization's
	// own administrator does so, with the Custody of the organization's endpoint,
	// and status shows what is in force.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="quorum cannot be changed by the operator: the root key was split by it when the organization was made; the organization changes it with its own Custody"
	Quorum int32 `json:"quorum"`

	// custodians are the persons who each get a share of the organization's
	// root key, as it is made. They cannot be changed here; see quorum.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="custodians cannot be changed by the operator: each holds a share that was made for them; the organization changes them with its own Custody"
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, b.recipient == a.recipient))",message="each custodian needs a recipient of their own: two shares under one key are one"
	Custodians []Custodian `json:"custodians"`

	// desiredState says whether the organization's cell runs. A stopped cell
	// keeps its data; it comes back sealed.
	//
	// +optional
	// +kubebuilder:default=Running
	// +kubebuilder:validation:Enum=Running;Stopped
	DesiredState DesiredState `json:"desiredState,omitempty"`

	// protected keeps the organization from being deleted. Set it to false
	// first: deletion destroys the organization's data for ever.
	//
	// +optional
	// +kubebuilder:default=true
	Protected *bool `json:"protected,omitempty"`
}

// DesiredState says whether a cell runs.
type DesiredState string

// The states that can be desired.
const (
	DesiredRunning DesiredState = "Running"
	DesiredStopped DesiredState = "Stopped"
)

// Custodian is a person who holds a share of an organization's root key.
type Custodian struct {
	// name of the custodian, unique in the organization.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// recipient is the custodian's public post-quantum age recipient, as
	// `chancery custodian keygen` prints it.
	//
	// +required
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.startsWith('age1pq1')",message="recipient must be a post-quantum age recipient, which begins with age1pq1; make one with `chancery custodian keygen`"
	Recipient string `json:"recipient"`
}

// OrganizationState is what a cell is.
type OrganizationState string

// The states of an organization.
const (
	// OrganizationPending: the cell has not answered yet.
	OrganizationPending OrganizationState = "Pending"
	// OrganizationUninitialized: there is no root key yet.
	OrganizationUninitialized OrganizationState = "Uninitialized"
	// OrganizationSealed: the root key is not in memory; custodians must unseal.
	OrganizationSealed OrganizationState = "Sealed"
	// OrganizationUnsealed: the organization serves.
	OrganizationUnsealed OrganizationState = "Unsealed"
	// OrganizationStopped: the cell does not run, as desired.
	OrganizationStopped OrganizationState = "Stopped"
	// OrganizationDestroyed: the root key was destroyed; the data are gone for ever.
	OrganizationDestroyed OrganizationState = "Destroyed"
)

// OrganizationStatus is what the zone last saw of an organization.
type OrganizationStatus struct {
	// state of the organization's cell.
	// +optional
	State OrganizationState `json:"state,omitempty"`
	// shares tells how many shares were given since the last seal, of how many that are needed ("1/2").
	// +optional
	Shares string `json:"shares,omitempty"`
	// endpoints are where clients reach the organization.
	// +optional
	Endpoints *OrganizationEndpoints `json:"endpoints,omitempty"`
	// caCertificate is the certificate authority of the organization, PEM. It was made inside the cell.
	// +optional
	CACertificate string `json:"caCertificate,omitempty"`
	// identityPin is the SHA-256 of the public key of the cell's sealed identity, in hex.
	// +optional
	IdentityPin string `json:"identityPin,omitempty"`
	// restarts counts how often the cell ended without being asked to, since the zone started.
	// +optional
	Restarts int64 `json:"restarts,omitempty"`
	// started is when the cell that runs now was started.
	// +optional
	Started *metav1.Time `json:"started,omitempty"`
	// version of the software that the cell runs.
	// +optional
	Version string `json:"version,omitempty"`
	// unenforced names the confinement measures that the kernel of this host does not apply.
	// +optional
	// +listType=atomic
	Unenforced []string `json:"unenforced,omitempty"`
	// observedGeneration is the generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Ready, Initialized, Sealed.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// OrganizationEndpoints are URLs.
type OrganizationEndpoints struct {
	// s3 is the object storage endpoint.
	// +optional
	S3 string `json:"s3,omitempty"`
	// api is the organization's own API server.
	// +optional
	API string `json:"api,omitempty"`
	// seal is where custodians give their shares.
	// +optional
	Seal string `json:"seal,omitempty"`
}

// OrganizationList is a list of organizations.
//
// +kubebuilder:object:root=true
type OrganizationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Organization `json:"items"`
}

// Zone is this installation. There is exactly one object, and the zone itself
// writes it: from its settings, and from what it sees.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=chancery
// +kubebuilder:printcolumn:name="Jurisdiction",type=string,JSONPath=`.spec.jurisdiction`
// +kubebuilder:printcolumn:name="Domain",type=string,JSONPath=`.spec.domain`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Organizations",type=integer,JSONPath=`.status.organizations`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="S3",type=integer,priority=1,JSONPath=`.status.ports.s3`
// +kubebuilder:printcolumn:name="API",type=integer,priority=1,JSONPath=`.status.ports.api`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Zone struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec repeats the zone's settings.
	// +required
	Spec ZoneSpec `json:"spec"`
	// status is what is.
	// +optional
	Status ZoneStatus `json:"status,omitempty"`
}

// ZoneSpec is what a zone is, by its settings file. It cannot be changed here.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a zone's jurisdiction and domain are set by `chancery zone init` and cannot be changed"
type ZoneSpec struct {
	// jurisdiction under whose law the zone stands, as a country code of ISO 3166-1 ("LU").
	//
	// +required
	// +kubebuilder:validation:Pattern=`^[A-Z]{2}$`
	Jurisdiction string `json:"jurisdiction"`
	// domain below which clients find organizations: s3.ORGANIZATION.DOMAIN.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=180
	Domain string `json:"domain"`
}

// ZoneStatus is what a zone is now.
type ZoneStatus struct {
	// ports that the front door listens on.
	// +optional
	Ports ZonePorts `json:"ports,omitempty"`
	// version of the software that the zone runs.
	// +optional
	Version string `json:"version,omitempty"`
	// organizations is how many there are.
	// +optional
	Organizations int64 `json:"organizations"`
	// demonstration tells that a custodian's identity lies beside the data: nothing here is safe from the operator.
	// +optional
	Demonstration bool `json:"demonstration,omitempty"`
	// started is when the zone was started.
	// +optional
	Started *metav1.Time `json:"started,omitempty"`
	// conditions: Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ZonePorts are TCP ports.
type ZonePorts struct {
	// s3 is the port of object storage.
	// +optional
	S3 int32 `json:"s3,omitempty"`
	// api is the port of the organizations' API servers and of the seal service.
	// +optional
	API int32 `json:"api,omitempty"`
	// operator is the port of the operator's API server.
	// +optional
	Operator int32 `json:"operator,omitempty"`
}

// ZoneList is a list of zones.
//
// +kubebuilder:object:root=true
type ZoneList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Zone `json:"items"`
}
