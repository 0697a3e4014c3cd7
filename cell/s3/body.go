package s3

import (
	"crypto/md5" //nolint:gosec // Content-MD5 (RFC 1864), only if the client sends it
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"chancery/cell/objects"
)

// maxUpload is the largest body of one PUT, in bytes (S3: 5 GiB).
const maxUpload = 5 << 30

// bodyWindow is how many bytes a client must send, or accept, within each IdleTimeout.
const bodyWindow = 256 << 10

// body is the upload of one request: it takes off the framing, counts, hashes
// what was asked for and nothing else, and in Finish holds the client to its
// word. It implements objects.Body.
type body struct {
	src    io.Reader
	chunks *chunkReader
	size   int64 // of the decoded bytes, as promised
	n      int64
	eof    bool
	// err is the first failure, in the client's terms; it is what gets answered.
	err error

	sha     hash.Hash
	wantSHA string
	md5     hash.Hash
	wantMD5 []byte
	sum     hash.Hash
	claim   claim
}

// openBody prepares the request's body for its operation. Nothing is read yet:
// a client that waits for "100 Continue" gets it at the first read.
func (q *request) openBody(rt *route) error {
	payload := q.caller.payload
	if rt.body == bodyNone {
		if q.r.ContentLength == 0 && len(payload) == 64 && !strings.EqualFold(payload, emptySHA256) {
			return fail("XAmzContentSHA256Mismatch").with("ClientComputedContentSHA256", payload).with("S3ComputedContentSHA256", emptySHA256)
		}
		return nil
	}
	b := &body{size: q.r.ContentLength}
	streaming := strings.HasPrefix(payload, "STREAMING-")
	if streaming {
		v := q.r.Header.Get("X-Amz-Decoded-Content-Length")
		if v == "" {
			return fail("MissingContentLength")
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return invalidArgument("x-amz-decoded-content-length", v, "x-amz-decoded-content-length must be a non-negative integer.")
		}
		b.size = n
	}
	if b.size < 0 {
		return fail("MissingContentLength")
	}
	if rt.body == bodyData && b.size > maxUpload {
		return fail("EntityTooLarge").with("ProposedSize", itoa(b.size)).with("MaxSizeAllowed", itoa(maxUpload))
	}
	var err error
	if b.claim, err = q.claimedChecksum(); err != nil {
		return err
	}
	if !rt.completes { // there the header is about the object, not about this body
		if err := b.claim.check(); err != nil {
			return err
		}
		if b.claim.alg != nil {
			b.sum = b.claim.alg.make()
		}
	} else if b.claim.trailer {
		return failf("InvalidRequest", "x-amz-trailer is not supported for this operation.")
	}
	if v, ok := q.r.Header["Content-Md5"]; ok {
		if b.wantMD5, err = base64.StdEncoding.DecodeString(v[0]); err != nil || len(b.wantMD5) != md5.Size || len(v) > 1 {
			return fail("InvalidDigest").with("Content-MD5", v[0])
		}
		b.md5 = md5.New() //nolint:gosec // see the import
	}
	b.src = &wireReader{q: q, r: q.r.Body}
	switch {
	case streaming:
		b.chunks = newChunkReader(b.src, &q.caller, b.claim)
		b.src = b.chunks
	case payload != payloadUnsigned:
		b.sha, b.wantSHA = sha256.New(), strings.ToLower(payload)
	}
	q.body = b
	return nil
}

// useSum makes the body compute a checksum that the client did not claim.
func (b *body) useSum(name string) {
	if b.sum == nil {
		if a := algorithmNamed(name); a != nil {
			b.claim.alg = a
			b.sum = a.make()
		}
	}
}

// Read returns decoded bytes.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.eof {
		return 0, io.EOF
	}
	n, err := b.src.Read(p)
	if n > 0 {
		b.n += int64(n)
		if b.n > b.size {
			b.err = fail("IncompleteBody")
			return 0, b.err
		}
		for _, h := range [...]hash.Hash{b.sha, b.md5, b.sum} {
			if h != nil {
				h.Write(p[:n])
			}
		}
	}
	if err == io.EOF {
		b.eof = true
		if b.n != b.size {
			b.eof, b.err = false, fail("IncompleteBody").with("NumberBytesExpected", itoa(b.size)).with("NumberBytesProvided", itoa(b.n))
			return n, b.err
		}
		return n, io.EOF
	}
	if err != nil {
		b.err = err
	}
	return n, err
}

