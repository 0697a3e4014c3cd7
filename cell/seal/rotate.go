package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"

	"chancery/internal/errs"
	"chancery/wall"
)

// Rotate puts the organization under a new root secret with a new quorum; the
// shares of before are worthless afterwards. The organization must be unsealed,
// and stays so. The new custodians get a bootstrap credential of their own, from
// Options.Bootstrap; what becomes of the old one is for the caller to decide.
//
// The order makes each crash recoverable:
//
//  1. seal.json gets the new ceremony as Next, with the old root key sealed under the new root;
//  2. Rewrap puts everything from the old root under the new one;
//  3. seal.json keeps the new ceremony alone.
//
// Between 1 and 3 a quorum of the new custodians unseals and finishes 2 and 3; a
// quorum of the old ones (with copies of their shares) unseals if 2 had not begun, and
// abandons the rotation. If 2 or 3 fails the organization is sealed, in that state.
// The seal service hands out the new shares alone then.
//
// Errors: errs.Invalid, errs.Sealed, errs.Unsupported (no Rewrap), those of Rewrap and of the disk.
func (k *Keeper) Rotate(ctx context.Context, in wall.Init) (wall.Initialized, error) {
	const op = "seal.Rotate"
	var none wall.Initialized
	recipients, err := checkCustodians(in)
	if err != nil {
		return none, errs.Wrap(op, err)
	}
	end, err := k.begin(ctx, op)
	if err != nil {
		return none, err
	}
	defer end()
	if k.o.Rewrap == nil {
		return none, errs.New(errs.Unsupported, op, "this cell cannot rotate its root")
	}
	k.mu.Lock()
	old, was := k.root, k.st
	k.mu.Unlock()
	if old == nil {
		return none, sealedError(op)
	}
	ctx = context.WithoutCancel(ctx) // what has begun is finished

	c, sp, root, err := k.newCeremony(in)
	if err != nil {
		return none, errs.Wrap(op, err)
	}
	defer sp.zero()
	done := false
	defer func() {
		if !done {
			root.Destroy()
		}
	}()
	st := *was
	st.Next = c
	made := Created{CACertificate: st.CACertificate}
	if k.o.Bootstrap != nil {
		if made.Administrator, made.Token, err = k.o.Bootstrap(ctx, c.ID); err != nil {
			return none, errs.Wrap(op, err)
		}
		defer clear(made.Token)
	}
	if err := k.encryptShares(&st, c, sp, recipients, made); err != nil {
		return none, errs.Wrap(op, err)
	}
	if c.Previous, err = sealPrevious(old, root, c.ID); err != nil {
		return none, errs.Wrap(op, err)
	}
	if err := st.seal(c, root); err != nil {
		return none, errs.Wrap(op, err)
	}
	if err := k.save(&st); err != nil {
		// It may be on disk all the same: put the state before back if we can, so
		// that the next start does not ask for shares that nobody was told of.
		_ = k.save(was)
		return none, errs.Wrap(op, err)
	}
	fin, err := k.finish(ctx, &st, old, root)
	if err != nil {
		// What lies under which root is unknown now: only an unseal settles it.
		k.drop(ctx)
		return none, &errs.Error{Kind: errs.KindOf(err), Op: op, Err: err,
			Message: "the rotation is not finished and the organization is sealed; a quorum of the new custodians finishes it by unsealing"}
	}
	k.mu.Lock()
	k.root, done = root, true
	k.forgetLocked()
	k.mu.Unlock()
	old.Destroy()
	return initialized(fin, fin.Current), nil
}

// finish does steps 2 and 3 of a rotation.
func (k *Keeper) finish(ctx context.Context, st *state, old, root *Root) (*state, error) {
	if err := k.o.Rewrap(ctx, old, root); err != nil {
		return nil, err
	}
	c := *st.Next
	c.Previous = ""
	fin := *st
	fin.Current, fin.Next = &c, nil
	if err := fin.seal(&c, root); err != nil {
		return nil, err
	}
	if err := k.save(&fin); err != nil {
		return nil, err
	}
	return &fin, nil
}

// settle is called with the root of ceremony c before the organization is
// opened: it finishes a rotation that was cut short, if c is its new ceremony.
func (k *Keeper) settle(ctx context.Context, c *ceremony, root *Root) error {
	const op = "seal.settle"
	k.mu.Lock()
	st := k.st
	k.mu.Unlock()
	if st.Next == nil || c.ID != st.Next.ID {
		return nil
	}
	if k.o.Rewrap == nil {
		return errs.New(errs.Unsupported, op, "this cell cannot finish the rotation of its root")
	}
	old, err := openPrevious(c.Previous, root, st, c.ID)
	if err != nil {
		return errs.Wrap(op, err)
	}
	defer old.Destroy()
	_, err = k.finish(ctx, st, old, root)
	return errs.Wrap(op, err)
}

// overtaken tells whether c is the old ceremony of a rotation that is under way.
func (k *Keeper) overtaken(c *ceremony) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.st.Next != nil && c.ID != k.st.Next.ID
}

// abandon forgets a rotation after the organization was opened with the old
// root, which OnUnseal allows only if everything is still under it.
func (k *Keeper) abandon(c *ceremony) error {
	k.mu.Lock()
	st := *k.st
	k.mu.Unlock()
	if st.Next == nil || c.ID == st.Next.ID {
		return nil
	}
	st.Next = nil
	return errs.Wrap("seal.abandon", k.save(&st))
}

func previousCipher(root *Root) (cipher.AEAD, error) {
	key, err := root.Derive("seal/previous")
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// sealPrevious encrypts the old root key under the new root, bound to the new ceremony.
func sealPrevious(old, root *Root, id string) (string, error) {
	const op = "seal.sealPrevious"
	a, err := previousCipher(root)
	if err != nil {
		return "", errs.Wrap(op, err)
	}
	old.mu.RLock()
	defer old.mu.RUnlock()
	if old.key == nil {
		return "", sealedError(op)
	}
	return base64.StdEncoding.EncodeToString(a.Seal(nil, nil, old.key.data, []byte("chancery/previous/v1/"+id))), nil
}

// openPrevious reverses it, and checks that the key is that of the present ceremony.
func openPrevious(sealed string, root *Root, st *state, id string) (*Root, error) {
	const op = "seal.openPrevious"
	a, err := previousCipher(root)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, errs.New(errs.Corrupt, op, "the old root key in seal.json is malformed")
	}
	key, err := a.Open(nil, nil, b, []byte("chancery/previous/v1/"+id))
	if err != nil {
		return nil, errs.New(errs.Corrupt, op, "the old root key in seal.json was changed")
	}
	old, err := NewRoot(key, st.Organization, st.Current.salt())
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	if err := st.verify(st.Current, old); err != nil {
		old.Destroy()
		return nil, errs.WrapKind(errs.Corrupt, op, err)
	}
	return old, nil
}
