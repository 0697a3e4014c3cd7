package frontdoor

import "strings"

// Service is what a port is for.
type Service string

// The services of a zone.
const (
	S3  Service = "s3"
	API Service = "api"
)

// Names tells whom a TLS server name means, in a zone.
type Names struct {
	// Domain is the zone's DNS domain, lower case.
	Domain string
	// Default is the organization of clients that send no name, or localhost; empty is none.
	Default string
}

// Resolve returns the organization that a client of a service means. An empty
// organization with ok is the operator's own API server (api.DOMAIN). Names:
// s3.ORG.DOMAIN and anything below it (a bucket), api.ORG.DOMAIN, seal.ORG.DOMAIN.
func (n Names) Resolve(service Service, name string) (organization string, ok bool) {
	if organization, ok := n.explicit(service, name); ok {
		return organization, true
	}
	if name == "" || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return n.Default, n.Default != ""
	}
	return "", false
}

// explicit resolves a name below the zone's domain. It comes before the default,
// since a demonstration's domain may itself be localhost.
func (n Names) explicit(service Service, name string) (organization string, ok bool) {
	rest, below := strings.CutSuffix(name, "."+n.Domain)
	if n.Domain == "" || !below {
		return "", false
	}
	if service == API && rest == "api" {
		return "", true
	}
	dot := strings.LastIndexByte(rest, '.')
	if dot < 0 {
		return "", false
	}
	head, organization := rest[:dot], rest[dot+1:]
	switch service {
	case S3:
		ok = head == "s3" || strings.HasSuffix(head, ".s3")
	case API:
		ok = head == "api" || head == "seal"
	}
	return organization, ok && organization != ""
}