// Finish verifies all that the client promised of its body.
func (b *body) Finish() (objects.Sums, error) {
	for !b.eof && b.err == nil {
		var p [512]byte
		if n, err := b.Read(p[:]); n > 0 && err == nil {
			b.err = fail("IncompleteBody") // the service stopped early: never commit less than was sent
		}
	}
	if b.err == nil {
		b.err = b.verify()
	}
	if b.err != nil {
		return objects.Sums{}, b.err
	}
	var s objects.Sums
	if b.md5 != nil {
		s.MD5 = b.wantMD5
	}
	if b.sum != nil {
		s.Checksum = objects.Checksum{
			Algorithm: b.claim.alg.name, Type: fullObject,
			Value: base64.StdEncoding.EncodeToString(b.sum.Sum(nil)),
		}
	}
	return s, nil
}

func (b *body) verify() error {
	if b.sha != nil {
		if got := hex.EncodeToString(b.sha.Sum(nil)); got != b.wantSHA {
			return fail("XAmzContentSHA256Mismatch").with("ClientComputedContentSHA256", b.wantSHA).with("S3ComputedContentSHA256", got)
		}
	}
	if b.md5 != nil {
		if got := b.md5.Sum(nil); string(got) != string(b.wantMD5) {
			return fail("BadDigest").with("ExpectedDigest", base64.StdEncoding.EncodeToString(b.wantMD5)).
				with("CalculatedDigest", base64.StdEncoding.EncodeToString(got))
		}
	}
	if b.sum == nil {
		return nil
	}
	want := b.claim.value
	if b.claim.trailer {
		want = b.chunks.trailer
		if !b.claim.alg.validValue(want) {
			return failf("InvalidRequest", "Value for %s trailing header is invalid.", strings.ToLower(b.claim.alg.header))
		}
	}
	if want == "" {
		return nil // ours to compute, nothing was claimed
	}
	if got := base64.StdEncoding.EncodeToString(b.sum.Sum(nil)); got != want {
		return failf("BadDigest", "The %s you specified did not match the calculated checksum.", b.claim.alg.name)
	}
	return nil
}

// wireReader reads the connection and holds the client to a minimum rate: each
// window of bodyWindow bytes must arrive within the idle time.
type wireReader struct {
	q    *request
	r    io.Reader
	left int
}

func (w *wireReader) Read(p []byte) (int, error) {
	if w.left <= 0 {
		w.left = bodyWindow
		w.q.ctl.SetReadDeadline(time.Now().Add(w.q.h.idle)) //nolint:errcheck // not every writer has deadlines
	}
	n, err := w.r.Read(p)
	w.left -= n
	switch {
	case err == nil:
	case err == io.EOF:
		// Or the deadline would cut a long operation off by way of net/http's background read.
		w.q.ctl.SetReadDeadline(time.Time{}) //nolint:errcheck // as above
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fail("RequestTimeout").because(err)
	default:
		err = fail("IncompleteBody").because(err)
	}
	return n, err
}

// boundDrain bounds what net/http does with an unread body after an error: it
// reads a little (256 KiB) to save the connection, and closes it otherwise.
func (q *request) boundDrain() {
	if q.r.ContentLength != 0 && (q.body == nil || !q.body.eof) {
		q.ctl.SetReadDeadline(time.Now().Add(min(q.h.idle, 5*time.Second))) //nolint:errcheck // not every writer has deadlines
	}
}

// small reads a whole body of at most limit bytes and verifies it.
func (q *request) small(limit int64) ([]byte, error) {
	b := q.body
	if b.size > limit {
		return nil, fail("MaxMessageLengthExceeded").with("MaxMessageLengthBytes", itoa(limit))
	}
	buf := make([]byte, b.size)
	if _, err := io.ReadFull(b, buf); err != nil && b.size > 0 {
		if b.err == nil {
			b.err = fail("IncompleteBody")
		}
		return nil, b.err
	}
	if _, err := b.Finish(); err != nil {
		return nil, err
	}
	return buf, nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// errAborted marks a transfer that broke after the answer had begun.
func errAborted(err error) error {
	if err == nil {
		err = io.ErrClosedPipe
	}
	return &abortedError{err}
}

type abortedError struct{ err error }

func (e *abortedError) Error() string { return "s3: transfer broken: " + e.err.Error() }
func (e *abortedError) Unwrap() error { return e.err }
