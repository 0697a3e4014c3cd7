// Package objects is the meaning of S3: buckets, objects, copies, listings and
// multipart uploads, over the store (records), blobs (bytes) and keys. It knows
// no HTTP, no signature and no XML, and it decides nothing about who may do what
// (the caller asks cell/policy first).
//
// Errors are errs.Error whose Code is the S3 error code.
package objects

import (
	"context"
	"io"
	"time"
)

// Service is all that the layers above use. Implemented by *Engine.
type Service interface {
	// CreateProject and the others manage accounts. A project's id is stable and random; its name is unique.
	CreateProject(ctx context.Context, name string) (Project, error)
	Project(ctx context.Context, name string) (Project, error)
	Projects(ctx context.Context) ([]Project, error)
	// DeleteProject refuses (errs.Conflict) while the project has buckets; it destroys the project's key.
	DeleteProject(ctx context.Context, name string) error

	CreateBucket(ctx context.Context, in CreateBucket) (Bucket, error)
	Bucket(ctx context.Context, name string) (Bucket, error)
	// Buckets lists a project's buckets by name; an empty project id lists all.
	Buckets(ctx context.Context, projectID string) ([]Bucket, error)
	// DeleteBucket refuses (BucketNotEmpty) while there are objects or uploads; it destroys the bucket's key.
	DeleteBucket(ctx context.Context, name string) error

	Put(ctx context.Context, in Put) (Object, error)
	// Get opens an object. The reader must be closed. Ranges and conditions are
	// decided here; a failed condition is an error with Code PreconditionFailed
	// or NotModified (with the Object still returned for its headers). With
	// InvalidRange and InvalidPartNumber the Object is returned too, for its Size.
	Get(ctx context.Context, in Get) (Object, io.ReadCloser, error)
	Head(ctx context.Context, in Get) (Object, error)
	Delete(ctx context.Context, in Delete) (Deleted, error)
	Copy(ctx context.Context, in Copy) (Object, error)
	List(ctx context.Context, in List) (Listing, error)

	CreateUpload(ctx context.Context, in CreateUpload) (Upload, error)
	Upload(ctx context.Context, bucket, key, uploadID string) (Upload, error)
	PutPart(ctx context.Context, in PutPart) (Part, error)
	CopyPart(ctx context.Context, in CopyPart) (Part, error)
	CompleteUpload(ctx context.Context, in CompleteUpload) (Object, error)
	AbortUpload(ctx context.Context, bucket, key, uploadID string) error
	ListParts(ctx context.Context, in ListParts) (PartListing, error)
	ListUploads(ctx context.Context, in ListUploads) (UploadListing, error)
	// Parts lists the parts of a finished multipart object, numbered 1 to N, for
	// GetObjectAttributes; empty if it was a single put. The bool tells that there are more.
	Parts(ctx context.Context, bucket, key, versionID string, after, limit int) ([]Part, bool, error)
}

// Project is an account inside the organization.
type Project struct {
	ID, Name string
	Created  time.Time
}

// Bucket is a bucket. Names are unique in the organization.
type Bucket struct {
	ID, Name  string
	ProjectID string
	Created   time.Time
	Region    string
	// KeyID is the ARN-like id of the key that its objects are encrypted under.
	KeyID string
}

// CreateBucket asks for a bucket. Errors: InvalidBucketName, BucketAlreadyExists
// (another project's), BucketAlreadyOwnedByYou (the same project's).
type CreateBucket struct{ Name, ProjectID, Region string }

// Body is the bytes of an upload. The service reads to EOF, then calls Finish
// before it commits; an error from either aborts the upload and nothing is kept.
// A Body may also be a ChecksumDeclarer.
type Body interface {
	io.Reader
	// Finish verifies what the client promised (signature of the last chunk,
	// Content-MD5, x-amz-content-sha256, checksums in header or trailer) and
	// returns the checksums to store, base64 values by algorithm, and the MD5
	// if it was computed anyway.
	Finish() (Sums, error)
}

// Sums are the results of a Body.
type Sums struct {
	Checksum Checksum
	// MD5 is set only when the client sent Content-MD5; then the ETag is its hex.
	MD5 []byte
}

// Checksum is an S3 additional checksum.
type Checksum struct {
	// Algorithm is CRC32, CRC32C, CRC64NVME, SHA1 or SHA256; empty is none.
	Algorithm string
	// Value is base64, for COMPOSITE with "-N".
	Value string
	// Type is FULL_OBJECT or COMPOSITE.
	Type string
}

// Headers are the content headers and user metadata stored with an object.
type Headers struct {
	ContentType, ContentEncoding, ContentDisposition, ContentLanguage, CacheControl, Expires string
	// User metadata; names lower-case without "x-amz-meta-"; at most 2 KiB in all (MetadataTooLarge).
	User map[string]string
	// StorageClass, as given; STANDARD when empty.
	StorageClass string
}

