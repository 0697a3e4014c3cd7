package seal

import (
	"context"
	"sync"
	"time"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/wall"
)

// Files of the Keeper in the cell's data directory.
const (
	stateFile = "seal.json"
	// initFile is there while Init runs: found at Init, it means that an earlier one was cut short.
	initFile = "seal.initializing"
)

// Created is what OnCreate made under the new root.
type Created struct {
	// CACertificate is the organization's CA, PEM, exactly one certificate.
	CACertificate string
	// Administrator and Token are the bootstrap administrator's name and bearer token. The Keeper zeroes Token.
	Administrator string
	Token         []byte
}

// Options configure a Keeper.
type Options struct {
	// Dir is the cell's data directory; it must exist.
	Dir string
	// FS does the file operations. Nil is the operating system's.
	FS files.FS
	// Organization is the organization's name, Domain the zone's DNS domain: the
	// sealed identity is for seal.ORGANIZATION.DOMAIN.
	Organization, Domain string

	// OnCreate is called by Init with the new root, to create the store, the CA
	// and the administrator. It must close all that it opened and must not keep
	// the root, which is destroyed afterwards. Init is complete only after it: if
	// again is true an earlier Init was cut short, and what that one left under
	// another, lost root must be removed first. If again is false and there is
	// something already, refuse with errs.Exists.
	OnCreate func(ctx context.Context, root *Root, again bool) (Created, error)
	// OnUnseal is called with the rebuilt root, to open everything. It must fail
	// unless everything is under this root. If it fails with errs.Destroyed, the
	// Keeper ends a destruction that was cut short. If it fails it must have closed what it
	// opened; the root is destroyed and the organization stays sealed.
	OnUnseal func(ctx context.Context, root *Root) error
	// OnSeal is called after the root was zeroed, to close everything.
	OnSeal func(ctx context.Context)
	// OnDestroyed is called, if it is set, after the destruction is durable and
	// everything was closed: what is left can never be read and may be removed. A
	// crash may come before it; State tells at the next start.
	OnDestroyed func(ctx context.Context)
	// Bootstrap is called by Rotate before anything has changed, with the id of the
	// new ceremony, to make an administrator for the new custodians. It may be for
	// nothing: the rotation may still fail, or be given up later. The Keeper zeroes
	// the token. Nil: the new custodians get no bootstrap credential.
	Bootstrap func(ctx context.Context, ceremony string) (administrator string, token []byte, err error)
	// Rewrap is called by Rotate, and by an unseal that finishes a rotation (the
	// organization is then not open): it durably puts everything that is under old
	// under new, and from then on uses new. It may be called again after a crash or
	// an error at any point, with the same roots. Nil: the root cannot be rotated.
	Rewrap func(ctx context.Context, old, new *Root) error
}

// Keeper is the state machine of the seal: Uninitialized → Sealed ⇄ Unsealed →
// Destroyed. Safe for concurrent use. The zero Keeper refuses.
type Keeper struct {
	o    Options
	disk disk
	id   *Identity
	// op is held by whoever changes the state, so that callbacks run one at a time without holding mu.
	op chan struct{}

	mu      sync.Mutex
	st      *state // nil while Uninitialized
	root    *Root  // nil unless Unsealed
	pending map[string]*pendingShares
	limits  limiter
}

// Open reads the seal's state and the sealed identity (making it if the
// organization is not initialized yet). Errors: errs.Corrupt if a file is
// damaged or they do not fit each other.
func Open(o Options) (*Keeper, error) {
	const op = "seal.Open"
	if !wall.IsLabel(o.Organization) || o.Domain == "" {
		return nil, errs.New(errs.Invalid, op, "a cell needs an organization (a DNS label) and a domain")
	}
	if o.OnCreate == nil || o.OnUnseal == nil || o.OnSeal == nil {
		return nil, errs.New(errs.Internal, op, "a callback is missing")
	}
	k := &Keeper{o: o, disk: disk{o.Dir, o.FS}, op: make(chan struct{}, 1), pending: map[string]*pendingShares{}}
	if o.FS == nil {
		k.disk.fs = files.OS()
	}
	if err := k.load(); err != nil {
		return nil, errs.Wrap(op, err)
	}
	return k, nil
}

func (k *Keeper) load() error {
	const op = "seal.load"
	b, there, err := k.disk.read(stateFile, maxState)
	if err != nil {
		return err
	}
	if there {
		if k.st, err = parseState(b); err != nil {
			return err
		}
		if k.st.Organization != k.o.Organization {
			return errs.New(errs.Corrupt, op, "the data directory belongs to another organization")
		}
		// A crash after seal.json was written may have left the mark.
		if err := k.disk.remove(initFile); err != nil {
			return err
		}
	}
	return k.loadIdentity()
}

func (k *Keeper) loadIdentity() error {
	const op = "seal.loadIdentity"
	b, there, err := k.disk.read(identityFile, maxIdentity)
	if err != nil {
		return err
	}
	bound := k.st != nil && !k.st.Destroyed // custodians' shares name the key
	if !there {
		if bound {
			return errs.New(errs.Corrupt, op, "%s is missing; the custodians' shares name its key, restore it", identityFile)
		}
		if b, err = newIdentity("seal." + k.o.Organization + "." + k.o.Domain); err != nil {
			return err
		}
		if err := k.disk.write(identityFile, b); err != nil {
			return err
		}
	}
	defer clear(b)
	if k.id, err = parseIdentity(b); err != nil {
		return err
	}
	if bound && k.st.Pin != k.id.pin {
		return errs.New(errs.Corrupt, op, "%s holds another key than the custodians' shares name; restore it", identityFile)
	}
	return nil
}

