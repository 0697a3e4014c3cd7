package seal

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"chancery/internal/errs"
	"chancery/wall"
)

const testToken = "bootstrap-token-that-must-not-be-found"

// identities are made once: a post-quantum key pair costs some time.
var identities = sync.OnceValue(func() []*age.HybridIdentity {
	var out []*age.HybridIdentity
	for range 6 {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			panic(err)
		}
		out = append(out, id)
	}
	return out
})

var testCA = sync.OnceValue(func() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: NoEnd, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
})

// cellOf is a cell reduced to what the Keeper sees of it.
type cellOf struct {
	t       testing.TB
	o       Options
	created []byte // derived from the root at OnCreate
	again   bool
	fail    error
	opened  []byte
	live    *Root
	seals   int
}

func newCell(t testing.TB, org string) *cellOf {
	c := &cellOf{t: t}
	c.o = Options{
		Dir: t.TempDir(), Organization: org, Domain: "zone.example",
		OnCreate: func(_ context.Context, r *Root, again bool) (Created, error) {
			var err error
			c.again = again
			if c.created, err = r.Derive("test"); err != nil {
				return Created{}, err
			}
			return Created{CACertificate: testCA(), Administrator: "admin", Token: []byte(testToken)}, c.fail
		},
		OnUnseal: func(_ context.Context, r *Root) error {
			var err error
			if c.opened, err = r.Derive("test"); err != nil {
				return err
			}
			c.live = r
			return c.fail
		},
		OnSeal: func(context.Context) { c.seals++ },
	}
	return c
}

func (c *cellOf) open() *Keeper {
	c.t.Helper()
	k, err := Open(c.o)
	if err != nil {
		c.t.Fatal(err)
	}
	return k
}

func initOf(quorum, n int) wall.Init {
	in := wall.Init{Quorum: quorum}
	for i := range n {
		in.Custodians = append(in.Custodians, wall.Custodian{Name: fmt.Sprintf("c%d", i+1), Recipient: identities()[i].Recipient().String()})
	}
	return in
}

// start makes an initialized cell, and the plaintext of every share.
func start(t testing.TB, org string, quorum, n int) (*cellOf, *Keeper, [][]byte) {
	t.Helper()
	c := newCell(t, org)
	k := c.open()
	made, err := k.Init(t.Context(), initOf(quorum, n))
	if err != nil {
		t.Fatal(err)
	}
	return c, k, sharesOf(t, made, n)
}

func sharesOf(t testing.TB, made wall.Initialized, n int) [][]byte {
	t.Helper()
	if len(made.Shares) != n {
		t.Fatalf("%d shares, want %d", len(made.Shares), n)
	}
	var out [][]byte
	for i := range n {
		out = append(out, decrypt(t, made.Shares[fmt.Sprintf("c%d", i+1)], identities()[i]))
	}
	return out
}

func decrypt(t testing.TB, file string, id age.Identity) []byte {
	t.Helper()
	r, err := age.Decrypt(armorReader(file), id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// give submits a copy (SubmitShare zeroes what it is given).
func give(t testing.TB, k *Keeper, share []byte) (wall.SealStatus, error) {
	t.Helper()
	return k.SubmitShare(t.Context(), bytes.Clone(share))
}

func mustGive(t testing.TB, k *Keeper, share []byte, state wall.SealState, given int) {
	t.Helper()
	s, err := give(t, k, share)
	if err != nil {
		t.Fatal(err)
	}
	if s.State != state || s.SharesGiven != given {
		t.Fatalf("state %s with %d shares, want %s with %d", s.State, s.SharesGiven, state, given)
	}
}

func wantKind(t testing.TB, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) {
		t.Fatalf("error %v, want kind %v", err, kind)
	}
}

// change decodes a share, changes it and encodes it again.
func change(t testing.TB, share []byte, f func(*wall.SharePayload)) []byte {
	t.Helper()
	p, err := wall.ParseSharePayload(share)
	if err != nil {
		t.Fatal(err)
	}
	f(&p)
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A wrong share in the middle of two of three is refused, its bearer is named,
// and the genuine ones still unseal.
func TestTwoOfThreeWithAWrongShareBetween(t *testing.T) {
	c, k, shares := start(t, "health", 2, 3)
	if s := k.Status(); s.State != wall.SealedState {
		t.Fatalf("after Init: %s", s.State)
	}
	mustGive(t, k, shares[0], wall.SealedState, 1)
	wrong := change(t, shares[1], func(p *wall.SharePayload) { p.Share[3] ^= 1 })
	_, err := give(t, k, wrong)
	wantKind(t, err, errs.Denied)
	if !strings.Contains(err.Error(), "c2") {
		t.Fatalf("the bearer is not named: %v", err)
	}
	if s := k.Status(); s.State != wall.SealedState || s.SharesGiven != 1 {
		t.Fatalf("a wrong share changed the state: %+v", s)
	}
	mustGive(t, k, shares[0], wall.SealedState, 1) // repeated: counts once
	mustGive(t, k, shares[2], wall.Unsealed, 0)
	if !bytes.Equal(c.created, c.opened) {
		t.Fatal("the rebuilt root is another one")
	}
	mustGive(t, k, shares[1], wall.Unsealed, 0) // late: verified, not kept

	root := c.live
	if err := k.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Derive("test"); !errs.Is(err, errs.Sealed) {
		t.Fatalf("a sealed root derives: %v", err)
	}
	if c.seals != 1 || k.Status().State != wall.SealedState {
		t.Fatalf("seals %d, state %s", c.seals, k.Status().State)
	}
	// Another process on the same data.
	k2 := c.open()
	mustGive(t, k2, shares[2], wall.SealedState, 1)
	mustGive(t, k2, shares[1], wall.Unsealed, 0)
	if !bytes.Equal(c.created, c.opened) {
		t.Fatal("the rebuilt root is another one")
	}
}

func TestOneOfOne(t *testing.T) {
	c, k, shares := start(t, "demo", 1, 1)
	mustGive(t, k, shares[0], wall.Unsealed, 0)
	if !bytes.Equal(c.created, c.opened) {
		t.Fatal("the rebuilt root is another one")
	}
}

func armorReader(file string) io.Reader { return armor.NewReader(strings.NewReader(file)) }
