// Package identity knows who a caller is: access keys of S3 and the bootstrap
// administrator's token. It decides nothing about what he may do (see cell/policy).
package identity

import "context"

// AccessKey is an S3 credential. Its secret is kept, since SigV4 needs it, only in the
// organization's encrypted store.
type AccessKey struct {
	// ID is the public access key id: 20 characters, "CH" and A-Z2-7.
	ID string
	// Secret is 40 characters. Never log it.
	Secret string
	// Project is the stable id of the project (the account) that it acts for.
	Project string
	// User is the name that events and owners show.
	User string
	// Disabled keys authenticate nothing.
	Disabled bool
}

// Keys finds access keys. Implemented by *Directory over the store, with a cache
// that a change of the key empties at once.
type Keys interface {
	// AccessKey returns the key, or errs.NotFound.
	AccessKey(ctx context.Context, id string) (AccessKey, error)
}
