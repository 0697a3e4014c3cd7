package s3

import (
	"crypto/sha1" //nolint:gosec // S3 names it among its checksums; nothing here trusts it
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"hash/crc32"
	"net/http"
	"strings"

	"chancery/cell/objects"

	"github.com/minio/crc64nvme"
)

// The additional checksums of S3 (user guide, "Checking object integrity").
const (
	fullObject = "FULL_OBJECT"
	composite  = "COMPOSITE"
	// defaultSum is what S3 computes when the client names none.
	defaultSum = "CRC64NVME"
)

type algorithm struct {
	name, header string // header in canonical form
	size         int    // bytes of a digest
	make         func() hash.Hash
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var algorithms = []algorithm{
	{"CRC32", "X-Amz-Checksum-Crc32", 4, func() hash.Hash { return crc32.NewIEEE() }},
	{"CRC32C", "X-Amz-Checksum-Crc32c", 4, func() hash.Hash { return crc32.New(castagnoli) }},
	{"CRC64NVME", "X-Amz-Checksum-Crc64nvme", 8, func() hash.Hash { return crc64nvme.New() }},
	{"SHA1", "X-Amz-Checksum-Sha1", 20, sha1.New},
	{"SHA256", "X-Amz-Checksum-Sha256", 32, sha256.New},
}

// algorithmNamed finds an algorithm by its name, in any case.
func algorithmNamed(name string) *algorithm {
	for i := range algorithms {
		if strings.EqualFold(algorithms[i].name, name) {
			return &algorithms[i]
		}
	}
	return nil
}

func algorithmOfHeader(name string) *algorithm {
	for i := range algorithms {
		if strings.EqualFold(algorithms[i].header, name) {
			return &algorithms[i]
		}
	}
	return nil
}

// xmlName is the element that carries a value of this algorithm.
func (a *algorithm) xmlName() string { return "Checksum" + a.name }

// validValue tells whether s is base64 of a digest of the right length.
func (a *algorithm) validValue(s string) bool {
	b, err := base64.StdEncoding.DecodeString(s)
	return err == nil && len(b) == a.size
}

// claim is what a client says of its upload's checksum.
type claim struct {
	alg *algorithm
	// value is base64; empty if it comes in the trailer.
	value   string
	trailer bool
}

// unsupportedAlgorithm is S3's answer to a name that it does not know.
func unsupportedAlgorithm() *apiError {
	return failf("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
}

// claimedChecksum reads x-amz-checksum-*, x-amz-trailer and x-amz-sdk-checksum-algorithm.
func (q *request) claimedChecksum() (claim, error) {
	var c claim
	single := failf("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
	for name, values := range q.r.Header {
		if !strings.HasPrefix(name, "X-Amz-Checksum-") {
			continue
		}
		switch name {
		case "X-Amz-Checksum-Mode", "X-Amz-Checksum-Type", "X-Amz-Checksum-Algorithm":
			continue
		}
		a := algorithmOfHeader(name)
		if a == nil {
			return claim{}, notImplemented(strings.ToLower(name))
		}
		if c.alg != nil || len(values) > 1 {
			return claim{}, single
		}
		c = claim{alg: a, value: values[0]}
	}
	for _, v := range q.r.Header.Values("X-Amz-Trailer") {
		for name := range strings.SplitSeq(v, ",") {
			a := algorithmOfHeader(strings.TrimSpace(name))
			if a == nil {
				return claim{}, failf("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
			}
			if c.alg != nil {
				return claim{}, single
			}
			c = claim{alg: a, trailer: true}
		}
	}
	if c.trailer && q.caller.payload != payloadChunksTrailer && q.caller.payload != payloadUnsignedTrailer {
		return claim{}, failf("InvalidRequest", "x-amz-trailer is given but x-amz-content-sha256 does not announce a trailer.")
	}
	if name := q.r.Header.Get("X-Amz-Sdk-Checksum-Algorithm"); name != "" {
		a := algorithmNamed(name)
		switch {
		case a == nil:
			return claim{}, unsupportedAlgorithm()
		case c.alg == nil:
			return claim{}, failf("InvalidRequest", "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.")
		case a != c.alg:
			return claim{}, failf("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
		}
	}
	return c, nil
}

// check verifies the form of a claim's value, for single bodies.
func (c claim) check() error {
	if c.alg != nil && !c.trailer && !c.alg.validValue(c.value) {
		return failf("InvalidRequest", "Value for %s header is invalid.", strings.ToLower(c.alg.header))
	}
	return nil
}

// setChecksum puts a stored checksum into headers.
func setChecksum(hd http.Header, c objects.Checksum) {
	a := algorithmNamed(c.Algorithm)
	if a == nil || c.Value == "" {
		return
	}
	hd[a.header] = []string{c.Value}
	if c.Type != "" {
		hd.Set("X-Amz-Checksum-Type", c.Type)
	}
}

// checksum writes a stored checksum as elements.
func (x *xmlBuf) checksum(c objects.Checksum, withType bool) {
	a := algorithmNamed(c.Algorithm)
	if a == nil || c.Value == "" {
		return
	}
	x.text(a.xmlName(), c.Value)
	if withType {
		x.optional("ChecksumType", c.Type)
	}
}
