package custodian

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"chancery/internal/errs"
	"chancery/wall"
)

func keygen(t *testing.T) *Identity {
	t.Helper()
	id, err := Keygen()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func wantKind(t *testing.T, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) {
		t.Fatalf("error %v, want kind %v", err, kind)
	}
}

func TestIdentityFile(t *testing.T) {
	id := keygen(t)
	name := filepath.Join(t.TempDir(), "c1.txt")
	if err := id.WriteFile(name, time.Now()); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(name)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", fi.Mode(), err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "# public key: "+id.Recipient()+"\n") || !strings.HasPrefix(id.Recipient(), "age1pq1") {
		t.Fatal("the file does not tell the recipient")
	}
	// age itself reads it.
	ids, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil || len(ids) != 1 {
		t.Fatalf("age: %v", err)
	}
	back, err := ReadIdentityFile(name)
	if err != nil || back.Recipient() != id.Recipient() {
		t.Fatalf("read back: %v", err)
	}
	r, err := ReadRecipient(name)
	if err != nil || r != id.Recipient() {
		t.Fatalf("recipient of an identity file: %q, %v", r, err)
	}
	wantKind(t, id.WriteFile(name, time.Now()), errs.Exists)
	after, _ := os.ReadFile(name)
	if !bytes.Equal(b, after) {
		t.Fatal("an identity file was overwritten")
	}
	for _, s := range []string{id.String(), id.GoString()} {
		if strings.Contains(s, "SECRET") {
			t.Fatal("an identity prints its secret")
		}
	}
}

func TestIdentityRefusals(t *testing.T) {
	classic, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	pq := keygen(t)
	secret := pq.id.String()
	for name, text := range map[string]string{
		"classic": classic.String() + "\n", "empty": "", "two": secret + "\n" + secret + "\n",
		"damaged": secret[:40] + "A" + secret[41:] + "\n", "recipient": pq.Recipient() + "\n",
	} {
		_, err := ParseIdentity([]byte(text))
		wantKind(t, err, errs.Invalid)
		if strings.Contains(err.Error(), "AGE-SECRET") || strings.Contains(err.Error(), secret[30:60]) {
			t.Fatalf("%s: the error repeats the secret: %v", name, err)
		}
	}
	_, err = ParseIdentity([]byte(classic.String()))
	if !strings.Contains(err.Error(), "not post-quantum") {
		t.Fatalf("unclear: %v", err)
	}
	_, err = ParseRecipient([]byte(classic.Recipient().String()))
	wantKind(t, err, errs.Invalid)
	if !strings.Contains(err.Error(), "not post-quantum") {
		t.Fatalf("unclear: %v", err)
	}
	for _, text := range []string{"", "age1pq1xyz", pq.Recipient() + "\n" + pq.Recipient(), "AGE-SECRET-KEY-PQ-1XX"} {
		_, err := ParseRecipient([]byte(text))
		wantKind(t, err, errs.Invalid)
	}
	_, err = ReadIdentityFile(filepath.Join(t.TempDir(), "none"))
	wantKind(t, err, errs.NotFound)

	var zero *Identity
	if zero.Recipient() != "" {
		t.Fatal("the zero identity has a recipient")
	}
	wantKind(t, (&Identity{}).WriteFile(filepath.Join(t.TempDir(), "x"), time.Now()), errs.Invalid)
}

func TestEndpoints(t *testing.T) {
	for _, c := range []Client{
		{Endpoint: "http://h:1", ServerName: "seal.a.b"}, {Endpoint: "https://h:1/x", ServerName: "seal.a.b"},
		{Endpoint: "https://u:p@h:1", ServerName: "seal.a.b"}, {Endpoint: "h:1"}, {ServerName: "seal.a.b"},
		{Endpoint: "h:1", ServerName: "s3.a.b"}, {Endpoint: "h:1", ServerName: "seal.A.b"},
	} {
		_, err := c.session()
		wantKind(t, err, errs.Invalid)
	}
	s, err := (&Client{Endpoint: "https://h:1/", ServerName: "seal.health.zone.example"}).session()
	if err != nil || s.organization != "health" {
		t.Fatalf("organization %v, %v", s, err)
	}
}

func TestKnown(t *testing.T) {
	k := &Known{File: filepath.Join(t.TempDir(), "not", "there", "yet", "known.json")}
	a := wall.SharePayload{Pin: strings.Repeat("ab", 32), CA: strings.Repeat("cd", 32)}
	b := wall.SharePayload{Pin: strings.Repeat("ef", 32), CA: a.CA}
	const name = "seal.health.zone.example"
	for _, step := range []error{k.compare(name, a), k.remember(name, a), k.compare(name, a), k.compare("seal.other.zone.example", b), k.remember("seal.other.zone.example", b)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	again := &Known{File: k.File}
	wantKind(t, again.compare(name, b), errs.Denied)
	if err := again.compare(name, a); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.File, []byte(`{"x":{"pin":"zz"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	wantKind(t, again.compare(name, a), errs.Invalid)
}

func TestServersWordsCannotSteerATerminal(t *testing.T) {
	err := failure(400, []byte(`{"Kind":"denied","Message":"a\u001b[31mb\u202ec\u009b\n"}`))
	wantKind(t, err, errs.Denied)
	if strings.ContainsAny(err.Error(), "\x1b\n\u202e\u009b") {
		t.Fatalf("%q", err.Error())
	}
	wantKind(t, failure(302, []byte("<html>")), errs.Unavailable)
}
