// Package custodian is the custodian's and the administrator's side of the seal:
// it runs on a person's own machine, makes and reads identities, and gives a
// share to a cell.
//
// It must never send a share to a TLS key other than the one that is named inside
// the share itself, never write a decrypted share anywhere, and never trust what
// the network says about an organization. It imports neither zone nor cell.
package custodian

import (
	"bytes"
	"crypto/fips140"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"chancery/internal/errs"
)

// maxIdentityFile bounds an identity or recipient file, in bytes.
const maxIdentityFile = 1 << 20

// Identity is a custodian's secret: a post-quantum age identity
// (ML-KEM-768 with X25519). The zero Identity opens nothing.
type Identity struct{ id *age.HybridIdentity }

// String hides the secret.
func (i *Identity) String() string { return "custodian identity (hidden)" }

// GoString hides the secret from %#v.
func (i *Identity) GoString() string { return i.String() }

// Recipient is the public side, "age1pq1…": what an organization is created with.
func (i *Identity) Recipient() string {
	if i == nil || i.id == nil {
		return ""
	}
	return i.id.Recipient().String()
}

// Keygen makes an identity. With GODEBUG=fips140=only it is errs.Unsupported:
// age's key generation would never return there.
func Keygen() (*Identity, error) {
	const op = "custodian.Keygen"
	if fips140.Enforced() {
		return nil, errs.New(errs.Unsupported, op, "identities cannot be made with GODEBUG=fips140=only; use fips140=on")
	}
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	return &Identity{id}, nil
}

// WriteFile writes the identity as age-keygen does, with mode 0600: the secret
// and, in a comment, the recipient. An existing file is never replaced (errs.Exists).
func (i *Identity) WriteFile(name string, now time.Time) (err error) {
	const op = "custodian.WriteFile"
	if i == nil || i.id == nil {
		return errs.New(errs.Invalid, op, "there is no identity")
	}
	text := fmt.Appendf(nil, "# created: %s\n# public key: %s\n%s\n", now.Format(time.RFC3339), i.Recipient(), i.id)
	defer clear(text)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return errs.New(errs.Exists, op, "%s exists already; an identity is never overwritten", name)
	}
	if err != nil {
		return errs.WrapKind(errs.Unavailable, op, err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = syncDir(filepath.Dir(name))
	}
	if err != nil {
		_ = os.Remove(name) // ours: it did not exist before
		return errs.WrapKind(errs.Unavailable, op, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// ReadIdentityFile reads a file with exactly one post-quantum identity.
func ReadIdentityFile(name string) (*Identity, error) {
	const op = "custodian.ReadIdentityFile"
	b, err := readFile(op, name)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	id, err := ParseIdentity(b)
	return id, errs.Wrap(op, err)
}

// ParseIdentity parses an identity file's text. Errors (errs.Invalid) never repeat any of it.
func ParseIdentity(b []byte) (*Identity, error) {
	const op = "custodian.ParseIdentity"
	ids, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil {
		return nil, errs.New(errs.Invalid, op, "this is not an age identity file (or it is protected by a passphrase: decrypt it with age first)")
	}
	if len(ids) != 1 {
		return nil, errs.New(errs.Invalid, op, "there are %d identities in the file; give one with exactly one", len(ids))
	}
	h, ok := ids[0].(*age.HybridIdentity)
	if !ok {
		return nil, errs.New(errs.Invalid, op, "this age identity is not post-quantum; make one with chancery custodian keygen (or age-keygen -pq)")
	}
	return &Identity{h}, nil
}

// ReadRecipient reads a custodian's recipient from a file: a recipient alone, or
// an identity file as keygen writes it (its secret is not kept).
func ReadRecipient(name string) (string, error) {
	const op = "custodian.ReadRecipient"
	b, err := readFile(op, name)
	if err != nil {
		return "", err
	}
	defer clear(b)
	r, err := ParseRecipient(b)
	return r, errs.Wrap(op, err)
}

// ParseRecipient finds the one post-quantum recipient in a text: the recipient
// itself, or the one of an identity. Errors (errs.Invalid) never repeat any of it.
func ParseRecipient(b []byte) (string, error) {
	const op = "custodian.ParseRecipient"
	if bytes.Contains(b, []byte("AGE-SECRET-KEY-")) {
		id, err := ParseIdentity(b)
		return id.Recipient(), errs.Wrap(op, err)
	}
	rs, err := age.ParseRecipients(bytes.NewReader(b))
	if err != nil {
		return "", errs.New(errs.Invalid, op, "this is not an age recipient (age1pq1…)")
	}
	if len(rs) != 1 {
		return "", errs.New(errs.Invalid, op, "there are %d recipients in the file; give one with exactly one", len(rs))
	}
	h, ok := rs[0].(*age.HybridRecipient)
	if !ok {
		return "", errs.New(errs.Invalid, op, "this age recipient is not post-quantum; make an identity with chancery custodian keygen (or age-keygen -pq) and give its public key (age1pq1…)")
	}
	return h.String(), nil
}

func readFile(op, name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, op, "there is no file %s", strings.ToValidUTF8(name, "?"))
	}
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	defer func() { _ = f.Close() }()
	b, err := readAll(f, maxIdentityFile)
	return b, errs.Wrap(op, err)
}
