package seal

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chancery/internal/errs"
	"chancery/wall"
)

// A thief with write access edits seal.json and leaves it well-formed. Either it
// is refused at once, or genuine shares do not fit, or the MAC tells after them;
// never is the organization opened with what he wrote.
func TestEditedState(t *testing.T) {
	other := newCell(t, "health")
	ko := other.open()
	if _, err := ko.Init(t.Context(), initOf(2, 3)); err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(*state){
		"quorum":       func(s *state) { s.Current.Quorum = 1 },
		"id":           func(s *state) { s.Current.ID = strings.Repeat("a", 32) },
		"salt":         func(s *state) { s.Current.Salt = ko.st.Current.Salt },
		"commitments":  func(s *state) { s.Current.Commitments = ko.st.Current.Commitments },
		"check":        func(s *state) { s.Current.Check = ko.st.Current.Check },
		"mac":          func(s *state) { s.Current.MAC = ko.st.Current.MAC },
		"bootstrap":    func(s *state) { s.Current.Bootstrap = ko.st.Current.Bootstrap },
		"no bootstrap": func(s *state) { s.Current.Bootstrap = "" },
		"name":         func(s *state) { s.Current.Custodians[0].Name = "eve" },
		"recipient":    func(s *state) { s.Current.Custodians[2].Recipient = identities()[4].Recipient().String() },
		"share file":   func(s *state) { s.Current.Custodians[2].Share = ko.st.Current.Custodians[2].Share },
		"swapped": func(s *state) {
			s.Current.Custodians[0], s.Current.Custodians[1] = s.Current.Custodians[1], s.Current.Custodians[0]
		},
		"fewer": func(s *state) { s.Current.Custodians = s.Current.Custodians[:2] },
		"more": func(s *state) {
			s.Current.Custodians = append(s.Current.Custodians, holder{"eve", identities()[4].Recipient().String(), "x"})
		},
		"ca": func(s *state) {
			s.CACertificate = strings.Replace(s.CACertificate, "\n-----END", "AAAA\n-----END", 1)
		},
		"pin":          func(s *state) { s.Pin = ko.st.Pin },
		"organization": func(s *state) { s.Organization = "wealth" },
		"all of another ceremony": func(s *state) {
			s.Current = ko.st.Current
		},
		"next": func(s *state) { n := *ko.st.Current; s.Next = &n },
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) {
			c, _, shares := start(t, "health", 2, 3)
			file := filepath.Join(c.o.Dir, stateFile)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			st, err := parseState(b)
			if err != nil {
				t.Fatal(err)
			}
			edit(st)
			edited, err := st.encode()
			if err != nil || bytes.Equal(b, edited) {
				t.Fatalf("not edited (%v)", err)
			}
			if err := os.WriteFile(file, edited, 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := Open(c.o)
			if err == nil {
				for _, s := range shares {
					if _, err = give(t, k, s); err != nil {
						break
					}
				}
				if name == "next" {
					// Genuine shares of the present ceremony still work; the forged one is dropped.
					if s := k.Status(); s.State != wall.Unsealed || k.st.Next != nil || !bytes.Equal(c.created, c.opened) {
						t.Fatalf("%+v, %v", s, err)
					}
					return
				}
				if k.Status().State == wall.Unsealed {
					t.Fatal("opened an organization with an edited state")
				}
			}
			if err == nil || errs.KindOf(err) == errs.Internal {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func TestDamagedFiles(t *testing.T) {
	for _, name := range []string{stateFile, identityFile} {
		c, _, _ := start(t, "health", 1, 1)
		file := filepath.Join(c.o.Dir, name)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for what, damaged := range map[string][]byte{"empty": {}, "half": b[:len(b)/2], "large": bytes.Repeat([]byte{' '}, maxState+1), "space": append([]byte{' '}, b...)} {
			if what == "space" && name == identityFile {
				continue // PEM allows text around
			}
			if err := os.WriteFile(file, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(c.o); !errs.Is(err, errs.Corrupt) {
				t.Errorf("%s of %s: %v", what, name, err)
			}
		}
	}
	// The identity is bound to the shares: neither lost nor replaced.
	c, _, _ := start(t, "health", 1, 1)
	d, _, _ := start(t, "health", 1, 1)
	theirs, err := os.ReadFile(filepath.Join(d.o.Dir, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.o.Dir, identityFile), theirs, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(c.o)
	wantKind(t, err, errs.Corrupt)
	if err := os.Remove(filepath.Join(c.o.Dir, identityFile)); err != nil {
		t.Fatal(err)
	}
	_, err = Open(c.o)
	wantKind(t, err, errs.Corrupt)
	// Another organization's directory.
	d.o.Organization = "wealth"
	_, err = Open(d.o)
	wantKind(t, err, errs.Corrupt)
}

func TestSealedIdentity(t *testing.T) {
	c, k, _ := start(t, "health", 1, 1)
	x := k.Identity().Certificate().Leaf
	if err := x.VerifyHostname("seal.health.zone.example"); err != nil {
		t.Fatal(err)
	}
	if x.IsCA || !x.NotAfter.Equal(NoEnd) || k.Identity().Pin() != c.open().Identity().Pin() || len(k.Identity().Pin()) != 64 {
		t.Fatalf("%v %s", x.NotAfter, k.Identity().Pin())
	}
	if !strings.Contains(x.NotAfter.Format("20060102150405Z"), "99991231235959Z") {
		t.Fatal(x.NotAfter)
	}
}

func FuzzParseState(f *testing.F) {
	_, k, _ := start(f, "health", 2, 3)
	b, err := k.st.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":"chancery.seal.v1"}`))
	d, err := (&state{Format: stateFormat, Organization: "health", Destroyed: true}).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseState(b)
		if err != nil {
			if !errs.Is(err, errs.Corrupt) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		again, err := s.encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatal("two encodings of one state")
		}
		if !s.Destroyed && (s.Current.Quorum < 1 || s.Current.Quorum > len(s.Current.Custodians) || len(s.Current.salt()) != SaltSize) {
			t.Fatalf("accepted %s", b)
		}
	})
}

func FuzzParseSharePayload(f *testing.F) {
	_, _, shares := start(f, "health", 2, 3)
	f.Add(shares[0])
	f.Add([]byte(`{"format":"chancery.share.v1","share":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := wall.ParseSharePayload(b)
		if err != nil {
			if !errs.Is(err, errs.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		again, err := p.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatal("two encodings of one share")
		}
		if p.Index < 1 || p.Index > p.Shares || p.Quorum > p.Shares || len(p.Share) != 32 || len(p.Commitments) != p.Quorum || !json.Valid(b) {
			t.Fatalf("accepted %s", b)
		}
		_ = verifyShare(&p) // must not panic on any share that parses
	})
}
