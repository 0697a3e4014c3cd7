package objects

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// skipAhead is how many keys below a common prefix a scan steps over before it
// jumps past all of them with a new scan: small directories cost no new scan,
// large ones cost the same as small ones.
const skipAhead = 16

// scanner pages through entries in order, rolling up common prefixes.
type scanner struct {
	// base is the prefix in the store of everything listed. name turns what
	// follows it into the key that prefix and delimiter are about; escaped
	// turns such a key (or prefix) into the bytes that follow base.
	base              []byte
	name              func(rest []byte) (string, bool)
	escaped           func(string) []byte
	prefix, delimiter string
	// start is the first key in the store to look at; nil is the beginning.
	start []byte
	// inside is a common prefix that was rolled up on an earlier page: skipped.
	inside string
	max    int
}

// commonPrefix returns what key is rolled up into: up to the first delimiter after the prefix.
func (s *scanner) commonPrefix(key string) (string, bool) {
	if s.delimiter == "" {
		return "", false
	}
	i := strings.Index(key[len(s.prefix):], s.delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(s.prefix)+i+len(s.delimiter)], true
}

// markInside makes run skip the common prefix that a marker lies in.
func (s *scanner) markInside(marker string) {
	if strings.HasPrefix(marker, s.prefix) {
		s.inside, _ = s.commonPrefix(marker)
	}
}

// run calls entry for each key that is not rolled up and roll for each common
// prefix, at most max in all. It reports whether there is more.
func (s *scanner) run(ctx context.Context, r store.Reader, entry func(key string, rest, value []byte) error, roll func(string)) (more bool, err error) {
	low := append(bytes.Clone(s.base), s.escaped(s.prefix)...)
	rng := store.Prefix(low)
	if bytes.Compare(s.start, rng.Start) > 0 {
		rng.Start = s.start
	}
	count := 0
	common := s.inside
	for {
		if rng.End != nil && bytes.Compare(rng.Start, rng.End) >= 0 {
			return false, nil
		}
		jump, skipped := false, 0
		err = r.Scan(ctx, rng, func(k, v []byte) (bool, error) {
			rest := k[len(s.base):]
			key, ok := s.name(rest)
			if !ok || !strings.HasPrefix(key, s.prefix) {
				return false, corrupt("objects.List", "key")
			}
			if common != "" && strings.HasPrefix(key, common) {
				skipped++
				jump = skipped > skipAhead
				return !jump, nil
			}
			common, skipped = "", 0
			if count == s.max {
				more = true
				return false, nil
			}
			count++
			if p, ok := s.commonPrefix(key); ok {
				common = p
				roll(p)
				return true, nil
			}
			return true, entry(key, rest, v)
		})
		if err != nil || !jump {
			return more, err
		}
		rng.Start = store.After(append(bytes.Clone(s.base), s.escaped(common)...))
	}
}

// listBegin is how many entries a page grows to before it gets room for all.
const listBegin = 64

// List lists the current versions of a bucket's keys in byte order. Its cost is
// that of the page, whatever lies below the common prefixes. An After inside a
// common prefix skips all of that prefix, as S3 does.
func (e *Engine) List(ctx context.Context, in List) (Listing, error) {
	const op = "objects.List"
	if err := checkPage(op, in.Max, in.Prefix, in.Delimiter, in.After); err != nil {
		return Listing{}, err
	}
	bk, l, err := e.open(ctx, op, in.Bucket)
	if err != nil {
		return Listing{}, err
	}
	s := scanner{
		base:    inBucket(pObject, bk.id, ""),
		name:    func(rest []byte) (string, bool) { return string(rest), true },
		escaped: func(k string) []byte { return []byte(k) },
		prefix:  in.Prefix, delimiter: in.Delimiter, max: in.Max,
	}
	if in.After != "" {
		s.start = append(append(bytes.Clone(s.base), in.After...), 0) // the first key after it
		s.markInside(in.After)
	}
	out := Listing{}
	keyID := l.KeyID()
	var aad []byte
	more, err := s.run(ctx, e.store, func(key string, rest, value []byte) error {
		h, err := parseHead(value)
		if err != nil {
			return err
		}
		aad = appendBound(aad[:0], whatObject, bk.id, value[:headSize], rest)
		r := record{head: h}
		if err := r.open(l, whatObject, aad, value, true); err != nil {
			return err
		}
		if len(out.Objects) == listBegin {
			out.Objects = slices.Grow(out.Objects, in.Max-listBegin)
		}
		out.Objects = append(out.Objects, r.object(bk.name, key, keyID))
		out.Next = key
		return nil
	}, func(p string) {
		out.CommonPrefixes = append(out.CommonPrefixes, p)
		out.Next = p
	})
	if err != nil {
		return Listing{}, errs.Wrap(op, err)
	}
	if out.Truncated = more; !more {
		out.Next = ""
	}
	return out, nil
}

// checkPage bounds what a listing may ask.
func checkPage(op string, max int, texts ...string) error {
	if max < 1 || max > MaxList {
		return invalidArgument(op, "a page holds 1 to %d entries", MaxList)
	}
	for _, t := range texts {
		if len(t) > MaxKey {
			return errs.Coded(errs.Invalid, op, codeKeyTooLong, "Your key is too long")
		}
	}
	return nil
}
