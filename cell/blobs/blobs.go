// Package blobs keeps the bytes of objects as encrypted segments. An engine
// (directory tree, or later any S3 service) sees ciphertext and random ids only.
// A blob is written once, is durable before Close of its writer returns, and is
// published by whoever commits its id to the store; what no record names is an
// orphan, and Sweep removes it.
package blobs

import (
	"context"
	"io"
	"iter"
	"time"
)

// ID names a blob: 16 random bytes.
type ID [16]byte

// Engine stores ciphertext by id. Safe for concurrent use. Every engine passes
// the contract suite in cell/blobs/blobtest.
type Engine interface {
	// Create begins a new blob. If it exists the error is errs.Exists.
	Create(ctx context.Context, id ID) (Writer, error)
	// Open opens a blob for reading at any offset. A missing one is errs.NotFound.
	Open(ctx context.Context, id ID) (Reader, error)
	// Remove deletes a blob; a missing one is no error. Open readers may go on reading.
	Remove(ctx context.Context, id ID) error
	// All lists the blobs with their sizes in bytes and write times, in no order.
	All(ctx context.Context) iter.Seq2[Info, error]
}

// Info describes a stored blob.
type Info struct {
	ID       ID
	Size     int64
	Modified time.Time
}

// Writer receives a blob's bytes. Exactly one of Commit and Abort ends it.
type Writer interface {
	io.Writer
	// Expect says how many bytes will be written in all, before any is. It is for
	// the engine to make room; Commit does not hold the writer to it.
	Expect(size int64)
	// Commit returns after the bytes and the name are durable.
	Commit() error
	// Abort removes what was written. After Commit it does nothing.
	Abort()
}

// Reader reads a blob.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() int64
}
