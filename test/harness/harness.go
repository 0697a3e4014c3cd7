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
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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

	process
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
	args = append(args, z.opts.Args...)
	started := time.Now()
	if err := z.begin(z.opts.Binary, args...); err != nil {
		return err
	}
	if err := z.awaitReady(ctx); err != nil {
		return errors.Join(fmt.Errorf("harness: %s: %w\nits log:\n%s", strings.Join(args, " "), err, z.Logs()), z.Kill())
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

// Dir is the zone's data directory.
func (z *Zone) Dir() string { return z.opts.Dir }

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
