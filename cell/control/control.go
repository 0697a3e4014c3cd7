// Package control is the organization's own API: its server, over the
// organization's encrypted store, and the reconcilers that make Project, Bucket,
// AccessKey and Custody objects true in the layers below. What is made or deleted
// through S3 appears here too, by way of the store's change feed.
//
// It must never run before the organization is unsealed, open a socket, hand
// out the secret of an access key a second time, or delete anything that is not
// empty.
package control

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"chancery/api/v1alpha1/crds"
	"chancery/cell/identity"
	"chancery/cell/objects"
	"chancery/internal/apiserver"
	"chancery/internal/apiserver/controllers"
	"chancery/internal/errs"
	"chancery/internal/store"
)

// Administrators is the group of those who may do everything; the only role so far.
const Administrators = "chancery:administrators"

// storePrefix sets the API server's keys apart in the organization's store.
const storePrefix = "a/"

// Directory is what this package needs of identity.Directory.
type Directory interface {
	Authenticate(ctx context.Context, bearer string) (identity.Token, error)
	AccessKey(ctx context.Context, id string) (identity.AccessKey, error)
	ListAccessKeys(ctx context.Context, project string) ([]identity.AccessKey, error)
	CreateAccessKey(ctx context.Context, in identity.NewAccessKey) (identity.AccessKey, error)
	SetAccessKeyDisabled(ctx context.Context, id string, disabled bool) error
	DeleteAccessKey(ctx context.Context, id string) error
	OldBootstrap(ctx context.Context, ceremony string) ([]string, error)
	RevokeToken(ctx context.Context, name string) error
}

var _ Directory = (*identity.Directory)(nil)

// Objects is what this package needs of objects.Service.
type Objects interface {
	CreateProject(ctx context.Context, name string) (objects.Project, error)
	Project(ctx context.Context, name string) (objects.Project, error)
	Projects(ctx context.Context) ([]objects.Project, error)
	DeleteProject(ctx context.Context, name string) error
	CreateBucket(ctx context.Context, in objects.CreateBucket) (objects.Bucket, error)
	Bucket(ctx context.Context, name string) (objects.Bucket, error)
	Buckets(ctx context.Context, projectID string) ([]objects.Bucket, error)
	DeleteBucket(ctx context.Context, name string) error
	List(ctx context.Context, in objects.List) (objects.Listing, error)
	ListUploads(ctx context.Context, in objects.ListUploads) (objects.UploadListing, error)
}

var _ Objects = objects.Service(nil)

// Options of New. All but Version, Logger and Admit are required.
type Options struct {
	// Store is the organization's, with its change feed.
	Store     store.Store
	Objects   Objects
	Directory Directory
	Keys      Keys
	Custody   Custody
	// Organization and Region name where we are.
	Organization, Region string
	// S3Endpoint is the URL of object storage, https://s3.ORG.DOMAIN:PORT.
	S3Endpoint string
	// CACertificate of the organization, PEM; put beside access keys, for clients to trust.
	CACertificate []byte
	Version       string
	Logger        *slog.Logger
	// Admit may refuse a request that is otherwise valid; see apiserver.Options. Nil refuses nothing.
	Admit func(ctx context.Context, request admission.Attributes) error
}

// Control is the organization's API server with its reconcilers.
type Control struct {
	opts    Options
	server  *apiserver.Server
	custody *witness
}

// New starts the API server. Nothing is reconciled until Run. Stop must be called in the end.
func New(ctx context.Context, o Options) (*Control, error) {
	const op = "control.New"
	if o.Store == nil || o.Objects == nil || o.Directory == nil || o.Keys == nil || o.Custody == nil || o.Organization == "" || o.Region == "" || o.S3Endpoint == "" || len(o.CACertificate) == 0 {
		return nil, errs.New(errs.Invalid, op, "an option is missing")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	definitions, err := crds.Organization()
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	witness := newWitness()
	server, err := apiserver.New(ctx, apiserver.Options{
		Store: o.Store, Prefix: []byte(storePrefix), Name: o.Organization, CRDs: definitions, Version: o.Version, Logger: o.Logger,
		Authenticate: authenticate(o.Directory, witness), Authorize: authorize, Admit: o.Admit,
	})
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	return &Control{opts: o, server: server, custody: witness}, nil
}

// authenticate gives administrators their group. A token without a role is
// known by name, and may do nothing.
func authenticate(d Directory, w *witness) func(context.Context, string) (string, []string, bool) {
	return func(ctx context.Context, bearer string) (string, []string, bool) {
		token, err := d.Authenticate(ctx, bearer)
		if err != nil {
			return "", nil, false
		}
		w.saw(token)
		if token.Administrator {
			return token.Name, []string{Administrators}, true
		}
		return token.Name, nil, true
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
	base := base{opts: c.opts, client: m.GetClient(), events: m.GetEventRecorder("chancery-control"), log: c.opts.Logger}
	mirror := newMirror(base)
	for _, add := range []func(manager.Manager) error{
		(&projectReconciler{base: base, mirror: mirror}).add,
		(&bucketReconciler{base: base, mirror: mirror}).add,
		(&accessKeyReconciler{base: base}).add,
		(&custodyReconciler{base: base, witness: c.custody}).add,
		mirror.add,
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

// slowRetry is how often something is looked at again that only time or a
// person can change, such as a bucket that is not empty.
const slowRetry = 5 * time.Second
