// Package pki is a small certificate authority and the server certificates that it
// issues. An organization has one inside its cell, the operator one for his own
// API server; neither knows the other's.
//
// It must never write a key anywhere: where keys are kept is the caller's affair.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"time"

	"chancery/internal/errs"
)

// LeafLife is how long a server certificate is valid. It is renewed when less
// than a third of it remains.
const LeafLife = 90 * 24 * time.Hour

// noEnd means "no well-defined expiration date" (RFC 5280 section 4.1.2.5): an
// organization that is cut off must not stop with a date.
var noEnd = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// CA is a certificate authority: ECDSA P-256. The zero CA refuses.
type CA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// NewCA makes an authority for an organization: no end of validity, no further
// authorities below it.
func NewCA(organization string) (*CA, error) {
	const op = "pki.NewCA"
	if organization == "" {
		return nil, errs.New(errs.Invalid, op, "the organization has no name")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	t := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: organization + " CA"},
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), // clients' clocks may be behind
		NotAfter:              noEnd,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	return &CA{key: key, cert: cert}, nil
}

// CertificatePEM is the authority's certificate, for clients. Empty for the zero CA.
func (c *CA) CertificatePEM() string {
	if c == nil || c.cert == nil {
		return ""
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw}))
}

// Issue makes a new key and a server certificate for DNS names (a leading "*."
// is a wildcard) and addresses, valid for LeafLife from now.
func (c *CA) Issue(names []string, ips []net.IP, now time.Time) (*tls.Certificate, error) {
	const op = "pki.Issue"
	if c == nil || c.key == nil {
		return nil, errs.New(errs.Sealed, op, "there is no authority")
	}
	if len(names) == 0 && len(ips) == 0 {
		return nil, errs.New(errs.Invalid, op, "a server certificate needs a name or an address")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{Organization: c.cert.Subject.Organization},
		DNSNames:     names,
		IPAddresses:  ips,
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(LeafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		// RFC 5280 section 4.2.1.9: an end entity.
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.cert, key.Public(), c.key)
	if err != nil {
		return nil, errs.New(errs.Invalid, op, "the names do not make a certificate: %v", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// EncodePair gives a key and its certificate as PEM. Secret.
func EncodePair(key any, der []byte) ([]byte, error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, "pki.EncodePair", err)
	}
	defer clear(pkcs8)
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), nil
}

// ParsePair reverses EncodePair. No cause is shown: it would be about a key.
func ParsePair(b []byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, errs.New(errs.Corrupt, "pki.ParsePair", "a stored key and its certificate are malformed")
	}
	return &c, nil
}

// Encode gives the authority's key and certificate as PEM. Secret.
func (c *CA) Encode() ([]byte, error) {
	if c == nil || c.key == nil {
		return nil, errs.New(errs.Sealed, "pki.Encode", "there is no authority")
	}
	return EncodePair(c.key, c.cert.Raw)
}

// Signed reports whether this authority signed the certificate.
func (c *CA) Signed(leaf *x509.Certificate) bool {
	return c != nil && c.cert != nil && leaf.CheckSignatureFrom(c.cert) == nil
}

// ParseCA reverses Encode. Errors: errs.Corrupt.
func ParseCA(b []byte) (*CA, error) {
	const op = "pki.ParseCA"
	c, err := ParsePair(b)
	if err != nil {
		return nil, err
	}
	key, ok := c.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !c.Leaf.IsCA {
		return nil, errs.New(errs.Corrupt, op, "the stored authority is none")
	}
	return &CA{key: key, cert: c.Leaf}, nil
}

// serial gives a positive serial number of 16 octets (RFC 5280 section 4.1.2.2).
func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (it ends the program)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

// SplitNames tells addresses from DNS names, and leaves out empty and repeated ones.
func SplitNames(all []string) (names []string, ips []net.IP) {
	seen := map[string]bool{}
	for _, n := range all {
		n = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(n), "."))
		if n == "" || seen[n] {
			continue
		}
		seen[n] = true
		if ip := net.ParseIP(n); ip != nil {
			ips = append(ips, ip)
		} else {
			names = append(names, n)
		}
	}
	return names, ips
}
