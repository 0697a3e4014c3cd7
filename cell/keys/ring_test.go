package keys

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"chancery/internal/errs"
	"chancery/internal/segment"
	"chancery/internal/store"
)

var ctx = context.Background()

// testRoot is a Root that can be sealed.
type testRoot struct{ key [32]byte }

func (r *testRoot) Derive(info string) ([]byte, error) {
	if r.key == [32]byte{} {
		return nil, errs.New(errs.Sealed, "testRoot.Derive", "sealed")
	}
	return hkdf.Key(sha256.New, r.key[:], nil, info, 32)
}

var root = &testRoot{[32]byte{1}}

func open(t testing.TB, st store.Store) *Ring {
	t.Helper()
	r, err := Open(ctx, st, root, "health")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func commit(t testing.TB, r *Ring, f func(b *store.Batch) error) {
	t.Helper()
	var b store.Batch
	if err := f(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.Commit(ctx, &b); err != nil {
		t.Fatal(err)
	}
}

// begun is a ring with projects p, q and buckets p/a, p/b, q/a.
func begun(t testing.TB) (*Ring, *memStore) {
	st := newMemStore()
	r := open(t, st)
	fill(t, r)
	return r, st
}

func fill(t testing.TB, r *Ring) {
	t.Helper()
	for _, p := range []string{"p", "q"} {
		commit(t, r, func(b *store.Batch) error { return r.CreateProject(ctx, b, p) })
	}
	for _, id := range [][2]string{{"p", "a"}, {"p", "b"}, {"q", "a"}} {
		commit(t, r, func(b *store.Batch) error { return r.CreateBucket(ctx, b, id[0], id[1]) })
	}
}

func take(t testing.TB, r *Ring, project, bucket string) Lease {
	t.Helper()
	l, err := r.Lease(ctx, project, bucket, CustomerRequest)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func kind(t testing.TB, err error, want errs.Kind) {
	t.Helper()
	if !errs.Is(err, want) {
		t.Fatalf("got %v (%v), want %v", err, errs.KindOf(err), want)
	}
}

func binding(bucket string) segment.Binding {
	return segment.Binding{Organization: "health", Bucket: bucket, Object: "o", Content: [16]byte{1}}
}

var salt = [32]byte{5}

// sealed is what data under a lease looks like: a stream key and a record.
type sealed struct {
	version uint32
	key     segment.Key
	record  []byte
}

func seal(t testing.TB, l Lease, bucket string) sealed {
	t.Helper()
	k, err := l.StreamKey(l.Version(), salt, binding(bucket))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := l.SealRecord([]byte("bound"), []byte("metadata"))
	if err != nil {
		t.Fatal(err)
	}
	return sealed{l.Version(), k, rec}
}

func (s sealed) check(t testing.TB, l Lease, bucket string) {
	t.Helper()
	k, err := l.StreamKey(s.version, salt, binding(bucket))
	if err != nil || k != s.key {
		t.Fatalf("the stream key of version %d is another: %v", s.version, err)
	}
	plain, err := l.OpenRecord([]byte("bound"), s.record)
	if err != nil || string(plain) != "metadata" {
		t.Fatalf("record: %q %v", plain, err)
	}
}

// TestLease is also what TestFIPSOnly runs.
func TestLease(t *testing.T) {
	r, st := begun(t)
	l := take(t, r, "p", "a")
	if l.KeyID() != "arn:aws:kms:chancery:health:key/a" || l.Version() != 1 {
		t.Fatal(l.KeyID(), l.Version())
	}
	if take(t, r, "p", "a") != l {
		t.Fatal("a warm lease is another")
	}
	s := seal(t, l, "a")
	s.check(t, l, "a")
	s.check(t, take(t, open(t, st), "p", "a"), "a") // after a restart

	// Each input of the derivation matters.
	seen := map[segment.Key]string{s.key: "itself"}
	try := func(what string, l Lease, salt [32]byte, b segment.Binding) {
		k, err := l.StreamKey(1, salt, b)
		if err != nil {
			t.Fatal(what, err)
		}
		if was, twice := seen[k]; twice {
			t.Fatalf("%s and %s share a key", what, was)
		}
		seen[k] = what
	}
	other := binding("a")
	other.Object = "p"
	try("object", l, salt, other)
	other = binding("a")
	other.Content[3] = 1
	try("content", l, salt, other)
	try("salt", l, [32]byte{6}, binding("a"))
	try("bucket", take(t, r, "p", "b"), salt, binding("b"))
	try("bucket of the same name in another project", take(t, r, "q", "a"), salt, binding("a"))

	for _, bad := range []struct {
		version uint32
		salt    [32]byte
		b       segment.Binding
		want    errs.Kind
	}{
		{1, [32]byte{}, binding("a"), errs.Invalid},
		{1, salt, segment.Binding{}, errs.Invalid},
		{1, salt, binding("b"), errs.Invalid},
		{1, salt, segment.Binding{Organization: "other", Bucket: "a", Object: "o", Content: [16]byte{1}}, errs.Invalid},
		{0, salt, binding("a"), errs.Corrupt},
		{2, salt, binding("a"), errs.Corrupt},
	} {
		k, err := l.StreamKey(bad.version, bad.salt, bad.b)
		kind(t, err, bad.want)
		if k != (segment.Key{}) {
			t.Fatal("a key came out with an error")
		}
	}
}

func TestRecords(t *testing.T) {
	r, _ := begun(t)
	l := take(t, r, "p", "a")
	rec, err := l.SealRecord([]byte("bound"), []byte("metadata"))
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := l.SealRecord([]byte("bound"), []byte("metadata")); bytes.Equal(rec, again) {
		t.Fatal("sealing twice gives the same bytes")
	}
	for i := range len(rec) * 8 {
		rec[i/8] ^= 1 << (i % 8)
		_, err := l.OpenRecord([]byte("bound"), rec)
		kind(t, err, errs.Corrupt)
		rec[i/8] ^= 1 << (i % 8)
	}
	for i := range rec {
		_, err := l.OpenRecord([]byte("bound"), rec[:i])
		kind(t, err, errs.Corrupt)
	}
	_, err = l.OpenRecord([]byte("elsewhere"), rec)
	kind(t, err, errs.Corrupt)
	for _, id := range [][2]string{{"p", "b"}, {"q", "a"}} {
		_, err = take(t, r, id[0], id[1]).OpenRecord([]byte("bound"), rec)
		kind(t, err, errs.Corrupt)
	}
	_, err = l.SealRecord(nil, make([]byte, MaxRecord+1))
	kind(t, err, errs.Exhausted)
	if rec, err := l.SealRecord(nil, nil); err != nil {
		t.Fatal(err)
	} else if plain, err := l.OpenRecord(nil, rec); err != nil || len(plain) != 0 {
		t.Fatal(plain, err)
	}
}

func TestReasonsAndIDs(t *testing.T) {
	r, _ := begun(t)
	for _, why := range []Reason{"", "curiosity"} {
		_, err := r.Lease(ctx, "p", "a", why)
		kind(t, err, errs.Invalid)
	}
	for _, why := range []Reason{CustomerRequest, ScheduledTask, RestoreDrill, OperatorAssisted} {
		if _, err := r.Lease(ctx, "p", "a", why); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range [][2]string{{"p", "none"}, {"none", "a"}, {"q", "b"}} {
		_, err := r.Lease(ctx, id[0], id[1], CustomerRequest)
		kind(t, err, errs.NotFound)
	}
	for _, bad := range []string{"", "a/b", "a\x00", "é", string(make([]byte, 200)), "../k"} {
		var b store.Batch
		kind(t, r.CreateProject(ctx, &b, bad), errs.Invalid)
		kind(t, r.CreateBucket(ctx, &b, "p", bad), errs.Invalid)
		kind(t, r.DestroyBucket(ctx, bad, "a"), errs.Invalid)
		kind(t, r.DestroyProject(ctx, bad), errs.Invalid)
		kind(t, r.RotateProject(ctx, bad), errs.Invalid)
		kind(t, r.RotateBucket(ctx, "p", bad), errs.Invalid)
		_, err := r.Lease(ctx, "p", bad, CustomerRequest)
		kind(t, err, errs.Invalid)
		_, err = Open(ctx, newMemStore(), root, bad)
		kind(t, err, errs.Invalid)
		if len(b.Ops) != 0 {
			t.Fatal("a refused call changed the batch")
		}
	}
	var b store.Batch
	kind(t, r.CreateProject(ctx, &b, "p"), errs.Exists)
	kind(t, r.CreateBucket(ctx, &b, "p", "a"), errs.Exists)
	kind(t, r.CreateBucket(ctx, &b, "none", "a"), errs.NotFound)
	kind(t, r.RotateProject(ctx, "none"), errs.NotFound)
	kind(t, r.RotateBucket(ctx, "p", "none"), errs.NotFound)
	kind(t, r.DestroyProject(ctx, "none"), errs.NotFound)
	kind(t, r.DestroyBucket(ctx, "p", "none"), errs.NotFound)
}

// TestZeroRefuses: the zero Ring and lease, and a closed ring, open nothing.
func TestZeroRefuses(t *testing.T) {
	closed, _ := begun(t)
	held := take(t, closed, "p", "a")
	s := seal(t, held, "a")
	key := held.(*lease).versions[0].key
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if *key != (secret{}) {
		t.Fatal("the key is still in memory after Close")
	}
	for name, r := range map[string]*Ring{"zero": {}, "closed": closed} {
		var b store.Batch
		_, err := r.Lease(ctx, "p", "a", CustomerRequest)
		for i, err := range []error{
			err, r.CreateProject(ctx, &b, "x"), r.CreateBucket(ctx, &b, "p", "x"), r.RotateOrganization(ctx), r.RotateProject(ctx, "p"),
			r.RotateBucket(ctx, "p", "a"), r.DestroyBucket(ctx, "p", "a"), r.DestroyProject(ctx, "p"), r.DestroyOrganization(ctx), r.Rewrap(ctx, root),
		} {
			if !errs.Is(err, errs.Sealed) {
				t.Fatalf("%s ring, call %d: %v", name, i, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []Lease{held, &lease{}} {
		_, err1 := l.StreamKey(1, salt, binding("a"))
		_, err2 := l.SealRecord(nil, nil)
		_, err3 := l.OpenRecord([]byte("bound"), s.record)
		for _, err := range []error{err1, err2, err3} {
			kind(t, err, errs.Sealed)
		}
	}
	_, err := Open(ctx, nil, root, "health")
	kind(t, err, errs.Invalid)
	_, err = Open(ctx, newMemStore(), nil, "health")
	kind(t, err, errs.Invalid)
	_, err = Open(ctx, newMemStore(), &testRoot{}, "health")
	kind(t, err, errs.Sealed)
	r, _ := begun(t)
	kind(t, r.Rewrap(ctx, nil), errs.Invalid)
}

func TestLeaseEndsByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := begun(t)
		l := take(t, r, "p", "a")
		s := seal(t, l, "a")
		key := l.(*lease).versions[0].key
		time.Sleep(renewAfter - time.Second)
		if take(t, r, "p", "a") != l {
			t.Fatal("not cached")
		}
		time.Sleep(2 * time.Second)
		second := take(t, r, "p", "a")
		if second == l {
			t.Fatal("a lease in its second half was handed out")
		}
		s.check(t, l, "a") // it still runs
		s.check(t, second, "a")
		time.Sleep(renewAfter)
		synctest.Wait()
		if *key != (secret{}) {
			t.Fatal("the key is still in memory after the lease")
		}
		_, err := l.StreamKey(1, salt, binding("a"))
		kind(t, err, errs.Unavailable)
		_, err = l.OpenRecord([]byte("bound"), s.record)
		kind(t, err, errs.Unavailable)
		s.check(t, second, "a")
		time.Sleep(LeaseTime)
		synctest.Wait()
		if len(r.live) != 0 || len(r.cache) != 0 {
			t.Fatalf("%d live, %d cached leases are left", len(r.live), len(r.cache))
		}
		// A late timer does not prolong it.
		late := take(t, r, "p", "a").(*lease)
		late.timer.Stop()
		time.Sleep(LeaseTime)
		_, err = late.SealRecord(nil, nil)
		kind(t, err, errs.Unavailable)
	})
}

func TestFIPSOnly(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^(TestLease|TestRecords|TestRotate)$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func BenchmarkLeaseWarm(b *testing.B) {
	r, _ := begun(b)
	for b.Loop() {
		if _, err := r.Lease(ctx, "p", "a", CustomerRequest); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeaseCold(b *testing.B) {
	r, _ := begun(b)
	for b.Loop() {
		r.endLeases(errExpired("bench"), func(*lease) bool { return true })
		if _, err := r.Lease(ctx, "p", "a", CustomerRequest); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStreamKey(b *testing.B) {
	r, _ := begun(b)
	l := take(b, r, "p", "a")
	for b.Loop() {
		if _, err := l.StreamKey(1, salt, binding("a")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	r, _ := begun(b)
	l := take(b, r, "p", "a")
	plain := make([]byte, 300)
	b.ReportAllocs()
	for b.Loop() {
		rec, err := l.SealRecord([]byte("bound"), plain)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := l.OpenRecord([]byte("bound"), rec); err != nil {
			b.Fatal(err)
		}
	}
}
