package custodian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"

	"filippo.io/age"
	"filippo.io/age/armor"

	"chancery/internal/errs"
	"chancery/wall"
)

// Result is what became of a share.
type Result struct {
	// Custodian is the bearer's name, from the share.
	Custodian string
	// Status is what the cell answered. Its State is Unsealed once the quorum is there.
	Status wall.SealStatus
	// Sent tells whether the share was sent; it is not when the organization is unsealed already.
	Sent bool
	// Repeated tells that the cell had this share already: it counts once.
	Repeated bool
}

// Credential is the first administrator's, for a kubeconfig.
type Credential struct {
	Organization, User string
	// Token is the bearer token. Secret.
	Token string
	// CACertificate is the organization's CA, PEM.
	CACertificate string
}

// String hides the token.
func (c Credential) String() string {
	return "credential of " + c.User + " of " + c.Organization + " (hidden)"
}

// GoString hides the token from %#v.
func (c Credential) GoString() string { return c.String() }

// Unseal gives the custodian's share to the organization at endpoint. See Client.Unseal.
func Unseal(ctx context.Context, endpoint, serverName string, id *Identity) (Result, error) {
	return (&Client{Endpoint: endpoint, ServerName: serverName}).Unseal(ctx, id)
}

// Bootstrap fetches the first administrator's credential. See Client.Bootstrap.
func Bootstrap(ctx context.Context, endpoint, serverName string, id *Identity) (Credential, error) {
	return (&Client{Endpoint: endpoint, ServerName: serverName}).Bootstrap(ctx, id)
}

// Status fetches what the seal service tells anyone. Nothing vouches for it.
func (c *Client) Status(ctx context.Context) (wall.SealStatus, error) {
	s, err := c.session()
	if err != nil {
		return wall.SealStatus{}, err
	}
	defer s.close()
	return s.status(ctx)
}

// Unseal fetches the custodian's own share from the cell, decrypts it, and sends
// it back only if it names this organization and the TLS key of this very
// connection. No authority and no earlier visit is needed for that: the share,
// which nobody but its maker and its bearer could have known, carries the pin.
// errs.Denied: something does not fit, and nothing was sent.
func (c *Client) Unseal(ctx context.Context, id *Identity) (Result, error) {
	const op = "custodian.Unseal"
	s, err := c.session()
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	st, err := s.status(ctx)
	if err != nil {
		return Result{}, errs.Wrap(op, err)
	}
	switch st.State {
	case wall.Unsealed:
		return Result{Status: st}, nil
	case wall.SealedState:
	case wall.Destroyed:
		return Result{}, errs.New(errs.Destroyed, op, "the organization was destroyed")
	default:
		return Result{}, errs.New(errs.Conflict, op, "the organization is not initialized")
	}
	p, raw, err := c.ownShare(ctx, s, st, id)
	defer clear(raw)
	defer p.Zero()
	if err != nil {
		return Result{}, errs.Wrap(op, err)
	}
	b, err := s.call(ctx, http.MethodPost, wall.PathSealUnseal, raw)
	if err != nil {
		return Result{}, errs.Wrap(op, err)
	}
	var after wall.SealStatus
	if err := s.parseStatus(b, &after); err != nil {
		return Result{}, errs.Wrap(op, err)
	}
	// The share was taken, also if it cannot be remembered where.
	repeated := after.State == wall.SealedState && after.SharesGiven == st.SharesGiven
	return Result{Custodian: p.Custodian, Status: after, Sent: true, Repeated: repeated}, errs.Wrap(op, c.Known.remember(c.ServerName, p))
}

