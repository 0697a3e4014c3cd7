package seal

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"time"

	"chancery/internal/errs"
)

// identityFile holds the sealed identity in the cell's data directory: a private
// key and a self-signed certificate, PEM, mode 0600. Whoever steals the disk has
// it; docs/adr/0005-two-tls-identities.md tells what he can do with it.
const identityFile = "sealed-identity.pem"

// maxIdentity bounds that file in bytes.
const maxIdentity = 16 << 10

// NoEnd is the validity end that means "no well-defined expiration date" (RFC 5280 section 4.1.2.5).
var NoEnd = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Identity is the cell's sealed identity: the TLS key that custodians pin.
type Identity struct {
	cert tls.Certificate
	pin  string
}

// Certificate serves TLS as seal.ORG.DOMAIN.
func (i *Identity) Certificate() *tls.Certificate { return &i.cert }

// Pin is SHA-256 of the public key's SubjectPublicKeyInfo, hex.
func (i *Identity) Pin() string { return i.pin }

// newIdentity makes the key inside the cell: ECDSA P-256, which every TLS client
// and every FIPS mode accepts, Ed25519 not.
func newIdentity(name string) ([]byte, error) {
	const op = "seal.newIdentity"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	serial := new(big.Int).SetBytes(append([]byte{1}, randomBytes(15)...)) // positive, 16 octets (RFC 5280 section 4.1.2.2)
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		// A clock that is behind must not lock custodians out.
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              NoEnd,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, op, err)
	}
	defer clear(pkcs8)
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), nil
}

func parseIdentity(b []byte) (*Identity, error) {
	cert, err := tls.X509KeyPair(b, b)
	if err != nil {
		// The cause may not be shown: it is about a file with a key.
		return nil, errs.New(errs.Corrupt, "seal.parseIdentity", "%s does not hold a key and its certificate", identityFile)
	}
	sum := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)
	return &Identity{cert: cert, pin: hex.EncodeToString(sum[:])}, nil
}
