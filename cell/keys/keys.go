// Package keys is the key hierarchy of an organization: root (memory only, from
// cell/seal) → organization key epochs → project keys → bucket keys → one key per
// object version. It wraps, leases, rotates and destroys. Every wrapped key is
// bound by associated data to its id, its parent and its epoch. No key leaves the
// package but derived stream keys and sealed records, under a lease that ends.
//
// The zero value of every type here refuses.
package keys

import (
	"context"
	"time"

	"chancery/internal/segment"
	"chancery/internal/store"
)

// Reason says why a key is unwrapped. The empty Reason opens nothing.
type Reason string

// The reasons that a lease may carry.
const (
	CustomerRequest  Reason = "customer-request"
	ScheduledTask    Reason = "scheduled-task"
	RestoreDrill     Reason = "restore-drill"
	OperatorAssisted Reason = "operator-assisted"
)

// LeaseTime is how long an unwrapped project or bucket key may be used before it
// must be unwrapped again: the published cut-off time.
const LeaseTime = 5 * time.Minute

// Manager is what the layers above use of the hierarchy. Implemented by *Ring.
//
// Ids of projects and buckets are stable random ids (see objects), never names that can be reused.
type Manager interface {
	// CreateProject adds to b what creates a project's first key. Nothing is created before b commits.
	// The commit of b is errs.Conflict if the organization's key was rotated in between: build b anew.
	CreateProject(ctx context.Context, b *store.Batch, project string) error
	// CreateBucket adds to b what creates a bucket's first key under its project's current key.
	// The project's own creation must be committed before. Conflicts as above.
	CreateBucket(ctx context.Context, b *store.Batch, project, bucket string) error
	// Lease unwraps a bucket's keys for use during LeaseTime. It is cached, so
	// it may be called for every request (under a microsecond when warm); the
	// lease that it returns runs for LeaseTime/2 at least.
	// Errors: errs.NotFound, errs.Destroyed, errs.Invalid (no reason), errs.Sealed, errs.Corrupt.
	Lease(ctx context.Context, project, bucket string, why Reason) (Lease, error)

	// RotateOrganization begins a new organization key epoch and rewraps all project keys.
	RotateOrganization(ctx context.Context) error
	// RotateProject makes a new project key and rewraps its buckets' keys. Old data stays readable.
	RotateProject(ctx context.Context, project string) error
	// RotateBucket makes a new bucket key version for new objects. Old versions stay for reading.
	RotateBucket(ctx context.Context, project, bucket string) error
	// DestroyBucket, DestroyProject and DestroyOrganization end every copy under
	// the key: the wrapped key leaves the store (and is purged from its files),
	// leases in memory are zeroed, and every later use is errs.Destroyed.
	DestroyBucket(ctx context.Context, project, bucket string) error
	DestroyProject(ctx context.Context, project string) error
	DestroyOrganization(ctx context.Context) error
}

// Lease is an unwrapped bucket key in use. Safe for concurrent use. After its
// end every use of a key fails: by the clock with errs.Unavailable (take a new
// lease: work that may last longer takes one for each step), after the key's
// destruction with errs.Destroyed, after sealing with errs.Sealed.
type Lease interface {
	// KeyID is the public name of the bucket's key, in the form of an AWS KMS key ARN.
	KeyID() string
	// Version is the bucket key version that new content is sealed under.
	Version() uint32
	// StreamKey derives the key of one content by HKDF-SHA256 from a version of
	// the bucket key; salt is random, 32 bytes, stored with the content.
	StreamKey(version uint32, salt [32]byte, b segment.Binding) (segment.Key, error)
	// SealRecord encrypts a small record (metadata) bound to what it is;
	// OpenRecord reverses it. The version is inside the ciphertext's header.
	SealRecord(bound, plain []byte) ([]byte, error)
	OpenRecord(bound, sealed []byte) ([]byte, error)
}
