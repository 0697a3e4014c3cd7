package kubestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"

	"chancery/internal/apiserver/revlog"
	"chancery/internal/errs"
)

// resultBuffer is how many decoded events wait for the receiver of a watch.
const resultBuffer = 100

// bookmarkEvery is how often a watch that allows bookmarks hears how far it is.
// It is well below the time that history is kept, so that an idle client can
// always resume.
var bookmarkEvery = time.Minute // shorter in a test

// watcher implements watch.Interface.
type watcher struct {
	s      *Storage
	key    string
	opts   storage.ListOptions
	all    bool // the predicate drops nothing
	ctx    context.Context
	cancel context.CancelFunc
	result chan watch.Event
}

// Watch implements storage.Interface.
func (s *Storage) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	key, err := s.key(key, opts.Recursive)
	if err != nil {
		return nil, err
	}
	rv, err := s.versioner.ParseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if opts.Recursive && !strings.HasSuffix(key, "/") {
		return nil, fmt.Errorf(`recursive key needs to end with "/"`)
	}
	if opts.ProgressNotify && s.newFunc == nil {
		return nil, apierrors.NewInternalError(errors.New("progressNotify for watch is unsupported by the storage because no newFunc was provided"))
	}
	w := &watcher{s: s, key: key, opts: opts, all: opts.Predicate.Empty(), result: make(chan watch.Event, resultBuffer)}
	w.ctx, w.cancel = context.WithCancel(ctx)
	watchList := utilfeature.DefaultFeatureGate.Enabled(features.WatchList)
	initial := opts.SendInitialEvents == nil && rv == 0 ||
		watchList && opts.SendInitialEvents != nil && *opts.SendInitialEvents
	bookmark := watchList && initial && opts.SendInitialEvents != nil && opts.Predicate.AllowWatchBookmarks
	after := int64(rv)
	if after == 0 && !initial {
		after = s.log.Current()
	}
	go w.run(after, initial, bookmark)
	utilflowcontrol.WatchInitialized(ctx)
	return w, nil
}

// Stop implements watch.Interface.
func (w *watcher) Stop() { w.cancel() }

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.result }

func (w *watcher) run(after int64, initial, bookmark bool) {
	defer close(w.result)
	defer w.cancel()
	if err := w.stream(after, initial, bookmark); err != nil && w.ctx.Err() == nil {
		w.send(watch.Event{Type: watch.Error, Object: statusOf(err)})
	}
}

func (w *watcher) stream(after int64, initial, bookmark bool) error {
	if initial {
		if current := w.s.log.Current(); after > current {
			return storage.NewTooLargeResourceVersionError(uint64(after), uint64(current), 1+rand.IntN(3))
		}
		rev, err := w.existing()
		if err != nil {
			return err
		}
		after = rev
	}
	if bookmark {
		if err := w.bookmark(after, true); err != nil {
			return err
		}
	}
	log := w.s.log.Watch(w.key, !w.opts.Recursive, after)
	bookmarks := w.s.newFunc != nil && (w.opts.ProgressNotify || w.opts.Predicate.AllowWatchBookmarks)
	due := time.Now().Add(bookmarkEvery)
	for {
		ctx, cancel := w.ctx, context.CancelFunc(func() {})
		if bookmarks {
			ctx, cancel = context.WithDeadline(w.ctx, due)
		}
		step, err := log.Next(ctx)
		cancel()
		if w.ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		for _, e := range step.Events {
			if err := w.event(e); err != nil {
				return err
			}
		}
		if late := bookmarks && !time.Now().Before(due); late || step.Progress && w.opts.ProgressNotify {
			if err := w.bookmark(log.Revision(), false); err != nil {
				return err
			}
			due = time.Now().Add(bookmarkEvery)
		}
	}
}

// existing sends what exists now as added, and returns the revision of that state.
func (w *watcher) existing() (int64, error) {
	q := revlog.Query{Prefix: w.key, Exact: !w.opts.Recursive, Limit: maxPage}
	for {
		page, err := w.s.log.List(w.ctx, q)
		if err != nil {
			return 0, w.s.listError(err, q.Revision, false, q.From, w.key)
		}
		for _, kv := range page.KVs {
			obj, err := w.s.decode(kv.Value, nil, kv.Modified)
			if err != nil {
				return 0, err
			}
			if w.wants(obj) && !w.send(watch.Event{Type: watch.Added, Object: obj}) {
				return 0, w.ctx.Err()
			}
		}
		if int64(len(page.KVs)) == page.Count {
			return page.Revision, nil
		}
		q.Revision, q.From = page.Revision, page.KVs[len(page.KVs)-1].Key+"\x00"
	}
}

// event sends what a change means to somebody who sees only matching objects.
func (w *watcher) event(e *revlog.Event) error {
	var (
		now, old runtime.Object
		err      error
	)
	if e.Current != nil {
		if now, err = w.s.decode(e.Current.Value, nil, e.Revision); err != nil {
			return err
		}
	}
	if e.Previous != nil && (e.Deleted || !w.all) {
		// The last state carries the revision of the deletion: a client resumes from there.
		if old, err = w.s.decode(e.Previous.Value, nil, e.Revision); err != nil {
			if e.Deleted {
				return &apierrors.StatusError{ErrStatus: corruptStatus(err)}
			}
			return err
		}
	}
	nowWanted := now != nil && w.wants(now)
	oldWanted := e.Previous != nil && (old == nil || w.wants(old))
	out := watch.Event{Object: now}
	switch {
	case nowWanted && oldWanted:
		out.Type = watch.Modified
	case nowWanted:
		out.Type = watch.Added
	case oldWanted:
		out.Type, out.Object = watch.Deleted, old
	default:
		return nil
	}
	if w.opts.RecordTimestamps {
		out.Object = &timed{Object: out.Object, at: time.Now()}
	}
	if !w.send(out) {
		return w.ctx.Err()
	}
	return nil
}

func (w *watcher) wants(obj runtime.Object) bool {
	if w.all {
		return true
	}
	ok, err := w.opts.Predicate.Matches(obj)
	return err == nil && ok
}

// bookmark reports the revision reached; the first one ends the initial events.
func (w *watcher) bookmark(rev int64, first bool) error {
	if w.s.newFunc == nil {
		return apierrors.NewInternalError(errors.New("no newFunc for a bookmark"))
	}
	obj := w.s.newFunc()
	if err := w.s.versioner.UpdateObject(obj, uint64(rev)); err != nil {
		return err
	}
	if first {
		if err := storage.AnnotateInitialEventsEndBookmark(obj); err != nil {
			return err
		}
	}
	w.send(watch.Event{Type: watch.Bookmark, Object: obj})
	return nil
}

func (w *watcher) send(e watch.Event) bool {
	select {
	case w.result <- e:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// statusOf is the error as the last object of a watch.
func statusOf(err error) runtime.Object {
	if errs.CodeOf(err) == revlog.CodeCompacted {
		err = apierrors.NewResourceExpired("The resourceVersion for the provided watch is too old.")
	} else {
		err = apiErrorUnlessStatus(err)
	}
	status := err.(apierrors.APIStatus).Status()
	return &status
}
