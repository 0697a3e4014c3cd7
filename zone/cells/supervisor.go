// Package cells starts, watches and ends the cells of a zone: one confined
// process for each organization (internal/sandbox), restarted with growing
// pauses when it ends, and always sealed after a restart.
//
// It speaks with a cell by the messages of package wall and by nothing else. It
// must never read a cell's data, never follow a name that a cell made, and never
// end a process that it did not start.
package cells

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/sandbox"
	"chancery/wall"
)

// Options configure a Supervisor. Only Dir must be set.
type Options struct {
	// Dir is the zone's directory; the cells live in Dir/cells/ORG.
	Dir string
	// Program and Args are what runs as a cell: default this program with sandbox.Subcommand.
	Program string
	Args    []string
	// Env is the cells' whole environment: settings of the Go runtime, never a secret.
	Env []string
	// Log hears of starts and ends. Never of what is inside.
	Log *slog.Logger
	// Mode forces a way of confinement; empty finds out by trying.
	Mode sandbox.Mode
	// Timing: zero fields get their defaults.
	Timing Timing
}

// Timing bounds the supervisor's patience.
type Timing struct {
	// MinPause and MaxPause bound the pause before a restart: 0.1 s, doubling, to 30 s.
	MinPause, MaxPause time.Duration
	// Healthy is how long a cell must answer before the pause begins anew: 1 min.
	Healthy time.Duration
	// Watch is the time between two looks at a cell: 2 s; 20 ms until it first answers.
	Watch time.Duration
	// Silent is how long a cell may not answer before it is ended and restarted: 1 min.
	// Generous, since a restart seals.
	Silent time.Duration
	// Stop is how long a cell may take to end cleanly: 20 s.
	Stop time.Duration
}

// Supervisor runs the cells of one zone.
type Supervisor struct {
	o      Options
	mode   sandbox.Mode
	reason string
	uids   *uids
	lock   io.Closer

	mu     sync.Mutex
	cells  map[string]*cell
	closed bool
}

// New takes the zone's cells directory (one supervisor at a time) and finds out
// how cells can be confined here. It starts nothing.
func New(o Options) (*Supervisor, error) {
	const op = "cells.New"
	if !filepath.IsAbs(o.Dir) {
		return nil, errs.New(errs.Invalid, op, "directory %q is not an absolute path", o.Dir)
	}
	if len(o.Args) == 0 {
		o.Args = []string{sandbox.Subcommand}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Timing = o.Timing.withDefaults()
	dir := filepath.Join(o.Dir, "cells")
	if err := files.MkdirAll(files.OS(), dir); err != nil {
		return nil, errs.Wrap(op, err)
	}
	lock, err := files.OS().Lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	s := &Supervisor{o: o, mode: o.Mode, reason: "chosen by the operator", cells: map[string]*cell{}, lock: lock}
	if s.mode == "" {
		s.mode, s.reason = sandbox.Detect(o.Args, o.Program)
	}
	if s.mode != sandbox.ModeNamespaces {
		o.Log.Warn("cells run without namespaces of their own", "why", s.reason)
	}
	if s.uids, err = openUIDs(dir, s.mode, o.Log); err != nil {
		lock.Close()
		return nil, errs.Wrap(op, err)
	}
	return s, nil
}

func (t Timing) withDefaults() Timing {
	for d, def := range map[*time.Duration]time.Duration{&t.MinPause: 100 * time.Millisecond, &t.MaxPause: 30 * time.Second,
		&t.Healthy: time.Minute, &t.Watch: 2 * time.Second, &t.Silent: time.Minute, &t.Stop: 20 * time.Second} {
		if *d <= 0 {
			*d = def
		}
	}
	return t
}

// Ensure makes a cell run, and waits until it answers or ctx ends (then the cell
// goes on starting). A cell that runs keeps running; a changed Config is used at
// its next start, since a restart would seal it. DataDir, RunDir and Sandbox of
// the Config are set here.
func (s *Supervisor) Ensure(ctx context.Context, c wall.Config) error {
	const op = "cells.Ensure"
	if !wall.IsLabel(c.Organization) {
		return errs.New(errs.Invalid, op, "organization %q: want a DNS label", c.Organization)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errs.New(errs.Unavailable, op, "the supervisor is closed")
	}
	k := s.cells[c.Organization]
	if k == nil {
		var err error
		if k, err = s.newCell(c); err != nil {
			s.mu.Unlock()
			return errs.Wrap(op, err)
		}
		s.cells[c.Organization] = k
		go k.run()
	}
	s.mu.Unlock()
	k.setConfig(c)
	select {
	case <-k.answered:
		return nil
	case <-k.ended:
		return errs.New(errs.Unavailable, op, "the cell of %s was stopped", c.Organization)
	case <-ctx.Done():
		st := k.Status()
		return &errs.Error{Kind: errs.Unavailable, Op: op, Subject: c.Organization, Err: ctx.Err(),
			Message: "the cell does not answer yet; last end: " + st.LastExit}
	}
}

// Remove ends a cell and forgets it. Its data stays where it is.
func (s *Supervisor) Remove(ctx context.Context, organization string) error {
	s.mu.Lock()
	k := s.cells[organization]
	delete(s.cells, organization)
	s.mu.Unlock()
	if k == nil {
		return errs.New(errs.NotFound, "cells.Remove", "no cell of organization %s runs", organization)
	}
	k.end(ctx)
	return nil
}

// Status tells about one cell.
func (s *Supervisor) Status(organization string) (Status, bool) {
	k := s.cell(organization)
	if k == nil {
		return Status{}, false
	}
	return k.Status(), true
}

// List tells about all cells, by organization.
func (s *Supervisor) List() []Status {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.cells))
	s.mu.Unlock()
	out := make([]Status, 0, len(all))
	for _, k := range all {
		out = append(out, k.Status())
	}
	slices.SortFunc(out, func(a, b Status) int {
		if a.Organization < b.Organization {
			return -1
		}
		return 1
	})
	return out
}

