package kubestore

import (
	"bytes"
	"context"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"chancery/internal/apiserver/revlog"
)

// Create implements storage.Interface.
func (s *Storage) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	key, err := s.key(key, false)
	if err != nil {
		return err
	}
	if version, err := s.versioner.ObjectResourceVersion(obj); err == nil && version != 0 {
		return storage.ErrResourceVersionSetOnCreate
	}
	data, err := s.encode(obj)
	if err != nil {
		return err
	}
	res, err := s.log.Put(ctx, key, data, 0, seconds(ttl))
	if err != nil {
		return apiError(err)
	}
	if !res.Done {
		return storage.NewKeyExistsError(key, 0)
	}
	if out == nil {
		return nil
	}
	_, err = s.decode(data, out, res.Revision)
	return err
}

func (s *Storage) encode(obj runtime.Object) ([]byte, error) {
	if err := s.versioner.PrepareObjectForStorage(obj); err != nil {
		return nil, fmt.Errorf("prepare object for storage: %w", err)
	}
	return runtime.Encode(s.codec, obj)
}

// state is the object that a conditional write starts from.
type state struct {
	obj  runtime.Object // nil if it cannot be decoded and that was expected
	data []byte
	rev  int64
	// fresh tells that it was read from the log, not taken from the caller's cache.
	fresh bool
}

// kind tells how the object of a conditional write is to be read.
type kind struct {
	typ            reflect.Value
	ignoreNotFound bool
	// corrupt: the write is meant for an object that cannot be decoded, and only for that.
	corrupt bool
}

func (s *Storage) readState(ctx context.Context, key string, k kind) (*state, error) {
	kv, _, err := s.log.Get(ctx, key)
	if err != nil {
		return nil, apiError(err)
	}
	return s.stateOf(kv, key, k)
}

func (s *Storage) stateOf(kv *revlog.KV, key string, k kind) (*state, error) {
	st := &state{fresh: true}
	if u, ok := k.typ.Addr().Interface().(runtime.Unstructured); ok {
		st.obj = u.NewEmptyInstance()
	} else {
		st.obj = reflect.New(k.typ.Type()).Interface().(runtime.Object)
	}
	if kv == nil {
		if !k.ignoreNotFound {
			return nil, storage.NewKeyNotFoundError(key, 0)
		}
		return st, runtime.SetZeroValue(st.obj)
	}
	st.rev, st.data = kv.Modified, kv.Value
	_, err := s.decode(st.data, st.obj, st.rev)
	switch {
	case err != nil && k.corrupt:
		st.obj = nil
		return st, nil
	case err != nil:
		return nil, err
	case k.corrupt:
		return nil, storage.NewInvalidObjError(key, "unsafe deletion is not allowed because the object is decodable from storage")
	}
	return st, nil
}

// suggested takes the caller's cached object as the state. It may be stale.
func (s *Storage) suggested(obj runtime.Object) (*state, error) {
	rv, err := s.versioner.ObjectResourceVersion(obj)
	if err != nil {
		return nil, fmt.Errorf("resourceVersion of the cached object: %w", err)
	}
	st := &state{obj: obj, rev: int64(rv)}
	// The stored form has no resourceVersion: clear it for the encoding.
	if st.data, err = s.encode(obj); err != nil {
		return nil, err
	}
	return st, s.versioner.UpdateObject(obj, rv)
}

// refresh reads the state again after a check failed on a possibly stale one.
// It returns the failure itself if the state was not stale after all.
func (s *Storage) refresh(ctx context.Context, key string, k kind, old *state, failure error) (*state, error) {
	if old.fresh {
		return nil, failure
	}
	st, err := s.readState(ctx, key, k)
	if err != nil {
		return nil, err
	}
	if st.rev == old.rev {
		return nil, failure
	}
	return st, nil
}

// Delete implements storage.Interface.
func (s *Storage) Delete(ctx context.Context, key string, out runtime.Object, pre *storage.Preconditions, validate storage.ValidateObjectFunc, cached runtime.Object, opts storage.DeleteOptions) error {
	key, err := s.key(key, false)
	if err != nil {
		return err
	}
	typ, err := conversion.EnforcePtr(out)
	if err != nil {
		return fmt.Errorf("unable to convert output object to pointer: %w", err)
	}
	k := kind{typ: typ, corrupt: opts.ExpectTransformOrDecodeError && utilfeature.DefaultFeatureGate.Enabled(features.AllowUnsafeMalformedObjectDeletion)}
	var st *state
	if cached != nil && !k.corrupt {
		st, err = s.suggested(cached)
	} else {
		st, err = s.readState(ctx, key, k)
	}
	if err != nil {
		return err
	}
	for {
		failure := pre.Check(key, st.obj)
		if failure == nil {
			failure = validate(ctx, st.obj)
		}
		if failure != nil {
			if st, err = s.refresh(ctx, key, k, st, failure); err != nil {
				return err
			}
			continue
		}
		res, err := s.log.Delete(ctx, key, st.rev)
		if err != nil {
			return apiError(err)
		}
		if !res.Done {
			if st, err = s.stateOf(res.Previous, key, k); err != nil {
				return err
			}
			continue
		}
		if k.corrupt {
			return nil
		}
		_, err = s.decode(st.data, out, res.Revision)
		return err
	}
}

// GuaranteedUpdate implements storage.Interface.
func (s *Storage) GuaranteedUpdate(ctx context.Context, key string, out runtime.Object, ignoreNotFound bool, pre *storage.Preconditions, update storage.UpdateFunc, cached runtime.Object) error {
	key, err := s.key(key, false)
	if err != nil {
		return err
	}
	typ, err := conversion.EnforcePtr(out)
	if err != nil {
		return fmt.Errorf("unable to convert output object to pointer: %w", err)
	}
	k := kind{typ: typ, ignoreNotFound: ignoreNotFound}
	var st *state
	if cached != nil {
		st, err = s.suggested(cached)
	} else {
		st, err = s.readState(ctx, key, k)
	}
	if err != nil {
		return err
	}
	for {
		var (
			ret     runtime.Object
			ttl     *uint64
			failure = pre.Check(key, st.obj)
		)
		if failure == nil {
			ret, ttl, failure = update(st.obj, storage.ResponseMeta{ResourceVersion: uint64(st.rev)})
		}
		if failure != nil {
			if st, err = s.refresh(ctx, key, k, st, failure); err != nil {
				return err
			}
			continue
		}
		data, err := s.encode(ret)
		if err != nil {
			return err
		}
		if st.rev != 0 && bytes.Equal(data, st.data) {
			// Nothing changes, so nothing is written; but only if that is still so.
			if !st.fresh {
				if st, err = s.readState(ctx, key, k); err != nil {
					return err
				}
				if !bytes.Equal(data, st.data) {
					continue
				}
			}
			_, err = s.decode(st.data, out, st.rev)
			return err
		}
		if ttl == nil {
			ttl = new(uint64)
		}
		res, err := s.log.Put(ctx, key, data, st.rev, seconds(*ttl))
		if err != nil {
			return apiError(err)
		}
		if !res.Done {
			if st, err = s.stateOf(res.Previous, key, k); err != nil {
				return err
			}
			continue
		}
		_, err = s.decode(data, out, res.Revision)
		return err
	}
}
