// Package cell is an organization's dedicated environment: one process that locks
// itself down before it does anything else, speaks over three Unix sockets alone,
// runs sealed until a quorum of custodians has come, and then serves the
// organization's S3 and API.
//
// It must never open a network socket, never write a key or a plaintext outside
// the encrypted store, and never tell the zone more than wall's messages hold.
package cell

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"chancery/cell/seal"
	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/sandbox"
	"chancery/wall"
)

// maxConfig bounds the configuration line, in bytes.
const maxConfig = 64 << 10

// Cell is the running process.
type Cell struct {
	config   wall.Config
	version  string
	started  time.Time
	measures []sandbox.Measure
	log      *slog.Logger
	keeper   *seal.Keeper
	gate     gate
	fs       files.FS
	// certificates outlives a seal, so that S3 can answer Sealed under its own name.
	certificates certificateHolder
	stop         context.CancelFunc
}

// Main runs a cell and returns the process's exit status. It is called before the
// process has done anything else.
func Main(version string) int {
	view, err := sandbox.Enter(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cell:", err)
		return 1
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	// What speaks by these two is not ours.
	slog.SetDefault(foreign(log))
	klog.SetSlogLogger(foreign(log))
	config, err := readConfig(os.Stdin)
	if err != nil {
		log.Error("the cell cannot start", "error", err.Error())
		return 1
	}
	config.DataDir, config.RunDir, config.Sandbox = view.DataDir, view.RunDir, string(view.Mode)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, config, version, view.Measures, log); err != nil {
		log.Error("the cell ends", "error", err.Error())
		return 1
	}
	return 0
}

// readConfig reads the one line that the zone sends after the handoff.
func readConfig(in io.Reader) (wall.Config, error) {
	const op = "cell.readConfig"
	var c wall.Config
	line, err := bufio.NewReader(io.LimitReader(in, maxConfig)).ReadBytes('\n')
	if err != nil {
		return c, errs.New(errs.Invalid, op, "no configuration on standard input: %v", err)
	}
	if err := json.Unmarshal(line, &c); err != nil {
		return c, errs.New(errs.Invalid, op, "configuration: %v", err)
	}
	if !wall.IsLabel(c.Organization) || c.Domain == "" {
		return c, errs.New(errs.Invalid, op, "the configuration names no organization or no domain")
	}
	return c, nil
}

// run serves until ctx ends or the zone asks for the end.
func run(ctx context.Context, config wall.Config, version string, measures []sandbox.Measure, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &Cell{config: config, version: version, started: time.Now(), measures: measures, log: log, fs: files.OS(), stop: cancel}
	var err error
	if c.keeper, err = seal.Open(c.custodyOptions(c.unseal)); err != nil {
		return err
	}
	if c.keeper.Status().State == wall.Destroyed {
		c.destroyed(ctx) // a crash may have come before
	}
	servers, err := c.listen(ctx)
	if err != nil {
		return err
	}
	log.Info("the cell serves", "state", string(c.keeper.Status().State), "sandbox", config.Sandbox, "version", version)
	var group sync.WaitGroup
	failed := make(chan error, len(servers))
	for _, s := range servers {
		group.Go(func() {
			if err := s.serve(); err != nil {
				failed <- err
				cancel()
			}
		})
	}
	<-ctx.Done()
	// Clients get their answers first, then the keys go.
	drain, done := context.WithTimeout(context.Background(), drainTime)
	defer done()
	for _, s := range servers {
		group.Go(func() { s.shutdown(drain) })
	}
	group.Wait()
	err = c.keeper.Seal(drain)
	select {
	case failure := <-failed:
		return failure
	default:
		return err
	}
}
