package cell

import (
	"context"
	"errors"
	"path/filepath"

	"chancery/cell/control"
	"chancery/cell/keys"
	"chancery/cell/seal"
	"chancery/internal/errs"
	"chancery/internal/store/pebblestore"
	"chancery/wall"
)

// A change of the root (seal.Keeper.Rotate) has these durable steps. In each state
// between them a quorum of the old custodians, of the new ones, or of either opens
// the organization:
//
//	1 seal.json has the new ceremony as next    old: store.key, ring     new: finishes, with the old root that lies
//	                                                                     in seal.json under the new one
//	2 store.key.next: the key under the new root    as before            as before
//	3 the key ring hangs on the new root        refused: ring            finishes, with store.key under the old root
//	4 store.key.next becomes store.key          refused: store.key       finishes
//	5 seal.json has the new ceremony alone      not known any more       opens
//
// Before 3 an unsealing by the old custodians takes everything back.

// custody lets the organization's API change who holds its root key.
type custody struct{ c *Cell }

var _ control.Custody = custody{}

// Present implements control.Custody.
func (u custody) Present() (seal.Present, bool) { return u.c.keeper.Present() }

// Rotate implements control.Custody.
func (u custody) Rotate(ctx context.Context, in wall.Init) error {
	return detached(ctx, func(ctx context.Context) error {
		_, err := u.c.keeper.Rotate(ctx, in)
		if err != nil {
			inside(u.c.log).Error("the root key was not rotated", "error", err)
			return err
		}
		u.c.log.Info("the root key was rotated", "quorum", in.Quorum, "custodians", len(in.Custodians))
		return nil
	})
}

// Destroy implements control.Custody: the keys first, so that even whoever keeps
// copies of shares and of seal.json finds none; then the shares, and the files.
func (u custody) Destroy(ctx context.Context) error {
	return detached(ctx, func(ctx context.Context) error {
		if err := u.c.destroyKeys(ctx); err != nil {
			return err
		}
		return u.c.keeper.Destroy(ctx)
	})
}

// detached runs f to its end, but returns when ctx ends: f may close the services
// that its caller is part of, which waits for the caller.
func detached(ctx context.Context, f func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- f(context.WithoutCancel(ctx)) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errs.WrapKind(errs.Unavailable, "cell.custody", ctx.Err())
	}
}

// custodyOptions is what the Keeper needs. open is how the organization opens.
func (c *Cell) custodyOptions(open func(context.Context, *seal.Root) error) seal.Options {
	return seal.Options{
		Dir: c.config.DataDir, FS: c.fs, Organization: c.config.Organization, Domain: c.config.Domain,
		OnCreate:    c.create,
		OnUnseal:    open,
		OnSeal:      c.sealed,
		OnDestroyed: c.destroyed,
		Bootstrap:   c.bootstrap,
		Rewrap:      c.rewrap,
	}
}

func (c *Cell) nextKeyFile() string { return filepath.Join(c.config.DataDir, storeKeyNext) }

// bootstrap makes the administrator's token that the new custodians get. The old
// one is ended later: see control's custodyReconciler.handOver.
func (c *Cell) bootstrap(ctx context.Context, ceremony string) (string, []byte, error) {
	const op = "cell.bootstrap"
	p, ok := c.gate.enter()
	if !ok {
		return "", nil, errs.New(errs.Sealed, op, "the organization is sealed")
	}
	defer p.leave()
	name, token, err := p.directory.CreateCustodiansAdministrator(ctx, ceremony)
	return name, token, errs.Wrap(op, err)
}

// rewrap puts the store's key and the key ring from the old root under the new one
// (steps 2 to 4). It may be called again after a crash or an error at any point.
func (c *Cell) rewrap(ctx context.Context, old, root *seal.Root) error {
	const op = "cell.rewrap"
	if p, ok := c.gate.enter(); ok {
		defer p.leave()
		key, err := unwrapStoreKey(c.fs, c.keyFile(), c.config.Organization, old)
		if err != nil {
			return errs.Wrap(op, err)
		}
		defer clear(key)
		return errs.Wrap(op, c.rewrapOpen(ctx, p.ring, key, root))
	}
	return errs.Wrap(op, c.rewrapClosed(ctx, old, root))
}

// rewrapOpen does steps 2 to 4 on a ring that is under the old root.
func (c *Cell) rewrapOpen(ctx context.Context, ring *keys.Ring, key []byte, root *seal.Root) error {
	if err := wrapStoreKey(c.fs, c.nextKeyFile(), c.config.Organization, root, key); err != nil {
		return err
	}
	if err := ring.Rewrap(ctx, root); err != nil {
		return err
	}
	return c.exchangeKeyFile()
}

// exchangeKeyFile is step 4.
func (c *Cell) exchangeKeyFile() error {
	if err := c.fs.Rename(c.nextKeyFile(), c.keyFile()); err != nil {
		return err
	}
	return c.fs.SyncDir(c.config.DataDir)
}

// rewrapClosed goes on where a crash or an error cut a rotation short.
func (c *Cell) rewrapClosed(ctx context.Context, old, root *seal.Root) (err error) {
	key, err := unwrapStoreKey(c.fs, c.keyFile(), c.config.Organization, root)
	exchanged := err == nil
	if errs.Is(err, errs.Corrupt) {
		key, err = unwrapStoreKey(c.fs, c.keyFile(), c.config.Organization, old)
	}
	if err != nil {
		return err
	}
	defer clear(key)
	st, err := c.openStore(ctx, key, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	ring, rewrapped, err := c.eitherRing(ctx, st, old, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ring.Close()) }()
	switch {
	case exchanged && rewrapped:
		return nil
	case exchanged: // step 4 never comes before 3: these are not our files as we left them
		return errs.New(errs.Corrupt, "cell.rewrapClosed", "the store's key is under the new root and the key ring under the old")
	case rewrapped:
		if err := wrapStoreKey(c.fs, c.nextKeyFile(), c.config.Organization, root, key); err != nil {
			return err
		}
		return c.exchangeKeyFile()
	}
	return c.rewrapOpen(ctx, ring, key, root)
}

// eitherRing opens the ring under the root that it is under.
func (c *Cell) eitherRing(ctx context.Context, st *pebblestore.Store, old, root *seal.Root) (ring *keys.Ring, rewrapped bool, err error) {
	ring, err = keys.Open(ctx, st, root, c.config.Organization)
	if !errs.Is(err, errs.Corrupt) {
		return ring, true, err
	}
	ring, err = keys.Open(ctx, st, old, c.config.Organization)
	return ring, false, err
}
