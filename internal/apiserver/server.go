package apiserver

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	genericopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"chancery/internal/apiserver/revlog"
	"chancery/internal/errs"
)

// Server is a running API server.
type Server struct {
	opts     Options
	log      *revlog.Log
	loopback *loopback
	generic  *genericapiserver.GenericAPIServer
	config   *genericapiserver.Config
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	stop     sync.Once

	// started is closed when what New began in the background is done; then startErr is set.
	started  chan struct{}
	startErr error
}

// setGlobals does once what the libraries keep in globals.
var setGlobals sync.Once

// New starts a server. It returns at once; use Ready to wait. ctx bounds the
// start only: the server runs until Stop.
func New(ctx context.Context, o Options) (*Server, error) {
	const op = "apiserver.New"
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	setGlobals.Do(func() {
		klog.SetLoggerWithOptions(logr.FromSlogHandler(warningsOnly{opts.Logger.Handler()}))
		etcdfeature.DefaultFeatureSupportChecker = storageFeatures{}
	})
	log, err := revlog.Open(ctx, opts.Store, revlog.Options{Prefix: opts.Prefix, Keep: opts.HistoryKeep})
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	s := &Server{opts: opts, log: log, loopback: newLoopback(opts.Logger), started: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.build(); err != nil {
		s.cancel()
		if s.generic != nil {
			s.generic.Destroy()
		}
		log.Close()
		return nil, errs.Wrap(op, err)
	}
	s.loopback.serve(s.generic.Handler)
	if _, _, err := s.generic.PrepareRun().NonBlockingRunWithContext(s.ctx, time.Second); err != nil {
		s.Stop()
		return nil, errs.Wrap(op, err)
	}
	s.wg.Go(s.start)
	s.wg.Go(newCollector(s).run)
	return s, nil
}

// build puts the server together. Nothing runs yet.
func (s *Server) build() error {
	config := genericapiserver.NewRecommendedConfig(apiextensions.Codecs)
	s.config = &config.Config
	check := &namespaceCheck{more: s.opts.Admit}
	config.EffectiveVersion = newEffectiveVersion(s.opts.Version)
	config.ExternalAddress = s.opts.Name + ":443"
	config.LoopbackClientConfig = s.loopback.config()
	config.Authentication.Authenticator = s.opts.authenticate()
	config.Authorization.Authorizer = s.opts.authorize()
	config.AdmissionControl = check
	config.BuildHandlerChainFunc = chain
	// Not part of what we promise, and each costs memory or shows internals.
	config.EnableProfiling, config.EnableMetrics, config.EnableIndex = false, false, false
	config.StorageObjectCountTracker = nil
	config.RESTOptionsGetter = restOptions{s.log, func(gr schema.GroupResource) codec {
		if gr.Group == "apiextensions.k8s.io" {
			return apiextensions.Codecs.LegacyCodec(schema.GroupVersion{Group: gr.Group, Version: "v1"})
		}
		return coreCodec(gr)
	}}
	config.MergedResourceConfig = apiextensions.DefaultAPIResourceConfigSource()
	namer := genericopenapi.NewDefinitionNamer(apiextensions.Scheme, coreScheme)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openAPIDefinitions, namer)
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openAPIDefinitions, namer)
	config.OpenAPIConfig.Info.Title = "Chancery"
	config.OpenAPIV3Config.Info.Title = "Chancery"

	full := apiextensions.Config{
		GenericConfig: config,
		ExtraConfig: apiextensions.ExtraConfig{
			CRDRESTOptionsGetter: restOptions{s.log, unstructuredCodec},
			MasterCount:          1,
			ServiceResolver:      webhook.NewDefaultServiceResolver(),
			AuthResolverWrapper:  webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, config.LoopbackClientConfig, config.TracerProvider),
		},
	}
	crds, err := full.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return err
	}
	s.generic = crds.GenericAPIServer
	check.namespaces, err = installCore(s.generic, config.RESTOptionsGetter, config.Authorization.Authorizer, uint64(s.opts.EventTTL.Seconds()))
	if err != nil {
		return err
	}
	serveGroups(s.generic)
	return nil
}

// chain is what every request passes, outermost last. There is no audit log
// here: the organization's ledger is kept by the caller.
func chain(h http.Handler, c *genericapiserver.Config) http.Handler {
	h = genericapifilters.WithAuthorization(h, c.Authorization.Authorizer, c.Serializer)
	h = genericfilters.WithMaxInFlightLimit(h, c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight, c.LongRunningFunc)
	h = refuseImpersonation(h, c.Serializer)
	unauthorized := genericapifilters.Unauthorized(c.Serializer)
	h = genericapifilters.WithAuthentication(h, c.Authentication.Authenticator, unauthorized, nil, nil)
	h = genericapifilters.WithWarningRecorder(h)
	h = genericfilters.WithTimeoutForNonLongRunningRequests(h, c.LongRunningFunc)
	h = genericapifilters.WithRequestDeadline(h, nil, nil, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
	h = genericfilters.WithWaitGroup(h, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)
	h = genericapifilters.WithCacheControl(h)
	h = genericapifilters.WithLatencyTrackers(h)
	h = genericapifilters.WithRequestInfo(h, c.RequestInfoResolver)
	h = genericapifilters.WithRequestReceivedTimestamp(h)
	h = genericfilters.WithPanicRecovery(h, c.RequestInfoResolver)
	return genericapifilters.WithAuditInit(h)
}

// Handler serves the whole API: authentication, authorization and resources.
// The caller ends TLS. Requests end when the server stops.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.ctx.Err() != nil {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "the API server has stopped", http.StatusServiceUnavailable)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		s.generic.Handler.ServeHTTP(w, r.WithContext(ctx))
	})
}

// LoopbackConfig is for clients in this process. They act as the server itself
// and may do everything.
func (s *Server) LoopbackConfig() *rest.Config { return s.loopback.config() }

// Ready waits until every resource is served, or fails with the reason why it never will be.
func (s *Server) Ready(ctx context.Context) error {
	select {
	case <-s.started:
		return s.startErr
	case <-ctx.Done():
		return errs.WrapKind(errs.Unavailable, "apiserver.Ready", ctx.Err())
	case <-s.ctx.Done():
		return errs.New(errs.Unavailable, "apiserver.Ready", "the API server has stopped")
	}
}

// Stop refuses new requests, ends watches, lets running writes finish, and
// releases everything but the store.
func (s *Server) Stop() {
	s.stop.Do(func() {
		s.cancel()
		s.wg.Wait()
		done := make(chan struct{})
		go func() {
			s.config.NonLongRunningRequestWaitGroup.Wait()
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second): // the log's Close fails what is left
		}
		s.loopback.stop()
		s.generic.Destroy()
		s.log.Close()
	})
}
