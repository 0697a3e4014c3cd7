package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"chancery/custodian"
	"chancery/internal/errs"
	"chancery/zone"
)

// defaultDir is where a zone is looked for: $CHANCERY_DIR, else ./data.
func defaultDir() string {
	if dir := os.Getenv("CHANCERY_DIR"); dir != "" {
		return dir
	}
	return "data"
}

// dirFlag adds --dir.
func dirFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("dir", defaultDir(), "the zone's directory (default also from CHANCERY_DIR)")
}

// where tells how a custodian or administrator reaches an organization: by a
// zone's directory on this machine, or by an address from anywhere.
type where struct{ dir, endpoint, domain, pin string }

func whereFlags(cmd *cobra.Command) *where {
	w := &where{}
	cmd.Flags().StringVar(&w.dir, "dir", "", "the zone's directory, on the zone's own machine (default from CHANCERY_DIR, else ./data)")
	cmd.Flags().StringVar(&w.endpoint, "endpoint", "", "from another machine: the zone's API address, HOST:PORT (with --domain)")
	cmd.Flags().StringVar(&w.domain, "domain", "", "from another machine: the zone's DNS domain, such as zone.example")
	cmd.Flags().StringVar(&w.pin, "pin", "", "the identity of the cell, sha256:…, as chancery org create printed it: any other cell is refused")
	cmd.MarkFlagsMutuallyExclusive("dir", "endpoint")
	cmd.MarkFlagsRequiredTogether("endpoint", "domain")
	return w
}

// resolve returns the API address and the domain of the zone.
func (w *where) resolve() (endpoint, domain string, err error) {
	if w.endpoint != "" {
		return w.endpoint, strings.TrimSuffix(w.domain, "."), nil
	}
	dir := w.dir
	if dir == "" {
		dir = defaultDir()
	}
	settings, err := zone.Load(dir)
	if err != nil {
		return "", "", err
	}
	running, err := zone.LoadEndpoints(dir)
	if err != nil {
		return "", "", err
	}
	return running.API, settings.Domain, nil
}

// sealClient makes a client of an organization's seal service.
func (w *where) sealClient(org string) (*custodian.Client, error) {
	if !zone.ValidLabel(org) {
		return nil, errs.New(errs.Invalid, "", "organization %q: want a DNS label such as health", org)
	}
	endpoint, domain, err := w.resolve()
	if err != nil {
		return nil, err
	}
	return &custodian.Client{
		Endpoint:     endpoint,
		ServerName:   "seal." + org + "." + domain,
		Organization: org,
		Known:        w.known(),
		Pin:          strings.TrimPrefix(w.pin, "sha256:"),
	}, nil
}

// known is where this person's machine remembers organizations' identities. On
// the zone's own machine (--dir) nothing is remembered: there the directory says
// which cell is meant, and demonstrations come and go under one name.
func (w *where) known() *custodian.Known {
	config, err := os.UserConfigDir()
	if w.endpoint == "" || err != nil {
		return nil
	}
	return &custodian.Known{File: filepath.Join(config, "chancery", "known.json")}
}
