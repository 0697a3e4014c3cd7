package kubestore

import (
	"errors"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// apiErrorUnlessStatus makes an error a Kubernetes status if it is not one.
func apiErrorUnlessStatus(err error) error {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return status.(error)
	}
	if mapped, ok := apiError(err).(apierrors.APIStatus); ok {
		return mapped.(error)
	}
	return apierrors.NewInternalError(err)
}

// corruptStatus tells a watcher that something unreadable was deleted.
func corruptStatus(err error) metav1.Status {
	return metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonStoreReadError,
		Message: "saw a DELETED event, but object data is corrupt - " + err.Error(),
	}
}

// timed carries the time at which an event was decoded to the watch cache,
// which measures with it and takes it off again.
type timed struct {
	runtime.Object
	at time.Time
}

var _ storage.WatchEventWithRecordTime = (*timed)(nil)

func (t *timed) GetObjectMeta() metav1.Object {
	m, err := meta.Accessor(t.Object)
	if err != nil {
		return nil
	}
	return m
}

func (t *timed) DeepCopyObject() runtime.Object {
	return &timed{Object: t.Object.DeepCopyObject(), at: t.at}
}

func (t *timed) RecordTime() time.Time { return t.at }

func (t *timed) Unwrap() runtime.Object { return t.Object }
