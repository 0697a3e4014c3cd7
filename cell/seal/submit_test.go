package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chancery/internal/errs"
	"chancery/wall"
)

// Every set of k shares recovers the root, in any order; no set of k-1 does.
func TestEverySubset(t *testing.T) {
	for _, q := range []struct{ k, n int }{{1, 3}, {2, 3}, {3, 3}, {3, 5}} {
		t.Run(fmt.Sprintf("%d of %d", q.k, q.n), func(t *testing.T) {
			c, k, shares := start(t, "health", q.k, q.n)
			for set := range 1 << q.n {
				var members []int
				for i := range q.n {
					if set>>i&1 == 1 {
						members = append(members, (i+set)%q.n) // some other order than by index
					}
				}
				if len(members) > q.k {
					continue
				}
				c.opened = nil
				for _, m := range members {
					if _, err := give(t, k, shares[m]); err != nil {
						t.Fatal(err)
					}
				}
				unsealed := k.Status().State == wall.Unsealed
				if unsealed != (len(members) == q.k) {
					t.Fatalf("set %v: unsealed %v", members, unsealed)
				}
				if unsealed != bytes.Equal(c.created, c.opened) {
					t.Fatalf("set %v: another root", members)
				}
				if err := k.Seal(t.Context()); err != nil { // forgets pending shares too
					t.Fatal(err)
				}
			}
		})
	}
}

// Fewer shares give nothing even to someone who recovers with a lower threshold.
func TestFewerSharesRecoverAnotherSecret(t *testing.T) {
	for k := 2; k <= 5; k++ {
		sp, err := split(k, 6)
		if err != nil {
			t.Fatal(err)
		}
		few := map[int][]byte{}
		for i := range k - 1 {
			few[i+1] = sp.shares[i]
		}
		if got, err := recoverSecret(k-1, few); err != nil || bytes.Equal(got, sp.secret) {
			t.Fatalf("k-1 = %d shares recovered the secret (%v)", k-1, err)
		}
		if _, err := recoverSecret(k, few); err == nil {
			t.Fatal("recovered from too few")
		}
		few[6] = sp.shares[5]
		if got, err := recoverSecret(k, few); err != nil || !bytes.Equal(got, sp.secret) {
			t.Fatalf("k shares did not recover the secret (%v)", err)
		}
	}
}

func TestLargestQuorum(t *testing.T) {
	sp, err := split(255, 255)
	if err != nil {
		t.Fatal(err)
	}
	p := wall.SharePayload{Format: wall.SharePayloadFormat, Organization: "o", Ceremony: strings.Repeat("a", 32), Custodian: "c", Index: 255,
		Quorum: 255, Shares: 255, Pin: strings.Repeat("a", 64), CA: strings.Repeat("a", 64), Share: sp.shares[254], Commitments: sp.commitments}
	b, err := p.Encode()
	if err != nil || len(b) > wall.MaxSharePayload {
		t.Fatalf("%d bytes, limit %d, %v", len(b), wall.MaxSharePayload, err)
	}
	if !verifyShare(&p) {
		t.Fatal("a genuine share of 255 does not verify")
	}
	for _, bad := range []struct{ k, n int }{{0, 1}, {2, 1}, {1, 256}, {1, 0}, {-1, 3}} {
		_, err := split(bad.k, bad.n)
		wantKind(t, err, errs.Invalid)
	}
}

