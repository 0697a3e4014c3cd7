package s3

import (
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"chancery/cell/objects"
	"chancery/internal/errs"
)

// parseRange reads one byte range (RFC 9110 section 14.1.2). What is malformed,
// and more than one range, is ignored, as S3 does: nil. "bytes=-0" asks for
// nothing and can never be satisfied: none is true.
func parseRange(v string) (r *objects.ByteRange, none bool) {
	spec, ok := strings.CutPrefix(v, "bytes=")
	if !ok {
		return nil, false
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return nil, false
	}
	if from == "" {
		n, ok := parseOffset(to)
		if !ok {
			return nil, false
		}
		if n == 0 {
			return nil, true
		}
		return &objects.ByteRange{From: -1, To: -1, Suffix: n}, false
	}
	a, ok := parseOffset(from)
	if !ok {
		return nil, false
	}
	if to == "" {
		return &objects.ByteRange{From: a, To: -1}, false
	}
	b, ok := parseOffset(to)
	if !ok || b < a {
		return nil, false
	}
	return &objects.ByteRange{From: a, To: b}, false
}

// parseOffset reads digits; what exceeds an int64 is the largest one.
func parseOffset(s string) (int64, bool) {
	if s == "" || len(s) > 64 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, true
	}
	return n, true
}

