package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// domain is the DNS domain of real zones in tests (RFC 2606): no resolver knows it.
const domain = "zone.example"

// RealOptions say which real zone to start. Only Dir is required.
type RealOptions struct {
	// Dir will hold the zone's data and, beside it, the custodians' identities.
	Dir string
	// Organizations by name; the first is the zone's default. "health" and "justice" when empty.
	Organizations []string
	// Custodians and Quorum of each organization; 3 and 2 when zero.
	Custodians, Quorum int
	// Binary is the program; Binary() when empty.
	Binary string
	// Wrap are words put before the zone's own command line, such as a program
	// that starts it elsewhere.
	Wrap []string
}

// Real is a zone as `chancery zone init` and `zone serve` make it, with
// organizations that only a quorum of custodians unseals. Its methods are not for
// concurrent use, but Logs, CLI and those of the organizations are.
type Real struct {
	process
	opts RealOptions
	// S3, API and Operator are the addresses (host:port) of this start.
	S3, API, Operator string
	orgs              map[string]*Organization
}

// StartReal makes a real zone in a new directory, starts it, and unseals its
// organizations. The caller must Stop it.
func StartReal(ctx context.Context, o RealOptions) (*Real, error) {
	if o.Dir == "" {
		return nil, errors.New("harness: no directory")
	}
	if len(o.Organizations) == 0 {
		o.Organizations = []string{"health", "justice"}
	}
	if o.Custodians == 0 {
		o.Custodians, o.Quorum = 3, 2
	}
	if o.Binary == "" {
		path, err := Binary()
		if err != nil {
			return nil, err
		}
		o.Binary = path
	}
	z := &Real{opts: o, orgs: make(map[string]*Organization)}
	if err := z.create(ctx); err != nil {
		return nil, errors.Join(err, fmt.Errorf("the zone's log:\n%s", z.Logs()), z.Kill())
	}
	return z, nil
}

func (z *Real) create(ctx context.Context) error {
	local := "127.0.0.1:0"
	if _, err := z.CLI(ctx, "zone", "init", "--dir", z.Dir(), "--name", "lu-1", "--jurisdiction", "LU", "--domain", domain,
		"--s3-listen", local, "--api-listen", local, "--operator-listen", local, "--default-organization", z.opts.Organizations[0]); err != nil {
		return err
	}
	if err := z.Serve(ctx); err != nil {
		return err
	}
	for _, name := range z.opts.Organizations {
		args := []string{"org", "create", name, "--dir", z.Dir(), "--quorum", fmt.Sprint(z.opts.Quorum)}
		for i := range z.opts.Custodians {
			id := z.Identity(name, i)
			if err := os.MkdirAll(filepath.Dir(id), 0o700); err != nil {
				return fmt.Errorf("harness: %w", err)
			}
			if _, err := z.CLI(ctx, "custodian", "keygen", "--out", id); err != nil {
				return err
			}
			args = append(args, "--custodian", fmt.Sprintf("c%d=%s", i+1, id))
		}
		if _, err := z.CLI(ctx, args...); err != nil {
			return err
		}
		z.orgs[name] = &Organization{Name: name, z: z}
		if err := z.Unseal(ctx, name); err != nil {
			return err
		}
		if err := z.orgs[name].fetch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Dir is the zone's data directory.
func (z *Real) Dir() string { return filepath.Join(z.opts.Dir, "zone") }

// Data is the directory that an organization's cell keeps its data in.
func (z *Real) Data(org string) string { return filepath.Join(z.Dir(), "cells", org, "data") }

// Identity is the file of an organization's i-th custodian (from 0).
func (z *Real) Identity(org string, i int) string {
	return filepath.Join(z.opts.Dir, "custodians", org, fmt.Sprintf("c%d.identity", i+1))
}

// Org is an organization that was made at the start; nil if there is none of the name.
func (z *Real) Org(name string) *Organization { return z.orgs[name] }

// Serve starts the zone. Its organizations stay sealed.
func (z *Real) Serve(ctx context.Context) error {
	if err := os.Remove(filepath.Join(z.Dir(), "endpoints.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("harness: %w", err)
	}
	line := append(append([]string{}, z.opts.Wrap...), z.opts.Binary, "zone", "serve", "--dir", z.Dir())
	if err := z.begin(line[0], line[1:]...); err != nil {
		return err
	}
	deadline := time.Now().Add(time.Minute)
	for {
		body, err := os.ReadFile(filepath.Join(z.Dir(), "endpoints.json"))
		if err == nil {
			var e struct{ S3, API, Operator string }
			if err := json.Unmarshal(body, &e); err != nil {
				return fmt.Errorf("harness: endpoints.json: %w", err)
			}
			z.S3, z.API, z.Operator = e.S3, e.API, e.Operator
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-z.done:
			return fmt.Errorf("harness: the zone ended before it served: %w\n%s", errors.Join(z.err, err), z.Logs())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("harness: the zone does not serve: %w\n%s", err, z.Logs())
		}
	}
}

// Unseal has a quorum of custodians unseal an organization, by the command line,
// and waits until its S3 and its API answer. A cell that is just starting is waited for.
func (z *Real) Unseal(ctx context.Context, org string) error {
	for i := range z.opts.Quorum {
		deadline := time.Now().Add(time.Minute)
		for {
			out, err := z.CLI(ctx, "org", "unseal", org, "--dir", z.Dir(), "--identity", z.Identity(org, i))
			if err == nil {
				break
			}
			// A cell that has not opened its socket yet refuses the connection.
			passing := strings.Contains(out, "internal error") || strings.Contains(out, "unrecognized name") || strings.Contains(out, "EOF")
			if !passing || time.Now().After(deadline) {
				return err
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return nil
}

// Restart stops the zone cleanly, starts it and unseals every organization.
func (z *Real) Restart(ctx context.Context) error {
	if err := z.Stop(); err != nil {
		return err
	}
	if err := z.Serve(ctx); err != nil {
		return err
	}
	for _, name := range z.opts.Organizations {
		if err := z.Unseal(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// CLI runs the product's command line, and returns what it printed on either stream.
func (z *Real) CLI(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, z.opts.Binary, args...)
	cmd.Env = cleanEnvironment()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("harness: chancery %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

// CellPID is the process of an organization's cell: the kernel tells who listens
// on its wall socket (unix(7), SO_PEERCRED).
func (z *Real) CellPID(ctx context.Context, org string) (int, error) {
	run, err := os.Open(filepath.Join(z.Dir(), "cells", org, "run"))
	if err != nil {
		return 0, fmt.Errorf("harness: %w", err)
	}
	defer run.Close()
	// By way of the descriptor: the whole path may be longer than a socket's may be.
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/wall.sock", run.Fd()))
	if err != nil {
		return 0, fmt.Errorf("harness: %w", err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("harness: %w", err)
	}
	var peer *syscall.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil || peerErr != nil {
		return 0, fmt.Errorf("harness: %w", errors.Join(err, peerErr))
	}
	return int(peer.Pid), nil
}

// dialer connects to one address, whatever name was asked for.
func dialer(address func() string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address())
	}
}
