package pki

import (
	"crypto/tls"
	"net"
	"sync"
	"time"

	"chancery/internal/errs"
)

// Server issues and renews one server certificate in memory, so that a server
// never stops with a date. Safe for concurrent use. The zero Server refuses.
type Server struct {
	ca    *CA
	names []string
	ips   []net.IP
	now   func() time.Time

	mu   sync.Mutex
	leaf *tls.Certificate
}

// NewServer makes a Server for DNS names and addresses. A nil now is time.Now.
func NewServer(ca *CA, names []string, now func() time.Time) *Server {
	s := &Server{ca: ca, now: now}
	if s.now == nil {
		s.now = time.Now
	}
	s.names, s.ips = SplitNames(names)
	return s
}

// GetCertificate serves crypto/tls: the certificate in use, or a new one when
// less than a third of its life remains.
func (s *Server) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s == nil || s.now == nil {
		return nil, errs.New(errs.Sealed, "pki.GetCertificate", "there is no authority")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.leaf != nil && !now.Before(s.leaf.Leaf.NotBefore) && s.leaf.Leaf.NotAfter.Sub(now) > LeafLife/3 {
		return s.leaf, nil
	}
	leaf, err := s.ca.Issue(s.names, s.ips, now)
	if err != nil {
		return nil, errs.Wrap("pki.GetCertificate", err)
	}
	s.leaf = leaf
	return leaf, nil
}
