package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"time"

	"chancery/internal/errs"
)

var testNames = []string{"s3.health.zone.example", "*.s3.health.zone.example", "api.health.zone.example", "localhost", "127.0.0.1", "::1", "LOCALHOST.", ""}

func TestCertificates(t *testing.T) {
	st, _ := open(t)
	ctx := t.Context()
	now := time.Now()
	o := CertificateOptions{Names: testNames, Now: func() time.Time { return now }}
	_, err := OpenCertificates(ctx, st, o)
	wantKind(t, err, errs.NotFound)
	ca, err := CreateCA(ctx, st, "health")
	if err != nil {
		t.Fatal(err)
	}
	_, err = CreateCA(ctx, st, "health")
	wantKind(t, err, errs.Conflict)
	c, err := OpenCertificates(ctx, st, o)
	if err != nil || c.CACertificate() != ca {
		t.Fatal(err)
	}
	serial := func(c *Certificates) string {
		leaf, err := c.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Leaf.SerialNumber.String()
	}
	first := serial(c)
	renew := func(after time.Duration, fresh bool) {
		t.Helper()
		now = now.Add(after)
		before := serial(c)
		if err := c.Renew(ctx); err != nil {
			t.Fatal(err)
		}
		if (serial(c) != before) != fresh {
			t.Fatalf("renewed %v, want %v", !fresh, fresh)
		}
	}
	renew(0, false)
	renew(59*24*time.Hour, false)
	if c2, err := OpenCertificates(ctx, st, o); err != nil || serial(c2) != first {
		t.Fatalf("a restart made a new one (%v)", err)
	}
	renew(2*24*time.Hour, true)
	renew(10*365*24*time.Hour, true)  // asleep for ten years
	renew(-20*365*24*time.Hour, true) // the clock went back
	renew(20*365*24*time.Hour, true)  // and forth
	second := serial(c)
	o.Names = append([]string{"new.example"}, testNames...)
	if c2, err := OpenCertificates(ctx, st, o); err != nil || serial(c2) == second {
		t.Fatalf("other names, the same certificate (%v)", err)
	}
	// After the store is gone the leaf is still served.
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if serial(c) != second {
		t.Fatal("the leaf left memory")
	}
}

// A real client that trusts the CA alone accepts each name, and no other.
func TestClientsAcceptTheLeaf(t *testing.T) {
	st, _ := open(t)
	ctx := t.Context()
	ca, err := CreateCA(ctx, st, "health")
	if err != nil {
		t.Fatal(err)
	}
	c, err := OpenCertificates(ctx, st, CertificateOptions{Names: testNames})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(ca)) {
		t.Fatal("the CA is not PEM")
	}
	try := func(name string) error {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		go func() {
			s := tls.Server(b, &tls.Config{GetCertificate: c.GetCertificate})
			_ = s.HandshakeContext(ctx)
			_, _ = io.Copy(io.Discard, s)
		}()
		return tls.Client(a, &tls.Config{RootCAs: pool, ServerName: name}).HandshakeContext(ctx)
	}
	for _, name := range []string{"s3.health.zone.example", "bucket.s3.health.zone.example", "api.health.zone.example", "localhost", "127.0.0.1", "::1"} {
		if err := try(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"s3.wealth.zone.example", "seal.health.zone.example", "a.b.s3.health.zone.example", "127.0.0.2"} {
		if try(name) == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	// The leaf is no authority.
	leaf, _ := c.GetCertificate(nil)
	if leaf.Leaf.IsCA {
		t.Fatal("the leaf is an authority")
	}
}

func TestCertificateRefusals(t *testing.T) {
	ctx := context.Background()
	var none Certificates
	_, err := none.GetCertificate(nil)
	wantKind(t, err, errs.Sealed)
	wantKind(t, none.Renew(ctx), errs.Sealed)
	_, err = CreateCA(ctx, nil, "o")
	wantKind(t, err, errs.Sealed)
	_, err = OpenCertificates(ctx, nil, CertificateOptions{})
	wantKind(t, err, errs.Sealed)
}