// Conditions of RFC 9110 section 13 as S3 uses them. Zero fields are not set. ETags without quotes; "*" is any.
type Conditions struct {
	IfMatch, IfNoneMatch               string
	IfModifiedSince, IfUnmodifiedSince time.Time
}

// Object is what is known of one version of an object.
type Object struct {
	Bucket, Key, VersionID string
	Size                   int64
	ETag                   string // without quotes
	Modified               time.Time
	Headers                Headers
	Checksum               Checksum
	KeyID                  string
	// PartCount is 0 for a single put.
	PartCount int
	// Range is what Get returns: first byte, length. For a whole object 0, Size. Partial tells whether a range or part was asked.
	RangeStart, RangeLength int64
	Partial                 bool
}

// Put asks to store an object. Size is -1 if unknown. Conditions: IfMatch, IfNoneMatch.
type Put struct {
	Bucket, Key string
	Body        Body
	Size        int64
	Headers     Headers
	Conditions  Conditions
}

// ByteRange is one range of RFC 9110 section 14.1.2. Exactly one form: From>=0
// with To (-1: to the end), or Suffix>0.
type ByteRange struct{ From, To, Suffix int64 }

// Get asks for an object. Range is nil for all; PartNumber 0 for none. VersionID
// is empty or "null" until versioning comes; another is NoSuchVersion.
type Get struct {
	Bucket, Key, VersionID string
	Range                  *ByteRange
	PartNumber             int
	Conditions             Conditions
}

// Delete asks to delete; conditional with IfMatch.
type Delete struct {
	Bucket, Key, VersionID string
	Conditions             Conditions
}

// Deleted tells what a delete did. A missing key is no error.
type Deleted struct {
	VersionID string
	Existed   bool
}

// Copy asks for a server-side copy. With Replace the Headers are used, else the
// source's; Headers.StorageClass, if set, counts in both cases.
type Copy struct {
	Source            Get // Conditions are those of x-amz-copy-source-if-*
	Bucket, Key       string
	Replace           bool
	Headers           Headers
	Conditions        Conditions
	ChecksumAlgorithm string
}

// List asks for a page of keys in byte order. Max 1 to 1000. After is exclusive
// (start-after, marker, or what a continuation token held).
type List struct {
	Bucket, Prefix, Delimiter, After string
	Max                              int
}

// Listing is a page. Objects carry Key, Size, ETag, Modified, Checksum (algorithm and type), Headers.StorageClass.
type Listing struct {
	Objects        []Object
	CommonPrefixes []string
	Truncated      bool
	// Next is the After of the next page.
	Next string
}

// CreateUpload begins a multipart upload. ChecksumAlgorithm and ChecksumType may be empty.
type CreateUpload struct {
	Bucket, Key                     string
	Headers                         Headers
	ChecksumAlgorithm, ChecksumType string
}

// Upload is a multipart upload in progress.
type Upload struct {
	Bucket, Key, ID                 string
	Initiated                       time.Time
	Headers                         Headers
	ChecksumAlgorithm, ChecksumType string
	KeyID                           string
}

// PutPart stores part Number (1 to 10,000).
type PutPart struct {
	Bucket, Key, UploadID string
	Number                int
	Body                  Body
	Size                  int64
}

// CopyPart stores a part from (a range of) another object.
type CopyPart struct {
	Source                Get
	Bucket, Key, UploadID string
	Number                int
}

// Part is a stored part.
type Part struct {
	Number   int
	Size     int64
	ETag     string
	Modified time.Time
	Checksum Checksum
}

// CompleteUpload ends an upload. Parts must be ascending (InvalidPartOrder),
// known (InvalidPart), and at least 5 MiB but the last (EntityTooSmall). Completing
// again with the same parts answers as before.
type CompleteUpload struct {
	Bucket, Key, UploadID string
	Parts                 []CompletedPart
	// Checksum is the client's claim for the whole object, if any.
	Checksum   Checksum
	Size       int64 // x-amz-mp-object-size; -1 if not given
	Conditions Conditions
}

// CompletedPart names a part of a CompleteUpload.
type CompletedPart struct {
	Number   int
	ETag     string
	Checksum Checksum
}

// ListParts asks for a page of parts with Number > After.
type ListParts struct {
	Bucket, Key, UploadID string
	After, Max            int
}

// PartListing is a page of parts.
type PartListing struct {
	Upload    Upload
	Parts     []Part
	Truncated bool
	Next      int
}

// ListUploads asks for a page of uploads in order of key, then start.
type ListUploads struct {
	Bucket, Prefix, Delimiter, KeyMarker, UploadIDMarker string
	Max                                                  int
}

// UploadListing is a page of uploads.
type UploadListing struct {
	Uploads                           []Upload
	CommonPrefixes                    []string
	Truncated                         bool
	NextKeyMarker, NextUploadIDMarker string
}