// Bootstrap fetches the first administrator's credential and checks it against
// the custodian's own share: the same organization, ceremony, TLS key and CA.
func (c *Client) Bootstrap(ctx context.Context, id *Identity) (Credential, error) {
	const op = "custodian.Bootstrap"
	s, err := c.session()
	if err != nil {
		return Credential{}, err
	}
	defer s.close()
	st, err := s.status(ctx)
	if err != nil {
		return Credential{}, errs.Wrap(op, err)
	}
	p, raw, err := c.ownShare(ctx, s, st, id)
	clear(raw)
	defer p.Zero()
	if err != nil {
		return Credential{}, errs.Wrap(op, err)
	}
	file, err := s.call(ctx, http.MethodGet, wall.PathSealBootstrap, nil)
	if err != nil {
		return Credential{}, errs.Wrap(op, err)
	}
	plain, err := decrypt(file, id)
	if err != nil {
		return Credential{}, errs.Wrap(op, err)
	}
	defer clear(plain)
	b, err := wall.ParseBootstrap(plain)
	if err != nil {
		return Credential{}, errs.WrapKind(errs.Denied, op, err)
	}
	block, rest := pem.Decode([]byte(b.CACertificate))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
		return Credential{}, errs.New(errs.Denied, op, "the bootstrap credential has no CA certificate; it is forged or damaged")
	}
	sum := sha256.Sum256(block.Bytes)
	if b.Organization != p.Organization || b.Ceremony != p.Ceremony || b.Pin != p.Pin || b.CA != p.CA || hex.EncodeToString(sum[:]) != p.CA {
		return Credential{}, errs.New(errs.Denied, op, "the bootstrap credential is not of the organization that the share names; it is forged or of another ceremony")
	}
	return Credential{Organization: b.Organization, User: b.User, Token: b.Token, CACertificate: b.CACertificate}, nil
}

// ownShare finds the share that id decrypts, and checks it. raw is its encoding, to be sent as it is.
func (c *Client) ownShare(ctx context.Context, s *session, st wall.SealStatus, id *Identity) (p wall.SharePayload, raw []byte, err error) {
	const op = "custodian.ownShare"
	if id == nil || id.id == nil {
		return p, nil, errs.New(errs.Invalid, op, "there is no identity")
	}
	names := st.Custodians
	if c.Custodian != "" {
		names = []string{c.Custodian}
	}
	for _, name := range names {
		file, err := s.call(ctx, http.MethodGet, wall.PathSealShare+"?custodian="+url.QueryEscape(name), nil)
		if err != nil {
			return p, nil, err
		}
		raw, err = decrypt(file, id)
		if _, other := errors.AsType[*age.NoIdentityMatchError](err); other {
			continue
		}
		if err != nil {
			return p, nil, err
		}
		if p, err = c.check(s, st, name, raw); err != nil {
			clear(raw)
			return wall.SharePayload{}, nil, err
		}
		return p, raw, nil
	}
	return p, nil, errs.New(errs.Denied, op, "none of the organization's shares is for this identity")
}

// check refuses a share that is not for this organization, this bearer and the
// TLS key at the other end.
func (c *Client) check(s *session, st wall.SealStatus, name string, raw []byte) (wall.SharePayload, error) {
	const op = "custodian.check"
	p, err := wall.ParseSharePayload(raw)
	if err != nil {
		return p, errs.WrapKind(errs.Denied, op, err)
	}
	why := ""
	switch {
	case p.Organization != s.organization:
		why = "the share is of organization " + p.Organization + ", not " + s.organization
	case p.Custodian != name:
		why = "the share is of custodian " + p.Custodian + ", but was handed out as that of " + name
	case p.Ceremony != st.Ceremony:
		why = "the share is of another ceremony than the server says"
	case p.Quorum != st.Quorum || p.Shares != len(st.Custodians):
		why = "the server says another quorum than the share"
	case subtle.ConstantTimeCompare([]byte(p.Pin), []byte(s.peer())) != 1:
		why = "the server's TLS key is not the one that the share names: someone stands between you and the cell. Nothing was sent"
	}
	if why == "" {
		if err := c.Known.compare(c.ServerName, p); err != nil {
			p.Zero()
			return wall.SharePayload{}, err
		}
		return p, nil
	}
	p.Zero()
	return wall.SharePayload{}, errs.New(errs.Denied, op, "%s", why)
}

// decrypt opens an armored age file. The error of a file for someone else keeps
// age.NoIdentityMatchError in its chain.
func decrypt(file []byte, id *Identity) ([]byte, error) {
	const op = "custodian.decrypt"
	if id == nil || id.id == nil {
		return nil, errs.New(errs.Invalid, op, "there is no identity")
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(file)), id.id)
	if err != nil {
		return nil, errs.WrapKind(errs.Denied, op, err)
	}
	b, err := readAll(r, wall.MaxSealAnswer)
	if err != nil {
		return nil, errs.WrapKind(errs.Denied, op, err)
	}
	return b, nil
}