// Each field of a share is tampered with in turn. Nothing may be taken, and the
// genuine share still works afterwards.
func TestTamperedShares(t *testing.T) {
	other := strings.Repeat("5", 64)
	tests := map[string]struct {
		f    func(*wall.SharePayload)
		kind errs.Kind
	}{
		"format":             {func(p *wall.SharePayload) { p.Format = "chancery.share.v2" }, errs.Invalid},
		"organization":       {func(p *wall.SharePayload) { p.Organization = "wealth" }, errs.Invalid},
		"ceremony":           {func(p *wall.SharePayload) { p.Ceremony = other[:32] }, errs.Invalid},
		"custodian":          {func(p *wall.SharePayload) { p.Custodian = "c2" }, errs.Denied},
		"unknown custodian":  {func(p *wall.SharePayload) { p.Custodian = "mallory" }, errs.Denied},
		"index":              {func(p *wall.SharePayload) { p.Index = 2 }, errs.Denied},
		"index and name":     {func(p *wall.SharePayload) { p.Index, p.Custodian = 2, "c2" }, errs.Denied},
		"index zero":         {func(p *wall.SharePayload) { p.Index = 0 }, errs.Invalid},
		"index past the end": {func(p *wall.SharePayload) { p.Index = 4 }, errs.Invalid},
		"quorum lower":       {func(p *wall.SharePayload) { p.Quorum, p.Commitments = 1, p.Commitments[:1] }, errs.Denied},
		"quorum alone":       {func(p *wall.SharePayload) { p.Quorum = 1 }, errs.Invalid},
		"shares":             {func(p *wall.SharePayload) { p.Shares = 4 }, errs.Denied},
		"pin":                {func(p *wall.SharePayload) { p.Pin = other }, errs.Denied},
		"ca":                 {func(p *wall.SharePayload) { p.CA = other }, errs.Denied},
		"share":              {func(p *wall.SharePayload) { p.Share[0] ^= 1 }, errs.Denied},
		"share not reduced":  {func(p *wall.SharePayload) { p.Share = bytes.Repeat([]byte{0xff}, 32) }, errs.Denied},
		"share zero":         {func(p *wall.SharePayload) { clear(p.Share) }, errs.Denied},
		"share short":        {func(p *wall.SharePayload) { p.Share = p.Share[:31] }, errs.Invalid},
		"commitment":         {func(p *wall.SharePayload) { p.Commitments[1][5] ^= 1 }, errs.Denied},
		"commitments swapped": {func(p *wall.SharePayload) {
			p.Commitments[0], p.Commitments[1] = p.Commitments[1], p.Commitments[0]
		}, errs.Denied},
		"commitment short": {func(p *wall.SharePayload) { p.Commitments[1] = p.Commitments[1][:31] }, errs.Invalid},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, k, shares := start(t, "health", 2, 3)
			_, err := give(t, k, change(t, shares[0], test.f))
			wantKind(t, err, test.kind)
			if s := k.Status(); s.SharesGiven != 0 || s.State != wall.SealedState {
				t.Fatalf("taken: %+v", s)
			}
			mustGive(t, k, shares[0], wall.SealedState, 1)
		})
	}
}

