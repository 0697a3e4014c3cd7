package objects

import (
	"context"
	"sync"
	"time"

	"chancery/cell/blobs"
	"chancery/cell/keys"
	"chancery/internal/errs"
	"chancery/internal/store"
)

// Options are what an Engine is made of. Store, Blobs, Keys and Organization are required.
type Options struct {
	Store store.Store
	Blobs *blobs.Store
	Keys  keys.Manager
	// Organization is the stable id that every stream is bound to.
	Organization string
	// Region is what buckets answer as their location; a bucket asked for in
	// another region is refused. Empty is "us-east-1".
	Region string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Room fails with errs.Exhausted when the disk has no room for size more bytes
	// (0: a little). It must keep back what deletions need. Nil never fails.
	Room func(size int64) error
	// SweepEvery is the time between sweeps of Run; 0 is one hour.
	SweepEvery time.Duration
}

// Engine implements Service. Safe for concurrent use. The zero Engine refuses.
// One process at a time may use a store with its blobs.
type Engine struct {
	opt   Options
	store store.Store
	pins  pins
	// landing orders Sweep after uploads whose blob is durable but not yet in pins.
	landing sync.RWMutex
	// ends are the intents that a delete, complete or abort of this process works on.
	ends    keyLocks
	buckets bucketCache
}

var _ Service = (*Engine)(nil)

