package pki

import (
	"bytes"
	"crypto/x509"
	"testing"
	"time"

	"chancery/internal/errs"
)

func TestServerRenews(t *testing.T) {
	ca, err := NewCA("health")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	s := NewServer(ca, []string{"s3.health.zone.example", "127.0.0.1"}, func() time.Time { return now })
	first, err := s.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(LeafLife / 2)
	if again, err := s.GetCertificate(nil); err != nil || again != first {
		t.Fatalf("half-way through its life the certificate was replaced (%v)", err)
	}
	for _, step := range []time.Duration{LeafLife, 30 * 365 * 24 * time.Hour, -40 * 365 * 24 * time.Hour} {
		now = now.Add(step)
		leaf, err := s.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM([]byte(ca.CertificatePEM()))
		for _, name := range []string{"s3.health.zone.example", "127.0.0.1"} {
			// A clock before the authority's own beginning is the one that no renewal can mend.
			if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, CurrentTime: now}); err != nil && now.Year() >= 2020 {
				t.Errorf("at %v, %s: %v", now, name, err)
			}
		}
	}
}

func TestEncode(t *testing.T) {
	ca, err := NewCA("health")
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := ca.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseCA(encoded)
	if err != nil || back.CertificatePEM() != ca.CertificatePEM() {
		t.Fatalf("ParseCA(Encode()) = %v", err)
	}
	leaf, err := back.Issue([]string{"a.example"}, nil, time.Now())
	if err != nil || !ca.Signed(leaf.Leaf) {
		t.Fatalf("a certificate of the parsed authority is not signed by the first: %v", err)
	}
	other, err := NewCA("other")
	if err != nil {
		t.Fatal(err)
	}
	if other.Signed(leaf.Leaf) {
		t.Error("another authority claims the certificate")
	}
	foreign, err := EncodePair(other.key, ca.cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	notCA, err := EncodePair(leaf.PrivateKey, leaf.Leaf.Raw)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"empty": nil, "noise": []byte("x"), "half": encoded[:len(encoded)/2], "foreign key": foreign,
		"no authority": notCA, "flipped": bytes.Replace(encoded, []byte("M"), []byte("N"), 3)} {
		if _, err := ParseCA(bad); !errs.Is(err, errs.Corrupt) {
			t.Errorf("%s: %v, want corrupt", name, err)
		}
	}
}

func TestAuthority(t *testing.T) {
	ca, err := NewCA("health")
	if err != nil {
		t.Fatal(err)
	}
	if !ca.cert.NotAfter.Equal(noEnd) || !ca.cert.MaxPathLenZero || !ca.cert.IsCA {
		t.Error("wrong constraints of the authority")
	}
	if _, err := NewCA(""); !errs.Is(err, errs.Invalid) {
		t.Errorf("an authority without a name: %v", err)
	}
	if _, err := ca.Issue(nil, nil, time.Now()); !errs.Is(err, errs.Invalid) {
		t.Errorf("a certificate for nothing: %v", err)
	}
	if _, err := ca.Issue([]string{"bad name\x00é"}, nil, time.Now()); !errs.Is(err, errs.Invalid) {
		t.Errorf("a certificate for a bad name: %v", err)
	}
}

func TestZeroRefuses(t *testing.T) {
	var ca *CA
	if _, err := ca.Issue([]string{"a"}, nil, time.Now()); !errs.Is(err, errs.Sealed) {
		t.Errorf("nil CA: %v", err)
	}
	if _, err := (&CA{}).Encode(); !errs.Is(err, errs.Sealed) {
		t.Errorf("zero CA: %v", err)
	}
	if _, err := (&Server{}).GetCertificate(nil); !errs.Is(err, errs.Sealed) {
		t.Errorf("zero Server: %v", err)
	}
}
