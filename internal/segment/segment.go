// Package segment is the bulk encryption format: a stream is cut into segments
// of 64 KiB, each sealed with AES-256-GCM under a key of the one stream, bound to
// what the stream is and to its place in it, so that any range can be read and
// nothing can be altered, reordered, cut short or moved to another place unnoticed.
// The byte layout is in docs/formats.md. It knows nothing of either side of the wall.
package segment

// Size is the plaintext length of every segment but the last, in bytes.
const Size = 64 << 10

// KeySize is the length of a stream key, in bytes (AES-256).
const KeySize = 32

// Key is the secret key of one stream. It is derived for one stream only
// (see cell/keys) and never stored. The zero Key refuses to seal or open.
type Key [KeySize]byte

// Binding is what a stream's ciphertext is bound to as associated data: opening
// it under any other binding fails. A zero Binding is refused.
type Binding struct {
	// Organization and Bucket are the stable ids of what the stream belongs to.
	Organization, Bucket string
	// Object is the object's key as users name it (UTF-8, at most 1,024 bytes).
	Object string
	// Content is the random id of this content (an object version's, or a part's of an upload).
	Content [16]byte
}
