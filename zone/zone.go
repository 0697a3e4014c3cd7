package zone

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/pki"
	"chancery/internal/store/pebblestore"
	"chancery/wall"
	"chancery/zone/cells"
	"chancery/zone/control"
	"chancery/zone/frontdoor"
)

// stopTime is how long a stopping zone waits for what is in flight.
const stopTime = 25 * time.Second

// Options of Serve.
type Options struct {
	// Version of the software, for status.
	Version string
	// Settings are used in place of those in DIR/zone.json if set (a demonstration's ports change).
	Settings *Settings
	Log      *slog.Logger
	// Ready is called once everything answers. If it fails the zone stops.
	Ready func(Running) error
}

// Running is what a zone that serves is.
type Running struct {
	Settings  Settings
	Endpoints Endpoints
	// OperatorKubeconfig is the path of the operator's credential.
	OperatorKubeconfig string
}

// OperatorKubeconfig is where a zone keeps its operator's credential.
func OperatorKubeconfig(dir string) string { return filepath.Join(dir, "zone", "operator.kubeconfig") }

// runDir is where an organization's cell makes its sockets, as the zone sees it.
func runDir(dir, organization string) string { return filepath.Join(dir, "cells", organization, "run") }

// Seal tells an organization's cell to seal itself. It works beside a running zone.
func Seal(ctx context.Context, dir, organization string) (wall.Status, error) {
	c, err := cellClient(dir, organization)
	if err != nil {
		return wall.Status{}, err
	}
	return c.Seal(ctx)
}

// CellStatus asks an organization's cell what it is right now.
func CellStatus(ctx context.Context, dir, organization string) (wall.Status, error) {
	c, err := cellClient(dir, organization)
	if err != nil {
		return wall.Status{}, err
	}
	return c.Status(ctx)
}

// Probe asks an organization's cell to try to break out of its sandbox.
func Probe(ctx context.Context, dir, organization string, in wall.Probe) (wall.ProbeReport, error) {
	c, err := cellClient(dir, organization)
	if err != nil {
		return wall.ProbeReport{}, err
	}
	return c.Probe(ctx, in)
}

// CellPID tells the process of an organization's cell.
func CellPID(ctx context.Context, dir, organization string) (int, error) {
	if _, err := cellClient(dir, organization); err != nil {
		return 0, err
	}
	return cells.PID(ctx, runDir(dir, organization))
}

func cellClient(dir, organization string) (*cells.Client, error) {
	const op = "zone.cellClient"
	if !ValidLabel(organization) {
		return nil, errs.New(errs.Invalid, op, "organization %q: want a DNS label such as health", organization)
	}
	run := runDir(dir, organization)
	if _, err := os.Stat(run); err != nil {
		return nil, errs.New(errs.NotFound, op, "the zone in %s has no organization %s", dir, organization)
	}
	return cells.NewClient(run), nil
}

// zone is a running zone.
type zone struct {
	dir        string
	settings   Settings
	log        *slog.Logger
	endpoints  Endpoints
	store      *pebblestore.Store
	supervisor *cells.Supervisor
	control    *control.Control
	reconciled chan struct{} // closed when the operator's reconcilers have ended
	halt       context.CancelFunc
	door       *frontdoor.Server
	operator   *http.Server
}

