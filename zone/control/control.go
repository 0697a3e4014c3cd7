// Package control is the operator's own API: its server, over the zone's store,
// and the reconcilers that make Organization objects true by way of the
// supervisor of cells, and tell about the zone in its Zone object.
//
// It must never hold a share, a key or a plaintext of an organization (the
// encrypted shares that a cell answers Init with are dropped: custodians fetch
// theirs from the cell), make a second root key for an organization that had
// one, or delete an organization that is protected.
package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"chancery/api/v1alpha1/crds"
	"chancery/internal/apiserver"
	"chancery/internal/apiserver/controllers"
	"chancery/internal/apiserver/kubeconfig"
	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/store"
	"chancery/wall"
	"chancery/zone/cells"
)

// Administrators is the group of those who may do everything; the only role so far.
const Administrators = "chancery:administrators"

// operator is the name of the one who holds the kubeconfig.
const operator = "operator"

// storePrefix sets the API server's keys apart in the zone's store.
const storePrefix = "a/"

// Cells is what this package needs of cells.Supervisor.
type Cells interface {
	// Ensure makes a cell run; it may end with its context while the cell goes on starting.
	Ensure(ctx context.Context, c wall.Config) error
	// Remove ends a cell and keeps its data.
	Remove(ctx context.Context, organization string) error
	Status(organization string) (cells.Status, bool)
	Client(organization string) (*cells.Client, error)
}

var _ Cells = (*cells.Supervisor)(nil)

// Zone is what the zone is, by its settings and its listeners.
type Zone struct {
	Name, Jurisdiction, Domain string
	// DefaultOrganization answers clients that name no server.
	DefaultOrganization string
	// Demonstration tells that a custodian's identity lies beside the data.
	Demonstration bool
	// S3Port, APIPort and OperatorPort are those of the front door and of this API server.
	S3Port, APIPort, OperatorPort int
}

// Options of New. All but Version and Logger are required.
type Options struct {
	Store store.Store
	Cells Cells
	Zone  Zone
	// Dir is the zone's directory; the cells' data lies in Dir/cells/ORG.
	Dir string
	// Server is the URL at which clients reach this API server, and CACertificate
	// (PEM) signed its certificate.
	Server        string
	CACertificate []byte
	// Kubeconfig is the file that the operator's credential is written to, mode
	// 0600. The token is kept beside it and stays the same.
	Kubeconfig string
	Version    string
	Logger     *slog.Logger
}

// Control is the operator's API server with its reconcilers.
type Control struct {
	opts    Options
	server  *apiserver.Server
	started time.Time
}

// New writes the operator's kubeconfig and starts the API server. Nothing is
// reconciled until Run. Stop must be called in the end.
func New(ctx context.Context, o Options) (*Control, error) {
	const op = "control.New"
	if o.Store == nil || o.Cells == nil || o.Zone.Name == "" || o.Zone.Domain == "" || o.Dir == "" || o.Kubeconfig == "" {
		return nil, errs.New(errs.Invalid, op, "an option is missing")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	definitions, err := crds.Operator()
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	token, err := credential(files.OS(), o)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	server, err := apiserver.New(ctx, apiserver.Options{
		Store: o.Store, Prefix: []byte(storePrefix), Name: o.Zone.Name, CRDs: definitions, Version: o.Version, Logger: o.Logger,
		Authenticate: authenticate(token), Authorize: apiserver.Administrators(Administrators), Admit: admit,
	})
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	return &Control{opts: o, server: server, started: time.Now()}, nil
}

// tokenSize bounds what the token file may hold, in bytes.
const tokenSize = 256

// credential reads or makes the operator's token, and writes the kubeconfig
// anew: the port may have changed.
func credential(fs files.FS, o Options) (string, error) {
	path := filepath.Join(filepath.Dir(o.Kubeconfig), "operator.token")
	raw, err := files.ReadFile(fs, path, tokenSize)
	if errs.Is(err, errs.NotFound) {
		raw = []byte(rand.Text() + rand.Text())
		err = files.WriteFile(fs, path, raw)
	}
	if err != nil {
		return "", err
	}
	token := string(raw)
	if len(token) < 32 {
		return "", errs.New(errs.Corrupt, "control.credential", "%s is too short for a token; delete it to have a new one made", path)
	}
	return token, kubeconfig.Write(fs, o.Kubeconfig, kubeconfig.Config{
		Name: operator + "@" + o.Zone.Name, Server: o.Server, CA: o.CACertificate, Token: token,
	})
}

// authenticate knows one token. It compares digests: their time tells nothing of the token.
func authenticate(token string) func(context.Context, string) (string, []string, bool) {
	want := sha256.Sum256([]byte(token))
	return func(_ context.Context, bearer string) (string, []string, bool) {
		got := sha256.Sum256([]byte(bearer))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			return "", nil, false
		}
		return operator, []string{Administrators}, true
	}
}

// Handler serves the API. The caller ends TLS.
func (c *Control) Handler() http.Handler { return c.server.Handler() }

// Client returns the configuration of a client that may do everything, for this process only.
func (c *Control) Client() *rest.Config { return c.server.LoopbackConfig() }

// Ready waits until every resource is served. Reconcilers may still be catching up.
func (c *Control) Ready(ctx context.Context) error { return c.server.Ready(ctx) }

// Stop ends the API server. End Run first, by its context.
func (c *Control) Stop() { c.server.Stop() }

// Run reconciles until ctx ends. It returns an error only if it cannot go on.
// Cells that it started go on: they are the supervisor's.
func (c *Control) Run(ctx context.Context) error {
	const op = "control.Run"
	if err := c.server.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return errs.Wrap(op, err)
	}
	m, err := controllers.NewManager(c.server.LoopbackConfig(), c.opts.Logger)
	if err != nil {
		return errs.Wrap(op, err)
	}
	recorder := m.GetEventRecorder("chancery-zone")
	for _, add := range []func(manager.Manager) error{
		(&organizationReconciler{opts: c.opts, client: m.GetClient(), events: recorder, log: c.opts.Logger}).add,
		(&zoneReconciler{opts: c.opts, client: m.GetClient(), events: recorder, started: c.started}).add,
	} {
		if err := add(m); err != nil {
			return errs.Wrap(op, err)
		}
	}
	if err := m.Start(ctx); err != nil && ctx.Err() == nil {
		return errs.Wrap(op, err)
	}
	return nil
}