// Identity is the sealed identity. It never changes while the Keeper lives.
func (k *Keeper) Identity() *Identity {
	if k == nil {
		return nil
	}
	return k.id
}

// begin takes the right to change the state, or gives up with ctx.
func (k *Keeper) begin(ctx context.Context, op string) (end func(), err error) {
	if k == nil || k.op == nil {
		return nil, sealedError(op)
	}
	select {
	case k.op <- struct{}{}:
		return func() { <-k.op }, nil
	case <-ctx.Done():
		return nil, errs.WrapKind(errs.Unavailable, op, ctx.Err())
	}
}

// Status is what anyone may know.
func (k *Keeper) Status() wall.SealStatus {
	if k == nil || k.op == nil {
		return wall.SealStatus{State: wall.SealedState}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := wall.SealStatus{Organization: k.o.Organization, State: k.stateLocked(), Custodians: []string{}}
	if c := k.currentLocked(); c != nil {
		s.Ceremony, s.Quorum, s.Custodians = c.ID, c.Quorum, c.names()
		if p := k.pending[c.ID]; p != nil {
			s.SharesGiven = p.live(time.Now())
		}
	}
	return s
}

// Custody is Status and what the zone needs besides; it fills wall.Status.
func (k *Keeper) Custody() (status wall.SealStatus, caCertificate, pin, memory string) {
	status = k.Status()
	if k == nil || k.op == nil {
		return status, "", "", ""
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.st != nil {
		caCertificate = k.st.CACertificate
	}
	return status, caCertificate, k.id.pin, k.root.Memory()
}

// Present is the ceremony in force of an unsealed organization. Nothing in it is secret.
type Present struct {
	// Ceremony is its id, hex.
	Ceremony   string
	Quorum     int
	Custodians []wall.Custodian
	// Memory says where the root key lies.
	Memory string
}

// Present returns the ceremony in force; ok is false unless the organization is
// unsealed, with no rotation under way.
func (k *Keeper) Present() (p Present, ok bool) {
	if k == nil || k.op == nil {
		return p, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stateLocked() != wall.Unsealed || k.st.Next != nil {
		return p, false
	}
	c := k.st.Current
	p = Present{Ceremony: c.ID, Quorum: c.Quorum, Memory: k.root.Memory()}
	for _, h := range c.Custodians {
		p.Custodians = append(p.Custodians, wall.Custodian{Name: h.Name, Recipient: h.Recipient})
	}
	return p, true
}

func (k *Keeper) stateLocked() wall.SealState {
	switch {
	case k.st == nil:
		return wall.Uninitialized
	case k.st.Destroyed:
		return wall.Destroyed
	case k.root != nil:
		return wall.Unsealed
	}
	return wall.SealedState
}

// currentLocked is the ceremony whose shares are asked for: the next one, while
// a rotation is under way, since its root can always finish it.
func (k *Keeper) currentLocked() *ceremony {
	switch {
	case k.st == nil || k.st.Destroyed:
		return nil
	case k.st.Next != nil:
		return k.st.Next
	}
	return k.st.Current
}

// Seal zeroes the root, forgets pending shares and calls OnSeal. Sealing what is
// sealed is no error.
func (k *Keeper) Seal(ctx context.Context) error {
	end, err := k.begin(ctx, "seal.Seal")
	if err != nil {
		return err
	}
	defer end()
	k.drop(context.WithoutCancel(ctx))
	return nil
}

// drop seals; op is held.
func (k *Keeper) drop(ctx context.Context) {
	k.mu.Lock()
	root := k.root
	k.root = nil
	k.forgetLocked()
	k.mu.Unlock()
	if root != nil {
		root.Destroy()
		k.o.OnSeal(ctx)
	}
}

// Destroy ends the organization: the shares leave seal.json for ever and the
// root is zeroed. The organization must be unsealed, so that no less than a
// quorum can do it. The keys under the root are destroyed by cell/keys, before.
func (k *Keeper) Destroy(ctx context.Context) error {
	const op = "seal.Destroy"
	end, err := k.begin(ctx, op)
	if err != nil {
		return err
	}
	defer end()
	k.mu.Lock()
	now := k.stateLocked()
	k.mu.Unlock()
	if now == wall.Destroyed {
		return nil
	}
	if now != wall.Unsealed {
		return errs.New(errs.Sealed, op, "only an unsealed organization can be destroyed; its custodians must unseal it first")
	}
	return errs.Wrap(op, k.destroy(context.WithoutCancel(ctx)))
}

// destroy makes the end durable; op is held.
func (k *Keeper) destroy(ctx context.Context) error {
	if err := k.save(&state{Format: stateFormat, Organization: k.o.Organization, Destroyed: true}); err != nil {
		return err
	}
	k.drop(ctx)
	if k.o.OnDestroyed != nil {
		k.o.OnDestroyed(ctx)
	}
	return nil
}

// save makes a state durable and then the present one.
func (k *Keeper) save(st *state) error {
	b, err := st.encode()
	if err != nil {
		return err
	}
	if len(b) > maxState {
		return errs.New(errs.Exhausted, "seal.save", "seal.json would be larger than %d bytes", maxState)
	}
	if err := k.disk.write(stateFile, b); err != nil {
		return err
	}
	k.mu.Lock()
	k.st = st
	k.mu.Unlock()
	return nil
}
