package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"chancery/internal/errs"
)

// pollEvery is how often the start looks whether the next step is done. It ends
// with the start, so that it may be short.
const pollEvery = 5 * time.Millisecond

// startTimeout bounds the start; it is far above what a slow disk needs.
const startTimeout = 2 * time.Minute

// start makes what must exist and waits until all of it is served.
func (s *Server) start() {
	defer close(s.started)
	ctx, cancel := context.WithTimeout(s.ctx, startTimeout)
	defer cancel()
	s.startErr = errs.Wrap("apiserver.Ready", errors.Join(s.ensureNamespaces(ctx), s.ensureCRDs(ctx)))
	if s.startErr == nil {
		s.startErr = errs.Wrap("apiserver.Ready", s.awaitReady(ctx))
	}
}

func (s *Server) ensureNamespaces(ctx context.Context) error {
	client, err := corev1client.NewForConfig(s.LoopbackConfig())
	if err != nil {
		return err
	}
	for name := range protectedNamespaces {
		if err := retry(ctx, func() error {
			_, err := client.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				return nil
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// ensureCRDs creates the definitions, or updates those that a newer binary has changed.
func (s *Server) ensureCRDs(ctx context.Context) error {
	client, err := crdclient.NewForConfig(s.LoopbackConfig())
	if err != nil {
		return err
	}
	for _, want := range s.opts.CRDs {
		if err := retry(ctx, func() error {
			have, err := client.CustomResourceDefinitions().Get(ctx, want.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				_, err = client.CustomResourceDefinitions().Create(ctx, want, metav1.CreateOptions{})
				return err
			}
			if err != nil {
				return err
			}
			next := have.DeepCopy()
			next.Annotations, next.Spec = want.Annotations, want.Spec
			next.Spec.Conversion = have.Spec.Conversion // a default of the server
			next.Spec.Names.Singular, next.Spec.Names.ListKind = have.Spec.Names.Singular, have.Spec.Names.ListKind
			if sameCRD(have, next) {
				return nil
			}
			_, err = client.CustomResourceDefinitions().Update(ctx, next, metav1.UpdateOptions{})
			return err
		}); err != nil {
			return fmt.Errorf("resource definition %s: %w", want.Name, err)
		}
	}
	return nil
}

// sameCRD compares as JSON: decoded definitions differ in nil and empty.
func sameCRD(a, b *apiextensionsv1.CustomResourceDefinition) bool {
	x, errX := json.Marshal([]any{a.Spec, a.Annotations})
	y, errY := json.Marshal([]any{b.Spec, b.Annotations})
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

// awaitReady asks each resource for itself: only that tells that it is served. It
// must be in both forms of discovery too: the document of a group's version is
// there with the first of its resources, and a client that asks in between takes
// the others for missing (a reconciler then waits ten seconds).
func (s *Server) awaitReady(ctx context.Context) error {
	client := &http.Client{Transport: s.loopback.transport}
	checks := []func() error{func() error { return s.probe(ctx, client, "/readyz", "", nil) }}
	for _, crd := range s.opts.CRDs {
		for _, v := range crd.Spec.Versions {
			if !v.Served {
				continue
			}
			group, plural := crd.Spec.Group, crd.Spec.Names.Plural
			checks = append(checks,
				func() error {
					return s.probe(ctx, client, fmt.Sprintf("/apis/%s/%s/%s?limit=1", group, v.Name, plural), "", nil)
				},
				func() error {
					var list metav1.APIResourceList
					if err := s.probe(ctx, client, "/apis/"+group+"/"+v.Name, "", &list); err != nil {
						return err
					}
					return listed(plural, slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == plural }))
				},
				func() error {
					var all apidiscoveryv2.APIGroupDiscoveryList
					if err := s.probe(ctx, client, "/apis", aggregatedDiscovery, &all); err != nil {
						return err
					}
					return listed(plural, discovered(all, group, v.Name, plural))
				})
		}
	}
	for _, check := range checks {
		if err := retry(ctx, check); err != nil {
			return err
		}
	}
	return nil
}

func listed(plural string, found bool) error {
	if !found {
		return fmt.Errorf("discovery does not list %s yet", plural)
	}
	return nil
}

// discovered tells whether an aggregated discovery document lists a resource.
func discovered(all apidiscoveryv2.APIGroupDiscoveryList, group, version, plural string) bool {
	for _, g := range all.Items {
		for _, v := range g.Versions {
			if g.Name == group && v.Version == version {
				return slices.ContainsFunc(v.Resources, func(r apidiscoveryv2.APIResourceDiscovery) bool { return r.Resource == plural })
			}
		}
	}
	return false
}

// probe asks the server for a path, and decodes the JSON of the answer if into is given.
func (s *Server) probe(ctx context.Context, client *http.Client, path, accept string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://loopback"+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.loopback.token)
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", path, resp.Status)
	}
	if into == nil {
		_, err := io.Copy(io.Discard, resp.Body) // a server that is cut off in the middle complains
		return err
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// retry repeats fn until it succeeds, fails for good, or ctx ends.
func retry(ctx context.Context, fn func() error) error {
	for {
		err := fn()
		if err == nil || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pollEvery):
		}
	}
}
