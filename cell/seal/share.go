package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"

	"chancery/internal/errs"
	"chancery/wall"
)

// The root secret is a scalar of ristretto255 (RFC 9496): circl's NIST groups
// are not constant-time. Element and scalar encodings have 32 bytes.
var sharingGroup = group.Ristretto255

// splitting is a fresh root secret, split. All of it is secret.
type splitting struct {
	secret      []byte   // 32 bytes
	shares      [][]byte // index i is the share of x = i+1
	commitments [][]byte // one for each share of the quorum
}

func (s *splitting) zero() {
	clear(s.secret)
	for _, b := range s.shares {
		clear(b)
	}
	for _, b := range s.commitments {
		clear(b)
	}
}

// split draws a root secret and splits it: any quorum of n shares recovers it,
// fewer tell nothing (Shamir 1979); the commitments verify each share (Feldman 1987).
func split(quorum, n int) (*splitting, error) {
	const op = "seal.split"
	if n < 1 || n > wall.MaxCustodians || quorum < 1 || quorum > n {
		return nil, errs.New(errs.Invalid, op, "a quorum needs 1 ≤ quorum ≤ custodians ≤ %d", wall.MaxCustodians)
	}
	out := &splitting{}
	var err error
	erasing(func() {
		secret := sharingGroup.RandomNonZeroScalar(rand.Reader)
		defer secret.SetUint64(0)
		// circl counts corrupted parties that are tolerated: quorum-1 learn nothing.
		ss := secretsharing.New(rand.Reader, uint(quorum-1), secret)
		if out.secret, err = copyOf(secret.MarshalBinary()); err != nil {
			return
		}
		for _, sh := range ss.Share(uint(n)) {
			var b []byte
			if b, err = copyOf(sh.Value.MarshalBinary()); err != nil {
				return
			}
			sh.Value.SetUint64(0)
			out.shares = append(out.shares, b)
		}
		for _, c := range ss.CommitSecret() {
			var b []byte
			if b, err = copyOf(c.MarshalBinary()); err != nil {
				return
			}
			out.commitments = append(out.commitments, b)
		}
	})
	if err == nil && len(out.commitments) != quorum {
		// The highest coefficient was zero: as likely as guessing the secret.
		err = errs.New(errs.Internal, op, "the random generator is broken")
	}
	if err != nil {
		out.zero()
		return nil, errs.Wrap(op, err)
	}
	return out, nil
}

func copyOf(b []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, "seal.encode", err)
	}
	out := append([]byte(nil), b...)
	clear(b)
	return out, nil
}

// verifyShare reports whether the share lies on the polynomial that the
// commitments bind. The caller has checked the commitments' digest.
func verifyShare(p *wall.SharePayload) bool {
	ok := false
	erasing(func() {
		value := sharingGroup.NewScalar()
		defer value.SetUint64(0)
		if value.UnmarshalBinary(p.Share) != nil {
			return
		}
		var commitments secretsharing.SecretCommitment
		for _, c := range p.Commitments {
			e := sharingGroup.NewElement()
			if e.UnmarshalBinary(c) != nil {
				return
			}
			commitments = append(commitments, e)
		}
		id := sharingGroup.NewScalar().SetUint64(uint64(p.Index))
		ok = secretsharing.Verify(uint(p.Quorum-1), secretsharing.Share{ID: id, Value: value}, commitments)
	})
	return ok
}

// recoverSecret rebuilds the root secret from verified shares by index.
func recoverSecret(quorum int, shares map[int][]byte) ([]byte, error) {
	const op = "seal.recover"
	var out []byte
	var err error
	erasing(func() {
		var list []secretsharing.Share
		defer func() {
			for _, s := range list {
				s.Value.SetUint64(0)
			}
		}()
		for i, b := range shares {
			v := sharingGroup.NewScalar()
			if err = v.UnmarshalBinary(b); err != nil {
				return
			}
			list = append(list, secretsharing.Share{ID: sharingGroup.NewScalar().SetUint64(uint64(i)), Value: v})
		}
		var s group.Scalar
		if s, err = secretsharing.Recover(uint(quorum-1), list); err != nil {
			return
		}
		out, err = copyOf(s.MarshalBinary())
		s.SetUint64(0)
	})
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	return out, nil
}

// rootOf gives the root key of a root secret: HKDF-SHA256 with the salt and the
// organization's name. It zeroes the secret.
func rootOf(secret []byte, organization string, salt []byte) (*Root, error) {
	defer clear(secret)
	key := make([]byte, RootKeySize)
	var err error
	erasing(func() {
		var k []byte
		if k, err = hkdf.Key(sha256.New, secret, salt, infoRoot+organization, RootKeySize); err == nil {
			copy(key, k)
			clear(k)
		}
	})
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, "seal.rootOf", err)
	}
	return NewRoot(key, organization, salt)
}

// digestOf binds the commitments to their organization, ceremony and numbers.
// It may be public: the commitments have the entropy of group elements that
// nobody can enumerate.
func digestOf(organization, ceremony string, quorum, n int, commitments [][]byte) string {
	h := sha256.New()
	h.Write([]byte("chancery/commitments/v1\x00" + organization + "\x00" + ceremony + "\x00"))
	h.Write([]byte{byte(quorum), byte(n)})
	for _, c := range commitments {
		h.Write(c)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// parseRecipient accepts post-quantum age recipients alone.
func parseRecipient(custodian, s string) (age.Recipient, error) {
	const op = "seal.parseRecipient"
	s = strings.TrimSpace(s)
	if strings.HasPrefix(strings.ToUpper(s), "AGE-SECRET-KEY-") {
		return nil, errs.New(errs.Invalid, op, "custodian %s: this is a secret identity, not a recipient; give the public key (age1pq1…) and make a new identity", custodian)
	}
	if strings.HasPrefix(s, "age1") && !strings.HasPrefix(s, "age1pq1") {
		return nil, errs.New(errs.Invalid, op, "custodian %s: this age recipient is not post-quantum; make an identity with chancery custodian keygen (or age-keygen -pq) and give its public key (age1pq1…)", custodian)
	}
	r, err := age.ParseHybridRecipient(s)
	if err != nil {
		// age's error repeats the input, which might be a secret pasted by mistake.
		return nil, errs.New(errs.Invalid, op, "custodian %s: this is not a post-quantum age recipient (age1pq1…)", custodian)
	}
	return r, nil
}

// encryptTo makes an armored age file.
func encryptTo(plain []byte, to ...age.Recipient) (string, error) {
	const op = "seal.encryptTo"
	var buf bytes.Buffer
	a := armor.NewWriter(&buf)
	w, err := age.Encrypt(a, to...)
	if err != nil {
		return "", errs.WrapKind(errs.Internal, op, err)
	}
	for _, step := range []func() error{
		func() error { _, err := w.Write(plain); return err },
		w.Close,
		a.Close,
	} {
		if err := step(); err != nil {
			return "", errs.WrapKind(errs.Internal, op, err)
		}
	}
	return buf.String(), nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = io.ReadFull(rand.Reader, b) // crypto/rand never fails (it ends the program)
	return b
}