// The encoding is one: what parses otherwise is refused.
func TestShareEncodings(t *testing.T) {
	_, k, shares := start(t, "health", 1, 1)
	s := string(shares[0])
	for name, text := range map[string]string{
		"empty": "", "null": "null", "array": "[]", "truncated": s[:len(s)-1], "trailing": s + "\n", "space": strings.Replace(s, ":", ": ", 1),
		"unknown field":  strings.Replace(s, "{", `{"x":1,`, 1),
		"repeated field": strings.Replace(s, "{", `{"format":"chancery.share.v1",`, 1),
		"case":           strings.Replace(s, `"format"`, `"Format"`, 1),
		"upper hex":      strings.Replace(s, `"ceremony":"`, `"ceremony":"A`, 1),
		"large":          s + strings.Repeat(" ", wall.MaxSharePayload),
	} {
		_, err := k.SubmitShare(t.Context(), []byte(text))
		if !errs.Is(err, errs.Invalid) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	mustGive(t, k, shares[0], wall.Unsealed, 0)
}

// A share of another organization with the same custodians, and one of another
// ceremony of the same organization, are refused.
func TestSharesOfOthers(t *testing.T) {
	_, a, ofA := start(t, "health", 2, 3)
	_, _, ofB := start(t, "wealth", 2, 3)
	_, _, ofA2 := start(t, "health", 2, 3)
	mustGive(t, a, ofA[0], wall.SealedState, 1)
	_, err := give(t, a, ofB[1])
	wantKind(t, err, errs.Invalid)
	_, err = give(t, a, ofA2[1])
	wantKind(t, err, errs.Invalid)
	// Disguised as one of ours: the digest of the commitments tells.
	mine, err := wall.ParseSharePayload(ofA[1])
	if err != nil {
		t.Fatal(err)
	}
	_, err = give(t, a, change(t, ofA2[1], func(p *wall.SharePayload) { p.Ceremony, p.Pin = mine.Ceremony, mine.Pin }))
	wantKind(t, err, errs.Denied)
	_, err = give(t, a, change(t, ofA[1], func(p *wall.SharePayload) { // our commitments, their share
		q, err := wall.ParseSharePayload(ofA2[1])
		if err != nil {
			t.Fatal(err)
		}
		p.Share = q.Share
	}))
	wantKind(t, err, errs.Denied)
	mustGive(t, a, ofA[1], wall.Unsealed, 0)
}

func TestConcurrentSubmissions(t *testing.T) {
	c, k, shares := start(t, "health", 3, 5)
	var wg sync.WaitGroup
	for round := range 8 {
		for i := range 5 {
			wg.Go(func() {
				share := bytes.Clone(shares[i])
				if round%4 == 3 && i == 4 { // two wrong ones in between
					share = change(t, share, func(p *wall.SharePayload) { p.Share[1] ^= 1 })
					if _, err := k.SubmitShare(t.Context(), share); !errs.Is(err, errs.Denied) {
						t.Errorf("a wrong share: %v", err)
					}
					return
				}
				if _, err := k.SubmitShare(t.Context(), share); err != nil {
					t.Error(err)
				}
				_ = k.Status()
			})
		}
	}
	wg.Wait()
	if s := k.Status(); s.State != wall.Unsealed || !bytes.Equal(c.created, c.opened) {
		t.Fatalf("%+v", s)
	}
	for range 4 {
		wg.Go(func() { _ = k.Seal(t.Context()) })
	}
	wg.Wait()
	if c.seals != 1 {
		t.Fatalf("OnSeal ran %d times", c.seals)
	}
}

// A share waits 15 minutes for the others, each for itself.
func TestPendingSharesExpire(t *testing.T) {
	identities() // made outside of the bubble
	_ = testCA()
	synctest.Test(t, func(t *testing.T) {
		_, k, shares := start(t, "health", 3, 3)
		mustGive(t, k, shares[0], wall.SealedState, 1)
		time.Sleep(10 * time.Minute)
		mustGive(t, k, shares[1], wall.SealedState, 2)
		time.Sleep(5*time.Minute + time.Second)
		if n := k.Status().SharesGiven; n != 1 {
			t.Fatalf("%d shares wait, want 1", n)
		}
		mustGive(t, k, shares[2], wall.SealedState, 2) // not the quorum: the first is gone
		mustGive(t, k, shares[1], wall.SealedState, 2) // given again: its time begins anew
		time.Sleep(14 * time.Minute)
		mustGive(t, k, shares[0], wall.Unsealed, 0)
		time.Sleep(time.Hour)
		if k.Status().State != wall.Unsealed {
			t.Fatal("sealed by a timer")
		}
	})
}

// Wrong shares use up an allowance of their bearer, or of the strangers; never that of a genuine custodian.
func TestWrongSharesAreLimited(t *testing.T) {
	identities()
	_ = testCA()
	synctest.Test(t, func(t *testing.T) {
		_, k, shares := start(t, "health", 2, 3)
		strange := change(t, shares[0], func(p *wall.SharePayload) { p.Commitments[0][0] ^= 1 })
		wrong := change(t, shares[0], func(p *wall.SharePayload) { p.Share[0] ^= 1 })
		for range wrongShares {
			_, err := give(t, k, strange)
			wantKind(t, err, errs.Denied)
			_, err = give(t, k, wrong)
			wantKind(t, err, errs.Denied)
		}
		for _, s := range [][]byte{strange, wrong, shares[0]} {
			_, err := give(t, k, s)
			wantKind(t, err, errs.Unavailable)
		}
		mustGive(t, k, shares[1], wall.SealedState, 1)
		time.Sleep(wrongWindow + time.Second)
		mustGive(t, k, shares[0], wall.Unsealed, 0)
	})
}

// If the organization cannot be opened it stays sealed, the root is gone and the next quorum works.
func TestOnUnsealFails(t *testing.T) {
	c, k, shares := start(t, "health", 2, 2)
	c.fail = errs.WrapKind(errs.Corrupt, "store.Open", errors.New("/secret/path is damaged"))
	mustGive(t, k, shares[0], wall.SealedState, 1)
	_, err := give(t, k, shares[1])
	wantKind(t, err, errs.Corrupt)
	if _, err := c.live.Derive("x"); !errs.Is(err, errs.Sealed) {
		t.Fatalf("the root lives on: %v", err)
	}
	if s := k.Status(); s.State != wall.SealedState || s.SharesGiven != 0 {
		t.Fatalf("%+v", s)
	}
	c.fail = nil
	mustGive(t, k, shares[1], wall.SealedState, 1)
	mustGive(t, k, shares[0], wall.Unsealed, 0)
}

// The last custodian's broken connection does not break the unsealing.
func TestUnsealOutlivesTheRequest(t *testing.T) {
	c := newCell(t, "health")
	ctx, cancel := context.WithCancel(t.Context())
	c.o.OnUnseal = func(ctx context.Context, _ *Root) error { cancel(); return ctx.Err() }
	k := c.open()
	made, err := k.Init(t.Context(), initOf(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.SubmitShare(ctx, sharesOf(t, made, 1)[0]); err != nil {
		t.Fatal(err)
	}
	if k.Status().State != wall.Unsealed {
		t.Fatal("still sealed")
	}
}

func TestSubmittedBytesAreZeroed(t *testing.T) {
	_, k, shares := start(t, "health", 2, 2)
	b := bytes.Clone(shares[0])
	if _, err := k.SubmitShare(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if len(bytes.Trim(b, "\x00")) != 0 {
		t.Fatal("the submitted share was left in memory")
	}
}
