// Package client is what a person's own machine, or a program beside it, says to
// an operator's or an organization's API server: the few steps that our commands
// and checks share. kubectl does the same with the same kubeconfig.
//
// It runs outside the wall and outside the zone: it holds only the credentials of
// the one who runs it.
package client

import (
	"context"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"chancery/api/v1alpha1"
	"chancery/internal/errs"
)

// pollEvery is how often a wait looks again.
const pollEvery = 50 * time.Millisecond

func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := corev1.AddToScheme(s); err != nil {
		return nil, errs.Wrap("client.scheme", err)
	}
	return s, errs.Wrap("client.scheme", v1alpha1.AddToScheme(s))
}

func open(config *rest.Config) (kube.WithWatch, error) {
	config.QPS, config.Burst = 200, 400 // our own server limits what it must
	s, err := scheme()
	if err != nil {
		return nil, err
	}
	c, err := kube.NewWithWatch(config, kube.Options{Scheme: s})
	return c, wrap("client.open", err)
}

// fromKubeconfig reads a kubeconfig file.
func fromKubeconfig(path string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", path)
	return config, errs.WrapKind(errs.Invalid, "client.fromKubeconfig", err)
}

// server makes the configuration of an API server behind a front door: address
// is where to connect, name what its certificate must be for.
func server(address, name, caPEM, token string) (*rest.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" || name == "" || caPEM == "" || token == "" {
		return nil, errs.New(errs.Invalid, "client.server", "an address (host:port), a server name, a certificate authority and a token are needed")
	}
	return &rest.Config{
		Host:            "https://" + address,
		BearerToken:     token,
		TLSClientConfig: rest.TLSClientConfig{ServerName: name, CAData: []byte(caPEM)},
	}, nil
}

// wrap gives an error of the API server its kind.
func wrap(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return errs.WrapKind(errs.NotFound, op, err)
	case apierrors.IsAlreadyExists(err):
		return errs.WrapKind(errs.Exists, op, err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return errs.WrapKind(errs.Invalid, op, err)
	case apierrors.IsUnauthorized(err):
		return errs.WrapKind(errs.Unauthenticated, op, err)
	case apierrors.IsForbidden(err):
		return errs.WrapKind(errs.Denied, op, err)
	case apierrors.IsConflict(err):
		return errs.WrapKind(errs.Conflict, op, err)
	default:
		return errs.WrapKind(errs.Unavailable, op, err)
	}
}

// poll calls look until it is satisfied, fails for good, or ctx ends. Passing
// errors (a server that is just starting) are waited out; the last one is told.
func poll(ctx context.Context, op string, look func() (done bool, err error)) error {
	var last error
	for {
		done, err := look()
		switch {
		case err == nil && done:
			return nil
		case err != nil && !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Sealed):
			return errs.Wrap(op, err)
		case err != nil:
			last = err
		}
		select {
		case <-ctx.Done():
			if last == nil {
				last = ctx.Err()
			}
			return errs.WrapKind(errs.Unavailable, op+": gave up waiting", last)
		case <-time.After(pollEvery):
		}
	}
}

// ready is nil if the Ready condition is true, and else tells in one line why not.
func ready(kind, name string, conditions []metav1.Condition) error {
	c := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	switch {
	case c == nil:
		return errs.New(errs.Unavailable, "client", "%s %s is not ready yet", kind, name)
	case c.Status != metav1.ConditionTrue:
		return errs.New(errs.Unavailable, "client", "%s %s is not ready: %s: %s", kind, name, c.Reason, c.Message)
	}
	return nil
}
