// Package s3load is a load driver for S3 servers: it puts, gets, mixes and lists
// with a number of clients for a time, checks every byte that it reads, and
// measures what clients see (operations, latency) and what the server spends (CPU,
// memory). It knows nothing of our own server: every target is measured alike.
package s3load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"chancery/bench/procstat"
)

// Operation is what a cell of the matrix does.
type Operation string

// The operations. Mixed is 45 % GET, 30 % HEAD, 15 % PUT, 10 % DELETE of an earlier PUT.
const (
	Put   Operation = "put"
	Get   Operation = "get"
	Mixed Operation = "mixed"
	List  Operation = "list"
)

// Cell is one cell of the matrix.
type Cell struct {
	Operation Operation
	// Size of objects in bytes; for List the size is of no matter and objects are small.
	Size int
	// Clients work at the same time, each on its own connection.
	Clients int
	// Duration of the measured part. Operations that began in it are finished and counted.
	Duration time.Duration
	// Warmup is a time of the same work before it that is not measured.
	Warmup time.Duration
	// Settle is how long after it the server's CPU still counts: work that it put off.
	Settle time.Duration
	// Mode of uploads; Unsigned when empty.
	Mode Mode
	// Objects is how many objects are there before get, mixed and list; a sensible number when 0.
	Objects int
}

func (c Cell) check() error {
	switch c.Operation {
	case Put, Get, Mixed, List:
	default:
		return fmt.Errorf("s3load: operation %q: want put, get, mixed or list", c.Operation)
	}
	if c.Size < 0 || c.Size > 5<<30 || c.Clients < 1 || c.Duration <= 0 || c.Warmup < 0 || c.Settle < 0 || c.Objects < 0 {
		return fmt.Errorf("s3load: size %d, clients %d, duration %v: out of bounds", c.Size, c.Clients, c.Duration)
	}
	return nil
}

// objects is how many to prepare: enough to spread over, little enough to be quick and to fit on the disk.
func (c Cell) objects() int {
	switch {
	case c.Objects > 0:
		return c.Objects
	case c.Operation == Put:
		return 0
	case c.Operation == List:
		return 3 * listPage
	default:
		return max(4*c.Clients, min(512, (256<<20)/max(c.Size, 1)))
	}
}

// worker is one client of a cell.
type worker struct {
	id      int
	cell    Cell
	client  *client
	bucket  string
	body    *payload
	scratch []byte
	shared  *prepared
	// mine are keys that this worker has put and not deleted (mixed).
	mine []string
	next int
	// token and listed are where a walk through the listing is.
	token  string
	listed int
	// times are the latencies of the measured operations.
	times []time.Duration
	bytes int64
}

// prepared are the objects that exist before the measured part; read only while it runs.
type prepared struct {
	keys   []string
	bodies []*payload // by index of key: bodies[i%len]
}

// Run measures one cell on one target, in a bucket that it makes and removes.
func Run(ctx context.Context, t Target, cell Cell) (result Result, err error) {
	if err := cell.check(); err != nil {
		return Result{}, err
	}
	if cell.Mode == "" {
		cell.Mode = Unsigned
	}
	c, err := newClient(t, cell.Clients)
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	bucket := "bench-" + strconv.FormatUint(rand.Uint64(), 36)
	if err := c.createBucket(ctx, bucket); err != nil {
		return Result{}, err
	}
	defer func() {
		// What was made is removed even after an interrupt, within a bounded time.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
		defer cancel()
		err = errors.Join(err, empty(ctx, c, bucket, cell.Clients))
	}()

	workers := make([]*worker, cell.Clients)
	shared := &prepared{}
	size := cell.Size
	if cell.Operation == List {
		size = 16
	}
	for i := range workers {
		body, err := newPayload(size, cell.Mode)
		if err != nil {
			return Result{}, err
		}
		workers[i] = &worker{id: i, cell: cell, client: c, bucket: bucket, body: body, scratch: make([]byte, 256<<10), shared: shared}
		shared.bodies = append(shared.bodies, body)
	}
	if err := prepare(ctx, workers, cell.objects()); err != nil {
		return Result{}, fmt.Errorf("prepare: %w", err)
	}
	if cell.Warmup > 0 {
		if _, err := drive(ctx, workers, cell.Warmup); err != nil {
			return Result{}, fmt.Errorf("warm-up: %w", err)
		}
		for _, w := range workers {
			w.times, w.bytes = w.times[:0], 0
		}
	}
	return measure(ctx, t, cell, workers)
}

