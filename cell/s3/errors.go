package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"chancery/internal/errs"
)

// field is one more element of an error's XML, in order.
type field struct{ name, value string }

// apiError is an S3 error as the client sees it. It is an error of the project
// too: errs.KindOf and errs.CodeOf see the *errs.Error that it unwraps to.
type apiError struct {
	status  int
	code    string
	message string
	fields  []field
	header  [][2]string
	cause   error
}

func (e *apiError) Error() string {
	if e.cause != nil {
		return "s3: " + e.code + ": " + e.message + ": " + e.cause.Error()
	}
	return "s3: " + e.code + ": " + e.message
}

func (e *apiError) Unwrap() error {
	kind := errs.Invalid
	switch {
	case e.status == http.StatusForbidden:
		kind = errs.Denied
	case e.status == http.StatusNotFound:
		kind = errs.NotFound
	case e.status == http.StatusNotImplemented:
		kind = errs.Unsupported
	case e.status >= 500:
		kind = errs.Unavailable
	}
	return &errs.Error{Kind: kind, Op: "s3", Code: e.code, Message: e.message, Err: e.cause}
}

func (e *apiError) because(err error) *apiError { e.cause = err; return e }

func (e *apiError) with(name, value string) *apiError {
	e.fields = append(e.fields, field{name, value})
	return e
}

func (e *apiError) withHeader(name, value string) *apiError {
	e.header = append(e.header, [2]string{name, value})
	return e
}

// fail makes the error of a code that the table knows, in AWS's words.
func fail(code string) *apiError {
	k, ok := codes[code]
	if !ok {
		k = codes["InternalError"]
	}
	return &apiError{status: k.status, code: code, message: k.message}
}

// failf is fail with a message of its own.
func failf(code, format string, args ...any) *apiError {
	e := fail(code)
	e.message = fmt.Sprintf(format, args...)
	return e
}

// invalidArgument is AWS's answer to a header or parameter with a bad value.
func invalidArgument(name, value, format string, args ...any) *apiError {
	return failf("InvalidArgument", format, args...).with("ArgumentName", name).with("ArgumentValue", value)
}

// notImplemented refuses a header or parameter that asks for what is not built.
func notImplemented(name string) *apiError {
	return fail("NotImplemented").with("Header", name)
}

// toAPI turns any error into what the client sees. The text of a cause is never
// shown when the failure is ours.
func (q *request) toAPI(err error) *apiError {
	if q.body != nil && q.body.err != nil {
		// What was wrong with the upload explains every error that followed from it.
		err = q.body.err
	}
	var e *apiError
	if !errors.As(err, &e) {
		e = fromErrs(err)
	}
	switch e.code {
	case "NoSuchBucket", "InvalidBucketName", "BucketAlreadyExists", "BucketAlreadyOwnedByYou", "BucketNotEmpty":
		if len(e.fields) == 0 {
			return e.with("BucketName", q.bucket)
		}
	case "NoSuchKey":
		if len(e.fields) == 0 {
			return e.with("Key", q.key)
		}
	case "NoSuchVersion":
		if len(e.fields) == 0 {
			return e.with("Key", q.key).with("VersionId", q.query.get("versionId"))
		}
	case "NoSuchUpload":
		if len(e.fields) == 0 {
			return e.with("UploadId", q.query.get("uploadId"))
		}
	}
	return e
}

// fromErrs maps an error of the layers below: by its code where that is one of
// S3's, else by its kind.
func fromErrs(err error) *apiError {
	kind, code := errs.KindOf(err), errs.CodeOf(err)
	switch kind {
	// What these mean does not depend on where they were met.
	case errs.Sealed:
		return fail("Sealed").because(err).withHeader("Retry-After", "60")
	case errs.Corrupt:
		return fail("InternalError").because(err)
	}
	if _, ok := codes[code]; ok {
		e := fail(code).because(err)
		if e.status < 500 && (code == "InvalidArgument" || code == "InvalidRequest") {
			e.message = messageOf(err, e.message)
		}
		return e
	}
	switch kind {
	case errs.Invalid:
		return failf("InvalidRequest", "%s", messageOf(err, "Invalid Request")).because(err)
	case errs.NotFound:
		return fail("NoSuchKey").because(err)
	case errs.Exists, errs.Conflict:
		return fail("OperationAborted").because(err)
	case errs.Denied, errs.Unauthenticated:
		return fail("AccessDenied").because(err)
	case errs.Unavailable:
		return fail("ServiceUnavailable").because(err).withHeader("Retry-After", "1")
	case errs.Exhausted:
		return fail("InsufficientStorage").because(err)
	case errs.Unsupported:
		return fail("NotImplemented").because(err)
	case errs.Destroyed:
		return fail("KMS.KMSInvalidStateException").because(err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fail("ServiceUnavailable").because(err)
	}
	return fail("InternalError").because(err)
}

// messageOf returns the first message of the chain that was meant for the caller.
func messageOf(err error, otherwise string) string {
	for err != nil {
		e, ok := errors.AsType[*errs.Error](err)
		if !ok {
			break
		}
		if e.Message != "" {
			return e.Message
		}
		err = e.Err
	}
	return otherwise
}

// fail answers with an error; if the answer has begun it breaks the connection,
// so that the client cannot take half of it for the whole.
func (q *request) fail(err error) {
	if isGone(q.ctx, err) && (q.body == nil || q.body.err == nil) {
		panic(http.ErrAbortHandler)
	}
	e := q.toAPI(err)
	if e.status >= 500 && e.status != http.StatusNotImplemented || q.started {
		q.h.failed(q.id, err)
	}
	if q.started {
		panic(http.ErrAbortHandler)
	}
	q.boundDrain()
	hd := q.w.Header()
	for name := range hd {
		switch name {
		case "Server", "X-Amz-Request-Id", "X-Amz-Id-2":
		case "ETag", "Last-Modified":
			if e.status != http.StatusNotModified && e.status != http.StatusPreconditionFailed {
				delete(hd, name)
			}
		default:
			delete(hd, name) // of an answer that is not to be
		}
	}
	for _, f := range e.header {
		hd.Set(f[0], f[1])
	}
	if e.status == http.StatusNotModified {
		q.start(e.status)
		return
	}
	x := newXML()
	defer x.free()
	x.document()
	q.errorXML(x, e)
	hd.Set("Content-Type", "application/xml")
	if q.r.Method == http.MethodHead {
		// Go would count what HEAD must not send; AWS sends no length either.
		q.start(e.status)
		return
	}
	hd.Set("Content-Length", strconv.Itoa(len(x.b)))
	q.start(e.status)
	q.w.Write(x.b) //nolint:errcheck // the client is gone; nothing is left to do
}

func (q *request) errorXML(x *xmlBuf, e *apiError) {
	x.open("Error")
	x.text("Code", e.code)
	x.text("Message", e.message)
	for _, f := range e.fields {
		x.text(f.name, printable(f.value))
	}
	x.text("Resource", printable(q.resourcePath()))
	x.text("RequestId", q.id)
	x.text("HostId", q.hostID)
	x.close("Error")
}

// printable replaces what XML 1.0 cannot carry: an error must be readable by every parser.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return 0xFFFD
		}
		return r
	}, s)
}

func (q *request) resourcePath() string {
	switch {
	case q.bucket == "":
		return "/"
	case q.key == "":
		return "/" + q.bucket
	}
	return "/" + q.bucket + "/" + q.key
}

// start sends the status line.
func (q *request) start(status int) {
	q.started = true
	q.w.WriteHeader(status)
}

// preconditionOf returns a PreconditionFailed made of err, or nil if err is something else.
func preconditionOf(err error) *apiError {
	if errs.CodeOf(err) != "PreconditionFailed" {
		return nil
	}
	return fail("PreconditionFailed").because(err)
}
