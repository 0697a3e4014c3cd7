// Package kubestore is the storage.Interface of k8s.io/apiserver over a revlog:
// it turns API objects into bytes and revisions into resourceVersions. One
// Storage serves one resource. The upstream contract suite
// (k8s.io/apiserver/pkg/storage/testing) runs on it.
//
// It must never answer from anything but the log: there is no cache before it,
// so that a restart costs nobody a 429 and memory stays small.
package kubestore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"chancery/internal/apiserver/revlog"
	"chancery/internal/errs"
)

// Config of one resource.
type Config struct {
	Log   *revlog.Log
	Codec runtime.Codec
	// ResourcePrefix begins every key of the resource: "/GROUP/RESOURCE".
	ResourcePrefix string
	// NewFunc makes an empty object, for bookmarks.
	NewFunc func() runtime.Object
}

// Storage implements storage.Interface.
type Storage struct {
	log       *revlog.Log
	codec     runtime.Codec
	versioner storage.APIObjectVersioner
	prefix    string // with a slash at its end: /pods is no prefix of /pods.apps
	newFunc   func() runtime.Object
}

var _ storage.Interface = (*Storage)(nil)

// New returns the storage of one resource.
func New(c Config) (*Storage, error) {
	if c.Log == nil || c.Codec == nil || len(c.ResourcePrefix) < 2 || c.ResourcePrefix[0] != '/' || strings.HasSuffix(c.ResourcePrefix, "/") {
		return nil, errs.New(errs.Invalid, "kubestore.New", "a log, a codec and a resource prefix such as /group/resource are required")
	}
	return &Storage{log: c.Log, codec: c.Codec, prefix: c.ResourcePrefix + "/", newFunc: c.NewFunc}, nil
}

// Versioner implements storage.Interface.
func (s *Storage) Versioner() storage.Versioner { return s.versioner }

// ReadinessCheck implements storage.Interface: an open log is ready.
func (s *Storage) ReadinessCheck() error { return nil }

// RequestWatchProgress implements storage.Interface.
func (s *Storage) RequestWatchProgress(context.Context) error {
	s.log.Progress()
	return nil
}

// GetCurrentResourceVersion implements storage.Interface.
func (s *Storage) GetCurrentResourceVersion(context.Context) (uint64, error) {
	return uint64(s.log.Current()), nil
}

// CompactRevision implements storage.Interface.
func (s *Storage) CompactRevision() int64 { return s.log.Compacted() }

// EnableResourceSizeEstimation implements storage.Interface. Sizes feed the
// cost estimate of priority and fairness, which this API server does not run;
// Stats is exact about counts without it.
func (s *Storage) EnableResourceSizeEstimation(keys storage.KeysFunc) error {
	if keys == nil {
		return errors.New("KeysFunc cannot be nil")
	}
	return nil
}

// Stats implements storage.Interface.
func (s *Storage) Stats(ctx context.Context) (storage.Stats, error) {
	page, err := s.log.List(ctx, revlog.Query{Prefix: s.prefix, CountOnly: true})
	if err != nil {
		return storage.Stats{}, apiError(err)
	}
	return storage.Stats{ObjectCount: page.Count}, nil
}

// decode reads data into the object and gives it its resourceVersion.
func (s *Storage) decode(data []byte, into runtime.Object, rev int64) (runtime.Object, error) {
	obj, _, err := s.codec.Decode(data, nil, into)
	if err != nil {
		return nil, err
	}
	if into != nil && obj != into {
		return nil, fmt.Errorf("stored object decodes into %T, want %T", obj, into)
	}
	if err := s.versioner.UpdateObject(obj, uint64(rev)); err != nil {
		return nil, fmt.Errorf("set resourceVersion %d: %w", rev, err)
	}
	return obj, nil
}

func (s *Storage) key(key string, recursive bool) (string, error) {
	return storage.PrepareKey(s.prefix, key, recursive)
}

// notOlderThan refuses a read when the client has seen a newer state than rev.
func (s *Storage) notOlderThan(minimum string, rev int64) error {
	if minimum == "" {
		return nil
	}
	want, err := s.versioner.ParseResourceVersion(minimum)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	if want > uint64(rev) {
		return storage.NewTooLargeResourceVersionError(want, uint64(rev), 0)
	}
	return nil
}

// seconds turns a TTL of the API server into a duration.
func seconds(ttl uint64) time.Duration {
	return time.Duration(min(ttl, math.MaxInt64/uint64(time.Second))) * time.Second
}

// apiError gives an error of the log the Kubernetes status that clients understand.
func apiError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errs.CodeOf(err) == revlog.CodeTooLarge {
		return apierrors.NewRequestEntityTooLargeError(err.Error())
	}
	switch errs.KindOf(err) {
	case errs.Unavailable, errs.Sealed:
		return apierrors.NewServiceUnavailable(err.Error())
	case errs.Invalid:
		return apierrors.NewBadRequest(err.Error())
	case errs.Exhausted:
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: "InsufficientStorage", Message: err.Error(),
		}}
	}
	return apierrors.NewInternalError(err)
}
