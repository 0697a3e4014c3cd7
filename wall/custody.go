package wall

// This file holds what passes between a custodian's own machine and the cell,
// inside TLS that ends in the cell with its sealed identity. The zone splices
// these bytes and cannot read them; none of these types may ever be put on
// SocketWall. SharePayload and Bootstrap are the only secrets in this package.

import (
	"bytes"
	"encoding/json"
	"strings"

	"chancery/internal/errs"
)

// Paths of the seal service: HTTPS on SocketAPI under the server name seal.ORG.DOMAIN.
const (
	// PathSealPrefix is what every path of the seal service begins with.
	PathSealPrefix = "/seal/v1/"
	// PathSealStatus: GET → SealStatus.
	PathSealStatus = PathSealPrefix + "status"
	// PathSealShare: GET ?custodian=NAME → that custodian's share, an age file (armored).
	PathSealShare = PathSealPrefix + "share"
	// PathSealUnseal: POST an encoded SharePayload → SealStatus.
	PathSealUnseal = PathSealPrefix + "unseal"
	// PathSealBootstrap: GET → the first administrator's credential, an age file (armored).
	PathSealBootstrap = PathSealPrefix + "bootstrap"
)

// Bounds of the custody messages, in bytes unless said otherwise.
const (
	// MaxCustodians is the largest number of custodians (shares).
	MaxCustodians = 255
	// MaxSharePayload bounds an encoded SharePayload (255 commitments of 44 characters and the rest).
	MaxSharePayload = 16 << 10
	// MaxSealAnswer bounds every answer of the seal service (a bootstrap file for 255 recipients).
	MaxSealAnswer = 1 << 20
)

// Formats of the two secret messages.
const (
	SharePayloadFormat = "chancery.share.v1"
	BootstrapFormat    = "chancery.bootstrap.v1"
)

// SealStatus is what the seal service tells anyone who reaches it. Nothing in it
// is trusted by a custodian: what matters is in the SharePayload, which only the
// custodian can decrypt and nobody else could have changed.
type SealStatus struct {
	Organization string
	State        SealState
	// Ceremony names the splitting that the shares come from, hex; empty while Uninitialized.
	Ceremony string
	Quorum   int
	// Custodians are the names of all custodians, by share index.
	Custodians []string
	// SharesGiven counts distinct shares that wait for the quorum.
	SharesGiven int
}

// SharePayload is the plaintext of one custodian's share file: the share, what
// it takes to verify it, and the only TLS key that it may be sent to. It is
// encoded by Encode and in no other way (see ParseSharePayload).
type SharePayload struct {
	// Format is SharePayloadFormat.
	Format string `json:"format"`
	// Organization is the name of the organization (a DNS label).
	Organization string `json:"organization"`
	// Ceremony is 16 random bytes, hex, that name this splitting.
	Ceremony string `json:"ceremony"`
	// Custodian is the bearer's name.
	Custodian string `json:"custodian"`
	// Index is the share's x coordinate, 1..Shares.
	Index int `json:"index"`
	// Quorum is k: how many shares recover the root secret. Shares is n: how many there are.
	Quorum int `json:"quorum"`
	Shares int `json:"shares"`
	// Pin is SHA-256 of the SubjectPublicKeyInfo of the cell's sealed identity, hex.
	Pin string `json:"pin"`
	// CA is SHA-256 of the organization's CA certificate (DER), hex.
	CA string `json:"ca"`
	// Share is the y coordinate: a ristretto255 scalar, 32 bytes. Secret.
	Share []byte `json:"share"`
	// Commitments are Quorum ristretto255 elements of 32 bytes (Feldman 1987):
	// not post-quantum, and so as secret as the share.
	Commitments [][]byte `json:"commitments"`
}

// String hides the secrets, so that a payload printed by mistake tells nothing.
func (p SharePayload) String() string {
	return "share of " + p.Custodian + " of organization " + p.Organization + " (hidden)"
}

// GoString hides the secrets from %#v.
func (p SharePayload) GoString() string { return p.String() }

// Zero overwrites the secret bytes of the payload.
func (p *SharePayload) Zero() {
	clear(p.Share)
	for _, c := range p.Commitments {
		clear(c)
	}
}

// Encode gives the payload's one encoding.
func (p SharePayload) Encode() ([]byte, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, "wall.SharePayload.Encode", err)
	}
	return b, nil
}

