package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// BootstrapAdministrator is the name of the first administrator's token.
const BootstrapAdministrator = "administrator"

// tokenPrefix makes a leaked token easy to find for secret scanners.
const tokenPrefix = "chancery_"

// tokenLength is the length of every token: the prefix and 32 random bytes in base64url.
const tokenLength = len(tokenPrefix) + 43

type tokenRecord struct {
	// Digest is SHA-256 of the token.
	Digest        []byte    `json:"digest"`
	Name          string    `json:"name"`
	Administrator bool      `json:"administrator,omitempty"`
	Ceremony      string    `json:"ceremony,omitempty"`
	Created       time.Time `json:"created"`
}

func (r tokenRecord) token() Token {
	return Token{Name: r.Name, Administrator: r.Administrator, Ceremony: r.Ceremony, Created: r.Created}
}

// CreateToken makes a token and returns its text, the only time that it is seen.
// The caller zeroes it. Errors: errs.Invalid, errs.Exists (the name is taken).
func (d *Directory) CreateToken(ctx context.Context, in Token) ([]byte, error) {
	const op = "identity.CreateToken"
	return d.makeToken(ctx, op, in, false)
}

// CreateBootstrapAdministrator makes the first administrator's token, in place of
// one that an Init that was cut short may have left.
func (d *Directory) CreateBootstrapAdministrator(ctx context.Context) (name string, token []byte, err error) {
	const op = "identity.CreateBootstrapAdministrator"
	token, err = d.makeToken(ctx, op, Token{Name: BootstrapAdministrator, Administrator: true}, true)
	return BootstrapAdministrator, token, err
}

// CreateCustodiansAdministrator makes the administrator's token that goes to the
// custodians of a new ceremony. It is in force at once, beside the ones before: see OldBootstrap.
func (d *Directory) CreateCustodiansAdministrator(ctx context.Context, ceremony string) (name string, token []byte, err error) {
	const op = "identity.CreateCustodiansAdministrator"
	if len(ceremony) < 12 || !plain(ceremony) {
		return "", nil, errs.New(errs.Invalid, op, "a ceremony has an id of at least 12 characters")
	}
	name = BootstrapAdministrator + "-" + ceremony[:12]
	token, err = d.makeToken(ctx, op, Token{Name: name, Administrator: true, Ceremony: ceremony}, true)
	return name, token, err
}

// OldBootstrap returns the names of the bootstrap tokens that are not those of the
// ceremony in force: of custodians who went, and of rotations that were given up.
// The first token, which no ceremony is noted of, counts as the present one as long
// as the ceremony has none of its own.
func (d *Directory) OldBootstrap(ctx context.Context, ceremony string) ([]string, error) {
	all, err := d.Tokens(ctx)
	if err != nil {
		return nil, errs.Wrap("identity.OldBootstrap", err)
	}
	own := slices.ContainsFunc(all, func(t Token) bool { return t.Ceremony == ceremony })
	var old []string
	for _, t := range all {
		if t.Ceremony != "" && t.Ceremony != ceremony || own && t.Name == BootstrapAdministrator {
			old = append(old, t.Name)
		}
	}
	return old, nil
}

func (d *Directory) makeToken(ctx context.Context, op string, in Token, replace bool) ([]byte, error) {
	if err := d.ready(op); err != nil {
		return nil, err
	}
	if in.Name == "" || len(in.Name) > maxName || !plain(in.Name) {
		return nil, errs.New(errs.Invalid, op, "a token needs a name of 1 to %d bytes without slash or control character", maxName)
	}
	nameKey := []byte(pName + in.Name)
	var b store.Batch
	old, err := d.st.Get(ctx, nameKey)
	switch {
	case err == nil && !replace:
		return nil, errs.New(errs.Exists, op, "there is a token named %s", in.Name)
	case err == nil:
		b.IfEquals(nameKey, old)
		b.Delete(append([]byte(pToken), old...))
	case errs.Is(err, errs.NotFound):
		b.IfAbsent(nameKey)
	default:
		return nil, errs.Wrap(op, err)
	}

	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails (it ends the program)
	token := base64.RawURLEncoding.AppendEncode([]byte(tokenPrefix), raw[:])
	clear(raw[:])
	digest := sha256.Sum256(token)
	r := tokenRecord{Digest: digest[:], Name: in.Name, Administrator: in.Administrator, Ceremony: in.Ceremony, Created: time.Now().UTC().Truncate(time.Second)}
	v, err := json.Marshal(r)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	b.Put(append([]byte(pToken), digest[:]...), v)
	b.Put(nameKey, digest[:])
	defer d.tokens.empty()
	if _, err := d.st.Commit(ctx, &b); err != nil {
		clear(token)
		return nil, errs.Wrap(op, err)
	}
	return token, nil
}

