package seal

import (
	"context"
	"crypto/subtle"
	"time"

	"chancery/internal/errs"
	"chancery/wall"
)

// PendingTime is how long a share waits in memory for the others.
const PendingTime = 15 * time.Minute

// pendingShares are the verified shares of one ceremony, by index, in protected memory.
type pendingShares struct {
	shares map[int]pendingShare
}

type pendingShare struct {
	mem   *secretMemory
	until time.Time
	timer *time.Timer
}

// live counts shares that have not expired.
func (p *pendingShares) live(now time.Time) int {
	n := 0
	for _, s := range p.shares {
		if now.Before(s.until) {
			n++
		}
	}
	return n
}

func (p *pendingShares) remove(index int) {
	if s, ok := p.shares[index]; ok {
		s.timer.Stop()
		s.mem.destroy()
		delete(p.shares, index)
	}
}

// forgetLocked zeroes all pending shares; mu is held.
func (k *Keeper) forgetLocked() {
	for id, p := range k.pending {
		for i := range p.shares {
			p.remove(i)
		}
		delete(k.pending, id)
	}
}

// SubmitShare takes one custodian's encoded SharePayload, and zeroes it. A share
// that does not fit is refused and its bearer named; a share given twice counts
// once; when the quorum is there the root is rebuilt and OnUnseal called, before
// SubmitShare returns. Errors: errs.Invalid (malformed, other organization or
// ceremony), errs.Denied (a wrong share), errs.Unavailable (too many wrong ones;
// wait), errs.Conflict (not initialized), errs.Destroyed, and those of OnUnseal.
func (k *Keeper) SubmitShare(ctx context.Context, payload []byte) (wall.SealStatus, error) {
	const op = "seal.SubmitShare"
	var none wall.SealStatus
	defer clear(payload)
	p, err := wall.ParseSharePayload(payload)
	if err != nil {
		return none, errs.Wrap(op, err)
	}
	defer p.Zero()
	end, err := k.begin(ctx, op)
	if err != nil {
		return none, err
	}
	defer end()

	k.mu.Lock()
	c, err := k.acceptLocked(&p)
	full := err == nil && k.root == nil && k.pending[c.ID].live(time.Now()) >= c.Quorum
	k.mu.Unlock()
	if err != nil {
		return none, err
	}
	if full {
		// The last custodian's connection may break; the unsealing goes on.
		if err := k.unseal(context.WithoutCancel(ctx), c); err != nil {
			return none, errs.Wrap(op, err)
		}
	}
	return k.Status(), nil
}

// acceptLocked verifies a share and keeps it; mu is held. What is cheap comes
// first: nobody without a genuine share knows the commitments, so only its
// holders reach the elliptic curve.
func (k *Keeper) acceptLocked(p *wall.SharePayload) (*ceremony, error) {
	const op = "seal.SubmitShare"
	switch k.stateLocked() {
	case wall.Uninitialized:
		return nil, errs.New(errs.Conflict, op, "the organization is not initialized")
	case wall.Destroyed:
		return nil, errs.New(errs.Destroyed, op, "the organization was destroyed")
	}
	now := time.Now()
	refuse := func(kind errs.Kind, who, format string, args ...any) (*ceremony, error) {
		if !k.limits.wrong(who, now) {
			return nil, errs.New(errs.Unavailable, op, "too many wrong shares; wait a minute")
		}
		return nil, errs.New(kind, op, format, args...)
	}
	const stranger = ""
	if p.Organization != k.o.Organization {
		return refuse(errs.Invalid, stranger, "the share that %s gave is of organization %s", p.Custodian, p.Organization)
	}
	c := k.ceremonyLocked(p.Ceremony)
	if c == nil {
		return refuse(errs.Invalid, stranger, "the share that %s gave is of another ceremony; fetch the present one", p.Custodian)
	}
	digest := digestOf(p.Organization, p.Ceremony, p.Quorum, p.Shares, p.Commitments)
	if p.Quorum != c.Quorum || p.Shares != len(c.Custodians) ||
		subtle.ConstantTimeCompare([]byte(digest), []byte(c.Commitments)) != 1 {
		return refuse(errs.Denied, stranger, "the share that %s gave is wrong: its commitments are not this ceremony's", p.Custodian)
	}
	who := c.Custodians[p.Index-1].Name // Index ≤ Shares = len(Custodians)
	if p.Custodian != who {
		return refuse(errs.Denied, stranger, "the share that %s gave is wrong: its index is that of %s", p.Custodian, who)
	}
	if p.Pin != k.st.Pin || p.CA != caDigest(k.st.CACertificate) {
		return refuse(errs.Denied, who, "the share that %s gave is wrong: it names another identity of the cell", who)
	}
	if k.limits.blocked(who, now) {
		return nil, errs.New(errs.Unavailable, op, "too many wrong shares from %s; wait a minute", who)
	}
	if !verifyShare(p) {
		return refuse(errs.Denied, who, "the share that %s gave is wrong: it does not fit the commitments", who)
	}
	if k.root != nil {
		return c, nil // unsealed already: verified, and not kept
	}
	return c, k.keepLocked(c, p, now)
}