// readRequest makes the objects.Get of a GET or HEAD.
func (q *request) readRequest() (objects.Get, error) {
	in := objects.Get{Bucket: q.bucket, Key: q.key, VersionID: q.query.get("versionId"), Conditions: readConditions(q.r.Header, "")}
	if q.query.has("versionId") && in.VersionID == "" {
		return in, invalidArgument("versionId", "", "Version id cannot be the empty string")
	}
	if v := q.query.get("partNumber"); q.query.has("partNumber") {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 10000 {
			return in, invalidArgument("partNumber", v, "Part number must be an integer between 1 and 10000, inclusive")
		}
		in.PartNumber = n
	}
	rng := q.r.Header.Get("Range")
	if rng == "" {
		return in, nil
	}
	var none bool
	in.Range, none = parseRange(rng)
	if (in.Range != nil || none) && in.PartNumber > 0 {
		return in, failf("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
	}
	if none {
		o, err := q.h.objects.Head(q.ctx, objects.Get{Bucket: q.bucket, Key: q.key, VersionID: in.VersionID})
		if err != nil {
			return in, err
		}
		return in, rangeError(rng, o.Size)
	}
	if v := q.r.Header.Get("If-Range"); v != "" && in.Range != nil {
		// RFC 9110 section 13.1.5: the range only if the object is still the one that the client knows.
		o, err := q.h.objects.Head(q.ctx, objects.Get{Bucket: q.bucket, Key: q.key, VersionID: in.VersionID})
		if err != nil {
			return in, err
		}
		t, terr := http.ParseTime(v)
		if trimETag(v) == o.ETag || terr == nil && t.Equal(o.Modified.UTC().Truncate(time.Second)) {
			if in.Conditions.IfMatch == "" {
				in.Conditions.IfMatch = o.ETag
			}
		} else {
			in.Range = nil
		}
	}
	return in, nil
}

func rangeError(rng string, size int64) *apiError {
	return fail("InvalidRange").with("RangeRequested", rng).with("ActualObjectSize", itoa(size)).
		withHeader("Content-Range", "bytes */"+itoa(size))
}

// readFailed turns an error of a read into the answer. obj is what is known of the object, if anything.
func (q *request) readFailed(in objects.Get, obj objects.Object, err error) error {
	switch code := errs.CodeOf(err); code {
	case "NotModified", "PreconditionFailed":
		hd := q.w.Header()
		if obj.ETag != "" {
			hd["ETag"] = []string{`"` + obj.ETag + `"`}
			hd.Set("Last-Modified", httpTime(obj.Modified))
		}
		e := fail(code).because(err)
		if code == "PreconditionFailed" {
			name := "If-Unmodified-Since"
			if in.Conditions.IfMatch != "" {
				name = "If-Match"
			}
			e = e.with("Condition", name)
		}
		return e
	case "InvalidRange":
		return rangeError(q.r.Header.Get("Range"), obj.Size).because(err)
	case "NoSuchKey":
		// Who may not list must not learn which names are free.
		if derr := q.decide("s3:ListBucket", q.held.ProjectID, "arn:aws:s3:::"+q.bucket); derr != nil {
			return derr
		}
	}
	return err
}

func (q *request) headObject() error {
	in, err := q.readRequest()
	if err != nil {
		return q.readFailed(in, objects.Object{}, err)
	}
	obj, err := q.h.objects.Head(q.ctx, in)
	if err != nil {
		return q.readFailed(in, obj, err)
	}
	status, err := q.objectHeaders(in, obj)
	if err != nil {
		return err
	}
	q.start(status)
	return nil
}

func (q *request) getObject() error {
	in, err := q.readRequest()
	if err != nil {
		return q.readFailed(in, objects.Object{}, err)
	}
	obj, rd, err := q.h.objects.Get(q.ctx, in)
	if err != nil {
		if rd != nil {
			rd.Close()
		}
		return q.readFailed(in, obj, err)
	}
	defer rd.Close()
	status, err := q.objectHeaders(in, obj)
	if err != nil {
		return err
	}
	return q.sendBody(status, rd, obj.RangeLength)
}

// objectHeaders sets the headers of a read, and gives its status.
func (q *request) objectHeaders(in objects.Get, obj objects.Object) (int, error) {
	hd := q.w.Header()
	hd["Last-Modified"] = []string{httpTime(obj.Modified)}
	hd["ETag"] = []string{`"` + obj.ETag + `"`}
	hd["Accept-Ranges"] = acceptRanges
	hd["Content-Length"] = []string{itoa(obj.RangeLength)}
	ct := obj.Headers.ContentType
	if ct == "" {
		ct = "binary/octet-stream"
	}
	hd["Content-Type"] = []string{ct}
	for _, h := range [...][2]string{
		{"Content-Encoding", obj.Headers.ContentEncoding}, {"Content-Disposition", obj.Headers.ContentDisposition},
		{"Content-Language", obj.Headers.ContentLanguage}, {"Cache-Control", obj.Headers.CacheControl}, {"Expires", obj.Headers.Expires},
	} {
		if h[1] != "" {
			hd[h[0]] = []string{h[1]}
		}
	}
	for name, v := range obj.Headers.User {
		hd["x-amz-meta-"+name] = []string{encodeMeta(v)}
	}
	if c := obj.Headers.StorageClass; c != "" && c != "STANDARD" {
		hd["X-Amz-Storage-Class"] = []string{c}
	}
	if v := obj.VersionID; v != "" && v != "null" {
		hd["X-Amz-Version-Id"] = []string{v}
	}
	if in.PartNumber > 0 && obj.PartCount > 0 {
		hd["X-Amz-Mp-Parts-Count"] = []string{itoa(int64(obj.PartCount))}
	}
	q.setEncryption(obj.KeyID)
	if err := q.readChecksum(in, obj); err != nil {
		return 0, err
	}
	for _, p := range q.query {
		if name, ok := overrides[p.name]; ok {
			if strings.ContainsAny(p.value, "\r\n\x00") {
				return 0, invalidArgument(p.name, p.value, "Invalid value of a response header.")
			}
			hd[name] = []string{p.value}
		}
	}
	if obj.Partial && (in.Range != nil || in.PartNumber > 0) && obj.Size > 0 {
		hd["Content-Range"] = []string{"bytes " + itoa(obj.RangeStart) + "-" + itoa(obj.RangeStart+obj.RangeLength-1) + "/" + itoa(obj.Size)}
		return http.StatusPartialContent, nil
	}
	return http.StatusOK, nil
}

var acceptRanges = []string{"bytes"}

var overrides = map[string]string{
	"response-content-type": "Content-Type", "response-content-language": "Content-Language", "response-expires": "Expires",
	"response-cache-control": "Cache-Control", "response-content-disposition": "Content-Disposition",
	"response-content-encoding": "Content-Encoding",
}

// readChecksum answers x-amz-checksum-mode. A range has no checksum of its own,
// and an SDK would check it against the bytes: none is sent. A part has its part's.
func (q *request) readChecksum(in objects.Get, obj objects.Object) error {
	mode := q.r.Header.Get("X-Amz-Checksum-Mode")
	if mode == "" {
		return nil
	}
	if !strings.EqualFold(mode, "ENABLED") {
		return invalidArgument("x-amz-checksum-mode", mode, "Value for x-amz-checksum-mode header is invalid.")
	}
	c := obj.Checksum
	switch {
	case in.Range != nil:
		return nil
	case in.PartNumber > 0 && obj.PartCount > 0:
		parts, _, err := q.h.objects.Parts(q.ctx, q.bucket, q.key, in.VersionID, in.PartNumber-1, 1)
		if err != nil {
			return err
		}
		if len(parts) == 0 || parts[0].Number != in.PartNumber {
			return nil
		}
		c = objects.Checksum{Algorithm: parts[0].Checksum.Algorithm, Value: parts[0].Checksum.Value, Type: obj.Checksum.Type}
	}
	setChecksum(q.w.Header(), c)
	return nil
}

// sendBuffer is the size of a copy's steps: large, so that TLS records and system calls are few.
const sendBuffer = 256 << 10

var sendPool = sync.Pool{New: func() any { b := make([]byte, sendBuffer); return &b }}

// sendBody streams an object's bytes. If they cannot be read in full, or prove
// to be wrong, the connection is broken: the client must see a failed transfer.
func (q *request) sendBody(status int, rd io.Reader, length int64) error {
	w := &wireWriter{q: q}
	if length <= sendBuffer {
		// Small objects are read before the status line goes out: damage is then a clean error.
		bp, _ := sendPool.Get().(*[]byte)
		b := (*bp)[:length]
		defer func() {
			clear(b) // plaintext stays no longer than it must
			sendPool.Put(bp)
		}()
		if _, err := io.ReadFull(rd, b); err != nil {
			return err
		}
		if err := atEOF(rd); err != nil {
			return err
		}
		q.start(status)
		if _, err := w.Write(b); err != nil {
			return errAborted(err)
		}
		return nil
	}
	q.start(status)
	var n int64
	var err error
	if wt, ok := rd.(io.WriterTo); ok {
		n, err = wt.WriteTo(w)
	} else {
		bp, _ := sendPool.Get().(*[]byte)
		n, err = io.CopyBuffer(w, rd, *bp)
		clear(*bp)
		sendPool.Put(bp)
	}
	if err == nil && n != length {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return errAborted(err)
	}
	return nil
}

// atEOF demands that a reader that gave all its bytes says so: that is where the last check is made.
func atEOF(rd io.Reader) error {
	var one [1]byte
	for {
		n, err := rd.Read(one[:])
		switch {
		case n > 0:
			return errs.New(errs.Corrupt, "s3", "an object is longer than its record says")
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// wireWriter writes the answer and holds the client to a minimum rate: each
// window of bodyWindow bytes must be taken within the idle time.
type wireWriter struct {
	q    *request
	left int
}

func (w *wireWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if w.left <= 0 {
			w.left = bodyWindow
			w.q.ctl.SetWriteDeadline(time.Now().Add(w.q.h.idle)) //nolint:errcheck // not every writer has deadlines
		}
		step := p[done:min(len(p), done+w.left)]
		n, err := w.q.w.Write(step)
		done += n
		w.left -= n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
