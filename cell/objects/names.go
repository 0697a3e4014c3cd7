package objects

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"chancery/internal/errs"
)

// Limits of S3 (docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html), in
// bytes where not said otherwise.
const (
	// MaxSingle is the most that one put, copy or part may hold.
	MaxSingle = 5 << 30
	// MinPart is the least for every part but the last.
	MinPart = 5 << 20
	// MaxKey bounds an object's key, as UTF-8.
	MaxKey = 1024
	// MaxUserMetadata bounds names and values of user metadata together.
	MaxUserMetadata = 2 << 10
	// maxHeaders bounds all content headers together.
	maxHeaders = 8 << 10
	// maxParts bounds an upload, in parts.
	maxParts = 10_000
	// MaxList bounds a page of a listing, in entries.
	MaxList = 1000
)

// checkBucketName applies the rules for general purpose buckets
// (docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html).
func checkBucketName(op, name string) error {
	ok := len(name) >= 3 && len(name) <= 63
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-' || c == '.':
			edge := i == 0 || i == len(name)-1
			ok = !edge && !(c == '.' && name[i-1] == '.')
		default:
			ok = false
		}
	}
	for _, p := range []string{"xn--", "sthree-", "amzn-s3-demo-"} {
		ok = ok && !strings.HasPrefix(name, p)
	}
	for _, s := range []string{"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"} {
		ok = ok && !strings.HasSuffix(name, s)
	}
	if ok {
		if a, err := netip.ParseAddr(name); err == nil && a.Is4() {
			ok = false
		}
	}
	if !ok {
		e := errs.Coded(errs.Invalid, op, codeBucketName, "The specified bucket is not valid.")
		e.Subject = name
		return e
	}
	return nil
}

// checkProjectName: a project's name is a DNS label (RFC 1123), since it is a namespace too.
func checkProjectName(op, name string) error {
	ok := len(name) >= 1 && len(name) <= 63
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' && i > 0 && i < len(name)-1
	}
	if !ok {
		return errs.New(errs.Invalid, op, "a project's name is 1 to 63 of a-z, 0-9 and '-', with no '-' at its ends")
	}
	return nil
}

// checkKey: an object's key is 1 to 1,024 bytes of UTF-8.
func checkKey(op, key string) error {
	switch {
	case len(key) > MaxKey:
		return errs.Coded(errs.Invalid, op, codeKeyTooLong, "Your key is too long")
	case key == "" || !utf8.ValidString(key):
		return errs.Coded(errs.Invalid, op, codeURI, "Couldn't parse the specified URI.")
	}
	return nil
}

func checkHeaders(op string, h Headers) error {
	n := 0
	for k, v := range h.User {
		n += len(k) + len(v)
	}
	if n > MaxUserMetadata {
		return errs.Coded(errs.Invalid, op, codeMetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size")
	}
	n = len(h.ContentType) + len(h.ContentEncoding) + len(h.ContentDisposition) + len(h.ContentLanguage) +
		len(h.CacheControl) + len(h.Expires) + len(h.StorageClass)
	if n > maxHeaders {
		return errs.Coded(errs.Invalid, op, codeHeaderTooLarge, "Your request header section exceeds the maximum allowed size.")
	}
	return nil
}

func checkSize(op string, n int64) error {
	if n > MaxSingle {
		return entityTooLarge(op)
	}
	return nil
}

func entityTooLarge(op string) error {
	return errs.Coded(errs.Invalid, op, codeEntityTooLarge, "Your proposed upload exceeds the maximum allowed size (5 GiB)")
}