func (k *Keeper) ceremonyLocked(id string) *ceremony {
	for _, c := range []*ceremony{k.st.Current, k.st.Next} {
		if c != nil && c.ID == id {
			return c
		}
	}
	return nil
}

// keepLocked puts a verified share among the pending ones; mu is held. Given
// again it replaces itself, with a new expiry.
func (k *Keeper) keepLocked(c *ceremony, p *wall.SharePayload, now time.Time) error {
	ps := k.pending[c.ID]
	if ps == nil {
		ps = &pendingShares{shares: map[int]pendingShare{}}
		k.pending[c.ID] = ps
	}
	mem, err := newSecretMemory(len(p.Share))
	if err != nil {
		return errs.Wrap("seal.keep", err)
	}
	copy(mem.data, p.Share)
	ps.remove(p.Index)
	index := p.Index
	var timer *time.Timer
	timer = time.AfterFunc(PendingTime, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		// Only the share that this timer was made for.
		if s, ok := ps.shares[index]; ok && s.timer == timer {
			ps.remove(index)
		}
	})
	ps.shares[index] = pendingShare{mem: mem, until: now.Add(PendingTime), timer: timer}
	return nil
}

// unseal rebuilds the root from the pending shares of a ceremony; op is held.
// The shares are forgotten whether it works or not.
func (k *Keeper) unseal(ctx context.Context, c *ceremony) error {
	const op = "seal.unseal"
	k.mu.Lock()
	shares := map[int][]byte{}
	now := time.Now()
	for i, s := range k.pending[c.ID].shares {
		if now.Before(s.until) {
			shares[i] = append([]byte(nil), s.mem.data...)
		}
	}
	k.forgetLocked()
	st := k.st
	k.mu.Unlock()
	defer func() {
		for _, b := range shares {
			clear(b)
		}
	}()
	secret, err := recoverSecret(c.Quorum, shares)
	if err != nil {
		return errs.Wrap(op, err)
	}
	root, err := rootOf(secret, k.o.Organization, c.salt())
	if err != nil {
		return errs.Wrap(op, err)
	}
	done := false
	defer func() {
		if !done {
			root.Destroy()
		}
	}()
	if err := st.verify(c, root); err != nil {
		return err
	}
	if err := k.settle(ctx, c, root); err != nil {
		return errs.Wrap(op, err)
	}
	if err := k.o.OnUnseal(ctx, root); err != nil {
		if errs.Is(err, errs.Destroyed) {
			// The keys went, and then a crash came.
			if err := k.destroy(ctx); err != nil {
				return errs.Wrap(op, err)
			}
			return errs.New(errs.Destroyed, op, "the organization was destroyed; what a crash had left of it has now gone too")
		}
		if errs.Is(err, errs.Corrupt) && k.overtaken(c) {
			return &errs.Error{Kind: errs.Denied, Op: op, Err: err,
				Message: "the custodians were changed, and the organization is under the new ones' root already; a quorum of the new custodians must unseal it"}
		}
		return &errs.Error{Kind: errs.KindOf(err), Op: op, Err: err,
			Message: "the shares are right, but the organization could not be opened; the cell's own log tells why"}
	}
	if err := k.abandon(c); err != nil {
		k.o.OnSeal(ctx)
		return err
	}
	k.mu.Lock()
	k.root, done = root, true
	k.mu.Unlock()
	return nil
}
