package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"chancery/internal/errs"
	"chancery/internal/segment"
)

const keySize = 32

// secret is a key in plain. Zero it as soon as it is not needed.
type secret [keySize]byte

func newSecret() *secret {
	s := new(secret)
	rand.Read(s[:]) // never fails (crypto/rand, Go 1.24)
	return s
}

func (s *secret) zero() { clear(s[:]) }

// The domain words: no associated data and no derivation of one use is one of another.
const (
	domainWrap      = "chancery.keys.wrap.v1"
	domainStream    = "chancery.keys.stream.v1"
	domainRecord    = "chancery.keys.record.v1"
	domainRecordKey = "chancery.keys.record-key.v1"
	// rootInfo is what the root is asked to derive the top wrapping key for.
	rootInfo = "keys/organization/v1"
)

// Levels of the hierarchy, as they stand in associated data.
const (
	levelOrganization = 1
	levelProject      = 2
	levelBucket       = 3
)

// place is where in the hierarchy a wrapped key belongs; a box opens in no other.
type place struct {
	level           byte
	org, id, parent string
	version         uint32 // of the key itself (for the organization: the epoch)
	parentVersion   uint32 // of the key that it is wrapped under
}

func (r *Ring) orgPlace(epoch, generation uint32) place {
	return place{levelOrganization, r.org, r.org, "root", epoch, generation}
}

func (r *Ring) projectPlace(project string, version, epoch uint32) place {
	return place{levelProject, r.org, project, r.org, version, epoch}
}

func (r *Ring) bucketPlace(project, bucket string, version, projectVersion uint32) place {
	return place{levelBucket, r.org, bucket, project, version, projectVersion}
}

func (p place) aad() []byte {
	b := appendLP(make([]byte, 0, 128), domainWrap)
	b = append(b, p.level)
	for _, s := range []string{p.org, p.id, p.parent} {
		b = appendLP(b, s)
	}
	b = binary.BigEndian.AppendUint32(b, p.version)
	return binary.BigEndian.AppendUint32(b, p.parentVersion)
}

// appendLP appends a string with its length before it (4 bytes, big-endian).
func appendLP[T string | []byte](b []byte, s T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errs.Wrap("keys.newAEAD", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// wrap seals key under parent for its place.
func wrap(parent *secret, key *secret, p place) (e entry, err error) {
	erasing(func() {
		var aead cipher.AEAD
		if aead, err = newAEAD(parent[:]); err == nil {
			e.version = p.version
			aead.Seal(e.box[:0], nil, key[:], p.aad())
		}
	})
	return e, err
}

// unwrap opens what wrap sealed. A box that was altered, or belongs to another
// place, epoch or parent, is errs.Corrupt.
func unwrap(parent *secret, e *entry, p place) (key *secret, err error) {
	erasing(func() {
		var aead cipher.AEAD
		if aead, err = newAEAD(parent[:]); err != nil {
			return
		}
		key = new(secret)
		if _, err = aead.Open(key[:0], nil, e.box[:], p.aad()); err != nil {
			key = nil
			err = errs.New(errs.Corrupt, "keys.unwrap", "a wrapped key does not authenticate (altered, misplaced, or of another root)")
		}
	})
	return key, err
}

// streamKey derives the key of one content (RFC 5869): the salt is the content's,
// the context is all that the content's stream is bound to.
func streamKey(bucket *secret, salt *[32]byte, b *segment.Binding) (k segment.Key, err error) {
	info := appendLP(make([]byte, 0, 256), domainStream)
	for _, s := range []string{b.Organization, b.Bucket, b.Object} {
		info = appendLP(info, s)
	}
	info = append(info, b.Content[:]...)
	err = derive(k[:], bucket, salt[:], string(info))
	return k, err
}

// recordKey derives the key that a bucket's small records are sealed under.
func recordKey(bucket *secret, org, id string) (*secret, error) {
	k := new(secret)
	info := appendLP(appendLP(appendLP(nil, domainRecordKey), org), id)
	return k, derive(k[:], bucket, nil, string(info))
}

func derive(dst []byte, key *secret, salt []byte, info string) (err error) {
	erasing(func() {
		var out []byte
		if out, err = hkdf.Key(sha256.New, key[:], salt, info, len(dst)); err == nil {
			copy(dst, out)
			clear(out)
		}
	})
	return errs.Wrap("keys.derive", err)
}
