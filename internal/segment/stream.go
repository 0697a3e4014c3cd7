package segment

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"

	"chancery/internal/errs"
)

// domain separates this use of associated data from every other in the project.
const domain = "chancery.segment.v1"

// The header: magic (8), version (1), suite (1), log2 of the segment size (1),
// flags (1), reserved (4), stream id (16).
const (
	magic    = "chancseg"
	version  = 1
	suiteGCM = 1 // AES-256-GCM, random nonce before each segment
	logSize  = 16
)

// header is a stream's first bytes. Its random stream id is part of every
// segment's associated data, so that two streams can never be mixed, not even
// if a caller seals twice under one key and binding.
type header [HeaderSize]byte

func newHeader() header {
	var h header
	copy(h[:], magic)
	h[8], h[9], h[10] = version, suiteGCM, logSize
	rand.Read(h[16:]) // never fails (crypto/rand, Go 1.24)
	return h
}

func (h *header) check(op string) error {
	bad := func(format string, args ...any) error {
		return errs.Coded(errs.Corrupt, op, BadHeader, format, args...)
	}
	switch {
	case string(h[:8]) != magic:
		return bad("not a segment stream")
	case h[8] != version:
		return bad("version %d is not known here", h[8])
	case h[9] != suiteGCM:
		return bad("suite %d is not known here", h[9])
	case h[10] != logSize:
		return bad("segment size 2^%d is not known here", h[10])
	case h[11] != 0 || binary.BigEndian.Uint32(h[12:]) != 0:
		return bad("reserved bits are set")
	}
	return nil
}

func (k *Key) zero() bool {
	var any byte
	for _, b := range k {
		any |= b
	}
	return any == 0
}

func (b *Binding) check(op string) error {
	if b.Organization == "" || b.Bucket == "" || b.Object == "" || b.Content == [16]byte{} {
		return errs.New(errs.Invalid, op, "a binding with an empty field")
	}
	if len(b.Organization) > MaxName || len(b.Bucket) > MaxName || len(b.Object) > MaxObject {
		return errs.New(errs.Invalid, op, "a binding with too long a field")
	}
	return nil
}

// stream seals or opens the segments of one stream. Not safe for concurrent use,
// because aad is rewritten for each segment.
type stream struct {
	aead cipher.AEAD
	// aad is what is the same for all segments, then 8 bytes for the segment's
	// number and 1 byte that is 1 for the last.
	aad []byte
}

func newStream(op string, k *Key, b *Binding, h *header) (stream, error) {
	if k.zero() {
		return stream{}, errs.New(errs.Invalid, op, "the zero key")
	}
	if err := b.check(op); err != nil {
		return stream{}, err
	}
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return stream{}, errs.Wrap(op, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return stream{}, errs.Wrap(op, err)
	}
	return stream{aead, appendAAD(nil, h, b)}, nil
}

// appendAAD appends the associated data of a segment, with number and last-flag
// left zero. Every field of variable length has its length before it: no two
// bindings share an encoding.
func appendAAD(dst []byte, h *header, b *Binding) []byte {
	for _, s := range []string{domain, b.Organization, b.Bucket, b.Object} {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(s)))
		dst = append(dst, s...)
	}
	dst = append(dst, b.Content[:]...)
	dst = append(dst, h[:]...)
	return append(dst, make([]byte, 9)...)
}

// fork returns a stream that may be used at the same time as s.
func (s *stream) fork() stream {
	return stream{s.aead, append([]byte(nil), s.aad...)}
}

func (s *stream) at(n int64, last bool) []byte {
	tail := s.aad[len(s.aad)-9:]
	binary.BigEndian.PutUint64(tail, uint64(n))
	tail[8] = 0
	if last {
		tail[8] = 1
	}
	return s.aad
}

// seal appends segment n. dst must not overlap plain.
func (s *stream) seal(dst, plain []byte, n int64, last bool) []byte {
	return s.aead.Seal(dst, nil, plain, s.at(n, last))
}

// open appends the plaintext of segment n. dst must not overlap box.
func (s *stream) open(op string, dst, box []byte, n int64, last bool) ([]byte, error) {
	out, err := s.aead.Open(dst, nil, box, s.at(n, last))
	if err == nil {
		return out, nil
	}
	// Was it sealed with the other flag? Then the stream was cut or lengthened
	// at a boundary of segments. The plaintext is not used.
	if probe, err := s.aead.Open(nil, nil, box, s.at(n, !last)); err == nil {
		clear(probe)
		if last {
			return nil, errs.Coded(errs.Corrupt, op, Truncated, "the stream ends at segment %d, which is not its last", n)
		}
		return nil, errs.Coded(errs.Corrupt, op, Extended, "there are bytes after the last segment, %d", n)
	}
	return nil, errs.Coded(errs.Corrupt, op, Unauthentic, "segment %d does not authenticate (altered, misplaced, or another key or binding)", n)
}
