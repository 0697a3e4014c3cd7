// Package harness starts a real demonstration zone from the real binary for tests
// and measurements, waits until it serves, and stops it. It knows the product only
// from outside: its command line, its demo.env and its ports. It ends only the
// processes that it started, by their ids.
package harness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chancery/bench/procstat"
)

// Options say which zone to start. Only Dir is required.
type Options struct {
	// Dir is the zone's data directory. It may hold the data of an earlier run.
	Dir string
	// Org is the organization's name; "demo" when empty.
	Org string
	// Args are further arguments of `chancery up`. Ports are free ones unless given here.
	Args []string
	// Binary is the program; Binary() when empty.
	Binary string
	// Ready is how long to wait until S3 answers; two minutes when zero.
	Ready time.Duration
}

// Zone is a running (or stopped) demonstration zone. Its methods are not for concurrent use, but Logs is.
type Zone struct {
	opts Options
	// Env holds the variables of demo.env, new ones after each Start.
	Env map[string]string
	// StartTime is how long the last start took until S3 answered.
	StartTime time.Duration

	logs tail
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	err  error         // how it ended; read after done
}

// Up starts a zone for a test and stops it when the test ends. It fails the test
// if the zone does not start or does not stop; then the zone's log is printed.
func Up(t testing.TB, opts Options) *Zone {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	z, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := z.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the zone's log:\n%s", z.Logs())
		}
	})
	return z
}

// Start starts a zone and waits until S3 answers. The caller must Stop it.
func Start(ctx context.Context, opts Options) (*Zone, error) {
	if opts.Dir == "" {
		return nil, errors.New("harness: no directory")
	}
	if opts.Org == "" {
		opts.Org = "demo"
	}
	if opts.Ready == 0 {
		opts.Ready = 2 * time.Minute
	}
	if opts.Binary == "" {
		path, err := Binary()
		if err != nil {
			return nil, err
		}
		opts.Binary = path
	}
	z := &Zone{opts: opts}
	return z, z.Start(ctx)
}

// Start starts a stopped zone again on the same data. Ports may change.
func (z *Zone) Start(ctx context.Context) error {
	if z.Running() {
		return errors.New("harness: the zone runs already")
	}
	// A demo.env of an earlier run would tell old ports.
	if err := os.Remove(z.envFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("harness: %w", err)
	}
	args := []string{"up", "--dir", z.opts.Dir, "--org", z.opts.Org}
	for _, flag := range []string{"--s3-port", "--api-port"} {
		if !slices.ContainsFunc(z.opts.Args, func(a string) bool { return a == flag || strings.HasPrefix(a, flag+"=") }) {
			args = append(args, flag, "0")
		}
	}
	cmd := exec.Command(z.opts.Binary, append(args, z.opts.Args...)...)
	cmd.Env = cleanEnvironment()
	cmd.Stdout, cmd.Stderr = &z.logs, &z.logs
	cmd.WaitDelay = 3 * time.Second // a descendant that kept the pipe must not hold Wait for ever
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	z.cmd, z.done = cmd, make(chan struct{})
	go func() {
		z.err = cmd.Wait()
		close(z.done)
	}()
	if err := z.awaitReady(ctx); err != nil {
		return errors.Join(fmt.Errorf("harness: %s: %w\nits log:\n%s", strings.Join(cmd.Args, " "), err, z.Logs()), z.Kill())
	}
	z.StartTime = time.Since(started)
	return nil
}

