package keys

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// memStore is a store.Store for these tests that also keeps all it ever held
// until it is purged, can be stolen and tampered with, and fails on demand.
type memStore struct {
	mu      sync.Mutex
	m       map[string][]byte
	ever    [][]byte // values overwritten or deleted since the last purge
	purges  int
	failing struct{ purge, commit error }
	before  func() // called once, at the start of the next commit
}

func newMemStore() *memStore { return &memStore{m: map[string][]byte{}} }

func (s *memStore) Get(_ context.Context, key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.m[string(key)]
	if !ok {
		return nil, errs.New(errs.NotFound, "memStore.Get", "no such key")
	}
	return bytes.Clone(v), nil
}

func (s *memStore) Scan(_ context.Context, r store.Range, fn func(k, v []byte) (bool, error)) error {
	s.mu.Lock()
	m := maps.Clone(s.m)
	s.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k < string(r.Start) || r.End != nil && k >= string(r.End) {
			continue
		}
		if more, err := fn([]byte(k), m[k]); err != nil || !more {
			return err
		}
	}
	return nil
}

func (s *memStore) Commit(_ context.Context, b *store.Batch) (store.Seq, error) {
	s.mu.Lock()
	before := s.before
	s.before = nil
	s.mu.Unlock()
	if before != nil {
		before()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing.commit != nil {
		return 0, s.failing.commit
	}
	for _, op := range b.Ops {
		v, ok := s.m[string(op.Key)]
		switch op.Kind {
		case store.OpIfAbsent:
			ok = !ok
		case store.OpIfPresent:
		case store.OpIfEquals:
			ok = ok && bytes.Equal(v, op.Value)
		default:
			ok = true
		}
		if !ok {
			return 0, errs.WrapKind(errs.Conflict, "memStore.Commit", &store.PreconditionError{Key: op.Key})
		}
	}
	drop := func(k string) {
		if v, ok := s.m[k]; ok {
			s.ever = append(s.ever, v)
			delete(s.m, k)
		}
	}
	for _, op := range b.Ops {
		switch op.Kind {
		case store.OpPut:
			drop(string(op.Key))
			s.m[string(op.Key)] = bytes.Clone(op.Value)
		case store.OpDelete:
			drop(string(op.Key))
		case store.OpDeleteRange:
			for k := range maps.Clone(s.m) {
				if k >= string(op.Key) && k < string(op.Value) {
					drop(k)
				}
			}
		}
	}
	return 1, nil
}

func (s *memStore) Purge(context.Context, store.Range) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing.purge != nil {
		return s.failing.purge
	}
	s.purges++
	s.ever = nil
	return nil
}

func (s *memStore) Snapshot(context.Context) (store.Snapshot, error) { panic("not used") }
func (s *memStore) Feed() store.Feed                                 { panic("not used") }
func (s *memStore) Stats() store.Stats                               { return store.Stats{} }
func (s *memStore) Close() error                                     { return nil }

// holds tells whether bytes are in the store, or were since the last purge.
func (s *memStore) holds(p []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.m {
		if bytes.Contains(v, p) {
			return true
		}
	}
	return slices.ContainsFunc(s.ever, func(v []byte) bool { return bytes.Contains(v, p) })
}

// copy is the store as a thief or a backup has it.
func (s *memStore) copy() *memStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newMemStore()
	for k, v := range s.m {
		c.m[k] = bytes.Clone(v)
	}
	return c
}

func (s *memStore) raw(t testing.TB, key []byte) []byte {
	t.Helper()
	v, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// noPurge is a store whose process ends before any purge.
type noPurge struct{ store.Store }

func (noPurge) Purge(context.Context, store.Range) error { return errDisk }