// Mode tells how cells are confined here, and why so.
func (s *Supervisor) Mode() (sandbox.Mode, string) { return s.mode, s.reason }

// Client speaks with a cell over the wall.
func (s *Supervisor) Client(organization string) (*Client, error) {
	k := s.cell(organization)
	if k == nil {
		return nil, errs.New(errs.NotFound, "cells.Client", "no cell of organization %s runs", organization)
	}
	return k.client, nil
}

// Dial connects to one of a cell's sockets (wall.SocketS3, wall.SocketAPI), for the front door.
func (s *Supervisor) Dial(ctx context.Context, organization, socket string) (net.Conn, error) {
	k := s.cell(organization)
	if k == nil {
		return nil, errs.New(errs.NotFound, "cells.Dial", "no cell of organization %s runs", organization)
	}
	return dial(ctx, k.runDir, socket)
}

func (s *Supervisor) cell(organization string) *cell {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cells[organization]
}

// Close ends all cells, cleanly while ctx lasts, and gives the directory back.
func (s *Supervisor) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	all := slices.Collect(maps.Values(s.cells))
	clear(s.cells)
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, k := range all {
		wg.Go(func() { k.end(ctx) })
	}
	wg.Wait()
	return errs.Wrap("cells.Close", s.lock.Close())
}

// cellDirs makes a cell's directories. They are closed to everyone but the
// supervisor and, inside, the cell's own host user.
func (s *Supervisor) cellDirs(organization string) (dir string, err error) {
	dir = filepath.Join(s.o.Dir, "cells", organization)
	for _, d := range []string{filepath.Join(dir, "data"), filepath.Join(dir, "run")} {
		if err := files.MkdirAll(files.OS(), d); err != nil {
			return "", err
		}
	}
	// What an earlier cell left of its sockets.
	entries, err := os.ReadDir(filepath.Join(dir, "run"))
	for _, e := range entries {
		if e.Type()&os.ModeSocket != 0 {
			err = errors.Join(err, os.Remove(filepath.Join(dir, "run", e.Name())))
		}
	}
	return dir, err
}
