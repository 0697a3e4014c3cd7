package blobs

import (
	"crypto/rand"
	"encoding/hex"

	"chancery/internal/errs"
)

// NewID returns a fresh random id.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails (crypto/rand, Go 1.24)
	return id
}

// String returns the id as 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads what String returns, and nothing else; otherwise errs.Invalid.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) == 2*len(id) {
		if _, err := hex.Decode(id[:], []byte(s)); err == nil && id.String() == s {
			return id, nil
		}
	}
	return ID{}, errs.New(errs.Invalid, "blobs.ParseID", "not the id of a blob")
}
