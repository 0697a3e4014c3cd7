package objects

import (
	"bytes"
	"fmt"

	"chancery/cell/keys"
	"chancery/internal/store"
)

// manyParts publishes an object of count inline parts of size bytes each.
func (w *world) manyParts(bk *bucketInfo, l keys.Lease, key string, count, size int) ([]byte, error) {
	var all []byte
	var parts []*record
	var b store.Batch
	for i := range count {
		d := data(size, uint64(i))
		all = append(all, d...)
		c, err := w.receive(ctx, "t", l, bk, key, source{r: bytes.NewReader(d), size: -1})
		if err != nil {
			return nil, err
		}
		c.etag = opaqueETag()
		c.publish(&b, bk)
		parts = append(parts, &c.record)
	}
	r := &record{head: head{kind: kindParts, id: contentID{1}}, size: int64(len(all)), etag: multipartETag(parts), parts: count}
	if err := w.putTable(l, &b, bk, r, parts); err != nil {
		return nil, err
	}
	value, err := r.seal(l, whatObject, bk.id, []byte(key))
	if err != nil {
		return nil, err
	}
	b.Put(objectKey(bk.id, key), value)
	_, err = w.store.Commit(ctx, &b)
	return all, err
}

// manyObjects publishes count small objects in one commit.
func (w *world) manyObjects(bk *bucketInfo, l keys.Lease, count int) (store.Seq, error) {
	var b store.Batch
	for i := range count {
		key := fmt.Sprintf("dir/object-%06d", i)
		c, err := w.receive(ctx, "t", l, bk, key, source{r: bytes.NewReader(data(64, 1)), size: -1})
		if err != nil {
			return 0, err
		}
		c.etag, c.headers = opaqueETag(), Headers{ContentType: "application/octet-stream", User: map[string]string{"mtime": "1700000000"}}
		c.checksum = Checksum{Algorithm: "CRC64NVME", Value: "AAAAAAAAAAA=", Type: typeFullObject}
		c.publish(&b, bk)
		value, err := c.record.seal(l, whatObject, bk.id, []byte(key))
		if err != nil {
			return 0, err
		}
		b.Put(objectKey(bk.id, key), value)
	}
	return w.store.Commit(ctx, &b)
}
