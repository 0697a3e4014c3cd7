// Package identity knows who a caller is: access keys of S3, bearer tokens of the
// API with the bootstrap administrator's, and the organization's own certificates.
// It decides nothing about what a caller may do (see cell/policy).
//
// Everything is kept in the organization's encrypted store. A secret or a token
// must never reach a log, an error or a list answer; of tokens not even the store
// holds more than SHA-256.
package identity

import (
	"context"
	"time"
)

// AccessKey is an S3 credential. Its secret is kept, since SigV4 needs it, only in the
// organization's encrypted store.
type AccessKey struct {
	// ID is the public access key id: 20 characters, "CH" and A-Z2-7.
	ID string
	// Secret is 40 characters. Never log it. List leaves it empty.
	Secret string
	// Project is the stable id of the project (the account) that it acts for.
	Project string
	// User is the name that events and owners show.
	User string
	// Disabled keys authenticate nothing.
	Disabled bool
	// Owner is what the key was made for (the uid of an AccessKey resource); may be empty.
	Owner string
	// Created is when it was made.
	Created time.Time
}

// String hides the secret.
func (k AccessKey) String() string { return "access key " + k.ID + " (secret hidden)" }

// GoString hides the secret from %#v.
func (k AccessKey) GoString() string { return k.String() }

// Keys finds access keys. Implemented by *Directory over the store, with a cache
// that a change of the key empties at once.
type Keys interface {
	// AccessKey returns the key, also a disabled one, or errs.NotFound.
	AccessKey(ctx context.Context, id string) (AccessKey, error)
}

// Token is what is known of a bearer token of the API. The token itself is shown
// once, when it is made.
type Token struct {
	// Name is unique; it is the caller's name in events.
	Name string
	// Administrator may act on the organization's resources.
	Administrator bool
	// Ceremony is the splitting of the root key that the token was made with, for
	// its custodians; empty for every other token.
	Ceremony string
	// Created is when it was made.
	Created time.Time
}
