// Package apiserver is a Kubernetes-style API server inside our own binary:
// k8s.io/apiserver and custom resource definitions over a store.Store, without
// etcd and without a socket. It knows neither side of the wall.
//
// It serves namespaces, secrets, config maps, events, leases and access reviews
// itself, and whatever definitions it is given. It empties deleted namespaces
// and collects objects whose owners are gone.
//
// It must never open a network socket (a cell has none: the caller ends TLS and
// hands requests to Handler), never answer anybody whom the caller's functions
// do not name and allow, and never keep plaintext anywhere but in the store.
package apiserver

import (
	"context"
	"log/slog"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// Options of New.
type Options struct {
	// Store holds everything. It stays the caller's, and open after Stop. Required.
	Store store.Store
	// Prefix sets the server's keys apart in the store; default "api/".
	Prefix []byte
	// Name of the server in messages, a DNS label. Required.
	Name string
	// CRDs are installed before the server is ready, and updated if they differ.
	CRDs []*apiextensionsv1.CustomResourceDefinition
	// Authenticate tells whom a bearer token belongs to. Groups and users that
	// begin with "system:" are refused. Nil refuses every token.
	Authenticate func(ctx context.Context, token string) (user string, groups []string, ok bool)
	// Authorize tells whether a user may make a request. Nil refuses everybody.
	// /healthz, /livez, /readyz and /version are open to all without asking.
	Authorize func(ctx context.Context, request authorizer.Attributes) bool
	// Admit may refuse a request that is otherwise valid, with a Kubernetes status
	// error. Deletions carry the object that is to go. Nil refuses nothing.
	Admit func(ctx context.Context, request admission.Attributes) error
	// Version is added to the Kubernetes version that clients are told.
	Version string
	// Logger gets warnings and errors; default slog.Default().
	Logger *slog.Logger
	// EventTTL is how long events are kept; default one hour.
	EventTTL time.Duration
	// HistoryKeep is how long a watch can be resumed after a pause; default 5 minutes.
	HistoryKeep time.Duration
}

func (o Options) withDefaults() (Options, error) {
	if o.Store == nil || o.Name == "" {
		return o, errs.New(errs.Invalid, "apiserver.New", "a store and a name are required")
	}
	if len(o.Prefix) == 0 {
		o.Prefix = []byte("api/")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.EventTTL == 0 {
		o.EventTTL = time.Hour
	}
	for _, crd := range o.CRDs {
		if crd == nil || !strings.Contains(crd.Spec.Group, ".") {
			return o, errs.New(errs.Invalid, "apiserver.New", "a resource definition has no group")
		}
	}
	return o, nil
}