// ParseSharePayload decodes and checks everything that can be checked without
// the organization's state. It accepts the one encoding that Encode gives and
// refuses all others (unknown or repeated fields, other spacing, other case), so
// that two readers can never understand one payload differently. Errors are errs.Invalid.
func ParseSharePayload(b []byte) (SharePayload, error) {
	const op = "wall.ParseSharePayload"
	var p SharePayload
	if len(b) > MaxSharePayload {
		return p, errs.New(errs.Invalid, op, "the share is larger than %d bytes", MaxSharePayload)
	}
	if err := strict(b, &p); err != nil {
		return SharePayload{}, errs.New(errs.Invalid, op, "this is not a share of the format %s", SharePayloadFormat)
	}
	if why := p.wrong(); why != "" {
		p.Zero()
		return SharePayload{}, errs.New(errs.Invalid, op, "the share is malformed: %s", why)
	}
	return p, nil
}

func (p *SharePayload) wrong() string {
	switch {
	case p.Format != SharePayloadFormat:
		return "its format is not " + SharePayloadFormat
	case !IsLabel(p.Organization):
		return "the organization is not a DNS label"
	case !IsLabel(p.Custodian):
		return "the custodian's name is not a DNS label"
	case !isHex(p.Ceremony, 16):
		return "the ceremony is not 32 hexadecimal digits"
	case !isHex(p.Pin, 32):
		return "the pin is not 64 hexadecimal digits"
	case !isHex(p.CA, 32):
		return "the CA digest is not 64 hexadecimal digits"
	case p.Shares < 1 || p.Shares > MaxCustodians:
		return "the number of shares is out of bounds"
	case p.Quorum < 1 || p.Quorum > p.Shares:
		return "the quorum is out of bounds"
	case p.Index < 1 || p.Index > p.Shares:
		return "the index is out of bounds"
	case len(p.Share) != 32:
		return "the share is not 32 bytes"
	case len(p.Commitments) != p.Quorum:
		return "there is not one commitment for each share of the quorum"
	}
	for _, c := range p.Commitments {
		if len(c) != 32 {
			return "a commitment is not 32 bytes"
		}
	}
	return ""
}

// Bootstrap is the plaintext of the bootstrap file: the first administrator's
// credential and the certificate to check the organization's servers by.
type Bootstrap struct {
	// Format is BootstrapFormat.
	Format string `json:"format"`
	// Organization, Ceremony, Pin and CA must equal those of the reader's own share.
	Organization string `json:"organization"`
	Ceremony     string `json:"ceremony"`
	Pin          string `json:"pin"`
	CA           string `json:"ca"`
	// User is the administrator's name; Token the bearer token. Secret.
	User  string `json:"user"`
	Token string `json:"token"`
	// CACertificate is the organization's CA, PEM.
	CACertificate string `json:"caCertificate"`
}

// String hides the token.
func (b Bootstrap) String() string {
	return "bootstrap credential of " + b.User + " of organization " + b.Organization + " (hidden)"
}

// GoString hides the token from %#v.
func (b Bootstrap) GoString() string { return b.String() }

// Encode gives the one encoding.
func (b Bootstrap) Encode() ([]byte, error) {
	out, err := json.Marshal(b)
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, "wall.Bootstrap.Encode", err)
	}
	return out, nil
}

// ParseBootstrap decodes what Encode gave, with the same strictness as ParseSharePayload.
func ParseBootstrap(raw []byte) (Bootstrap, error) {
	const op = "wall.ParseBootstrap"
	var b Bootstrap
	if len(raw) > MaxSealAnswer {
		return b, errs.New(errs.Invalid, op, "the bootstrap credential is larger than %d bytes", MaxSealAnswer)
	}
	if err := strict(raw, &b); err != nil {
		return Bootstrap{}, errs.New(errs.Invalid, op, "this is not a bootstrap credential of the format %s", BootstrapFormat)
	}
	switch {
	case b.Format != BootstrapFormat, !IsLabel(b.Organization), !isHex(b.Ceremony, 16),
		!isHex(b.Pin, 32), !isHex(b.CA, 32), b.User == "", b.Token == "", b.CACertificate == "":
		return Bootstrap{}, errs.New(errs.Invalid, op, "the bootstrap credential is malformed")
	}
	return b, nil
}

// strict decodes JSON and insists that the value encodes to the very same bytes.
func strict[T any](b []byte, v *T) error {
	if err := json.Unmarshal(b, v); err != nil {
		return err
	}
	again, err := json.Marshal(*v)
	if err != nil {
		return err
	}
	defer clear(again)
	if !bytes.Equal(again, b) {
		return errs.New(errs.Invalid, "wall.strict", "not the canonical encoding")
	}
	return nil
}

// IsLabel reports whether s is a lower-case DNS label (RFC 1123 section 2.1):
// 1 to 63 letters, digits and hyphens, no hyphen at either end. Names of
// organizations and custodians are labels.
func IsLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// isHex reports whether s is n bytes in lower-case hexadecimal.
func isHex(s string, n int) bool {
	return len(s) == 2*n && strings.Trim(s, "0123456789abcdef") == ""
}
