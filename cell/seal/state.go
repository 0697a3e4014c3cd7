package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"strings"

	"chancery/internal/errs"
	"chancery/wall"
)

// stateFormat names the format of seal.json (docs/formats/custody.md).
const stateFormat = "chancery.seal.v1"

// maxState bounds seal.json in bytes: two ceremonies of 255 custodians.
const maxState = 4 << 20

// state is seal.json: what the cell must remember to be unsealed. None of it is
// secret. A thief may change it; genuine shares then no longer fit, or, after an
// unseal, the MAC does not.
type state struct {
	Format       string `json:"format"`
	Organization string `json:"organization"`
	// Destroyed tells that the organization was destroyed on purpose; all else is then empty.
	Destroyed bool `json:"destroyed,omitempty"`
	// Pin is SHA-256 of the sealed identity's SubjectPublicKeyInfo, hex.
	Pin string `json:"pin,omitempty"`
	// CACertificate is the organization's CA, PEM.
	CACertificate string `json:"caCertificate,omitempty"`
	// Current is the ceremony that the root comes from. Next is there only while
	// the root is being rotated.
	Current *ceremony `json:"current,omitempty"`
	Next    *ceremony `json:"next,omitempty"`
}

// ceremony is one splitting of one root secret.
type ceremony struct {
	ID     string `json:"id"` // 16 random bytes, hex
	Quorum int    `json:"quorum"`
	// Custodians by share index: the first has index 1.
	Custodians []holder `json:"custodians"`
	// Commitments is the digest of the Feldman commitments (digestOf), hex.
	Commitments string `json:"commitments"`
	Salt        string `json:"salt"` // 32 random bytes, hex
	// Check is 16 bytes derived from the root key, hex: recognises a wrong root.
	Check string `json:"check"`
	// Bootstrap is the first administrator's credential, an age file to all custodians; may be empty.
	Bootstrap string `json:"bootstrap,omitempty"`
	// Previous is the root key before, sealed under this ceremony's root; only in Next.
	Previous string `json:"previous,omitempty"`
	// MAC authenticates the ceremony and the file's other fields under the root key, hex.
	MAC string `json:"mac"`
}

type holder struct {
	Name      string `json:"name"`
	Recipient string `json:"recipient"`
	Share     string `json:"share"` // age file, armored
}

// encode gives the one encoding of a state.
func (s *state) encode() ([]byte, error) {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, errs.WrapKind(errs.Internal, "seal.state.encode", err)
	}
	return append(b, '\n'), nil
}

// parseState decodes seal.json. It accepts the one encoding that encode gives.
// Errors are errs.Corrupt.
func parseState(b []byte) (*state, error) {
	const op = "seal.parseState"
	if len(b) > maxState {
		return nil, errs.New(errs.Corrupt, op, "seal.json is larger than %d bytes", maxState)
	}
	s := &state{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, errs.New(errs.Corrupt, op, "seal.json is not JSON of the format %s", stateFormat)
	}
	again, err := s.encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, errs.New(errs.Corrupt, op, "seal.json is not in the form that this program writes")
	}
	if why := s.wrong(); why != "" {
		return nil, errs.New(errs.Corrupt, op, "seal.json: %s", why)
	}
	return s, nil
}

func (s *state) wrong() string {
	switch {
	case s.Format != stateFormat:
		return "its format is not " + stateFormat
	case !wall.IsLabel(s.Organization):
		return "the organization is not a DNS label"
	case s.Destroyed:
		if s.Pin != "" || s.CACertificate != "" || s.Current != nil || s.Next != nil {
			return "a destroyed organization still has a ceremony"
		}
		return ""
	case !isHex(s.Pin, sha256.Size):
		return "the pin is malformed"
	case caDigest(s.CACertificate) == "":
		return "the CA certificate is malformed"
	case s.Current == nil:
		return "there is no ceremony"
	case s.Current.Previous != "":
		return "the current ceremony has a previous root"
	}
	if why := s.Current.wrong(); why != "" {
		return why
	}
	if s.Next != nil {
		if s.Next.ID == s.Current.ID {
			return "both ceremonies have one id"
		}
		return s.Next.wrong()
	}
	return ""
}

func (c *ceremony) wrong() string {
	n := len(c.Custodians)
	switch {
	case !isHex(c.ID, 16):
		return "the ceremony's id is malformed"
	case n < 1 || n > wall.MaxCustodians || c.Quorum < 1 || c.Quorum > n:
		return "the quorum is out of bounds"
	case !isHex(c.Commitments, sha256.Size), !isHex(c.Salt, SaltSize), !isHex(c.Check, 16), !isHex(c.MAC, sha256.Size):
		return "a digest is malformed"
	}
	seen := map[string]bool{}
	for _, cu := range c.Custodians {
		if !wall.IsLabel(cu.Name) || seen[cu.Name] {
			return "a custodian's name is malformed or there twice"
		}
		seen[cu.Name] = true
		if !strings.HasPrefix(cu.Recipient, "age1pq1") || cu.Share == "" {
			return "a custodian has no recipient or no share"
		}
	}
	return ""
}

// names gives the custodians' names by index.
func (c *ceremony) names() []string {
	out := make([]string, len(c.Custodians))
	for i, cu := range c.Custodians {
		out[i] = cu.Name
	}
	return out
}

func (c *ceremony) salt() []byte {
	b, _ := hex.DecodeString(c.Salt) // checked by wrong
	return b
}

// checkOf derives the key-check value of a root.
func checkOf(r *Root) (string, error) {
	k, err := r.Derive("seal/check")
	if err != nil {
		return "", err
	}
	defer clear(k)
	return hex.EncodeToString(k[:16]), nil
}

// macOf authenticates one ceremony, with the fields around it, under its root.
func (s *state) macOf(c *ceremony, r *Root) (string, error) {
	const op = "seal.macOf"
	k, err := r.Derive("seal/state")
	if err != nil {
		return "", err
	}
	defer clear(k)
	bare := *c
	bare.MAC = ""
	b, err := json.Marshal(state{Format: s.Format, Organization: s.Organization, Pin: s.Pin,
		CACertificate: s.CACertificate, Current: &bare})
	if err != nil {
		return "", errs.WrapKind(errs.Internal, op, err)
	}
	m := hmac.New(sha256.New, k)
	m.Write(b)
	return hex.EncodeToString(m.Sum(nil)), nil
}

// seal sets the check value and the MAC of a ceremony.
func (s *state) seal(c *ceremony, r *Root) (err error) {
	if c.Check, err = checkOf(r); err != nil {
		return err
	}
	c.MAC, err = s.macOf(c, r)
	return err
}

// verify tells whether the root is the ceremony's (errs.Denied if not) and the
// state is what this root wrote (errs.Corrupt if not).
func (s *state) verify(c *ceremony, r *Root) error {
	const op = "seal.verify"
	check, err := checkOf(r)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(check), []byte(c.Check)) != 1 {
		return errs.New(errs.Denied, op, "the shares give a root key that is not this organization's")
	}
	mac, err := s.macOf(c, r)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(mac), []byte(c.MAC)) != 1 {
		return errs.New(errs.Corrupt, op, "seal.json was changed by someone without the root key; restore it from a copy")
	}
	return nil
}

// caDigest gives SHA-256 of a PEM certificate's DER, hex; empty if it is not exactly one certificate.
func caDigest(certificate string) string {
	block, rest := pem.Decode([]byte(certificate))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
		return ""
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

func isHex(s string, n int) bool {
	return len(s) == 2*n && strings.Trim(s, "0123456789abcdef") == ""
}
