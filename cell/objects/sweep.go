package objects

import (
	"context"
	"log/slog"
	"time"

	"chancery/cell/blobs"
	"chancery/internal/errs"
	"chancery/internal/store"
)

// doneTime is how long a finished upload is remembered, so that completing it
// again answers as before.
const doneTime = 24 * time.Hour

// Swept tells what a Sweep removed.
type Swept struct {
	// Blobs are orphans: blobs that no record names; Bytes their size on disk.
	Blobs int
	Bytes int64
	// Uploads are finished uploads that were forgotten after a day.
	Uploads int
}

// Run sweeps at once and then every Options.SweepEvery, until ctx ends. A sweep
// that fails is logged and tried again at the next time.
func (e *Engine) Run(ctx context.Context, log *slog.Logger) error {
	const op = "objects.Run"
	if err := e.ready(op); err != nil {
		return err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := time.NewTicker(e.opt.SweepEvery)
	defer t.Stop()
	for {
		switch s, err := e.Sweep(ctx); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.Error("sweep of orphaned blobs failed", "error", err)
		case s.Blobs > 0:
			log.Info("swept orphaned blobs", "blobs", s.Blobs, "bytes", s.Bytes)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// Sweep removes what a crash or a failed removal left behind: blobs that no
// record names, and finished uploads that are remembered no longer; and it ends
// destructions of keys that failed. It runs beside every other method and never
// touches a blob of an upload in flight.
func (e *Engine) Sweep(ctx context.Context) (Swept, error) {
	const op = "objects.Sweep"
	var out Swept
	if err := e.ready(op); err != nil {
		return out, err
	}
	var err error
	out.Blobs, out.Bytes, err = e.opt.Blobs.Sweep(ctx, 0, func(id blobs.ID) (bool, error) {
		return e.inUse(ctx, contentID(id))
	})
	if err != nil {
		return out, errs.Wrap(op, err)
	}
	if out.Uploads, err = e.forgetUploads(ctx); err == nil {
		err = e.settle(ctx)
	}
	return out, errs.Wrap(op, err)
}

// inUse decides whether a blob that is not being written is named by a record, or
// will be. Between the end of its writing and its entry in pins an upload holds
// landing; once that was free, a blob is in pins, or published, or an orphan. It
// leaves pins only after it was published or removed: so pins are asked first.
func (e *Engine) inUse(ctx context.Context, id contentID) (bool, error) {
	if raw, err := e.get(ctx, refKey(id)); err != nil || raw != nil {
		return true, err
	}
	e.landing.Lock()
	e.landing.Unlock() //nolint:staticcheck // a barrier, see above
	if e.pins.busy(id) {
		return true, nil
	}
	raw, err := e.get(ctx, refKey(id))
	return raw != nil, err
}

// forgetUploads deletes what finished uploads answered once they are a day old.
func (e *Engine) forgetUploads(ctx context.Context) (int, error) {
	before := e.now().Add(-doneTime).UnixMilli()
	var b store.Batch
	err := e.store.Scan(ctx, store.Prefix([]byte(pDone)), func(k, v []byte) (bool, error) {
		d := decoder{b: v}
		d.byte()
		if at := d.int(); d.bad || at <= before {
			b.Delete(append([]byte(nil), k...))
		}
		return len(b.Ops) < 1000, nil
	})
	if err != nil || len(b.Ops) == 0 {
		return 0, err
	}
	_, err = e.store.Commit(ctx, &b)
	return len(b.Ops), err
}
