package objects

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/minio/crc64nvme"

	"chancery/internal/errs"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newHash returns the hash of an S3 checksum algorithm; nil for none or an unknown one.
func newHash(algorithm string) hash.Hash {
	switch algorithm {
	case "CRC32":
		return crc32.NewIEEE()
	case "CRC32C":
		return crc32.New(castagnoli)
	case "CRC64NVME":
		return crc64nvme.New()
	case "SHA1":
		return sha1.New()
	case "SHA256":
		return sha256.New()
	}
	return nil
}

func hashValue(h hash.Hash) string { return base64.StdEncoding.EncodeToString(h.Sum(nil)) }

// polynomial of a CRC, reflected, and its width in bits; ok is false for other algorithms.
func polynomial(algorithm string) (poly uint64, width uint, ok bool) {
	switch algorithm {
	case "CRC32":
		return crc32.IEEE, 32, true
	case "CRC32C":
		return crc32.Castagnoli, 32, true
	case "CRC64NVME":
		return 0x9a6c9329ac4bc9b5, 64, true
	}
	return 0, 0, false
}

// crcCombiner joins the CRCs of two pieces of data into that of both together,
// without the data: crc(AB) = crc(A)·x^(8·len(B)) mod P xor crc(B), over
// polynomials with bits reflected (as zlib's crc32_combine; the inversions before
// and after cancel out).
type crcCombiner struct {
	poly  uint64
	width uint
	// power[k] is x^(2^k) mod P.
	power [64]uint64
}

func newCombiner(algorithm string) (*crcCombiner, bool) {
	poly, width, ok := polynomial(algorithm)
	if !ok {
		return nil, false
	}
	c := &crcCombiner{poly: poly, width: width}
	c.power[0] = 1 << (width - 2) // x
	for k := 1; k < len(c.power); k++ {
		c.power[k] = c.multiply(c.power[k-1], c.power[k-1])
	}
	return c, true
}

// multiply returns a·b mod P.
func (c *crcCombiner) multiply(a, b uint64) uint64 {
	var p uint64
	for m := uint64(1) << (c.width - 1); m != 0; m >>= 1 {
		if a&m != 0 {
			p ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ c.poly
		} else {
			b >>= 1
		}
	}
	return p
}

// combine returns the CRC of A then B; n is the length of B in bytes.
func (c *crcCombiner) combine(a, b uint64, n int64) uint64 {
	shift := uint64(1) << (c.width - 1) // 1
	for k, v := 3, uint64(n); v != 0; k, v = k+1, v>>1 {
		if v&1 != 0 {
			shift = c.multiply(c.power[k], shift)
		}
	}
	return c.multiply(shift, a) ^ b
}

func (c *crcCombiner) parse(value string) (uint64, bool) {
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(b) != int(c.width/8) {
		return 0, false
	}
	if c.width == 32 {
		return uint64(binary.BigEndian.Uint32(b)), true
	}
	return binary.BigEndian.Uint64(b), true
}

func (c *crcCombiner) format(v uint64) string {
	b := binary.BigEndian.AppendUint64(nil, v)
	return base64.StdEncoding.EncodeToString(b[8-c.width/8:])
}

// fullObject combines the CRCs of parts into that of the whole object.
func fullObject(algorithm string, parts []*record) (Checksum, bool) {
	c, ok := newCombiner(algorithm)
	if !ok {
		return Checksum{}, false
	}
	var sum uint64
	for i, p := range parts {
		v, ok := c.parse(p.checksum.Value)
		if !ok || p.checksum.Algorithm != algorithm {
			return Checksum{}, false
		}
		if i == 0 {
			sum = v
		} else {
			sum = c.combine(sum, v, p.size)
		}
	}
	return Checksum{Algorithm: algorithm, Value: c.format(sum), Type: typeFullObject}, true
}

// composite is the hash of the parts' hashes, "-" and their number.
func composite(algorithm string, parts []*record) (Checksum, bool) {
	h := newHash(algorithm)
	if h == nil {
		return Checksum{}, false
	}
	for _, p := range parts {
		b, err := base64.StdEncoding.DecodeString(p.checksum.Value)
		if err != nil || p.checksum.Algorithm != algorithm || len(b) != h.Size() {
			return Checksum{}, false
		}
		h.Write(b)
	}
	return Checksum{Algorithm: algorithm, Value: hashValue(h) + "-" + strconv.Itoa(len(parts)), Type: typeComposite}, true
}

// checksumType validates an upload's algorithm and type and fills in S3's
// default: FULL_OBJECT for CRC64NVME, COMPOSITE for the others
// (docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html).
func checksumType(op, algorithm, kind string) (string, error) {
	if algorithm == "" {
		if kind != "" {
			return "", errs.Coded(errs.Invalid, op, codeRequest, "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
		}
		return "", nil
	}
	if indexOf(checksumAlgorithms, algorithm) == 0 {
		return "", errs.Coded(errs.Invalid, op, codeRequest, "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
	}
	_, _, crc := polynomial(algorithm)
	switch kind {
	case "":
		if algorithm == "CRC64NVME" {
			return typeFullObject, nil
		}
		return typeComposite, nil
	case typeFullObject:
		if crc {
			return kind, nil
		}
	case typeComposite:
		if algorithm != "CRC64NVME" {
			return kind, nil
		}
	}
	return "", errs.Coded(errs.Invalid, op, codeRequest, "The %s checksum type cannot be used with the %s checksum algorithm.", kind, strings.ToLower(algorithm))
}

// multipartETag is, if all parts' ETags are MD5s, what S3 answers: the MD5 of
// their digests, "-" and their number; else a hash of the same shape.
func multipartETag(parts []*record) string {
	var digests []byte
	plain := true
	for _, p := range parts {
		plain = plain && len(p.etag) == 2*md5.Size
		d, err := hex.DecodeString(p.etag[:min(len(p.etag), 2*md5.Size)])
		if err != nil {
			d, plain = []byte(p.etag), false
		}
		digests = append(digests, d...)
	}
	var sum [md5.Size]byte
	if plain {
		sum = md5.Sum(digests) // an entity tag, not a proof of anything
	} else {
		wide := sha256.Sum256(digests)
		copy(sum[:], wide[:])
	}
	return hex.EncodeToString(sum[:]) + "-" + strconv.Itoa(len(parts))
}
