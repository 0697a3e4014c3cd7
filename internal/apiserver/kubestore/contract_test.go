package kubestore

import (
	"bytes"
	"context"
	"strconv"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/storage"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"

	"chancery/internal/apiserver/revlog"
	"chancery/internal/store/pebblestore"
)

var (
	testScheme = runtime.NewScheme()
	testCodecs = serializer.NewCodecFactory(testScheme)
)

func init() {
	metav1.AddToGroupVersion(testScheme, metav1.SchemeGroupVersion)
	if err := example.AddToScheme(testScheme); err != nil {
		panic(err)
	}
	if err := examplev1.AddToScheme(testScheme); err != nil {
		panic(err)
	}
}

func newStorage(t *testing.T) *Storage {
	t.Helper()
	ctx := context.Background()
	st, err := pebblestore.Open(ctx, pebblestore.Options{Dir: t.TempDir(), Key: bytes.Repeat([]byte{1}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	log, err := revlog.Open(ctx, st, revlog.Options{Prefix: []byte("t/")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Log: log, Codec: testCodecs.LegacyCodec(examplev1.SchemeGroupVersion), ResourcePrefix: "/pods",
		NewFunc: func() runtime.Object { return &example.Pod{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		log.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func compaction(s *Storage) storagetesting.Compaction {
	return func(ctx context.Context, t *testing.T, resourceVersion string) {
		t.Helper()
		rv, err := strconv.ParseInt(resourceVersion, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.log.Compact(ctx, rv); err != nil {
			t.Fatal(err)
		}
		// The suite counts on what etcd's compaction does: it writes a key.
		increaseRV(s)(ctx, t)
	}
}

func increaseRV(s *Storage) storagetesting.IncreaseRVFunc {
	return func(ctx context.Context, t *testing.T) int64 {
		t.Helper()
		kv, _, err := s.log.Get(ctx, "/increaseRV")
		if err != nil {
			t.Fatal(err)
		}
		expect := int64(0)
		if kv != nil {
			expect = kv.Modified
		}
		res, err := s.log.Put(ctx, "/increaseRV", []byte("ok"), expect, 0)
		if err != nil || !res.Done {
			t.Fatal(res, err)
		}
		return res.Revision
	}
}

// TestContract runs the suite that k8s.io/apiserver runs on its etcd storage.
// Left out are the tests of value transformers (we have none: the store
// encrypts) and of etcd client calls.
func TestContract(t *testing.T) {
	type run func(context.Context, *testing.T, storage.Interface)
	noKeyCheck := func(context.Context, *testing.T, string) {}
	noCalls := func(*testing.T, uint64, uint64) {}
	for name, fn := range map[string]run{
		"Create": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestCreate(ctx, t, s, noKeyCheck)
		},
		"CreateWithTTL":                      storagetesting.RunTestCreateWithTTL,
		"CreateWithKeyExist":                 storagetesting.RunTestCreateWithKeyExist,
		"Get":                                storagetesting.RunTestGet,
		"UnconditionalDelete":                storagetesting.RunTestUnconditionalDelete,
		"ConditionalDelete":                  storagetesting.RunTestConditionalDelete,
		"DeleteWithSuggestion":               storagetesting.RunTestDeleteWithSuggestion,
		"DeleteWithSuggestionAndConflict":    storagetesting.RunTestDeleteWithSuggestionAndConflict,
		"DeleteWithSuggestionOfDeleted":      storagetesting.RunTestDeleteWithSuggestionOfDeletedObject,
		"ValidateDeletionWithSuggestion":     storagetesting.RunTestValidateDeletionWithSuggestion,
		"ValidateDeletionWithOnlySuggestion": storagetesting.RunTestValidateDeletionWithOnlySuggestionValid,
		"DeleteWithConflict":                 storagetesting.RunTestDeleteWithConflict,
		"PreconditionalDeleteWithSuggestion": storagetesting.RunTestPreconditionalDeleteWithSuggestion,
		"PreconditionalDeleteOnlySuggestion": storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass,
		"ListPaging":                         storagetesting.RunTestListPaging,
		"GetListRecursivePrefix":             storagetesting.RunTestGetListRecursivePrefix,
		"KeySchema":                          storagetesting.RunTestKeySchema,
		"GuaranteedUpdateWithTTL":            storagetesting.RunTestGuaranteedUpdateWithTTL,
		"GuaranteedUpdateWithConflict":       storagetesting.RunTestGuaranteedUpdateWithConflict,
		"GuaranteedUpdateWithSuggestion":     storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict,
		"NamespaceScopedList":                storagetesting.RunTestNamespaceScopedList,
		"Watch":                              storagetesting.RunTestWatch,
		"ClusterScopedWatch":                 storagetesting.RunTestClusterScopedWatch,
		"NamespaceScopedWatch":               storagetesting.RunTestNamespaceScopedWatch,
		"DeleteTriggerWatch":                 storagetesting.RunTestDeleteTriggerWatch,
		"WatchFromNonZero":                   storagetesting.RunTestWatchFromNonZero,
		"DelayedWatchDelivery":               storagetesting.RunTestDelayedWatchDelivery,
		"WatchContextCancel":                 storagetesting.RunTestWatchContextCancel,
		"WatcherTimeout":                     storagetesting.RunTestWatcherTimeout,
		"WatchDeleteEventObjectHaveLatestRV": storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV,
		"WatchInitializationSignal":          storagetesting.RunTestWatchInitializationSignal,
		"WatchDispatchBookmarkEvents": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, s, false)
		},
		"WatchFromZero": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestWatchFromZero(ctx, t, s, compaction(s.(*Storage)))
		},
		"List": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestList(ctx, t, s, compaction(s.(*Storage)), false, nil)
		},
		"GetListNonRecursive": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestGetListNonRecursive(ctx, t, increaseRV(s.(*Storage)), s)
		},
		"ConsistentList": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestConsistentList(ctx, t, s, increaseRV(s.(*Storage)), false, true, false)
		},
		"CompactRevision": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestCompactRevision(ctx, t, s, increaseRV(s.(*Storage)), compaction(s.(*Storage)))
		},
		"ListContinuation": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestListContinuation(ctx, t, s, noCalls)
		},
		"ListPaginationRareObject": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestListPaginationRareObject(ctx, t, s, noCalls)
		},
		"ListContinuationWithFilter": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestListContinuationWithFilter(ctx, t, s, noCalls)
		},
		"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestListInconsistentContinuation(ctx, t, s, compaction(s.(*Storage)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			t.Cleanup(cancel) // after parallel subtests
			fn(ctx, t, newStorage(t))
		})
	}
}

// TestBookmarks: an idle watch hears of revisions that did not concern it.
func TestBookmarks(t *testing.T) {
	s := newStorage(t)
	old := bookmarkEvery
	bookmarkEvery = 50 * time.Millisecond
	defer func() { bookmarkEvery = old }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	predicate := storage.Everything
	predicate.AllowWatchBookmarks = true
	w, err := s.Watch(ctx, "/pods", storage.ListOptions{ResourceVersion: "1", Recursive: true, Predicate: predicate})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		w.Stop()
		for range w.ResultChan() { // until it no longer reads bookmarkEvery
		}
	}()
	rev := increaseRV(s)(ctx, t)
	for e := range w.ResultChan() {
		if e.Type != watch.Bookmark {
			t.Fatalf("%+v", e)
		}
		if rv, err := s.Versioner().ObjectResourceVersion(e.Object); err != nil || int64(rv) >= rev {
			return
		}
	}
	t.Fatal("no bookmark")
}