func measure(ctx context.Context, t Target, cell Cell, workers []*worker) (Result, error) {
	r := Result{Target: t.Name, Operation: cell.Operation, Size: cell.Size, Clients: cell.Clients, Mode: cell.Mode}
	var before procstat.Usage
	if t.PIDs != nil {
		pids, err := t.PIDs()
		if err != nil {
			return r, err
		}
		r.PeakIsOfCell = procstat.ResetPeak(pids)
		if before, err = procstat.Of(pids); err != nil {
			return r, err
		}
	}
	own, err := procstat.Of([]int{selfPID})
	if err != nil {
		return r, err
	}
	elapsed, err := drive(ctx, workers, cell.Duration)
	if err != nil {
		return r, err
	}
	ownAfter, err := procstat.Of([]int{selfPID})
	if err != nil {
		return r, err
	}
	if err := sleep(ctx, cell.Settle); err != nil {
		return r, err
	}
	var times []time.Duration
	var bytes int64
	for _, w := range workers {
		times = append(times, w.times...)
		bytes += w.bytes
	}
	if len(times) == 0 {
		return r, errors.New("s3load: no operation was finished")
	}
	if t.PIDs != nil {
		pids, err := t.PIDs()
		if err != nil {
			return r, err
		}
		after, err := procstat.Of(pids)
		if err != nil {
			return r, err
		}
		if after.CPU < before.CPU {
			return r, errors.New("s3load: a process of the server ended while it was measured; its CPU time is lost")
		}
		r.HasServer = true
		r.ServerCPUPerOp = (after.CPU - before.CPU) / time.Duration(len(times))
		r.PeakRSS = after.PeakRSS
	}
	r.fill(times, bytes, elapsed, (ownAfter.CPU-own.CPU)/time.Duration(len(times)))
	return r, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// drive lets all workers work for a time; each finishes what it began. The first
// error ends all: a measurement with errors in it says nothing.
func drive(ctx context.Context, workers []*worker, d time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.Now()
	var group sync.WaitGroup
	for _, w := range workers {
		group.Go(func() {
			for time.Since(start) < d && ctx.Err() == nil {
				begun := time.Now()
				n, err := w.step(ctx)
				if err != nil {
					cancel(fmt.Errorf("client %d: %w", w.id, err))
					return
				}
				w.times = append(w.times, time.Since(begun))
				w.bytes += n
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return time.Since(start), nil
}

// step does one operation and returns how many bytes of objects it moved.
func (w *worker) step(ctx context.Context) (int64, error) {
	switch w.cell.Operation {
	case Put:
		return w.put(ctx)
	case Get:
		return w.get(ctx)
	case List:
		return 0, w.list(ctx)
	}
	switch dice := rand.IntN(100); {
	case dice < 45:
		return w.get(ctx)
	case dice < 75:
		return 0, w.client.head(ctx, w.bucket, w.shared.keys[rand.IntN(len(w.shared.keys))])
	case dice < 90 || len(w.mine) == 0:
		return w.put(ctx)
	}
	key := w.mine[len(w.mine)-1]
	w.mine = w.mine[:len(w.mine)-1]
	return 0, w.client.delete(ctx, w.bucket, key)
}

func (w *worker) put(ctx context.Context) (int64, error) {
	key := fmt.Sprintf("put/%02d/%08d", w.id, w.next)
	w.next++
	if err := w.client.put(ctx, w.bucket, key, w.body); err != nil {
		return 0, err
	}
	if w.cell.Operation == Mixed {
		w.mine = append(w.mine, key)
	}
	return int64(len(w.body.data)), nil
}

func (w *worker) get(ctx context.Context) (int64, error) {
	i := rand.IntN(len(w.shared.keys))
	want := w.shared.bodies[i%len(w.shared.bodies)].data
	return int64(len(want)), w.client.get(ctx, w.bucket, w.shared.keys[i], want, w.scratch)
}

// list reads one page, the next one each time, and checks at the end of each
// walk that every key was there.
func (w *worker) list(ctx context.Context) error {
	keys, token, err := w.client.list(ctx, w.bucket, "there/", w.token)
	if err != nil {
		return err
	}
	w.listed += len(keys)
	w.token = token
	if token != "" {
		return nil
	}
	if w.listed != len(w.shared.keys) {
		return fmt.Errorf("s3load: a walk found %d keys, want %d", w.listed, len(w.shared.keys))
	}
	w.listed = 0
	return nil
}

// prepare puts n objects, spread over the workers; object i has the body of worker i modulo their number.
func prepare(ctx context.Context, workers []*worker, n int) error {
	shared := workers[0].shared
	for i := range n {
		shared.keys = append(shared.keys, fmt.Sprintf("there/%08d", i))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for _, w := range workers {
		group.Go(func() {
			for i := w.id; i < n && ctx.Err() == nil; i += len(workers) {
				if err := w.client.put(ctx, w.bucket, shared.keys[i], shared.bodies[i%len(shared.bodies)]); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// empty removes the bucket and all in it.
func empty(ctx context.Context, c *client, bucket string, clients int) error {
	for {
		keys, _, err := c.list(ctx, bucket, "", "")
		if err != nil {
			return fmt.Errorf("clean up: %w", err)
		}
		if len(keys) == 0 {
			break
		}
		var next atomic.Int64
		var group sync.WaitGroup
		failures := make([]error, clients)
		for i := range clients {
			group.Go(func() {
				for n := next.Add(1) - 1; int(n) < len(keys) && failures[i] == nil; n = next.Add(1) - 1 {
					failures[i] = c.delete(ctx, bucket, keys[n])
				}
			})
		}
		group.Wait()
		if err := errors.Join(failures...); err != nil {
			return fmt.Errorf("clean up: %w", err)
		}
	}
	if err := c.deleteBucket(ctx, bucket); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}
