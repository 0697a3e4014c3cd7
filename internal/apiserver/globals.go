package apiserver

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/storage"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
)

type codec = runtime.Codec

// storageFeatures tells the libraries what our storage does. They ask a global,
// which otherwise waits for an etcd client to report.
type storageFeatures struct {
	etcdfeature.FeatureSupportChecker
}

// Supports implements feature.FeatureSupportChecker.
func (storageFeatures) Supports(f storage.Feature) bool { return f == storage.RequestWatchProgress }

// MarkUnsupported implements feature.FeatureSupportChecker.
func (storageFeatures) MarkUnsupported(storage.Feature) {}

// warningsOnly drops what the libraries say in normal operation.
type warningsOnly struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h warningsOnly) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h warningsOnly) WithAttrs(a []slog.Attr) slog.Handler {
	return warningsOnly{h.Handler.WithAttrs(a)}
}

// WithGroup implements slog.Handler.
func (h warningsOnly) WithGroup(g string) slog.Handler { return warningsOnly{h.Handler.WithGroup(g)} }

// refuseImpersonation answers requests that want to act as somebody else. We do
// not serve that; to ignore it would let them act as themselves unawares.
func refuseImpersonation(h http.Handler, s runtime.NegotiatedSerializer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if strings.HasPrefix(name, "Impersonate-") {
				err := apierrors.NewForbidden(schema.GroupResource{Resource: "users"}, "", errNoImpersonation)
				responsewriters.ErrorNegotiated(err, s, schema.GroupVersion{}, w, r)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

type constError string

func (e constError) Error() string { return string(e) }

const errNoImpersonation = constError("acting as another user is not supported here")
