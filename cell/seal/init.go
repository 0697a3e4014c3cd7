package seal

import (
	"context"
	"encoding/hex"

	"filippo.io/age"

	"chancery/internal/errs"
	"chancery/wall"
)

// Init makes the root secret, lets OnCreate build everything under it, splits it
// among the custodians and seals again at once. It is complete when seal.json is
// there, and nothing before: after a crash the organization is Uninitialized
// (call Init again) or Sealed with shares that fit. Errors: errs.Invalid (quorum,
// names, recipients), errs.Exists (initialized already), errs.Destroyed, and those of OnCreate.
func (k *Keeper) Init(ctx context.Context, in wall.Init) (wall.Initialized, error) {
	const op = "seal.Init"
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
	switch k.Status().State {
	case wall.Uninitialized:
	case wall.Destroyed:
		return none, errs.New(errs.Destroyed, op, "the organization was destroyed; its name cannot be used again here")
	default:
		return none, errs.New(errs.Exists, op, "the organization is initialized already")
	}

	_, again, err := k.disk.read(initFile, 1)
	if err != nil {
		return none, errs.Wrap(op, err)
	}
	if !again {
		// Before the mark is set: with it the next Init would let OnCreate remove
		// what is here, and a lost seal.json would cost the organization's data.
		if err := k.disk.fresh(); err != nil {
			return none, errs.Wrap(op, err)
		}
	}
	if err := k.disk.write(initFile, nil); err != nil {
		return none, errs.Wrap(op, err)
	}
	st := &state{Format: stateFormat, Organization: k.o.Organization, Pin: k.id.pin}
	c, sp, root, err := k.newCeremony(in)
	if err != nil {
		return none, errs.Wrap(op, err)
	}
	defer sp.zero()
	defer root.Destroy()
	made, err := k.o.OnCreate(ctx, root, again)
	defer clear(made.Token)
	if err != nil {
		return none, errs.Wrap(op, err)
	}
	if caDigest(made.CACertificate) == "" || made.Administrator == "" || len(made.Token) == 0 {
		return none, errs.New(errs.Internal, op, "OnCreate returned no CA certificate or no administrator")
	}
	st.CACertificate = made.CACertificate
	st.Current = c
	if err := k.encryptShares(st, c, sp, recipients, made); err != nil {
		return none, errs.Wrap(op, err)
	}
	if err := st.seal(c, root); err != nil {
		return none, errs.Wrap(op, err)
	}
	if err := k.save(st); err != nil {
		return none, errs.Wrap(op, err)
	}
	// The mark is harmless now, and the next Open removes it if this fails.
	_ = k.disk.remove(initFile)
	return initialized(st, c), nil
}

func initialized(st *state, c *ceremony) wall.Initialized {
	out := wall.Initialized{Shares: map[string]string{}, CACertificate: st.CACertificate, IdentityPin: st.Pin}
	for _, cu := range c.Custodians {
		out.Shares[cu.Name] = cu.Share
	}
	switch {
	case c.Quorum == 1:
		out.Warning = "a quorum of one: each custodian alone can unseal the organization"
	case c.Quorum == len(c.Custodians):
		out.Warning = "every custodian is needed: if one identity is lost the organization can never be unsealed again"
	}
	return out
}

// checkCustodians refuses a quorum out of bounds, names that are no labels or
// not unique, and recipients that are not post-quantum or not unique.
func checkCustodians(in wall.Init) ([]age.Recipient, error) {
	const op = "seal.checkCustodians"
	n := len(in.Custodians)
	if n < 1 || n > wall.MaxCustodians {
		return nil, errs.New(errs.Invalid, op, "there must be 1 to %d custodians, not %d", wall.MaxCustodians, n)
	}
	if in.Quorum < 1 || in.Quorum > n {
		return nil, errs.New(errs.Invalid, op, "the quorum must be 1 to %d (the number of custodians), not %d", n, in.Quorum)
	}
	names, keys := map[string]bool{}, map[string]string{}
	var out []age.Recipient
	for i, c := range in.Custodians {
		if !wall.IsLabel(c.Name) {
			return nil, errs.New(errs.Invalid, op, "the name of custodian %d is not a DNS label (1 to 63 of a-z, 0-9 and hyphen)", i+1)
		}
		if names[c.Name] {
			return nil, errs.New(errs.Invalid, op, "two custodians have the name %s", c.Name)
		}
		names[c.Name] = true
		r, err := parseRecipient(c.Name, c.Recipient)
		if err != nil {
			return nil, err
		}
		key := r.(*age.HybridRecipient).String()
		if other := keys[key]; other != "" {
			// One person with two shares would make the quorum a lie.
			return nil, errs.New(errs.Invalid, op, "custodians %s and %s have the same recipient", other, c.Name)
		}
		keys[key] = c.Name
		out = append(out, r)
	}
	return out, nil
}

// newCeremony draws and splits a root secret. Its shares are not encrypted yet.
func (k *Keeper) newCeremony(in wall.Init) (*ceremony, *splitting, *Root, error) {
	sp, err := split(in.Quorum, len(in.Custodians))
	if err != nil {
		return nil, nil, nil, err
	}
	salt := randomBytes(SaltSize)
	c := &ceremony{ID: hex.EncodeToString(randomBytes(16)), Quorum: in.Quorum, Salt: hex.EncodeToString(salt)}
	c.Commitments = digestOf(k.o.Organization, c.ID, c.Quorum, len(in.Custodians), sp.commitments)
	for _, cu := range in.Custodians {
		c.Custodians = append(c.Custodians, holder{Name: cu.Name})
	}
	root, err := rootOf(sp.secret, k.o.Organization, salt)
	if err != nil {
		sp.zero()
		return nil, nil, nil, err
	}
	return c, sp, root, nil
}

// encryptShares fills in each custodian's share file and the bootstrap file (if there is a token).
func (k *Keeper) encryptShares(st *state, c *ceremony, sp *splitting, to []age.Recipient, made Created) error {
	ca := caDigest(st.CACertificate)
	for i := range c.Custodians {
		p := wall.SharePayload{
			Format: wall.SharePayloadFormat, Organization: st.Organization, Ceremony: c.ID,
			Custodian: c.Custodians[i].Name, Index: i + 1, Quorum: c.Quorum, Shares: len(c.Custodians),
			Pin: st.Pin, CA: ca, Share: sp.shares[i], Commitments: sp.commitments,
		}
		plain, err := p.Encode()
		if err != nil {
			return err
		}
		c.Custodians[i].Recipient = to[i].(*age.HybridRecipient).String()
		c.Custodians[i].Share, err = encryptTo(plain, to[i])
		clear(plain)
		if err != nil {
			return err
		}
	}
	if len(made.Token) == 0 {
		return nil
	}
	plain, err := wall.Bootstrap{
		Format: wall.BootstrapFormat, Organization: st.Organization, Ceremony: c.ID, Pin: st.Pin, CA: ca,
		User: made.Administrator, Token: string(made.Token), CACertificate: made.CACertificate,
	}.Encode()
	if err != nil {
		return err
	}
	defer clear(plain)
	c.Bootstrap, err = encryptTo(plain, to...)
	return err
}
