package objects

import (
	"strings"
	"time"

	"chancery/internal/errs"
)

// set reports whether any condition is set.
func (c Conditions) set() bool {
	return c.IfMatch != "" || c.IfNoneMatch != "" || !c.IfModifiedSince.IsZero() || !c.IfUnmodifiedSince.IsZero()
}

// matches reports whether a list of entity tags ("*" or comma-separated, with or
// without quotes) names etag. weak compares as RFC 9110 section 8.8.3.2 does for
// If-None-Match; the strong comparison of If-Match never takes a weak tag.
func matches(list, etag string, weak bool) bool {
	for _, t := range strings.Split(list, ",") {
		t = strings.TrimSpace(t)
		if t == "*" {
			return true
		}
		if w, ok := strings.CutPrefix(t, "W/"); ok {
			if !weak {
				continue
			}
			t = w
		}
		if len(t) >= 2 && t[0] == '"' && t[len(t)-1] == '"' {
			t = t[1 : len(t)-1]
		}
		if t == etag {
			return true
		}
	}
	return false
}

// checkRead decides a read's conditions in the order of RFC 9110 section 13.2.2,
// which is S3's too: If-Match hides If-Unmodified-Since, If-None-Match hides
// If-Modified-Since. HTTP dates have whole seconds.
func checkRead(op string, c Conditions, r *record) error {
	modified := time.UnixMilli(r.modified).Truncate(time.Second)
	switch {
	case c.IfMatch != "":
		if !matches(c.IfMatch, r.etag, false) {
			return preconditionFailed(op)
		}
	case !c.IfUnmodifiedSince.IsZero() && modified.After(c.IfUnmodifiedSince):
		return preconditionFailed(op)
	}
	notModified := false
	switch {
	case c.IfNoneMatch != "":
		notModified = matches(c.IfNoneMatch, r.etag, true)
	case !c.IfModifiedSince.IsZero():
		notModified = !modified.After(c.IfModifiedSince)
	}
	if notModified {
		return errs.Coded(errs.Conflict, op, codeNotModified, "Not Modified")
	}
	return nil
}

// checkWrite decides a write's conditions against the current record (nil: there
// is none), as docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
// says: If-None-Match with an object there fails (412), If-Match with another ETag
// fails (412), If-Match with no object is NoSuchKey (404).
func checkWrite(op string, c Conditions, key string, cur *record) error {
	if c.IfMatch != "" {
		if cur == nil {
			return noSuchKey(op, key)
		}
		if !matches(c.IfMatch, cur.etag, false) {
			return preconditionFailed(op)
		}
	}
	if c.IfNoneMatch != "" && cur != nil && matches(c.IfNoneMatch, cur.etag, true) {
		return preconditionFailed(op)
	}
	return nil
}
