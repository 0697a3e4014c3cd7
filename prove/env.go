package prove

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"chancery/api/v1alpha1"
	"chancery/client"
	"chancery/internal/errs"
	"chancery/wall"
)

// Options of Run.
type Options struct {
	// Dir is the zone's directory on this machine: the checks read its raw disk.
	Dir string
	// S3, API are the front door's addresses; Domain the zone's; PID the zone's process.
	S3, API, Domain string
	PID             int
	// OperatorKubeconfig is the operator's credential: a scratch organization is created with it.
	OperatorKubeconfig string
	// Probe asks an organization's cell to try to break out; Seal seals one; CellPID
	// tells the process of its cell. All three are the operator's, over package wall.
	Probe   func(ctx context.Context, org string, in wall.Probe) (wall.ProbeReport, error)
	Seal    func(ctx context.Context, org string) error
	CellPID func(org string) (int, error)
	// Zone and Version are for the report.
	Zone, Version string
	// Each, if set, is told of every finding as it is made.
	Each func(Finding)
}

// env is what the checks work with.
type env struct {
	o        Options
	operator *client.Operator
	scratch  *scratch
}

// Run checks the promises and returns what it found. The error is only about
// what kept it from beginning, or from cleaning up.
func Run(ctx context.Context, o Options) (report Report, err error) {
	report = Report{Zone: o.Zone, Version: o.Version, Started: time.Now().UTC()}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return report, errs.Wrap("prove.Run", err)
	}
	e := &env{o: o}
	if e.operator, err = client.OpenOperator(o.OperatorKubeconfig); err != nil {
		return report, err
	}
	defer func() {
		if e.scratch != nil {
			// The scratch organization goes even if the run was interrupted.
			clean, done := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer done()
			err = errors.Join(err, e.operator.DeleteOrganization(clean, e.scratch.name))
		}
	}()
	report.Findings = runAll(ctx, e, checks, o.Each)
	if ctx.Err() != nil {
		return report, errs.New(errs.Unavailable, "prove.Run", "interrupted after %d of %d checks: what was not checked is not claimed", len(report.Findings), len(checks))
	}
	for _, n := range notBuilt {
		f := Finding{Promise: n, Title: Promises[n], Check: "none", Outcome: NotBuilt, Saw: "This version has nothing that could keep or break it."}
		if o.Each != nil {
			o.Each(f)
		}
		report.Findings = append(report.Findings, f)
	}
	return report, nil
}

// checks in the order in which they run: each may rely on what the earlier ones made.
var checks = []check{
	{1, "quorum", checkQuorum},
	{1, "sealed disk", checkSealedDisk},
	{2, "break-out from inside", checkBreakOut},
	{2, "sockets", checkSockets},
	{3, "what the operator sees", checkOperatorView},
	{4, "kill -9 after acknowledgement", checkDurable},
	{9, "no call home", checkNoCallHome},
	{10, "bytes put back after destruction", checkErased},
}

// notBuilt are the promises that come with later capabilities.
var notBuilt = []int{5, 6, 7, 8}

// makeScratch creates the scratch organization: three custodians of which two are needed.
func (e *env) makeScratch(ctx context.Context) (*scratch, error) {
	if e.scratch != nil {
		return e.scratch, nil
	}
	s := &scratch{e: e, name: "prove-" + randomHex(4)}
	var custodians []v1alpha1.Custodian
	for _, name := range []string{"one", "two", "three"} {
		c, err := newHolder(name)
		if err != nil {
			return nil, err
		}
		s.holders = append(s.holders, c)
		custodians = append(custodians, v1alpha1.Custodian{Name: name, Recipient: c.id.Recipient()})
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := e.operator.CreateOrganization(ctx, s.name, 2, custodians, false, false); err != nil {
		return nil, err
	}
	e.scratch = s // from here on it must be cleaned up
	_, err := e.operator.WaitOrganization(ctx, s.name, v1alpha1.OrganizationSealed)
	return s, err
}

// canary makes a secret that cannot be met by chance and may stand in names.
func canary(name string) Canary {
	return Canary{Name: name, Secret: []byte("canary-" + randomHex(12))}
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (it ends the program)
	return hex.EncodeToString(b)
}

// host is the name of a service of an organization in this zone.
func (e *env) host(service, org string) string { return service + "." + org + "." + e.o.Domain }

// dialer connects to a fixed address whatever name is asked for: the name is for TLS.
func dialer(address string) func(ctx context.Context, network, _ string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
}

// cellDir is where an organization's cell keeps its data, on the raw disk.
func (e *env) cellDir(org string) string { return filepath.Join(e.o.Dir, "cells", org) }

func evidence(f *Finding, format string, args ...any) {
	f.Evidence = append(f.Evidence, fmt.Sprintf(format, args...))
}

func sightingLines(s Searched) []string {
	var out []string
	for _, x := range s.Sightings {
		out = append(out, fmt.Sprintf("%s, %s, in %s at byte %d", x.Canary, x.Form, x.File, x.Offset))
	}
	return out
}

// plural counts things: what is the plural, formed with -s.
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + strings.TrimSuffix(what, "s")
	}
	return fmt.Sprintf("%d %s", n, what)
}