// awaitReady waits for demo.env, and then until S3 gives an answer other than 503.
func (z *Zone) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, z.opts.Ready)
	defer cancel()
	last := errors.New("demo.env was not written")
	for {
		env, err := ReadEnv(z.envFile())
		if err == nil {
			err = complete(env)
		}
		if err == nil {
			z.Env = env
			err = z.probe(ctx)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			last = err
		}
		select {
		case <-z.done:
			return fmt.Errorf("ended before it served: %w", errors.Join(z.err, last))
		case <-ctx.Done():
			return fmt.Errorf("not ready after %v: %w", z.opts.Ready, last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// probe asks S3 for anything, unsigned. Whoever serves refuses it with 403; a
// sealed or absent cell answers 503 or nothing.
func (z *Zone) probe(ctx context.Context) error {
	client, err := z.HTTPClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, z.Env[EndpointURL]+"/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode >= 500 {
		return fmt.Errorf("S3 answers %s", resp.Status)
	}
	return nil
}

// Stop ends the zone as Ctrl-C does, waits until it and its cells are gone, and
// reports an end that was not clean. Stopping a stopped zone does nothing.
func (z *Zone) Stop() error { return z.end(syscall.SIGINT, 30*time.Second) }

// Kill ends the zone with SIGKILL, as a crash does, and waits until its cells are gone too.
func (z *Zone) Kill() error { return z.end(syscall.SIGKILL, 10*time.Second) }

func (z *Zone) end(sig syscall.Signal, wait time.Duration) error {
	if !z.Running() {
		return nil
	}
	pid := z.PID()
	tree, err := procstat.Tree(pid)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := z.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("harness: %v to %d: %w", sig, pid, err)
	}
	var problems []error
	select {
	case <-z.done:
		if exit := (*exec.ExitError)(nil); sig != syscall.SIGKILL && errors.As(z.err, &exit) {
			problems = append(problems, fmt.Errorf("harness: the zone ended with %w", z.err))
		}
	case <-time.After(wait):
		problems = append(problems, fmt.Errorf("harness: the zone did not end within %v of %v", wait, sig))
		_ = z.cmd.Process.Kill() // by id, ours; it may have ended this instant
		<-z.done
	}
	z.cmd = nil
	return errors.Join(append(problems, awaitGone(tree, 5*time.Second))...)
}

// awaitGone waits until processes have ended. What is left then is killed, and is an error.
func awaitGone(pids []int, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		left := slices.DeleteFunc(slices.Clone(pids), func(pid int) bool {
			return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
		})
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL) // descendants of the zone we started
			}
			return fmt.Errorf("harness: processes %v outlived the zone", left)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Running tells whether the zone's process was started and has not been ended.
func (z *Zone) Running() bool {
	if z.cmd == nil {
		return false
	}
	select {
	case <-z.done:
		z.cmd = nil
		return false
	default:
		return true
	}
}

// PID is the zone's process id; 0 when it does not run.
func (z *Zone) PID() int {
	if z.cmd == nil {
		return 0
	}
	return z.cmd.Process.Pid
}

// Dir is the zone's data directory.
func (z *Zone) Dir() string { return z.opts.Dir }

// Logs returns the end of what the zone has printed, over all its starts.
func (z *Zone) Logs() string { return z.logs.String() }

// Environ is the environment for a client: ours without what could lead it
// elsewhere (other AWS settings, proxies), and with demo.env.
func (z *Zone) Environ() []string {
	env := cleanEnvironment()
	for name, value := range z.Env {
		env = append(env, name+"="+value)
	}
	return env
}

// HTTPClient returns a client that trusts the organization's CA alone.
func (z *Zone) HTTPClient() (*http.Client, error) {
	pool, err := CertPool(z.Env[CABundle])
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout:   10 * time.Minute,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 32},
	}, nil
}

// CertPool reads a PEM file of CA certificates.
func CertPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("harness: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("harness: no certificate in %s", path)
	}
	return pool, nil
}

func (z *Zone) envFile() string { return filepath.Join(z.opts.Dir, "demo.env") }

// cleanEnvironment is ours without variables that lead S3 clients to other places.
func cleanEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		upper := strings.ToUpper(name)
		return strings.HasPrefix(upper, "AWS_") || strings.HasPrefix(upper, "RCLONE_") || strings.HasPrefix(upper, "RESTIC_") ||
			strings.HasSuffix(upper, "_PROXY") || upper == "KUBECONFIG"
	})
}

// tail keeps the last bytes written to it. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	data []byte
}

const tailSize = 256 << 10

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.data = append(w.data, p...)
	if extra := len(w.data) - tailSize; extra > 0 {
		w.data = slices.Delete(w.data, 0, extra)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.data)
}