// Authenticate tells whose bearer token it is. Anything but a present token is
// errs.Unauthenticated, with one message for all cases. The look-up is by
// SHA-256 of the token, so that its time tells nothing about stored tokens.
func (d *Directory) Authenticate(ctx context.Context, bearer string) (Token, error) {
	const op = "identity.Authenticate"
	if err := d.ready(op); err != nil {
		return Token{}, err
	}
	refused := errs.New(errs.Unauthenticated, op, "the token is not known here")
	if len(bearer) != tokenLength || !strings.HasPrefix(bearer, tokenPrefix) {
		return Token{}, refused
	}
	digest := sha256.Sum256([]byte(bearer))
	r, age, ok := d.tokens.get(string(digest[:]))
	if !ok {
		v, err := d.st.Get(ctx, append([]byte(pToken), digest[:]...))
		if errs.Is(err, errs.NotFound) {
			return Token{}, refused
		}
		if err != nil {
			return Token{}, errs.Wrap(op, err)
		}
		if r, err = decodeToken(v); err != nil {
			return Token{}, errs.Wrap(op, err)
		}
	}
	if subtle.ConstantTimeCompare(r.Digest, digest[:]) != 1 {
		return Token{}, refused
	}
	if !ok {
		d.tokens.put(string(digest[:]), r, age)
	}
	return r.token(), nil
}

func decodeToken(v []byte) (tokenRecord, error) {
	var r tokenRecord
	if json.Unmarshal(v, &r) != nil || r.Name == "" || len(r.Digest) != sha256.Size {
		return tokenRecord{}, errs.New(errs.Corrupt, "identity.decodeToken", "a token's record is malformed")
	}
	return r, nil
}

// Tokens lists what is known of all tokens, by name.
func (d *Directory) Tokens(ctx context.Context) ([]Token, error) {
	const op = "identity.Tokens"
	if err := d.ready(op); err != nil {
		return nil, err
	}
	snap, err := d.st.Snapshot(ctx)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	defer func() { _ = snap.Close() }()
	out := []Token{}
	err = snap.Scan(ctx, store.Prefix([]byte(pName)), func(_, digest []byte) (bool, error) {
		v, err := snap.Get(ctx, append([]byte(pToken), digest...))
		if err != nil {
			return false, err
		}
		r, err := decodeToken(v)
		if err != nil {
			return false, err
		}
		out = append(out, r.token())
		return true, nil
	})
	return out, errs.Wrap(op, err)
}

// RevokeToken ends a token. When it returns, the token authenticates nothing. Errors: errs.NotFound.
func (d *Directory) RevokeToken(ctx context.Context, name string) error {
	const op = "identity.RevokeToken"
	if err := d.ready(op); err != nil {
		return err
	}
	if name == "" || len(name) > maxName {
		return errs.New(errs.NotFound, op, "there is no such token")
	}
	digest, err := d.st.Get(ctx, []byte(pName+name))
	if err != nil {
		return errs.Wrap(op, err)
	}
	var b store.Batch
	b.IfEquals([]byte(pName+name), digest)
	b.Delete([]byte(pName + name))
	b.Delete(append([]byte(pToken), digest...))
	defer d.tokens.empty()
	_, err = d.st.Commit(ctx, &b)
	return errs.Wrap(op, err)
}
