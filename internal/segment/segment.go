// Package segment is the bulk encryption format: a stream is cut into segments
// of 64 KiB, each sealed with AES-256-GCM under a key of the one stream, bound to
// what the stream is and to its place in it, so that any range can be read and
// nothing can be altered, reordered, cut short or moved to another place unnoticed.
// The byte layout is in docs/formats/segment.md. It knows nothing of either side of the wall.
//
// It must never return a byte of plaintext that has not been authenticated, and
// never keep a key longer than the Writer or Reader that uses it.
package segment

import (
	"chancery/internal/errs"
)

// Size is the plaintext length of every segment but the last, in bytes.
const Size = 64 << 10

// KeySize is the length of a stream key, in bytes (AES-256).
const KeySize = 32

// Overhead is what sealing adds to one segment, in bytes: a 12-byte nonce before
// the ciphertext and a 16-byte tag after it (NIST SP 800-38D).
const Overhead = 12 + 16

// HeaderSize is the length of a stream's header, in bytes.
const HeaderSize = 32

// MaxSegments bounds the segments of one stream: the number of messages with a
// random 96-bit nonce that one key may seal (NIST SP 800-38D section 8.3).
const MaxSegments = 1 << 32

// MaxPlain is the longest plaintext of one stream, in bytes (256 TiB).
const MaxPlain = MaxSegments * Size

// Bounds of the fields of a Binding, in bytes.
const (
	MaxName   = 256  // Organization, Bucket
	MaxObject = 1024 // Object
)

// sealed is the length of a full segment on disk.
const sealed = Size + Overhead

// Key is the secret key of one stream. It is derived for one stream only
// (see cell/keys) and never stored. The zero Key refuses to seal or open.
type Key [KeySize]byte

// Binding is what a stream's ciphertext is bound to as associated data: opening
// it under any other binding fails. A binding with an empty field is refused.
type Binding struct {
	// Organization and Bucket are the stable ids of what the stream belongs to (1 to 256 bytes).
	Organization, Bucket string
	// Object is the object's key as users name it (UTF-8, 1 to 1,024 bytes).
	Object string
	// Content is the random id of this content (an object version's, or a part's of an upload); not zero.
	Content [16]byte
}

// The classes of failure: the Code of the errs.Corrupt errors of this package.
// GCM cannot tell an altered segment from one that is whole but in the wrong
// place, of another stream, or opened with the wrong key or binding: all of
// these are Unauthentic.
const (
	// BadHeader: the first 32 bytes are not a header of a version known here.
	BadHeader = "header"
	// Truncated: the stream ends too early: inside a segment, or after a segment that is not the last.
	Truncated = "truncated"
	// Extended: there are bytes after the segment that was sealed as the last.
	Extended = "extended"
	// Unauthentic: a segment does not authenticate.
	Unauthentic = "unauthentic"
)

// CipherSize returns the length of the stream that plain bytes of plaintext
// become. It is errs.Invalid if plain is negative and errs.Exhausted over MaxPlain.
func CipherSize(plain int64) (int64, error) {
	if plain < 0 {
		return 0, errs.New(errs.Invalid, "segment.CipherSize", "a negative size")
	}
	if plain > MaxPlain {
		return 0, errs.New(errs.Exhausted, "segment.CipherSize", "a stream holds at most %d bytes", int64(MaxPlain))
	}
	return HeaderSize + plain + segments(plain)*Overhead, nil
}

// PlainSize returns the plaintext length of a stream of size bytes. A size that
// no whole stream has is errs.Corrupt, class Truncated.
func PlainSize(size int64) (int64, error) {
	const op = "segment.PlainSize"
	body := size - HeaderSize
	if body < Overhead {
		return 0, errs.Coded(errs.Corrupt, op, Truncated, "the stream is shorter than the empty one")
	}
	if body > MaxSegments*sealed {
		return 0, errs.Coded(errs.Corrupt, op, Extended, "the stream is longer than any that can be sealed")
	}
	n := (body + sealed - 1) / sealed
	// Only the empty stream ends with an empty segment: each plaintext has one form.
	if last := body - (n-1)*sealed; last < Overhead || last == Overhead && n > 1 {
		return 0, errs.Coded(errs.Corrupt, op, Truncated, "the stream ends inside a segment")
	}
	return body - n*Overhead, nil
}

// segments returns how many segments plain bytes take; the empty stream has one.
func segments(plain int64) int64 {
	return max(1, (plain+Size-1)/Size)
}
