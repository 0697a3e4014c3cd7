package objects

import (
	"context"
	"errors"
	"io"

	"chancery/internal/errs"
)

// S3 error codes that this package answers with
// (docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
const (
	codeNoSuchBucket     = "NoSuchBucket"
	codeNoSuchKey        = "NoSuchKey"
	codeNoSuchVersion    = "NoSuchVersion"
	codeNoSuchUpload     = "NoSuchUpload"
	codeBucketExists     = "BucketAlreadyExists"
	codeBucketOwned      = "BucketAlreadyOwnedByYou"
	codeBucketNotEmpty   = "BucketNotEmpty"
	codeBucketName       = "InvalidBucketName"
	codeLocation         = "InvalidLocationConstraint"
	codeArgument         = "InvalidArgument"
	codeRequest          = "InvalidRequest"
	codeURI              = "InvalidURI"
	codeKeyTooLong       = "KeyTooLongError"
	codeMetadataTooLarge = "MetadataTooLarge"
	codeHeaderTooLarge   = "RequestHeaderSectionTooLarge"
	codeEntityTooLarge   = "EntityTooLarge"
	codeEntityTooSmall   = "EntityTooSmall"
	codeIncompleteBody   = "IncompleteBody"
	codeBadDigest        = "BadDigest"
	codePrecondition     = "PreconditionFailed"
	codeNotModified      = "NotModified"
	codeConditional      = "ConditionalRequestConflict"
	codeAborted          = "OperationAborted"
	codeRange            = "InvalidRange"
	codePartNumber       = "InvalidPartNumber"
	codePart             = "InvalidPart"
	codePartOrder        = "InvalidPartOrder"
	codeMalformed        = "MalformedXML"
)

func noSuchBucket(op, name string) error {
	e := errs.Coded(errs.NotFound, op, codeNoSuchBucket, "The specified bucket does not exist")
	e.Subject = name
	return e
}

func noSuchKey(op, key string) error {
	e := errs.Coded(errs.NotFound, op, codeNoSuchKey, "The specified key does not exist.")
	e.Subject = key
	return e
}

func noSuchUpload(op, id string) error {
	e := errs.Coded(errs.NotFound, op, codeNoSuchUpload,
		"The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.")
	e.Subject = id
	return e
}

func preconditionFailed(op string) error {
	return errs.Coded(errs.Conflict, op, codePrecondition, "At least one of the pre-conditions you specified did not hold")
}

func invalidArgument(op, format string, args ...any) error {
	return errs.Coded(errs.Invalid, op, codeArgument, format, args...)
}

func corrupt(op, what string) error {
	return errs.New(errs.Corrupt, op, "stored %s cannot be read", what)
}

// notFound reports whether err is the store's or the blob engine's "not there".
func notFound(err error) bool { return errs.Is(err, errs.NotFound) }

// neverCommitted reports whether a Commit that failed with err has certainly
// changed nothing. When it is not certain, what the batch would have published
// must not be removed: it may be published. Sweep finds out later.
func neverCommitted(err error) bool {
	switch errs.KindOf(err) {
	case errs.Conflict, errs.Invalid, errs.Exhausted:
		return true
	}
	return false
}

// bodyError gives an error of the client's body an S3 code if it has none: a
// body that ends early is the client's doing, not ours.
func bodyError(op string, err error) error {
	if errs.CodeOf(err) != "" {
		return errs.Wrap(op, err)
	}
	if _, typed := errors.AsType[*errs.Error](err); typed {
		return errs.Wrap(op, err)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return errs.WrapKind(errs.Unavailable, op, err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		e := errs.Coded(errs.Invalid, op, codeIncompleteBody,
			"You did not provide the number of bytes specified by the Content-Length HTTP header.")
		e.Err = err
		return e
	}
	return errs.WrapKind(errs.Invalid, op, err)
}
