// Package errs is the one typed error of the project: what kind of failure, in
// which operation, on what, and why. It is turned into S3 XML, a Kubernetes
// Status or an HTTP problem only at the edge (cell/s3, internal/apiserver, wall).
//
// It must never carry secret material: an error may be logged by either side of
// the wall.
package errs

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says what sort of failure an error is; it decides the status at the edge
// and whether a retry can help. The zero Kind is Internal: an error that nobody
// classified is our fault, never the caller's.
type Kind uint8

const (
	// Internal: a defect of ours, or a cause that nobody classified.
	Internal Kind = iota
	// Invalid: the caller's input is wrong; the same call will never succeed.
	Invalid
	// NotFound: the thing named does not exist (or must look so to this caller).
	NotFound
	// Exists: the thing to be made is there already.
	Exists
	// Conflict: a precondition did not hold; read again and retry.
	Conflict
	// Denied: the caller is known, and may not.
	Denied
	// Unauthenticated: the caller is not who it says, or says nothing.
	Unauthenticated
	// Sealed: the organization is sealed; its custodians must unseal it.
	Sealed
	// Corrupt: stored bytes failed authentication or a checksum.
	Corrupt
	// Unavailable: a passing condition; the same call may succeed later.
	Unavailable
	// Exhausted: no room (disk full, quota, a limit on size or count).
	Exhausted
	// Unsupported: a known feature that is not built or is off here.
	Unsupported
	// Destroyed: the key that the bytes were under has been destroyed on purpose.
	Destroyed
)

var kindNames = [...]string{
	"internal error", "invalid", "not found", "already exists", "conflict", "denied", "unauthenticated",
	"sealed", "corrupt", "unavailable", "exhausted", "not supported", "destroyed",
}

// String returns the kind in plain words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is the project's error.
type Error struct {
	// Kind classifies the failure.
	Kind Kind
	// Op is the operation that failed, "package.Function" or a verb.
	Op string
	// Code is an optional stable machine word of the standard that the edge
	// speaks: for S3 its error code ("NoSuchBucket"), for others a reason.
	Code string
	// Subject names the thing that it is about. Never a secret.
	Subject string
	// Message is one plain sentence for the caller, with the next step if there is one.
	Message string
	// Err is the cause, if any.
	Err error
}

// Error formats as "op: subject: message or kind: cause".
func (e *Error) Error() string {
	var parts []string
	for _, p := range []string{e.Op, e.Subject, e.Message} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	if e.Message == "" {
		parts = append(parts, e.Kind.String())
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an error of a kind with a message for the caller.
func New(kind Kind, op, format string, args ...any) *Error {
	return &Error{Kind: kind, Op: op, Message: fmt.Sprintf(format, args...)}
}

// Coded makes an error with a stable machine word, such as an S3 error code.
func Coded(kind Kind, op, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Op: op, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap gives a cause an operation and keeps the kind and code that it has.
// A nil cause gives nil.
func Wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: KindOf(err), Op: op, Code: CodeOf(err), Err: err}
}

// WrapKind gives a cause a kind and an operation. A nil cause gives nil.
func WrapKind(kind Kind, op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: kind, Op: op, Code: CodeOf(err), Err: err}
}

// KindOf returns the kind of the outermost *Error in err's chain, Internal if there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// CodeOf returns the first non-empty code in err's chain.
func CodeOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Code != "" {
			return e.Code
		}
		err = e.Err
	}
	return ""
}

// Is reports whether err is of the kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }
