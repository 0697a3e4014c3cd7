package prove

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"chancery/client"
	"chancery/custodian"
	"chancery/internal/errs"
	"chancery/wall"
)

// holder is a custodian of the scratch organization. The checks hold the raw age
// identity too, so that they can do what an honest client never would.
type holder struct {
	name string
	id   *custodian.Identity
	raw  age.Identity
}

func newHolder(name string) (holder, error) {
	raw, err := age.GenerateHybridIdentity()
	if err != nil {
		return holder{}, errs.WrapKind(errs.Internal, "prove.newHolder", err)
	}
	id, err := custodian.ParseIdentity([]byte(raw.String() + "\n"))
	return holder{name, id, raw}, err
}

// scratch is the organization that the checks play with.
type scratch struct {
	e       *env
	name    string
	holders []holder

	credential custodian.Credential
	project    string
	keyID      string
	secret     string
}

func (s *scratch) seal() *custodian.Client {
	return &custodian.Client{Endpoint: s.e.o.API, ServerName: s.e.host("seal", s.name), Organization: s.name}
}

// unseal gives the shares of two custodians, waiting for a cell that is just restarting.
func (s *scratch) unseal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := func() error {
			for _, h := range s.holders[:2] {
				if _, err := s.seal().Unseal(ctx, h.id); err != nil {
					return err
				}
			}
			return nil
		}()
		if err == nil || !errs.Is(err, errs.Unavailable) || ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// furnish makes a project and an access key in the unsealed organization.
func (s *scratch) furnish(ctx context.Context) error {
	if s.secret != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	if s.credential, err = s.seal().Bootstrap(ctx, s.holders[0].id); err != nil {
		return err
	}
	org, err := client.OpenOrganization(ctx, s.e.o.API, s.e.host("api", s.name), s.credential.CACertificate, s.credential.Token)
	if err != nil {
		return err
	}
	s.project = "prove"
	if _, err = org.EnsureProject(ctx, s.project); err != nil {
		return err
	}
	s.keyID, s.secret, err = org.EnsureAccessKey(ctx, s.project, "prove", "prove")
	return err
}

// s3 makes a client that connects to an address (the front door, or a relay before it).
func (s *scratch) s3(address string) (*minio.Client, error) {
	_, port, err := net.SplitHostPort(s.e.o.S3)
	if err != nil {
		return nil, errs.WrapKind(errs.Invalid, "prove.s3", err)
	}
	return minio.New(net.JoinHostPort(s.e.host("s3", s.name), port), &minio.Options{
		Creds:        credentials.NewStaticV4(s.keyID, s.secret, ""),
		Secure:       true,
		Region:       "us-east-1",
		BucketLookup: minio.BucketLookupPath,
		MaxRetries:   1,
		Transport:    &http.Transport{DialContext: dialer(address), TLSClientConfig: s.trust(), MaxIdleConnsPerHost: 16},
	})
}

func (s *scratch) trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(s.credential.CACertificate))
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// payload fetches and decrypts a holder's share, as only its bearer can.
func (s *scratch) payload(ctx context.Context, h holder) (wall.SharePayload, error) {
	const op = "prove.payload"
	file, err := s.seal().ShareFile(ctx, h.name)
	if err != nil {
		return wall.SharePayload{}, err
	}
	plain, err := age.Decrypt(armor.NewReader(bytes.NewReader(file)), h.raw)
	if err != nil {
		return wall.SharePayload{}, errs.WrapKind(errs.Corrupt, op, err)
	}
	body, err := io.ReadAll(io.LimitReader(plain, wall.MaxSharePayload))
	if err != nil {
		return wall.SharePayload{}, errs.WrapKind(errs.Corrupt, op, err)
	}
	return wall.ParseSharePayload(body)
}

// give sends a payload as it is, good or bad, and returns the cell's answer.
func (s *scratch) give(ctx context.Context, p wall.SharePayload) (wall.SealStatus, *wall.Failure, error) {
	const op = "prove.give"
	var status wall.SealStatus
	body, err := p.Encode()
	if err != nil {
		return status, nil, err
	}
	name := s.e.host("seal", s.name)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+name+wall.PathSealUnseal, bytes.NewReader(body))
	if err != nil {
		return status, nil, errs.WrapKind(errs.Invalid, op, err)
	}
	transport := &http.Transport{DialContext: dialer(s.e.o.API), TLSClientConfig: &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // a scratch share of a scratch organization: the attacker's own client
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(req)
	if err != nil {
		return status, nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	defer resp.Body.Close()
	answer := json.NewDecoder(io.LimitReader(resp.Body, wall.MaxSealAnswer))
	if resp.StatusCode != http.StatusOK {
		var f wall.Failure
		if err := answer.Decode(&f); err != nil {
			return status, nil, errs.WrapKind(errs.Unavailable, op, err)
		}
		return status, &f, nil
	}
	return status, nil, errs.WrapKind(errs.Unavailable, op, answer.Decode(&status))
}

// s3Answer asks S3 for anything without a credential, trusting any certificate,
// and returns the status and the body: what a stranger sees.
func (s *scratch) s3Answer(ctx context.Context) (int, string, error) {
	name := s.e.host("s3", s.name)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+"/", nil)
	if err != nil {
		return 0, "", errs.WrapKind(errs.Invalid, "prove.s3Answer", err)
	}
	transport := &http.Transport{DialContext: dialer(s.e.o.S3), TLSClientConfig: &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // nothing secret is sent, and a sealed cell has only its sealed identity
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return 0, "", errs.WrapKind(errs.Unavailable, "prove.s3Answer", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, strings.TrimSpace(string(body)), err
}
