package keys

import (
	"context"
	"sync"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// Root is what the hierarchy hangs on. *seal.Root is one.
type Root interface {
	// Derive returns a 32-byte key for a purpose, the same each time; the caller
	// zeroes it. Without a root key the error is errs.Sealed.
	Derive(info string) ([]byte, error)
}

// Ring is the key hierarchy of one organization, in a store. It implements
// Manager. Keys of organization and projects are in memory only while they
// unwrap others; bucket keys, while a lease runs. Safe for concurrent use; one
// Ring at a time may use a store. The zero Ring refuses with errs.Sealed.
type Ring struct {
	st  store.Store
	org string

	// op makes rotations and destructions one after the other.
	op      sync.Mutex
	purging purging
	// gate is held for writing while the hierarchy changes, for reading while it
	// is read: no lease begins on keys that are being destroyed.
	gate sync.RWMutex
	root Root // nil once closed

	mu    sync.RWMutex
	cache map[bucketID]*lease
	live  map[*lease]struct{} // every lease that has not ended, cached or not
}

type bucketID struct{ project, bucket string }

var _ Manager = (*Ring)(nil)

// renewAfter is the age at which a cached lease is not handed out any more, so
// that who gets one has at least the other half of LeaseTime to use it.
const renewAfter = LeaseTime / 2

// Open opens an organization's hierarchy in a store, and begins it if there is
// none. It proves that the root is the right one (else errs.Corrupt), and ends
// purges that a crash interrupted. org is the organization's stable id, 1 to 128
// letters, digits, '-', '_', '.'. The root stays the caller's: Close does not destroy it.
func Open(ctx context.Context, st store.Store, root Root, org string) (*Ring, error) {
	const op = "keys.Open"
	if st == nil || root == nil {
		return nil, errs.New(errs.Invalid, op, "a store and a root are needed")
	}
	if err := checkID(op, org); err != nil {
		return nil, err
	}
	r := &Ring{st: st, org: org, root: root, cache: map[bucketID]*lease{}, live: map[*lease]struct{}{}, purging: newPurging()}
	if err := r.begin(ctx); err != nil {
		return nil, errs.Wrap(op, err)
	}
	key, _, err := r.organization(ctx, op, r.st)
	if err == nil {
		key.zero()
	} else if !errs.Is(err, errs.Destroyed) { // a destroyed organization opens, and refuses every use
		return nil, errs.Wrap(op, err)
	}
	if err := r.purge(ctx); err != nil {
		return nil, errs.Wrap(op, err)
	}
	return r, nil
}

// begin makes the first organization key if there is none.
func (r *Ring) begin(ctx context.Context) error {
	_, err := r.st.Get(ctx, []byte(orgKey))
	if !errs.Is(err, errs.NotFound) {
		return err
	}
	err = r.st.Scan(ctx, store.Prefix([]byte(prefix)), func(k, v []byte) (bool, error) {
		return false, errs.New(errs.Corrupt, "keys.begin", "the organization's key is gone, but others are there")
	})
	if err != nil {
		return err
	}
	top, err := rootKey(r.root)
	if err != nil {
		return err
	}
	defer top.zero()
	key := newSecret()
	defer key.zero()
	e, err := wrap(top, key, r.orgPlace(1, 1))
	if err != nil {
		return err
	}
	var b store.Batch
	b.IfAbsent([]byte(orgKey))
	b.Put([]byte(orgKey), (&record{stateLive, 1, []entry{e}}).encode())
	_, err = r.st.Commit(ctx, &b)
	return err
}

// Close zeroes every key in memory and forgets the root: afterwards every use,
// of leases too, is errs.Sealed. It waits for uses in progress.
func (r *Ring) Close() error {
	r.gate.Lock()
	defer r.gate.Unlock()
	r.root = nil
	r.endLeases(errSealed("keys.Lease"), func(*lease) bool { return true })
	return nil
}

// rootKey derives the key that the organization's key is wrapped under.
func rootKey(root Root) (*secret, error) {
	const op = "keys.root"
	k, err := root.Derive(rootInfo)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	defer clear(k)
	if len(k) != keySize {
		return nil, errs.New(errs.Internal, op, "the root derives keys of %d bytes", len(k))
	}
	s := secret(k)
	return &s, nil
}

// ready tells whether the ring can be used; the caller holds gate.
func (r *Ring) ready(op string) error {
	if r == nil || r.st == nil || r.root == nil {
		return errSealed(op)
	}
	return nil
}

// load reads a live record. A missing one is errs.NotFound, a tombstone errs.Destroyed.
func (r *Ring) load(ctx context.Context, op string, from store.Reader, key []byte, what string) (*record, error) {
	raw, err := from.Get(ctx, key)
	if errs.Is(err, errs.NotFound) {
		return nil, errs.New(errs.NotFound, op, "the %s has no key", what)
	}
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	rec, err := parseRecord(raw)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	if rec.state == stateDestroyed {
		return nil, errDestroyed(op, what)
	}
	return rec, nil
}

// organization unwraps the organization's key. The caller zeroes it.
func (r *Ring) organization(ctx context.Context, op string, from store.Reader) (*secret, *record, error) {
	rec, err := r.load(ctx, op, from, []byte(orgKey), "organization")
	if err != nil {
		return nil, nil, err
	}
	top, err := rootKey(r.root)
	if err != nil {
		return nil, nil, err
	}
	defer top.zero()
	e := rec.current()
	key, err := unwrap(top, e, r.orgPlace(e.version, rec.parent))
	return key, rec, errs.Wrap(op, err)
}

// project unwraps a project's key. The caller zeroes it.
func (r *Ring) project(ctx context.Context, op string, from store.Reader, project string) (*secret, *record, error) {
	org, orgRec, err := r.organization(ctx, op, from)
	if err != nil {
		return nil, nil, err
	}
	defer org.zero()
	rec, err := r.load(ctx, op, from, projectKey(project), "project")
	if err != nil {
		return nil, nil, err
	}
	if epoch := orgRec.current().version; rec.parent != epoch {
		return nil, nil, errs.New(errs.Corrupt, op, "a project's key is of epoch %d, the organization is in %d", rec.parent, epoch)
	}
	e := rec.current()
	key, err := unwrap(org, e, r.projectPlace(project, e.version, rec.parent))
	return key, rec, errs.Wrap(op, err)
}

// Lease implements Manager.
func (r *Ring) Lease(ctx context.Context, project, bucket string, why Reason) (Lease, error) {
	const op = "keys.Lease"
	switch why {
	case CustomerRequest, ScheduledTask, RestoreDrill, OperatorAssisted:
	default:
		return nil, errs.New(errs.Invalid, op, "a lease needs a reason")
	}
	if r == nil {
		return nil, errSealed(op)
	}
	id := bucketID{project, bucket}
	r.mu.RLock()
	l := r.cache[id]
	r.mu.RUnlock()
	if l != nil && time.Since(l.begun) < renewAfter {
		return l, nil
	}
	l, err := r.begins(ctx, op, id)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// begins unwraps a bucket's keys and begins a lease on them.
func (r *Ring) begins(ctx context.Context, op string, id bucketID) (*lease, error) {
	if err := checkID(op, id.project, id.bucket); err != nil {
		return nil, err
	}
	r.gate.RLock()
	defer r.gate.RUnlock()
	if err := r.ready(op); err != nil {
		return nil, err
	}
	project, projectRec, err := r.project(ctx, op, r.st, id.project)
	if err != nil {
		return nil, err
	}
	defer project.zero()
	rec, err := r.load(ctx, op, r.st, bucketKey(id.project, id.bucket), "bucket")
	if err != nil {
		return nil, err
	}
	if v := projectRec.current().version; rec.parent != v {
		return nil, errs.New(errs.Corrupt, op, "a bucket's key is under version %d of its project's, which is at %d", rec.parent, v)
	}
	l := &lease{
		ring: r, project: id.project, bucket: id.bucket, begun: time.Now(), current: rec.current().version,
		keyID: "arn:aws:kms:chancery:" + r.org + ":key/" + id.bucket,
	}
	for i := range rec.entries {
		v, err := r.lend(project, &rec.entries[i], id, rec.parent)
		if err != nil {
			l.end(nil)
			return nil, errs.Wrap(op, err)
		}
		l.versions = append(l.versions, v)
	}
	r.mu.Lock()
	r.cache[id] = l
	r.live[l] = struct{}{}
	l.timer = time.AfterFunc(LeaseTime, func() { r.expire(l) })
	r.mu.Unlock()
	return l, nil
}

func (r *Ring) lend(project *secret, e *entry, id bucketID, projectVersion uint32) (v leased, err error) {
	v.version = e.version
	if v.key, err = unwrap(project, e, r.bucketPlace(id.project, id.bucket, e.version, projectVersion)); err != nil {
		return v, err
	}
	k, err := recordKey(v.key, r.org, id.bucket)
	if err == nil {
		erasing(func() { v.aead, err = newAEAD(k[:]) })
		k.zero()
	}
	if err != nil {
		v.key.zero()
	}
	return v, err
}

// expire ends a lease whose time is over.
func (r *Ring) expire(l *lease) {
	r.mu.Lock()
	delete(r.live, l)
	if id := (bucketID{l.project, l.bucket}); r.cache[id] == l {
		delete(r.cache, id)
	}
	r.mu.Unlock()
	l.end(errExpired("keys.Lease"))
}

// endLeases ends those that match. The caller holds gate for writing.
func (r *Ring) endLeases(why error, match func(*lease) bool) {
	var over []*lease
	r.mu.Lock()
	for l := range r.live {
		if match(l) {
			over = append(over, l)
			delete(r.live, l)
			if id := (bucketID{l.project, l.bucket}); r.cache[id] == l {
				delete(r.cache, id)
			}
			l.timer.Stop()
		}
	}
	r.mu.Unlock()
	for _, l := range over {
		l.end(why)
	}
}

// forget makes the next Lease of a bucket unwrap anew; running leases go on to their end.
func (r *Ring) forget(project, bucket string) {
	r.mu.Lock()
	delete(r.cache, bucketID{project, bucket})
	r.mu.Unlock()
}
