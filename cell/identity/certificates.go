package identity

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"chancery/internal/errs"
	"chancery/internal/pki"
	"chancery/internal/store"
)

// CreateCA makes the organization's authority and puts it into the store, once.
// It returns the certificate, PEM. Errors: errs.Conflict if there is one already.
func CreateCA(ctx context.Context, st store.Store, organization string) (string, error) {
	const op = "identity.CreateCA"
	if st == nil {
		return "", errs.New(errs.Sealed, op, "the organization is sealed")
	}
	ca, err := pki.NewCA(organization)
	if err != nil {
		return "", errs.Wrap(op, err)
	}
	v, err := ca.Encode()
	if err != nil {
		return "", err
	}
	defer clear(v)
	var b store.Batch
	b.IfAbsent([]byte(keyCA))
	b.Put([]byte(keyCA), v)
	if _, err := st.Commit(ctx, &b); err != nil {
		return "", errs.Wrap(op, err)
	}
	return ca.CertificatePEM(), nil
}

// CertificateOptions say what an organization's servers are called.
type CertificateOptions struct {
	// Names are DNS names (wildcards too) and IP addresses.
	Names []string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Certificates is the certificate that S3 and the API server serve with, renewed
// inside. It keeps serving from memory when the store is gone (after a seal).
// Safe for concurrent use. The zero value refuses.
type Certificates struct {
	st    store.Store
	ca    *pki.CA
	names []string
	ips   []net.IP
	now   func() time.Time
	leaf  atomic.Pointer[tls.Certificate]
}

// OpenCertificates loads the authority and the servers' certificate; it issues a
// new one if there is none, if it is due, or if it does not cover the names.
// Errors: errs.NotFound if there is no authority, errs.Corrupt.
func OpenCertificates(ctx context.Context, st store.Store, o CertificateOptions) (*Certificates, error) {
	const op = "identity.OpenCertificates"
	if st == nil {
		return nil, errs.New(errs.Sealed, op, "the organization is sealed")
	}
	c := &Certificates{st: st, now: o.Now}
	if c.now == nil {
		c.now = time.Now
	}
	c.names, c.ips = pki.SplitNames(o.Names)
	v, err := st.Get(ctx, []byte(keyCA))
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	defer clear(v)
	if c.ca, err = pki.ParseCA(v); err != nil {
		return nil, errs.Wrap(op, err)
	}
	if err := c.Renew(ctx); err != nil {
		return nil, errs.Wrap(op, err)
	}
	return c, nil
}

// CACertificate is the authority's certificate, PEM.
func (c *Certificates) CACertificate() string { return c.ca.CertificatePEM() }

// GetCertificate serves crypto/tls.
func (c *Certificates) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c != nil {
		if leaf := c.leaf.Load(); leaf != nil {
			return leaf, nil
		}
	}
	return nil, errs.New(errs.Sealed, "identity.GetCertificate", "the organization is sealed")
}

// Renew makes sure that the certificate in use is good now, and for a third of its life.
func (c *Certificates) Renew(ctx context.Context) error {
	const op = "identity.Renew"
	if c == nil || c.st == nil {
		return errs.New(errs.Sealed, op, "the organization is sealed")
	}
	now := c.now()
	if leaf := c.leaf.Load(); leaf != nil && c.good(leaf, now) {
		return nil
	}
	v, err := c.st.Get(ctx, []byte(keyLeaf))
	if err == nil {
		leaf, perr := pki.ParsePair(v)
		clear(v)
		if perr != nil {
			return errs.Wrap(op, perr)
		}
		if c.good(leaf, now) {
			c.leaf.Store(leaf)
			return nil
		}
	} else if !errs.Is(err, errs.NotFound) {
		return errs.Wrap(op, err)
	}
	leaf, err := c.ca.Issue(c.names, c.ips, now)
	if err != nil {
		return errs.Wrap(op, err)
	}
	if v, err = pki.EncodePair(leaf.PrivateKey, leaf.Leaf.Raw); err != nil {
		return err
	}
	defer clear(v)
	var b store.Batch
	b.Put([]byte(keyLeaf), v)
	if _, err := c.st.Commit(ctx, &b); err != nil {
		return errs.Wrap(op, err)
	}
	c.leaf.Store(leaf)
	return nil
}

// good reports whether a certificate is of this authority, covers exactly the
// names, is valid now and for a third of its life (also if the clock went back).
func (c *Certificates) good(leaf *tls.Certificate, now time.Time) bool {
	x := leaf.Leaf
	life := x.NotAfter.Sub(x.NotBefore)
	return !now.Before(x.NotBefore) && x.NotAfter.Sub(now) >= life/3 &&
		c.ca.Signed(x) &&
		slices.Equal(x.DNSNames, c.names) &&
		slices.EqualFunc(x.IPAddresses, c.ips, net.IP.Equal)
}

// Run renews the certificate until ctx ends, looking every hour. report is told
// of failures; the old certificate goes on being served.
func (c *Certificates) Run(ctx context.Context, report func(error)) {
	t := time.NewTicker(time.Hour)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := c.Renew(ctx); err != nil && ctx.Err() == nil && report != nil {
				report(err)
			}
		}
	}
}
