package s3

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"strings"
	"sync"
)

// Limits on the framing of aws-chunked bodies, in bytes.
const (
	maxChunkHeader  = 256
	maxTrailerLine  = 1024
	maxTrailerLines = 8
)

// chunkReader takes the aws-chunked framing off a body (S3 API reference,
// "Transferring payload in multiple chunks" and "Including trailing headers"):
//
//	size;chunk-signature=HEX CRLF bytes CRLF … 0;chunk-signature=HEX CRLF [trailers] CRLF
//
// Bytes are handed on before their chunk's signature can be checked; whoever
// stores them commits only after io.EOF, which comes after every check.
type chunkReader struct {
	br      *bufio.Reader
	signed  bool
	trailed bool
	c       *caller
	prev    string // the signature before this one in the chain
	sig     string // of the current chunk
	sha     hash.Hash
	left    int64
	inChunk bool
	claim   claim
	trailer string // value of the announced checksum
	err     error  // sticky; io.EOF at the good end
}

var readerPool = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 32<<10) }}

func newChunkReader(r io.Reader, c *caller, cl claim) *chunkReader {
	br, _ := readerPool.Get().(*bufio.Reader)
	br.Reset(r)
	x := &chunkReader{
		br: br, c: c, prev: c.seed, claim: cl,
		signed:  c.payload != payloadUnsignedTrailer,
		trailed: c.payload != payloadChunks,
	}
	if x.signed {
		x.sha = sha256.New()
	}
	return x
}

// stop ends the reader and gives its buffer back.
func (x *chunkReader) stop(err error) error {
	if x.br != nil {
		x.br.Reset(nil)
		readerPool.Put(x.br)
		x.br = nil
	}
	x.err = err
	return err
}

// Read returns bytes of the payload.
func (x *chunkReader) Read(p []byte) (int, error) {
	if x.err != nil {
		return 0, x.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for x.left == 0 {
		if x.inChunk {
			if err := x.endChunk(); err != nil {
				return 0, x.stop(err)
			}
		}
		if err := x.beginChunk(); err != nil {
			return 0, x.stop(err)
		}
	}
	if int64(len(p)) > x.left {
		p = p[:x.left]
	}
	n, err := x.br.Read(p)
	x.left -= int64(n)
	if x.signed {
		x.sha.Write(p[:n])
	}
	if err != nil {
		return n, x.stop(truncated(err))
	}
	return n, nil
}

// truncated makes an end inside the framing the error that it is.
func truncated(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fail("IncompleteBody")
	}
	return err
}

// line reads one line of at most limit bytes, without its end. The last line may lack one if eofOK.
func (x *chunkReader) line(limit int, eofOK bool) (string, error) {
	b, err := x.br.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull || len(b) > limit:
		return "", badFraming()
	case err == io.EOF && eofOK && len(b) == 0:
		return "", io.EOF
	case err != nil:
		return "", truncated(err)
	}
	return strings.TrimSuffix(string(b[:len(b)-1]), "\r"), nil
}

func badFraming() error {
	return failf("IncompleteBody", "The chunk framing of the request body is malformed.")
}

// beginChunk reads a chunk's header. At the last chunk it reads all that follows and returns io.EOF.
func (x *chunkReader) beginChunk() error {
	l, err := x.line(maxChunkHeader, false)
	if err != nil {
		return err
	}
	digits, ext, hasExt := strings.Cut(l, ";")
	size, ok := parseChunkSize(digits)
	if !ok {
		return badFraming()
	}
	if x.signed {
		sig, is := strings.CutPrefix(ext, "chunk-signature=")
		if !is || len(sig) != 64 {
			return badFraming()
		}
		x.sig = sig
		x.sha.Reset()
	} else if hasExt && ext != "" && !strings.HasPrefix(ext, "chunk-signature=") {
		return badFraming()
	}
	x.left, x.inChunk = size, true
	if size > 0 {
		return nil
	}
	x.inChunk = false
	if err := x.verifyChunk(); err != nil {
		return err
	}
	if x.trailed {
		return x.readTrailers()
	}
	if l, err := x.line(maxChunkHeader, true); err != nil && err != io.EOF || l != "" {
		return badFraming()
	}
	return x.atEnd()
}

// parseChunkSize reads 1 to 16 hex digits, no sign, at most maxUpload.
func parseChunkSize(s string) (int64, bool) {
	if s == "" || len(s) > 16 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		d := unhex(s[i])
		if d < 0 {
			return 0, false
		}
		if n = n<<4 | int64(d); n > maxUpload {
			return 0, false
		}
	}
	return n, true
}

// endChunk reads the CRLF after a chunk's bytes and checks the chunk's signature.
func (x *chunkReader) endChunk() error {
	x.inChunk = false
	l, err := x.line(2, false)
	if err != nil {
		return err
	}
	if l != "" {
		return badFraming()
	}
	return x.verifyChunk()
}

func (x *chunkReader) verifyChunk() error {
	if !x.signed {
		return nil
	}
	sts := algorithmV4 + "-PAYLOAD\n" + x.c.date + "\n" + x.c.scope + "\n" + x.prev + "\n" +
		emptySHA256 + "\n" + hex.EncodeToString(x.sha.Sum(nil))
	if !equalHex(hmacHex(x.c.key, sts), x.sig) {
		return fail("SignatureDoesNotMatch").with("StringToSign", sts).with("SignatureProvided", x.sig)
	}
	x.prev = x.sig
	return nil
}

// readTrailers reads the trailing headers: the announced checksum, and for signed
// chunks the signature over it.
func (x *chunkReader) readTrailers() error {
	var name, signature string
	for lines := 0; ; lines++ {
		l, err := x.line(maxTrailerLine, true)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if l == "" {
			// Some clients end the checksum's line twice (minio-go: "\n" and "\r\n").
			if x.signed && signature == "" && lines == 1 {
				continue
			}
			if b, err := x.br.Peek(2); err == nil && string(b) == "\r\n" && !x.signed {
				x.br.Discard(2) //nolint:errcheck // they are in the buffer
			}
			break
		}
		if lines >= maxTrailerLines {
			return fail("MalformedTrailerError")
		}
		n, v, ok := strings.Cut(l, ":")
		n, v = strings.ToLower(strings.TrimSpace(n)), strings.TrimSpace(v)
		switch {
		case !ok || v == "":
			return fail("MalformedTrailerError")
		case n == "x-amz-trailer-signature" && x.signed && signature == "":
			signature = v
		case x.claim.trailer && n == strings.ToLower(x.claim.alg.header) && name == "":
			name, x.trailer = n, v
		default:
			return fail("MalformedTrailerError") // not announced, or twice
		}
	}
	if x.claim.trailer && name == "" {
		return fail("MalformedTrailerError")
	}
	if x.signed {
		canonical := ""
		if name != "" {
			canonical = name + ":" + x.trailer + "\n"
		}
		sum := sha256.Sum256([]byte(canonical))
		sts := algorithmV4 + "-TRAILER\n" + x.c.date + "\n" + x.c.scope + "\n" + x.prev + "\n" + hex.EncodeToString(sum[:])
		if !equalHex(hmacHex(x.c.key, sts), signature) {
			return fail("SignatureDoesNotMatch").with("StringToSign", sts).with("SignatureProvided", signature)
		}
	}
	return x.atEnd()
}

// atEnd demands that nothing follow.
func (x *chunkReader) atEnd() error {
	if _, err := x.br.ReadByte(); err == nil {
		return badFraming()
	} else if err != io.EOF {
		return err
	}
	return io.EOF
}
