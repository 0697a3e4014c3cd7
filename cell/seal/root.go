// Package seal keeps an organization's root key: it is made here, split among
// custodians, rebuilt in memory from a quorum of them, and dropped again. It also
// holds the sealed identity, the TLS key that custodians know the cell by while
// it is sealed.
//
// It must never write a root secret, a root key, a share or a commitment to disk
// or to a log in the clear, and it must never hand a share out that is not
// encrypted to its custodian. See docs/formats/custody.md and docs/adr/0004-custody.md.
package seal

import (
	"crypto/hkdf"
	"crypto/sha256"
	"sync"

	"chancery/internal/errs"
)

// RootKeySize is the size of the root key and of everything derived from it, in bytes.
const RootKeySize = 32

// SaltSize is the size of an organization's salt, in bytes. It is public.
const SaltSize = 32

const (
	infoRoot   = "chancery/root/v1/"
	infoDerive = "chancery/derive/v1/"
)

// Root is a root key in memory that, where the kernel has it, no other process
// and not even the superuser can read. Safe for concurrent use. The zero Root,
// and a Root after Destroy, refuses with errs.Sealed.
type Root struct {
	mu           sync.RWMutex
	key          *secretMemory
	salt         []byte
	organization string
}

// NewRoot moves a root key of 32 bytes into protected memory and zeroes the
// argument. Used by the Keeper, and by tests of packages that need a Root.
func NewRoot(key []byte, organization string, salt []byte) (*Root, error) {
	const op = "seal.NewRoot"
	defer clear(key)
	if len(key) != RootKeySize {
		return nil, errs.New(errs.Invalid, op, "a root key has %d bytes", RootKeySize)
	}
	if len(salt) != SaltSize {
		return nil, errs.New(errs.Invalid, op, "a salt has %d bytes", SaltSize)
	}
	if organization == "" {
		return nil, errs.New(errs.Invalid, op, "the organization has no name")
	}
	m, err := newSecretMemory(RootKeySize)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	copy(m.data, key)
	return &Root{key: m, salt: append([]byte(nil), salt...), organization: organization}, nil
}

// Derive gives a 32-byte key for a purpose by HKDF-SHA256 (RFC 5869) from the
// root key, with the organization's salt; the organization's name and info are
// the context. The caller zeroes the result when done. An empty info is
// errs.Invalid; without a root key it is errs.Sealed.
func (r *Root) Derive(info string) ([]byte, error) {
	const op = "seal.Root.Derive"
	if r == nil {
		return nil, sealedError(op)
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.key == nil {
		return nil, sealedError(op)
	}
	if info == "" {
		return nil, errs.New(errs.Invalid, op, "a derived key needs a purpose")
	}
	out := make([]byte, RootKeySize)
	var err error
	erasing(func() {
		var k []byte
		if k, err = hkdf.Key(sha256.New, r.key.data, r.salt, infoDerive+r.organization+"/"+info, RootKeySize); err == nil {
			copy(out, k)
			clear(k)
		}
	})
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	return out, nil
}

// Memory says where the root key lies: "memfd_secret", or a weaker kind and why.
// Empty without a root key.
func (r *Root) Memory() string {
	if r == nil {
		return ""
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.key == nil {
		return ""
	}
	return r.key.kind
}

// Destroy zeroes the root key and gives its memory back. It waits for running
// Derive calls; every later one is errs.Sealed. It may be called more than once.
func (r *Root) Destroy() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.key != nil {
		r.key.destroy()
		r.key = nil
	}
}

// String tells nothing.
func (r *Root) String() string { return "root key (hidden)" }

// GoString tells nothing to %#v either.
func (r *Root) GoString() string { return r.String() }

func sealedError(op string) error {
	return errs.New(errs.Sealed, op, "the organization is sealed; a quorum of its custodians must unseal it")
}
