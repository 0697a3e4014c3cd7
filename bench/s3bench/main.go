// Command s3bench measures S3 servers side by side: operations and latency as
// clients see them, CPU time and memory as the server spends them.
//
// With --start it starts a demonstration zone in a temporary directory, and a
// MinIO server beside it where the program is there; without, it takes the server
// from AWS_ENDPOINT_URL and the other variables that clients know. It must run on
// the machine of the server to see CPU time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"chancery/bench/procstat"
	"chancery/bench/s3load"
	"chancery/test/harness"
)

type options struct {
	start, minio, json string
	tree               int
	peers              []string
	sizes, operations  []string
	cell               s3load.Cell
	mode               string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "s3bench:", err)
		}
		stop()
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	o := options{cell: s3load.Cell{}}
	f := flag.NewFlagSet("s3bench", flag.ContinueOnError)
	f.StringVar(&o.start, "start", "", "start this chancery `binary` as `up` in a temporary directory and measure it")
	f.StringVar(&o.minio, "minio", "minio", "with --start: also measure this MinIO `binary` if it is found; empty for none")
	f.IntVar(&o.tree, "tree", 0, "process `id` of the server at AWS_ENDPOINT_URL; its descendants count too")
	f.Func("peer", "also measure `name,ENVFILE[,PID]`: ENVFILE assigns AWS_ENDPOINT_URL and the others, PID is the server's; may be repeated", func(s string) error {
		o.peers = append(o.peers, s)
		return nil
	})
	f.StringVar(&o.json, "json", "", "also write the results to this `file`")
	sizes := f.String("sizes", "4KiB,1MiB,16MiB", "object sizes, separated by commas")
	operations := f.String("ops", "put,get,mixed,list", "operations, separated by commas")
	f.IntVar(&o.cell.Clients, "clients", 8, "clients at the same time")
	f.DurationVar(&o.cell.Duration, "duration", 8*time.Second, "how long each cell is measured")
	f.DurationVar(&o.cell.Warmup, "warmup", time.Second, "how long each cell is run before that")
	f.DurationVar(&o.cell.Settle, "settle", 300*time.Millisecond, "how long after it the server's CPU time still counts")
	f.StringVar(&o.mode, "payload", string(s3load.Unsigned), "how uploads are protected: unsigned, sha256 or trailer")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.start != "" && o.tree != 0 {
		return o, errors.New("--tree is for a server that runs already; --start knows its own")
	}
	o.sizes, o.operations = strings.Split(*sizes, ","), strings.Split(*operations, ",")
	o.cell.Mode = s3load.Mode(o.mode)
	return o, nil
}

// cells lays out the matrix: every operation in every size; a listing has no size.
func (o options) cells() ([]s3load.Cell, error) {
	var cells []s3load.Cell
	for _, op := range o.operations {
		for _, text := range o.sizes {
			size, err := parseSize(text)
			if err != nil {
				return nil, err
			}
			cell := o.cell
			cell.Operation, cell.Size = s3load.Operation(op), size
			if cell.Operation == s3load.List {
				cell.Size = 0
				if slices.Contains(cells, cell) {
					continue
				}
			}
			cells = append(cells, cell)
		}
	}
	return cells, nil
}