// Serve runs the zone in dir until ctx ends.
func Serve(ctx context.Context, dir string, o Options) (err error) {
	const op = "zone.Serve"
	if dir, err = filepath.Abs(dir); err != nil {
		return errs.Wrap(op, err)
	}
	settings, err := Load(dir)
	if err != nil {
		return err
	}
	if o.Settings != nil {
		settings = *o.Settings
		if err := settings.Validate(); err != nil {
			return err
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	lock, err := files.OS().Lock(filepath.Join(dir, "zone.lock"))
	if err != nil {
		return errs.New(errs.Unavailable, op, "another zone runs in %s already (%v)", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	// Everything below lives until it is stopped in order, not until ctx ends.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	z := &zone{dir: dir, settings: settings, log: o.Log}
	defer func() { err = errors.Join(err, z.stop()) }()
	ended := make(chan error, 2)
	if err := z.start(ctx, life, o, ended); err != nil {
		return errs.Wrap(op, err)
	}
	if o.Ready != nil {
		if err := o.Ready(Running{settings, z.endpoints, OperatorKubeconfig(dir)}); err != nil {
			if ctx.Err() != nil {
				return nil // asked to stop while starting
			}
			return err
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return errs.Wrap(op, err)
	}
}

// start brings everything up, from the bottom to the front door.
func (z *zone) start(ctx, life context.Context, o Options, ended chan<- error) error {
	own := filepath.Join(z.dir, "zone")
	if err := files.MkdirAll(files.OS(), own); err != nil {
		return err
	}
	key, err := operatorKey(filepath.Join(own, "store.key"))
	if err != nil {
		return err
	}
	defer clear(key)
	if z.store, err = pebblestore.Open(ctx, pebblestore.Options{Dir: filepath.Join(own, "store"), Key: key, Log: z.log}); err != nil {
		return err
	}
	s3, err := frontdoor.Listen(ctx, frontdoor.S3, z.settings.S3Listen)
	if err != nil {
		return err
	}
	api, err := frontdoor.Listen(ctx, frontdoor.API, z.settings.APIListen)
	if err != nil {
		return errors.Join(err, s3.Close())
	}
	var lc net.ListenConfig
	operator, err := lc.Listen(ctx, "tcp", z.settings.OperatorListen)
	if err != nil {
		return errors.Join(errs.WrapKind(errs.Unavailable, "zone.start", err), s3.Close(), api.Close())
	}
	z.endpoints = Endpoints{S3: reachable(s3.Addr()), API: reachable(api.Addr()), Operator: reachable(operator.Addr()), PID: os.Getpid()}
	if z.supervisor, err = cells.New(cells.Options{Dir: z.dir, Log: z.log}); err != nil {
		return errors.Join(err, s3.Close(), api.Close(), operator.Close())
	}
	if z.door, err = frontdoor.New(frontdoor.Options{Listeners: []frontdoor.Listener{s3, api}, Route: z.route, Log: z.log}); err != nil {
		return errors.Join(err, s3.Close(), api.Close(), operator.Close())
	}
	if err := z.serveOperator(life, o, operator, ended); err != nil {
		return err
	}
	return saveEndpoints(z.dir, z.endpoints)
}

// serveOperator starts the operator's API server and its reconcilers.
func (z *zone) serveOperator(life context.Context, o Options, l net.Listener, ended chan<- error) error {
	ca, err := operatorAuthority(filepath.Join(z.dir, "zone", "ca.pem"), z.settings.Name+" operator")
	if err != nil {
		return errors.Join(err, l.Close())
	}
	certificate := pki.NewServer(ca, []string{"localhost", "127.0.0.1", "::1", "operator." + z.settings.Domain, hostOf(l.Addr())}, nil)
	z.control, err = control.New(life, control.Options{
		Store: z.store, Cells: z.supervisor,
		Zone: control.Zone{
			Name: z.settings.Name, Jurisdiction: z.settings.Jurisdiction, Domain: z.settings.Domain,
			DefaultOrganization: z.settings.DefaultOrganization, Demonstration: z.settings.Demonstration,
			S3Port: port(z.endpoints.S3), APIPort: port(z.endpoints.API), OperatorPort: port(z.endpoints.Operator),
		},
		Dir: z.dir, Server: "https://" + z.endpoints.Operator, CACertificate: []byte(ca.CertificatePEM()), Kubeconfig: OperatorKubeconfig(z.dir),
		Version: o.Version, Logger: z.log,
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	z.operator = &http.Server{
		Handler:           z.control.Handler(),
		ReadHeaderTimeout: 15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.GetCertificate},
	}
	go func() {
		if err := z.operator.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			ended <- err
		}
	}()
	reconciling, halt := context.WithCancel(life)
	z.halt, z.reconciled = halt, make(chan struct{})
	go func() {
		defer close(z.reconciled)
		if err := z.control.Run(reconciling); err != nil && reconciling.Err() == nil {
			ended <- err
		}
	}()
	return z.control.Ready(life)
}

// stop ends what start started. The front door takes no more connections, but
// those that it has end with their cells: a cell finishes what is in flight and
// drops what is idle, which the front door, that sees ciphertext, cannot tell apart.
func (z *zone) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	var problems []error
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if z.door != nil {
			z.door.Close(ctx)
		}
	}()
	if z.operator != nil {
		// Watches never end by themselves.
		problems = append(problems, z.operator.Close())
	}
	if z.halt != nil {
		// Reconcilers first: they would complain of the API server's end.
		z.halt()
		<-z.reconciled
	}
	if z.control != nil {
		z.control.Stop()
	}
	if z.supervisor != nil {
		problems = append(problems, z.supervisor.Close(ctx))
	}
	<-closed
	if z.store != nil {
		problems = append(problems, z.store.Close())
	}
	if err := os.Remove(endpointsFile(z.dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// route finds the cell that a TLS server name means. The operator's own API
// server has a port of its own and is never reached from the customers' side.
func (z *zone) route(service frontdoor.Service, name string) (frontdoor.Dial, bool) {
	names := frontdoor.Names{Domain: z.settings.Domain, Default: z.settings.DefaultOrganization}
	organization, ok := names.Resolve(service, name)
	if !ok || organization == "" {
		return nil, false
	}
	socket := wall.SocketS3
	if service == frontdoor.API {
		socket = wall.SocketAPI
	}
	if _, known := z.supervisor.Status(organization); !known {
		return nil, false
	}
	return func(ctx context.Context) (net.Conn, error) { return z.supervisor.Dial(ctx, organization, socket) }, true
}

// operatorKey reads the key of the operator's own store, or makes it. It guards
// the operator's resources alone: nothing of an organization is under it.
func operatorKey(path string) ([]byte, error) {
	const op, size = "zone.operatorKey", 32
	key, err := files.ReadFile(files.OS(), path, size)
	if errs.Is(err, errs.NotFound) {
		key = make([]byte, size)
		_, _ = rand.Read(key) // never fails (it ends the program)
		return key, errs.Wrap(op, files.WriteFile(files.OS(), path, key))
	}
	if err == nil && len(key) != size {
		return nil, errs.New(errs.Corrupt, op, "%s has %d bytes, want %d; restore it from a backup", path, len(key), size)
	}
	return key, errs.Wrap(op, err)
}

// operatorAuthority loads, or makes, the authority of the operator's API server.
func operatorAuthority(path, name string) (*pki.CA, error) {
	const op = "zone.operatorAuthority"
	stored, err := files.ReadFile(files.OS(), path, 64<<10)
	if err == nil {
		ca, err := pki.ParseCA(stored)
		return ca, errs.Wrap(op, err)
	}
	if !errs.Is(err, errs.NotFound) {
		return nil, errs.Wrap(op, err)
	}
	ca, err := pki.NewCA(name)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	encoded, err := ca.Encode()
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	return ca, errs.Wrap(op, files.WriteFile(files.OS(), path, encoded))
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); err != nil || ip != nil && ip.IsUnspecified() {
		return ""
	}
	return host
}

func port(address string) int {
	_, p, err := net.SplitHostPort(address)
	n, convErr := strconv.Atoi(p)
	if err != nil || convErr != nil {
		return 0
	}
	return n
}

// reachable is a listener's address as a client on this machine would use it.
func reachable(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok && t.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(t.Port))
	}
	return a.String()
}
