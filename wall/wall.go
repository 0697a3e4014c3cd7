// Package wall is all that passes between the zone (operator's plane) and a cell
// (inside the wall): a handful of messages, JSON over HTTP on the cell's Unix
// socket wall.sock. Nothing here may carry a key, a share, a secret, a name of a
// bucket or object, or any plaintext of the organization; a test walks these types.
//
// The zone can start, watch, seal and stop a cell. It cannot unseal it, and it
// has no message that reads data.
package wall

import "time"

// Sockets that a cell listens on, in its run directory. The front door splices
// client bytes to S3 and API; only Wall speaks the messages of this package.
const (
	SocketS3   = "s3.sock"   // TLS: S3
	SocketAPI  = "api.sock"  // TLS: the organization's API server, and the seal service
	SocketWall = "wall.sock" // plain HTTP/1.1: the messages below
)

// Paths of the messages on SocketWall.
const (
	PathStatus   = "/v1/status"   // GET → Status
	PathInit     = "/v1/init"     // POST Init → Initialized; once only
	PathSeal     = "/v1/seal"     // POST → Status
	PathProbe    = "/v1/probe"    // POST Probe → ProbeReport
	PathShutdown = "/v1/shutdown" // POST → 202; the cell ends cleanly
)

// Config is what the zone tells a cell at its start (one JSON line on standard input).
type Config struct {
	// Organization is the customer's name (DNS label), Zone the zone's.
	Organization, Zone, Jurisdiction string
	// Domain is the zone's DNS domain: the cell answers for s3.ORG.DOMAIN, api.ORG.DOMAIN and seal.ORG.DOMAIN.
	Domain string
	// ExtraNames are further DNS names or IP addresses for the organization's
	// certificate ("localhost", "127.0.0.1" when it is the zone's default organization).
	ExtraNames []string
	// S3Port and APIPort are the front door's, for URLs that the cell prints in resources.
	S3Port, APIPort int
	// DataDir and RunDir are where the cell finds its data and makes its sockets, as it sees them.
	DataDir, RunDir string
	// Sandbox tells how the cell was confined ("namespaces", "pod"), for its own report.
	Sandbox string
}

// Custodian is a person who will hold a share: a name and an age recipient (public).
type Custodian struct{ Name, Recipient string }

// Init makes the organization's root key inside the cell and splits it.
type Init struct {
	Quorum     int
	Custodians []Custodian
}

// Initialized answers Init. Every share is encrypted to its custodian.
type Initialized struct {
	// Shares are age files (armored), by custodian name.
	Shares map[string]string
	// CACertificate is the organization's CA, PEM; IdentityPin the SHA-256 of the sealed identity's public key, hex.
	CACertificate, IdentityPin string
	Warning                    string `json:",omitempty"`
}

// SealState is what a cell is.
type SealState string

// The states of a cell.
const (
	Uninitialized SealState = "Uninitialized"
	SealedState   SealState = "Sealed"
	Unsealed      SealState = "Unsealed"
	Destroyed     SealState = "Destroyed"
)

// Status is what a cell tells the zone about itself.
type Status struct {
	Organization  string
	State         SealState
	Quorum        int
	Custodians    []string
	SharesGiven   int
	CACertificate string
	IdentityPin   string
	Started       time.Time
	Version       string
	// Enforced tells for each sandbox measure whether the kernel applied it.
	Enforced []Measure
	// RootKeyMemory is "memfd_secret" or why not.
	RootKeyMemory string
	RSSBytes      int64
}

// Measure is one confinement measure and whether it holds.
type Measure struct {
	Name     string
	Enforced bool
	Detail   string
}

// Probe asks the cell to try to break out, as an attacker inside would. Targets
// are canaries of the caller's own.
type Probe struct {
	// TCP and UDP are host:port addresses of canaries; Paths are files that must not be reachable.
	TCP, UDP []string
	Paths    []string
	// Abstract are names of abstract Unix sockets (without the @), PIDs processes on the host.
	Abstract []string
	PIDs     []int
}

// ProbeReport lists each attempt.
type ProbeReport struct{ Attempts []Attempt }

// Attempt is one attempted break-out. Refused is what must be true.
type Attempt struct {
	Name    string
	Refused bool
	// Detail is the kernel's answer.
	Detail string
}

// Failure is the JSON body of every error answer.
type Failure struct{ Kind, Message string }