// New makes an Engine and puts right what an earlier process left half-way
// (buckets, projects and uploads whose end was begun; keys whose destruction was
// begun). Orphaned blobs are left to Run or Sweep.
func New(ctx context.Context, opt Options) (*Engine, error) {
	const op = "objects.New"
	if opt.Store == nil || opt.Blobs == nil || opt.Keys == nil || opt.Organization == "" {
		return nil, errs.New(errs.Invalid, op, "store, blobs, keys and organization are required")
	}
	if opt.Region == "" {
		opt.Region = "us-east-1"
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.SweepEvery <= 0 {
		opt.SweepEvery = time.Hour
	}
	e := &Engine{opt: opt, store: opt.Store}
	e.pins.init()
	e.buckets.byName = make(map[string]*bucketInfo)
	e.ends.held = make(map[string]struct{})
	if err := e.recover(ctx); err != nil {
		return nil, errs.Wrap(op, err)
	}
	return e, nil
}

// Region is where this engine's buckets are.
func (e *Engine) Region() string { return e.opt.Region }

func (e *Engine) now() time.Time { return e.opt.Now().UTC() }

// ready refuses the zero Engine.
func (e *Engine) ready(op string) error {
	if e == nil || e.store == nil {
		return errs.New(errs.Unavailable, op, "the zero engine")
	}
	return nil
}

// get reads a key; a missing one is nil without an error.
func (e *Engine) get(ctx context.Context, key []byte) ([]byte, error) {
	v, err := e.store.Get(ctx, key)
	if err != nil {
		if notFound(err) {
			return nil, nil
		}
		return nil, err
	}
	if v == nil {
		v = []byte{}
	}
	return v, nil
}

// expect adds the precondition that key still has the value that was read (nil: is absent).
func expect(b *store.Batch, key, raw []byte) {
	if raw == nil {
		b.IfAbsent(key)
	} else {
		b.IfEquals(key, raw)
	}
}

// bucketInfo is a bucket record.
type bucketInfo struct {
	id, name, project, region string
	created                   int64
}

func (b *bucketInfo) encode() []byte {
	var e encoder
	e.byte(recordVersion)
	e.strings(b.id, b.project, b.region)
	e.int(b.created)
	return e.b
}

func decodeBucket(name string, raw []byte) (*bucketInfo, error) {
	d := decoder{b: raw}
	v := d.byte()
	b := &bucketInfo{name: name, id: d.string(), project: d.string(), region: d.string(), created: d.int()}
	if v != recordVersion || !d.end() || len(b.id) != bucketIDSize {
		return nil, corrupt("objects.decodeBucket", "bucket record")
	}
	return b, nil
}

func (b *bucketInfo) bucket() Bucket {
	return Bucket{ID: b.id, Name: b.name, ProjectID: b.project, Region: b.region, Created: time.UnixMilli(b.created).UTC()}
}

// findBucket reads a bucket's record.
func (e *Engine) findBucket(ctx context.Context, op, name string) (*bucketInfo, error) {
	if err := e.ready(op); err != nil {
		return nil, err
	}
	if name == "" || len(name) > 63 {
		return nil, noSuchBucket(op, name)
	}
	b, mark := e.buckets.find(name)
	if b != nil {
		return b, nil
	}
	raw, err := e.get(ctx, bucketKey(name))
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	if raw == nil {
		return nil, noSuchBucket(op, name)
	}
	if b, err = decodeBucket(name, raw); err == nil {
		e.buckets.keep(b, mark)
	}
	return b, err
}

// maxCachedBuckets bounds bucketCache, in buckets of about 200 bytes.
const maxCachedBuckets = 10_000

// bucketCache keeps bucket records that were read. A record never changes; it only
// goes with its bucket, and deletes tell. Writes are safe even with a stale one,
// since they demand the bucket's state in their commit.
type bucketCache struct {
	mu     sync.RWMutex
	byName map[string]*bucketInfo
	// mark grows with every forget, so that what was read before is not kept after.
	mark uint64
}

func (c *bucketCache) find(name string) (*bucketInfo, uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byName[name], c.mark
}

func (c *bucketCache) keep(b *bucketInfo, mark uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mark != mark {
		return
	}
	if len(c.byName) >= maxCachedBuckets {
		clear(c.byName)
	}
	c.byName[b.name] = b
}

func (c *bucketCache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark++
	delete(c.byName, name)
}

// open finds a bucket and leases its keys. After the destruction of the key the error is errs.Destroyed.
func (e *Engine) open(ctx context.Context, op, name string) (*bucketInfo, keys.Lease, error) {
	b, err := e.findBucket(ctx, op, name)
	if err != nil {
		return nil, nil, err
	}
	l, err := e.lease(ctx, op, b)
	if err != nil {
		return nil, nil, err
	}
	return b, l, nil
}

// lease unwraps a bucket's keys. A lease lasts minutes, a body may take hours:
// whatever comes after the reading of a body takes a new one.
func (e *Engine) lease(ctx context.Context, op string, b *bucketInfo) (keys.Lease, error) {
	l, err := e.opt.Keys.Lease(ctx, b.project, b.id, keys.CustomerRequest)
	if err != nil {
		return nil, leaseError(op, err)
	}
	return l, nil
}

// pins know which blobs must not be removed: those of uploads in flight, and
// those of contents that somebody reads part by part.
type pins struct {
	mu sync.Mutex
	// flight are blobs that are written but not yet published or dropped.
	flight map[contentID]struct{}
	// readers counts readers of a multipart content.
	readers map[contentID]int
	// late are blobs to remove when the last reader of a content ends.
	late map[contentID][]contentID
}

func (p *pins) init() {
	p.flight = make(map[contentID]struct{})
	p.readers = make(map[contentID]int)
	p.late = make(map[contentID][]contentID)
}

func (p *pins) takeOff(id contentID) {
	p.mu.Lock()
	p.flight[id] = struct{}{}
	p.mu.Unlock()
}

func (p *pins) land(id contentID) {
	p.mu.Lock()
	delete(p.flight, id)
	p.mu.Unlock()
}

// busy reports whether a blob is in flight or kept for a reader.
func (p *pins) busy(id contentID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.flight[id]; ok {
		return true
	}
	for _, list := range p.late {
		for _, b := range list {
			if b == id {
				return true
			}
		}
	}
	return false
}

func (p *pins) pin(id contentID) {
	p.mu.Lock()
	p.readers[id]++
	p.mu.Unlock()
}

// unpin ends a reading and returns the blobs that may be removed now.
func (p *pins) unpin(id contentID) []contentID {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readers[id]--; p.readers[id] > 0 {
		return nil
	}
	delete(p.readers, id)
	list := p.late[id]
	delete(p.late, id)
	return list
}

// removable returns the blobs of a content that may be removed now; while it is
// read they are kept for unpin.
func (p *pins) removable(id contentID, list []contentID) []contentID {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readers[id] == 0 {
		return list
	}
	p.late[id] = append(p.late[id], list...)
	return nil
}