// parseSize reads 4096, 4KiB, 1MiB or 1GiB.
func parseSize(s string) (int, error) {
	unit := 1
	digits := s
	for suffix, factor := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if before, ok := strings.CutSuffix(s, suffix); ok {
			digits, unit = before, factor
		}
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > 5<<30/unit {
		return 0, fmt.Errorf("size %q: want bytes, or a number of KiB, MiB or GiB, at most 5GiB", s)
	}
	return n * unit, nil
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	cells, err := o.cells()
	if err != nil {
		return err
	}
	report := s3load.Report{Started: time.Now().UTC(), Machine: s3load.Machine()}
	var targets []s3load.Target
	if o.start != "" {
		started, err := startAll(ctx, o)
		defer func() {
			for _, s := range started {
				if stopErr := s.stop(); stopErr != nil {
					fmt.Fprintln(os.Stderr, "s3bench:", stopErr)
				}
			}
		}()
		if err != nil {
			return err
		}
		for _, s := range started {
			targets = append(targets, s.target)
			report.Starts = append(report.Starts, s.start)
			fmt.Printf("%s: serving %.2f s after its start, %.0f MiB resident when idle, %d processes\n",
				s.target.Name, s.start.ReadySeconds, float64(s.start.IdleRSS)/(1<<20), s.start.Processes)
		}
	} else {
		t, err := target("server", environment(), o.tree)
		if err != nil {
			return err
		}
		targets = append(targets, t)
	}
	for _, text := range o.peers {
		t, err := peer(text)
		if err != nil {
			return err
		}
		targets = append(targets, t)
	}
	if report.Results, err = measure(ctx, cells, targets); err != nil {
		return err
	}
	fmt.Println()
	if err := s3load.WriteTable(os.Stdout, report.Results); err != nil {
		return err
	}
	if o.json != "" {
		if err := report.WriteJSON(o.json); err != nil {
			return err
		}
		fmt.Println("\nwritten to", o.json)
	}
	return nil
}

// measure runs every cell on each target in turn, so that a noisy hour hits all alike.
func measure(ctx context.Context, cells []s3load.Cell, targets []s3load.Target) ([]s3load.Result, error) {
	var results []s3load.Result
	for i, cell := range cells {
		for _, t := range targets {
			fmt.Printf("%d/%d %s %s %s\n", i+1, len(cells), t.Name, cell.Operation, s3load.SizeName(cell.Size))
			r, err := s3load.Run(ctx, t, cell)
			if err != nil {
				return nil, fmt.Errorf("%s: %s %s: %w", t.Name, cell.Operation, s3load.SizeName(cell.Size), err)
			}
			results = append(results, r)
		}
	}
	return results, nil
}

// environment is our own, by name.
func environment() map[string]string {
	env := make(map[string]string)
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	return env
}

// peer reads a --peer. Secrets come from the file, never from the command line.
func peer(text string) (s3load.Target, error) {
	fields := strings.Split(text, ",")
	if len(fields) < 2 || len(fields) > 3 || fields[0] == "" {
		return s3load.Target{}, fmt.Errorf("--peer %q: want name,ENVFILE[,PID]", text)
	}
	env, err := harness.ReadEnv(fields[1])
	if err != nil {
		return s3load.Target{}, err
	}
	pid := 0
	if len(fields) == 3 {
		if pid, err = strconv.Atoi(fields[2]); err != nil || pid < 1 {
			return s3load.Target{}, fmt.Errorf("--peer %q: %q is no process id", text, fields[2])
		}
	}
	return target(fields[0], env, pid)
}

// target makes a target of the variables that clients know. Without a CA bundle the system's CAs are trusted.
func target(name string, env map[string]string, root int) (s3load.Target, error) {
	t := s3load.Target{
		Name:     name,
		Endpoint: env[harness.EndpointURL],
		Credentials: s3load.Credentials{
			AccessKeyID: env[harness.AccessKeyID], Secret: env[harness.SecretKey], Region: env[harness.Region],
		},
	}
	if t.Endpoint == "" {
		return t, fmt.Errorf("%s: %s is not set (source a demo.env, or use --start)", name, harness.EndpointURL)
	}
	if path := env[harness.CABundle]; path != "" {
		pool, err := harness.CertPool(path)
		if err != nil {
			return t, err
		}
		t.Roots = pool
	}
	if root != 0 {
		if _, err := procstat.Tree(root); err != nil {
			return t, err
		}
		t.PIDs = func() ([]int, error) { return procstat.Tree(root) }
	}
	return t, nil
}
