package s3load

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
)

// Mode is how uploads are protected; clients differ, and so does the server's work.
type Mode string

// The modes.
const (
	// Unsigned leaves the body to TLS (x-amz-content-sha256: UNSIGNED-PAYLOAD), as minio-go and rclone do.
	Unsigned Mode = "unsigned"
	// Signed sends the body's SHA-256 in the signature, as older SDKs and s3cmd do.
	Signed Mode = "sha256"
	// Trailer sends aws-chunked with a CRC32 trailer, the default of current AWS SDKs.
	Trailer Mode = "trailer"
)

// payload is the bytes of a client's uploads with all that can be computed once,
// so that the driver does not pay for it on every request.
type payload struct {
	data   []byte
	mode   Mode
	hash   string
	header http.Header
	head   []byte // aws-chunked framing before the data
	tail   []byte // and after it
}

// newPayload makes size random bytes: no server can compress them or find them twice.
func newPayload(size int, mode Mode) (*payload, error) {
	p := &payload{data: make([]byte, size), mode: mode}
	if _, err := rand.Read(p.data); err != nil {
		return nil, err
	}
	switch mode {
	case Unsigned:
		p.hash = unsignedPayload
	case Signed:
		digest := sha256.Sum256(p.data)
		p.hash = hex.EncodeToString(digest[:])
	case Trailer:
		p.hash = unsignedTrailer
		crc := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(p.data))
		p.head = []byte(strconv.FormatInt(int64(size), 16) + "\r\n")
		p.tail = []byte("\r\n0\r\nx-amz-checksum-crc32:" + base64.StdEncoding.EncodeToString(crc) + "\r\n\r\n")
		if size == 0 {
			p.head, p.tail = nil, p.tail[len("\r\n"):]
		}
		p.header = http.Header{
			"Content-Encoding":             {"aws-chunked"},
			"X-Amz-Decoded-Content-Length": {strconv.Itoa(size)},
			"X-Amz-Trailer":                {"x-amz-checksum-crc32"},
		}
	default:
		return nil, fmt.Errorf("s3load: payload mode %q: want %s, %s or %s", mode, Unsigned, Signed, Trailer)
	}
	return p, nil
}

// request returns what a PUT of it sends: body, its length on the wire, the
// value of x-amz-content-sha256 and further headers.
func (p *payload) request() (io.Reader, int64, string, http.Header) {
	if p.mode != Trailer {
		return bytes.NewReader(p.data), int64(len(p.data)), p.hash, nil
	}
	body := io.MultiReader(bytes.NewReader(p.head), bytes.NewReader(p.data), bytes.NewReader(p.tail))
	return body, int64(len(p.head) + len(p.data) + len(p.tail)), p.hash, p.header
}
