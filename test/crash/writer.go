package crash

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"

	"github.com/minio/minio-go/v7"
)

// bucket is where everything happens.
const bucket = "crash"

// writer is one client that owns some keys: nobody else writes them, so it knows
// exactly what each may hold.
type writer struct {
	id     int
	client *minio.Client
	core   minio.Core
	rand   *rand.Rand
	keys   []string
	model  map[string]state

	acknowledged int
	unanswered   int
}

func newWriter(id int, client *minio.Client, seed uint64, keys int) *writer {
	w := &writer{id: id, client: client, core: minio.Core{Client: client}, rand: rand.New(rand.NewPCG(seed, uint64(id))), model: make(map[string]state)}
	for k := range keys {
		key := fmt.Sprintf("writer-%d/dir %d/key-é-%d", id, k%3, k)
		w.keys = append(w.keys, key)
		w.model[key] = known(absent)
	}
	return w
}

// sizes around the seams: empty, inline, the inline limit, a segment's edge, several segments, multipart.
var sizes = []int64{0, 1, 100, 4096, 32 << 10, 32<<10 + 1, 64 << 10, 64<<10 + 1, 300_000, 1 << 20}

// run writes until an operation fails (the zone was killed) or ctx ends, and
// returns the failure. One operation at a time, so at most one is unanswered.
func (w *writer) run(ctx context.Context) error {
	for ctx.Err() == nil {
		key := w.keys[w.rand.IntN(len(w.keys))]
		next, op := w.pick(key)
		before := w.model[key]
		w.model[key] = before.orElse(next)
		if err := op(ctx); err != nil {
			w.unanswered++
			return fmt.Errorf("writer %d: %s: %w", w.id, key, err)
		}
		w.model[key] = known(next)
		w.acknowledged++
	}
	return nil
}

// pick chooses an operation on the key, and tells what the key holds if it succeeds.
func (w *writer) pick(key string) (content, func(context.Context) error) {
	c := content{seed: w.rand.Uint64(), size: sizes[w.rand.IntN(len(sizes))]}
	switch n := w.rand.IntN(20); {
	case n < 4:
		return absent, func(ctx context.Context) error {
			return w.client.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{})
		}
	case n == 4:
		c.size = 5<<20 + c.size
		return c, func(ctx context.Context) error { return w.multipart(ctx, key, c) }
	case n == 5:
		source := w.keys[w.rand.IntN(len(w.keys))]
		held := w.model[source]
		if source != key && len(held.candidates) == 1 && held.candidates[0] != absent {
			return held.candidates[0], func(ctx context.Context) error {
				_, err := w.core.CopyObject(ctx, bucket, source, bucket, key, nil, minio.CopySrcOptions{}, minio.PutObjectOptions{})
				return err
			}
		}
	}
	return c, func(ctx context.Context) error {
		_, err := w.core.PutObject(ctx, bucket, key, bytes.NewReader(c.bytes()), c.size, "", "", minio.PutObjectOptions{})
		return err
	}
}

func (w *writer) multipart(ctx context.Context, key string, c content) error {
	id, err := w.core.NewMultipartUpload(ctx, bucket, key, minio.PutObjectOptions{})
	if err != nil {
		return err
	}
	var parts []minio.CompletePart
	body := c.reader()
	for n, left := 1, c.size; left > 0; n++ {
		size := min(left, 5<<20)
		part, err := w.core.PutObjectPart(ctx, bucket, key, id, n, io.LimitReader(body, size), size, minio.PutObjectPartOptions{})
		if err != nil {
			return err
		}
		parts = append(parts, minio.CompletePart{PartNumber: n, ETag: part.ETag})
		left -= size
	}
	_, err = w.core.CompleteMultipartUpload(ctx, bucket, key, id, parts, minio.PutObjectOptions{})
	return err
}

// damage is what a check found wrong.
type damage struct{ lost, wrong, resurrected []string }

func (d damage) any() bool { return len(d.lost)+len(d.wrong)+len(d.resurrected) > 0 }

// verify reads every key back and settles what unanswered writes left.
func (w *writer) verify(ctx context.Context) (damage, error) {
	var d damage
	for _, key := range w.keys {
		got, found, err := w.read(ctx, key)
		if err != nil {
			return d, fmt.Errorf("read %s: %w", key, err)
		}
		held, ok := w.model[key].match(got, found)
		if ok {
			w.model[key] = known(held)
			continue
		}
		line := fmt.Sprintf("%s: want one of %v, found %t with %d bytes", key, w.model[key].candidates, found, len(got))
		switch {
		case !found:
			d.lost = append(d.lost, line)
		case len(w.model[key].candidates) == 1 && w.model[key].candidates[0] == absent:
			d.resurrected = append(d.resurrected, line)
		default:
			d.wrong = append(d.wrong, line)
		}
	}
	return d, nil
}

func (w *writer) read(ctx context.Context, key string) (body []byte, found bool, err error) {
	object, _, _, err := w.core.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if err != nil {
		if minio.ToErrorResponse(err).StatusCode == http.StatusNotFound {
			return nil, false, nil
		}
		return nil, false, err
	}
	defer object.Close()
	body, err = io.ReadAll(object)
	return body, true, err
}

// present is what a listing must show, once verify has settled everything.
func (w *writer) present(into map[string]int64) {
	for key, s := range w.model {
		if c := s.candidates[0]; c != absent {
			into[key] = c.size
		}
	}
}
