// Package frame is the encrypted file format of the store: a file is a header
// with a random salt, then frames sealed with AES-256-GCM under a key of that one
// file. A log file is appended to and read from its start; a table file is
// written once and read anywhere. The byte layout is in docs/formats/store.md.
//
// A reader gets the bytes that were written or an error, never other bytes. It
// must never take damage for an end: only what a power loss can leave of a frame
// that was not yet synced is a torn tail, everything else is errs.Corrupt. It
// knows nothing of what is in the frames.
package frame

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"

	"chancery/internal/errs"
)

const (
	// KeySize is the length of a key, in bytes (AES-256).
	KeySize = 32
	// Overhead is what sealing adds to a plaintext, in bytes: nonce and tag.
	Overhead = nonceSize + tagSize

	nonceSize = 12
	tagSize   = 16
	saltSize  = 32
	// headerSize is the length of the file header, in bytes.
	headerSize = 64
	// magicSize bytes name format, version and kind.
	magicSize = 16
)

// kind tells the two layouts apart.
type kind byte

const (
	kindLog   kind = 'L'
	kindTable kind = 'T'
)

// magic returns the first bytes of a file of the kind: name, version 1, kind, zeros.
func (k kind) magic() [magicSize]byte {
	var m [magicSize]byte
	copy(m[:], "chancery-st")
	m[12], m[13] = 1, byte(k)
	return m
}

// Derive returns the key of one purpose from a key: HKDF-SHA256 (RFC 5869).
func Derive(key, salt []byte, info string) ([]byte, error) {
	const op = "frame.Derive"
	if len(key) != KeySize {
		return nil, errs.New(errs.Invalid, op, "a store key has %d bytes, not %d", KeySize, len(key))
	}
	k, err := hkdf.Key(sha256.New, key, salt, info, KeySize)
	return k, errs.Wrap(op, err)
}

// cipherOf returns the cipher of the file with a role and a salt. The role (the
// file's name in its directory) is in the key, so that no file can pass for another.
func cipherOf(key []byte, k kind, role string, salt []byte) (cipher.AEAD, error) {
	const op = "frame.cipherOf"
	if role == "" {
		return nil, errs.New(errs.Invalid, op, "a file needs a role")
	}
	fk, err := Derive(key, salt, "chancery store file v1 "+string(k)+" "+role)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(fk)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return aead, errs.Wrap(op, err)
}

// newHeader returns a fresh header and the cipher that belongs to it.
func newHeader(key []byte, k kind, role string) ([]byte, cipher.AEAD, error) {
	h := make([]byte, headerSize)
	m := k.magic()
	copy(h, m[:])
	rand.Read(h[magicSize : magicSize+saltSize]) // never fails (crypto/rand)
	aead, err := cipherOf(key, k, role, h[magicSize:magicSize+saltSize])
	return h, aead, err
}

// parseHeader checks a header of headerSize bytes and returns the file's cipher.
func parseHeader(h, key []byte, k kind, role string) (cipher.AEAD, error) {
	const op = "frame.parseHeader"
	if len(h) != headerSize || [magicSize]byte(h) != k.magic() || !isZero(h[magicSize+saltSize:]) {
		return nil, errs.New(errs.Corrupt, op, "%s has a damaged header", role)
	}
	return cipherOf(key, k, role, h[magicSize:magicSize+saltSize])
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
