package kubestore

import (
	"context"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"chancery/internal/apiserver/revlog"
	"chancery/internal/errs"
)

// maxPage bounds the page that a filtered list grows to.
const maxPage = 10_000

// Get implements storage.Interface.
func (s *Storage) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	key, err := s.key(key, false)
	if err != nil {
		return err
	}
	kv, rev, err := s.log.Get(ctx, key)
	if err != nil {
		return apiError(err)
	}
	if err := s.notOlderThan(opts.ResourceVersion, rev); err != nil {
		return err
	}
	if kv == nil {
		if opts.IgnoreNotFound {
			return runtime.SetZeroValue(out)
		}
		return storage.NewKeyNotFoundError(key, 0)
	}
	_, err = s.decode(kv.Value, out, kv.Modified)
	return err
}

// GetList implements storage.Interface.
func (s *Storage) GetList(ctx context.Context, key string, opts storage.ListOptions, list runtime.Object) error {
	key, err := s.key(key, opts.Recursive)
	if err != nil {
		return err
	}
	items, err := itemsOf(list)
	if err != nil {
		return err
	}
	newItem := itemMaker(list, items)
	rev, from, err := storage.ValidateListOptions(key, s.versioner, opts)
	if err != nil {
		return err
	}
	var (
		limit    = int(opts.Predicate.Limit)
		lastKey  string
		count    int64
		hasMore  bool
		pageSize = limit
	)
	for {
		page, err := s.log.List(ctx, revlog.Query{Prefix: key, Exact: !opts.Recursive, From: from, Limit: pageSize, Revision: rev})
		if err != nil {
			return s.listError(err, rev, len(opts.Predicate.Continue) > 0, from, key)
		}
		if rev == 0 {
			if err := s.notOlderThan(opts.ResourceVersion, page.Revision); err != nil {
				return err
			}
			rev = page.Revision
		}
		count, hasMore = page.Count, int64(len(page.KVs)) < page.Count
		for _, kv := range page.KVs {
			if limit > 0 && items.Len() >= limit {
				hasMore = true
				break
			}
			if err := ctx.Err(); err != nil {
				return storage.NewTimeoutError(kv.Key, "request did not complete within requested timeout")
			}
			lastKey = kv.Key
			obj, err := s.decode(kv.Value, newItem(), kv.Modified)
			if err != nil {
				return err
			}
			if matched, err := opts.Predicate.Matches(obj); err == nil && matched {
				items.Set(reflect.Append(items, reflect.ValueOf(obj).Elem()))
			}
		}
		if !hasMore || (limit > 0 && items.Len() >= limit) {
			break
		}
		// A selector dropped some: read on, in larger steps.
		from, pageSize = lastKey+"\x00", min(pageSize*2, maxPage)
	}
	continueValue, remaining, err := storage.PrepareContinueToken(lastKey, key, rev, count, hasMore, opts)
	if err != nil {
		return err
	}
	if items.IsNil() {
		items.Set(reflect.MakeSlice(items.Type(), 0, 0)) // "items": [], never null
	}
	if err := s.versioner.UpdateList(list, uint64(rev), continueValue, remaining); err != nil {
		return err
	}
	if utilfeature.DefaultFeatureGate.Enabled(features.ShardedListAndWatch) {
		opts.Predicate.SetShardInfoOnList(list)
	}
	return nil
}

// listError turns an error of the log into what a lister expects. A client that
// pages and comes too late gets a token with which it can go on, inconsistently.
func (s *Storage) listError(err error, rev int64, paging bool, from, prefix string) error {
	switch errs.CodeOf(err) {
	case revlog.CodeFuture:
		return storage.NewTooLargeResourceVersionError(uint64(rev), uint64(s.log.Current()), 0)
	case revlog.CodeCompacted:
		if !paging {
			return apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
		}
		status := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. " +
			"Start a new list without it, or use the continue token in this response: objects that were created, modified or deleted in between may then show up or be missing.")
		token, tokenErr := storage.EncodeContinue(from, prefix, -1)
		if tokenErr != nil {
			return apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. Start a new list without it.")
		}
		status.ErrStatus.ListMeta.Continue = token
		return status
	}
	return apiError(err)
}

func itemsOf(list runtime.Object) (reflect.Value, error) {
	ptr, err := meta.GetItemsPtr(list)
	if err != nil {
		return reflect.Value{}, err
	}
	v, err := conversion.EnforcePtr(ptr)
	if err != nil || v.Kind() != reflect.Slice {
		return reflect.Value{}, fmt.Errorf("%T: need a pointer to a slice of items: %w", list, err)
	}
	return v, nil
}

// itemMaker makes empty items; those of a custom resource must know their version to be decoded.
func itemMaker(list runtime.Object, items reflect.Value) func() runtime.Object {
	if u, ok := list.(*unstructured.UnstructuredList); ok && u.GetAPIVersion() != "" {
		version := u.GetAPIVersion()
		return func() runtime.Object {
			return &unstructured.Unstructured{Object: map[string]any{"apiVersion": version}}
		}
	}
	elem := items.Type().Elem()
	return func() runtime.Object { return reflect.New(elem).Interface().(runtime.Object) }
}
