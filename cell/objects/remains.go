package objects

import (
	"bytes"
	"context"

	"chancery/internal/store"
)

// remainsPerCommit bounds how many objects or parts one commit of removeRemains deletes.
const remainsPerCommit = 500

// removeRemains deletes everything in a bucket whose key is destroyed and that is
// marked as ending. Nothing of it can be read any more; only ids are needed.
func (e *Engine) removeRemains(ctx context.Context, bk *bucketInfo) error {
	for _, prefix := range [][]byte{
		inBucket(pObject, bk.id, ""), inBucket(pPart, bk.id, ""), inBucket(pUpload, bk.id, ""),
	} {
		for {
			n, err := e.removeSome(ctx, bk, prefix)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
		}
	}
	return nil
}

// removeSome deletes the first entries under prefix with their contents.
func (e *Engine) removeSome(ctx context.Context, bk *bucketInfo, prefix []byte) (int, error) {
	var list []entry
	err := e.store.Scan(ctx, store.Prefix(prefix), func(k, v []byte) (bool, error) {
		list = append(list, entry{bytes.Clone(k), bytes.Clone(v)})
		return len(list) < remainsPerCommit, nil
	})
	if err != nil || len(list) == 0 {
		return 0, err
	}
	type removal struct {
		of   contentID
		gone []contentID
	}
	var removals []removal
	var b store.Batch
	b.IfEquals(stateKey(bk.id), stateValue(stateEnding, bk.name))
	for _, it := range list {
		b.Delete(it.key)
		switch {
		case bytes.HasPrefix(prefix, []byte(pUpload)):
			var id uploadID
			copy(id[:], it.key[len(it.key)-len(id):])
			b.Delete(key2(pIntentU, string(id[:])))
			continue
		case bytes.HasPrefix(prefix, []byte(pObject)):
			h, err := parseHead(it.value)
			if err != nil {
				return 0, err
			}
			b.Change(TopicObject, ObjectChange{Removed, bk.id, string(it.key[len(prefix):]), h.id}.encode())
		}
		h, gone, err := e.unlinkRaw(ctx, &b, bk.id, it.value)
		if err != nil {
			return 0, err
		}
		removals = append(removals, removal{h.id, gone})
	}
	if _, err := e.store.Commit(ctx, &b); err != nil {
		return 0, err
	}
	for _, r := range removals {
		e.removeBlobs(ctx, r.of, r.gone)
	}
	return len(list), nil
}
