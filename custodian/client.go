package custodian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"chancery/internal/errs"
	"chancery/wall"
)

// Client speaks to one organization's seal service.
type Client struct {
	// Endpoint is host:port of the zone's API port, or an https URL of it.
	Endpoint string
	// ServerName is seal.ORG.DOMAIN; the front door routes by it.
	ServerName string
	// Organization is whom the custodian means. Empty is the ORG of ServerName.
	Organization string
	// Custodian is the custodian's name. Empty: found by trying all shares.
	Custodian string
	// Pin is the identity of the cell as somebody trusted told it: SHA-256 of its
	// public key, 64 hexadecimal digits. A server with another key is refused in
	// the handshake. Empty: what the custodian's own share says is enough to send
	// it, and Known remembers.
	Pin string
	// Known remembers the identities of organizations; nil remembers nothing.
	Known *Known
	// Dial replaces the TCP connection to Endpoint (a Unix socket, a test). The TLS is ours in any case.
	Dial func(ctx context.Context) (net.Conn, error)
}

// timeout bounds a whole call: unsealing opens the organization's store before it answers.
const timeout = 2 * time.Minute

// session is the connections of one call: all to one TLS key.
type session struct {
	http         *http.Client
	base         string
	organization string

	mu  sync.Mutex
	pin string // told beforehand, or of the first connection; every later one must have it
	// told: the pin was known beforehand.
	told bool
}

func (c *Client) session() (*session, error) {
	const op = "custodian.Client"
	host := c.Endpoint
	if strings.Contains(host, "://") {
		u, err := url.Parse(host)
		if err != nil || u.Scheme != "https" || u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" {
			return nil, errs.New(errs.Invalid, op, "the endpoint must be host:port or https://host:port")
		}
		host = u.Host
	}
	if c.ServerName == "" || host == "" && c.Dial == nil {
		return nil, errs.New(errs.Invalid, op, "an endpoint (host:port) and a server name (seal.ORG.DOMAIN) are needed")
	}
	s := &session{base: "https://" + c.ServerName, organization: c.Organization, pin: c.Pin, told: c.Pin != ""}
	if digest, err := hex.DecodeString(c.Pin); s.told && (err != nil || len(digest) != sha256.Size || strings.ToLower(c.Pin) != c.Pin) {
		return nil, errs.New(errs.Invalid, op, "the identity of a cell is 64 small hexadecimal digits")
	}
	if s.organization == "" {
		rest, ok := strings.CutPrefix(c.ServerName, "seal.")
		s.organization, _, _ = strings.Cut(rest, ".")
		if !ok {
			s.organization = ""
		}
	}
	if !wall.IsLabel(s.organization) {
		return nil, errs.New(errs.Invalid, op, "the server name is not seal.ORG.DOMAIN; say which organization is meant")
	}
	dial := c.Dial
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", host)
		}
	}
	s.http = &http.Client{
		Timeout: timeout,
		// A redirect would leave the pinned server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:       nil,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			TLSClientConfig: &tls.Config{
				ServerName: c.ServerName,
				MinVersion: tls.VersionTLS13,
				// Hybrid post-quantum only: a recorded share must stay unreadable.
				CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
				// No authority vouches for a sealed cell: the pin inside the share
				// does, which VerifyConnection and deliver enforce.
				InsecureSkipVerify: true, //nolint:gosec // see above
				VerifyConnection:   s.verify,
			},
			MaxConnsPerHost:       1,
			TLSHandshakeTimeout:   30 * time.Second,
			ResponseHeaderTimeout: timeout,
		},
	}
	return s, nil
}

// verify runs in every handshake, before any byte of HTTP is sent.
func (s *session) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the server showed no certificate")
	}
	sum := sha256.Sum256(cs.PeerCertificates[0].RawSubjectPublicKeyInfo)
	pin := hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pin == "" {
		s.pin = pin
	}
	if subtle.ConstantTimeCompare([]byte(pin), []byte(s.pin)) != 1 {
		if s.told {
			return errs.New(errs.Denied, "custodian.verify", "this is another cell than the one that you were told of (sha256:%s); nothing was sent", pin)
		}
		return errs.New(errs.Denied, "custodian.verify", "the server's TLS key changed between two connections")
	}
	return nil
}

func (s *session) peer() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pin
}

func (s *session) close() { s.http.CloseIdleConnections() }

// call makes one request and returns the answer's body.
func (s *session) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	const op = "custodian.call"
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, errs.WrapKind(errs.Invalid, op, err)
	}
	// A retry must not happen behind our back.
	req.GetBody = nil
	res, err := s.http.Do(req)
	if err != nil {
		if errs.Is(err, errs.Denied) {
			return nil, errs.Wrap(op, err)
		}
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := readAll(res.Body, wall.MaxSealAnswer)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, failure(res.StatusCode, b)
	}
	return b, nil
}

// failure turns an error answer into ours. What the server wrote is shown, but
// cannot steer a terminal.
func failure(status int, b []byte) error {
	const op = "custodian.call"
	var f wall.Failure
	if json.Unmarshal(b, &f) != nil || f.Message == "" {
		return errs.New(errs.Unavailable, op, "the server answered %d, not as a seal service does", status)
	}
	kind := errs.Unavailable
	for _, k := range []errs.Kind{errs.Invalid, errs.NotFound, errs.Exists, errs.Conflict, errs.Denied, errs.Unauthenticated,
		errs.Sealed, errs.Corrupt, errs.Exhausted, errs.Unsupported, errs.Destroyed, errs.Internal} {
		if f.Kind == k.String() {
			kind = k
		}
	}
	return errs.New(kind, op, "the cell says: %s", printable(f.Message, 300))
}

func printable(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\ufffd' || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > n {
		s = string(r[:n]) + "…"
	}
	return s
}

// status fetches and checks what the service says of itself. It is only a hint
// of which shares there are.
func (s *session) status(ctx context.Context) (wall.SealStatus, error) {
	const op = "custodian.status"
	var st wall.SealStatus
	b, err := s.call(ctx, http.MethodGet, wall.PathSealStatus, nil)
	if err != nil {
		return st, err
	}
	return st, errs.Wrap(op, s.parseStatus(b, &st))
}

func (s *session) parseStatus(b []byte, st *wall.SealStatus) error {
	const op = "custodian.parseStatus"
	if json.Unmarshal(b, st) != nil || len(st.Custodians) > wall.MaxCustodians ||
		st.Quorum < 0 || st.Quorum > len(st.Custodians) || st.SharesGiven < 0 || st.SharesGiven > len(st.Custodians) {
		return errs.New(errs.Invalid, op, "the server's status is malformed")
	}
	switch st.State {
	case wall.Uninitialized, wall.SealedState, wall.Unsealed, wall.Destroyed:
	default:
		return errs.New(errs.Invalid, op, "the server's status is malformed")
	}
	for _, n := range st.Custodians {
		if !wall.IsLabel(n) {
			return errs.New(errs.Invalid, op, "the server's status is malformed")
		}
	}
	if st.Organization != s.organization {
		return errs.New(errs.Denied, op, "the server is of organization %q, not %s", printable(st.Organization, 63), s.organization)
	}
	return nil
}

func readAll(r io.Reader, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, "custodian.read", err)
	}
	if len(b) > limit {
		return nil, errs.New(errs.Invalid, "custodian.read", "more than %d bytes", limit)
	}
	return b, nil
}
