// Package zone is the operator's plane of one installation: it starts and
// watches cells, routes clients to them by TLS server name, and serves the
// operator's resources. It never holds a key, a share or a plaintext of an
// organization, and never imports anything from inside the wall (cell/...).
package zone

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"chancery/internal/errs"
	"chancery/internal/files"
)

// Settings are what a zone is, in DIR/zone.json. They are the operator's, and hold no secret.
type Settings struct {
	// Name of the zone, a DNS label ("lu-1").
	Name string `json:"name"`
	// Jurisdiction under whose law the zone stands, ISO 3166-1 alpha-2 ("LU").
	Jurisdiction string `json:"jurisdiction"`
	// Domain is the DNS domain that clients use: s3.ORG.DOMAIN, api.ORG.DOMAIN, seal.ORG.DOMAIN.
	Domain string `json:"domain"`
	// S3Listen and APIListen are the front door's addresses, host:port. Port 0 picks a free one at each start.
	S3Listen  string `json:"s3Listen"`
	APIListen string `json:"apiListen"`
	// OperatorListen is the address of the operator's own API server. Keep it off the customers' network.
	OperatorListen string `json:"operatorListen"`
	// DefaultOrganization answers clients that send no TLS server name (they connect to an IP address).
	DefaultOrganization string `json:"defaultOrganization,omitempty"`
	// Demonstration marks a zone made by `chancery up`: its custodian's identity lies beside the data.
	Demonstration bool `json:"demonstration,omitempty"`
}

var (
	labelPattern        = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	jurisdictionPattern = regexp.MustCompile(`^[A-Z]{2}$`)
)

// ValidLabel tells whether s can name a zone or an organization: a DNS label of RFC 1123, lower case.
func ValidLabel(s string) bool { return labelPattern.MatchString(s) }

// Validate returns an errs.Invalid error that names the first setting that is wrong.
func (s Settings) Validate() error {
	const op = "zone.Settings"
	if !ValidLabel(s.Name) {
		return errs.New(errs.Invalid, op, "name %q: want a DNS label such as lu-1", s.Name)
	}
	if !jurisdictionPattern.MatchString(s.Jurisdiction) {
		return errs.New(errs.Invalid, op, "jurisdiction %q: want a country code of two capital letters (ISO 3166-1), such as LU", s.Jurisdiction)
	}
	if s.Domain == "" || len(s.Domain) > 180 {
		return errs.New(errs.Invalid, op, "domain %q: want a DNS domain such as zone.example", s.Domain)
	}
	for label := range strings.SplitSeq(s.Domain, ".") {
		if !ValidLabel(label) {
			return errs.New(errs.Invalid, op, "domain %q: %q is not a DNS label", s.Domain, label)
		}
	}
	for name, addr := range map[string]string{"s3Listen": s.S3Listen, "apiListen": s.APIListen, "operatorListen": s.OperatorListen} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return errs.New(errs.Invalid, op, "%s %q: want host:port", name, addr)
		}
	}
	if s.DefaultOrganization != "" && !ValidLabel(s.DefaultOrganization) {
		return errs.New(errs.Invalid, op, "defaultOrganization %q: want a DNS label", s.DefaultOrganization)
	}
	return nil
}

// Init makes a new zone's directory. It refuses one that holds a zone already.
func Init(dir string, s Settings) error {
	const op = "zone.Init"
	if err := s.Validate(); err != nil {
		return err
	}
	path := filepath.Join(dir, "zone.json")
	if _, err := os.Stat(path); err == nil {
		return errs.New(errs.Exists, op, "%s holds a zone already; use `chancery zone serve --dir %s`", dir, dir)
	}
	if err := files.MkdirAll(files.OS(), dir); err != nil {
		return errs.WrapKind(errs.Invalid, op, err)
	}
	return saveSettings(dir, s)
}

func saveSettings(dir string, s Settings) error {
	body, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return errs.Wrap("zone.Init", err)
	}
	return files.WriteFile(files.OS(), filepath.Join(dir, "zone.json"), append(body, '\n'))
}

// Load reads a zone's settings.
func Load(dir string) (Settings, error) {
	const op = "zone.Load"
	var s Settings
	body, err := os.ReadFile(filepath.Join(dir, "zone.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, errs.New(errs.NotFound, op, "no zone in %s; make one with `chancery zone init --dir %s …`, or a demonstration with `chancery up --dir %s`", dir, dir, dir)
	}
	if err != nil {
		return s, errs.Wrap(op, err)
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, errs.New(errs.Invalid, op, "%s/zone.json: %v", dir, err)
	}
	if err := s.Validate(); err != nil {
		return s, fmt.Errorf("%s/zone.json: %w", dir, err)
	}
	return s, nil
}
