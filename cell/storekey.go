package cell

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"path/filepath"

	"chancery/cell/seal"
	"chancery/internal/errs"
	"chancery/internal/files"
)

// The store's key is random and lies wrapped under the root key, so that a new
// root (other custodians) does not mean to write the whole store anew.
const (
	storeKeyFile = "store.key"
	// storeKeyNext is there while a change of root runs: the same key under the new root.
	storeKeyNext  = "store.key.next"
	storeKeySize  = 32
	storeKeyInfo  = "chancery cell store key wrap v1"
	maxWrappedKey = 256
)

// wrapStoreKey writes the store's key wrapped under root, durably.
// Layout: 12 bytes nonce, AES-256-GCM of 32 bytes, 16 bytes tag; the
// organization's name is associated data (docs/formats/keys.md).
func wrapStoreKey(fsys files.FS, path, organization string, root *seal.Root, key []byte) error {
	aead, err := storeKeyAEAD(root)
	if err != nil {
		return err
	}
	return files.WriteFile(fsys, path, aead.Seal(nil, nil, key, storeKeyBound(organization)))
}

// unwrapStoreKey reads it back. errs.Corrupt if it was altered, or is another organization's or root's.
func unwrapStoreKey(fsys files.FS, path, organization string, root *seal.Root) ([]byte, error) {
	const op = "cell.unwrapStoreKey"
	wrapped, err := files.ReadFile(fsys, path, maxWrappedKey)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	aead, err := storeKeyAEAD(root)
	if err != nil {
		return nil, err
	}
	key, err := aead.Open(nil, nil, wrapped, storeKeyBound(organization))
	if err != nil || len(key) != storeKeySize {
		return nil, errs.New(errs.Corrupt, op, "%s does not open under the organization's root key", filepath.Base(path))
	}
	return key, nil
}

func storeKeyBound(organization string) []byte {
	return []byte("chancery store key v1\x00" + organization)
}

func storeKeyAEAD(root *seal.Root) (cipher.AEAD, error) {
	const op = "cell.storeKeyAEAD"
	wrapping, err := root.Derive(storeKeyInfo)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	defer clear(wrapping)
	block, err := aes.NewCipher(wrapping)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return aead, errs.WrapKind(errs.Internal, op, err)
}

func newStoreKey() []byte {
	key := make([]byte, storeKeySize)
	_, _ = rand.Read(key) // never fails (it ends the program)
	return key
}
