package keys

import (
	"crypto/cipher"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"chancery/internal/errs"
	"chancery/internal/segment"
)

// A sealed record: format (1), bucket key version (4), then nonce, ciphertext, tag.
const (
	sealedFormat = 1
	sealedHead   = 5
)

// MaxRecord is the longest plaintext of a sealed record, in bytes.
const MaxRecord = 1 << 20

// lease implements Lease. The zero lease refuses with errs.Sealed.
type lease struct {
	ring            *Ring
	project, bucket string
	keyID           string
	current         uint32
	begun           time.Time // with its monotonic reading
	timer           *time.Timer

	mu       sync.RWMutex
	versions []leased // ascending; nil once ended
	ended    error    // why, once it has
}

// leased is one version of the bucket's key, in plain.
type leased struct {
	version uint32
	key     *secret
	// aead seals records. Its expanded key cannot be zeroed from here; it is of
	// a derived key, and dropped with the lease.
	aead cipher.AEAD
}

// KeyID implements Lease.
func (l *lease) KeyID() string { return l.keyID }

// Version implements Lease.
func (l *lease) Version() uint32 { return l.current }

// find returns a version; the caller holds mu.
func (l *lease) find(op string, version uint32) (*leased, error) {
	if l.versions == nil {
		if l.ended == nil {
			return nil, errSealed(op)
		}
		return nil, errs.Wrap(op, l.ended)
	}
	// The lease ends by the clock, also if its timer is late.
	if time.Since(l.begun) >= LeaseTime {
		return nil, errExpired(op)
	}
	i, ok := slices.BinarySearchFunc(l.versions, version, func(v leased, n uint32) int { return int(int64(v.version) - int64(n)) })
	if !ok {
		return nil, errs.New(errs.Corrupt, op, "the bucket has no key of version %d", version)
	}
	return &l.versions[i], nil
}

// StreamKey implements Lease. A zero salt, or a binding of another organization
// or bucket, is errs.Invalid.
func (l *lease) StreamKey(version uint32, salt [32]byte, b segment.Binding) (segment.Key, error) {
	const op = "keys.StreamKey"
	l.mu.RLock()
	defer l.mu.RUnlock()
	v, err := l.find(op, version)
	if err != nil {
		return segment.Key{}, err
	}
	if salt == [32]byte{} || b.Organization != l.ring.org || b.Bucket != l.bucket || b.Object == "" || b.Content == [16]byte{} {
		return segment.Key{}, errs.New(errs.Invalid, op, "a content without salt, or of another bucket")
	}
	k, err := streamKey(v.key, &salt, &b)
	if err != nil {
		return segment.Key{}, errs.Wrap(op, err)
	}
	return k, nil
}

// SealRecord implements Lease. plain has at most MaxRecord bytes.
func (l *lease) SealRecord(bound, plain []byte) ([]byte, error) {
	const op = "keys.SealRecord"
	if len(plain) > MaxRecord {
		return nil, errs.New(errs.Exhausted, op, "a record has at most %d bytes", MaxRecord)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	v, err := l.find(op, l.current)
	if err != nil {
		return nil, err
	}
	out := make([]byte, sealedHead, sealedHead+len(plain)+28)
	out[0] = sealedFormat
	binary.BigEndian.PutUint32(out[1:], l.current)
	return v.aead.Seal(out, nil, plain, l.recordAAD(out[:sealedHead], bound)), nil
}

// OpenRecord implements Lease. What was altered, or is bound to something else, is errs.Corrupt.
func (l *lease) OpenRecord(bound, sealed []byte) ([]byte, error) {
	const op = "keys.OpenRecord"
	if len(sealed) < sealedHead+28 || sealed[0] != sealedFormat {
		return nil, errs.New(errs.Corrupt, op, "not a sealed record")
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	v, err := l.find(op, binary.BigEndian.Uint32(sealed[1:]))
	if err != nil {
		return nil, err
	}
	plain, err := v.aead.Open(nil, nil, sealed[sealedHead:], l.recordAAD(sealed[:sealedHead], bound))
	if err != nil {
		return nil, errs.New(errs.Corrupt, op, "a record does not authenticate (altered, misplaced, or of another key)")
	}
	return plain, nil
}

func (l *lease) recordAAD(head, bound []byte) []byte {
	b := make([]byte, 0, len(domainRecord)+len(head)+len(l.ring.org)+len(l.bucket)+len(bound)+16)
	b = append(appendLP(b, domainRecord), head...)
	b = appendLP(appendLP(b, l.ring.org), l.bucket)
	return appendLP(b, bound)
}

// end zeroes the keys. Later uses answer why. It waits for uses in progress.
func (l *lease) end(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.versions {
		l.versions[i].key.zero()
		l.versions[i].aead = nil
	}
	l.versions = nil
	if l.ended == nil {
		l.ended = why
	}
}

func errSealed(op string) error {
	return errs.New(errs.Sealed, op, "the organization is sealed; its custodians must unseal it")
}

func errExpired(op string) error {
	return errs.New(errs.Unavailable, op, "the lease has ended; take a new one")
}

func errDestroyed(op, what string) error {
	return errs.New(errs.Destroyed, op, "the key of the %s has been destroyed", what)
}
