package revlog

import (
	"context"
	"strings"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// Get reads a key as it is now. The revision returned is one at which this
// held. A key that does not exist is nil without an error.
func (l *Log) Get(ctx context.Context, key string) (*KV, int64, error) {
	const op = "revlog.Get"
	if err := l.checkKey(op, key); err != nil {
		return nil, 0, err
	}
	// The revision is read first: the key's state is at least that new.
	rev := l.hub.revision()
	kv, err := l.getCurrent(ctx, l.st, key)
	if err != nil {
		return nil, 0, errs.Wrap(op, err)
	}
	if kv != nil {
		rev = max(rev, kv.Modified)
	}
	return kv, rev, nil
}

// Query asks for a page of the keys that begin with Prefix.
type Query struct {
	Prefix string
	// From is the first key wanted; empty for the first of all.
	From string
	// Exact asks for the one key that equals Prefix.
	Exact bool
	// Limit bounds the page; 0 is no bound.
	Limit int
	// Revision to read at; 0 is the newest.
	Revision int64
	// CountOnly fills in Page.Count and no entries.
	CountOnly bool
}

// Page answers a Query.
type Page struct {
	KVs []*KV
	// Revision at which the page was read.
	Revision int64
	// Count is the number of keys from Query.From on, those in the page included.
	Count int64
}

// List reads a page at one revision. Errors: CodeCompacted, CodeFuture.
func (l *Log) List(ctx context.Context, q Query) (Page, error) {
	const op = "revlog.List"
	if err := l.checkKey(op, q.Prefix); err != nil {
		return Page{}, err
	}
	snap, err := l.st.Snapshot(ctx)
	if err != nil {
		return Page{}, errs.Wrap(op, err)
	}
	defer snap.Close()
	current, err := readCounter(ctx, snap, l.keys.revision())
	if err != nil {
		return Page{}, errs.Wrap(op, err)
	}
	page := Page{Revision: current}
	var old []*KV // values that held at q.Revision and were superseded since, in order of key
	if q.Revision != 0 && q.Revision != current {
		if q.Revision > current {
			return Page{}, errs.Coded(errs.Invalid, op, CodeFuture, "revision %d has not happened yet, the newest is %d", q.Revision, current)
		}
		if err := l.checkCompacted(ctx, snap, op, q.Revision); err != nil {
			return Page{}, err
		}
		page.Revision = q.Revision
		if old, err = l.superseded(ctx, snap, q); err != nil {
			return Page{}, errs.Wrap(op, err)
		}
	}
	add := func(kv *KV) {
		page.Count++
		if !q.CountOnly && (q.Limit <= 0 || len(page.KVs) < q.Limit) {
			kv.Value = append([]byte(nil), kv.Value...)
			page.KVs = append(page.KVs, kv)
		}
	}
	head := len(l.keys) + 1
	err = snap.Scan(ctx, q.rangeOf(l.keys.current), func(k, v []byte) (bool, error) {
		kv, _, err := decodeRecord(string(k[head:]), v)
		if err != nil {
			return false, err
		}
		if q.Exact && kv.Key != q.Prefix {
			return false, nil
		}
		for len(old) > 0 && old[0].Key < kv.Key {
			add(old[0])
			old = old[1:]
		}
		if kv.Modified <= page.Revision {
			add(kv)
		}
		return true, nil
	})
	if err != nil {
		return Page{}, errs.Wrap(op, err)
	}
	for _, kv := range old {
		add(kv)
	}
	return page, nil
}

// superseded lists the values that held at q.Revision and do not now.
func (l *Log) superseded(ctx context.Context, r store.Reader, q Query) ([]*KV, error) {
	var out []*KV
	head := len(l.keys) + 1
	err := r.Scan(ctx, q.rangeOf(l.keys.versions), func(k, v []byte) (bool, error) {
		if len(k) < head+10 {
			return false, errs.New(errs.Corrupt, "revlog.List", "a version's key is too short")
		}
		kv, until, err := decodeRecord(string(k[head:len(k)-9]), v)
		if err != nil {
			return false, err
		}
		if q.Exact && kv.Key != q.Prefix {
			return !strings.HasPrefix(kv.Key, q.Prefix) || kv.Key < q.Prefix, nil
		}
		if kv.Modified <= q.Revision && q.Revision < until && kv.Key >= q.From {
			kv.Value = append([]byte(nil), kv.Value...)
			out = append(out, kv)
		}
		return true, nil
	})
	return out, err
}

// rangeOf is the store's range for the query in one of the key spaces.
func (q Query) rangeOf(space func(string) []byte) store.Range {
	r := store.Prefix(space(q.Prefix))
	if q.From > q.Prefix {
		r.Start = space(q.From)
	}
	return r
}

func (l *Log) checkCompacted(ctx context.Context, r store.Reader, op string, rev int64) error {
	compacted, err := readCounter(ctx, r, l.keys.compacted())
	if err != nil {
		return errs.Wrap(op, err)
	}
	if rev < compacted {
		return compactedError(op, rev, compacted)
	}
	return nil
}

func compactedError(op string, rev, compacted int64) error {
	return errs.Coded(errs.Conflict, op, CodeCompacted, "revision %d is no longer kept, history starts at %d", rev, compacted)
}
