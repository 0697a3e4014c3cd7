package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

func open(t *testing.T) (store.Store, string) {
	t.Helper()
	dir := t.TempDir()
	return reopen(t, dir), dir
}

func reopen(t *testing.T, dir string) store.Store {
	t.Helper()
	st, err := pebblestore.Open(t.Context(), pebblestore.Options{Dir: dir, Key: bytes.Repeat([]byte{1}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func wantKind(t *testing.T, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) {
		t.Fatalf("error %v, want kind %v", err, kind)
	}
}

func TestAccessKeys(t *testing.T) {
	st, dir := open(t)
	d, ctx := Open(st), t.Context()
	k, err := d.CreateAccessKey(ctx, NewAccessKey{Project: "p1", User: "ann", Owner: "uid-1"})
	if err != nil {
		t.Fatal(err)
	}
	if len(k.ID) != 20 || !strings.HasPrefix(k.ID, "CH") || len(k.Secret) != 40 || strings.Trim(k.ID[2:], base32Alphabet) != "" || strings.Trim(k.Secret, base62Alphabet) != "" {
		t.Fatalf("malformed key %q", k.ID)
	}
	if s := fmt.Sprintf("%v %+v %#v", k, k, k); strings.Contains(s, k.Secret) {
		t.Fatal("a key prints its secret")
	}
	again, err := d.CreateAccessKey(ctx, NewAccessKey{Project: "p1", User: "ann", Owner: "uid-1"})
	if err != nil || again != k {
		t.Fatalf("asked again for one owner: %v, %v", again, err)
	}
	_, err = d.CreateAccessKey(ctx, NewAccessKey{Project: "p2", User: "ann", Owner: "uid-1"})
	wantKind(t, err, errs.Conflict)
	k2, err := d.CreateAccessKey(ctx, NewAccessKey{Project: "p1x", User: "bob"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // from the store, then from memory
		got, err := d.AccessKey(ctx, k.ID)
		if err != nil || got != k {
			t.Fatalf("%v, %v", got, err)
		}
	}
	if got, err := Open(st).AccessKey(ctx, k.ID); err != nil || got != k {
		t.Fatalf("another directory: %v, %v", got, err)
	}
	all, err := d.ListAccessKeys(ctx, "")
	if err != nil || len(all) != 2 || all[0].Secret+all[1].Secret != "" {
		t.Fatalf("%v, %v", all, err)
	}
	one, err := d.ListAccessKeys(ctx, "p1") // not those of p1x
	if err != nil || len(one) != 1 || one[0].ID != k.ID || one[0].Secret != "" {
		t.Fatalf("%v, %v", one, err)
	}
	if err := d.SetAccessKeyDisabled(ctx, k.ID, true); err != nil {
		t.Fatal(err)
	}
	if got, err := d.AccessKey(ctx, k.ID); err != nil || !got.Disabled || got.Secret != k.Secret {
		t.Fatalf("disabled: %v, %v", got, err)
	}
	if err := d.SetAccessKeyDisabled(ctx, k.ID, false); err != nil {
		t.Fatal(err)
	}
	if got, err := d.AccessKey(ctx, k.ID); err != nil || got.Disabled {
		t.Fatalf("enabled: %v, %v", got, err)
	}
	if err := d.DeleteAccessKey(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	_, err = d.AccessKey(ctx, k.ID)
	wantKind(t, err, errs.NotFound)
	wantKind(t, d.DeleteAccessKey(ctx, k.ID), errs.NotFound)
	wantKind(t, d.SetAccessKeyDisabled(ctx, k.ID, true), errs.NotFound)
	if one, err := d.ListAccessKeys(ctx, "p1"); err != nil || len(one) != 0 {
		t.Fatalf("%v, %v", one, err)
	}
	fresh, err := d.CreateAccessKey(ctx, NewAccessKey{Project: "p1", User: "ann", Owner: "uid-1"})
	if err != nil || fresh.ID == k.ID || fresh.Secret == k.Secret {
		t.Fatalf("a deleted key came back: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := Open(reopen(t, dir)).AccessKey(ctx, k2.ID); err != nil || got != k2 {
		t.Fatalf("after a restart: %v, %v", got, err)
	}
}

func TestAccessKeyRefusals(t *testing.T) {
	st, _ := open(t)
	d, ctx := Open(st), t.Context()
	for _, in := range []NewAccessKey{{}, {Project: "p"}, {User: "u"}, {Project: "p/q", User: "u"}, {Project: "p\x00", User: "u"},
		{Project: strings.Repeat("p", maxName+1), User: "u"}, {Project: "p", User: "u", Owner: strings.Repeat("o", maxName+1)}} {
		_, err := d.CreateAccessKey(ctx, in)
		wantKind(t, err, errs.Invalid)
	}
	for _, id := range []string{"", "CH", "AKIAIOSFODNN7EXAMPLE", "CHaaaaaaaaaaaaaaaaaa", "CH1AAAAAAAAAAAAAAAAA", strings.Repeat("CH", 5000)} {
		_, err := d.AccessKey(ctx, id)
		wantKind(t, err, errs.NotFound)
		wantKind(t, d.DeleteAccessKey(ctx, id), errs.NotFound)
	}
	var nilDirectory *Directory
	for _, d := range []*Directory{nilDirectory, {}, Open(nil)} {
		_, err := d.AccessKey(ctx, "CHAAAAAAAAAAAAAAAAAA")
		wantKind(t, err, errs.Sealed)
		_, err = d.CreateAccessKey(ctx, NewAccessKey{Project: "p", User: "u"})
		wantKind(t, err, errs.Sealed)
		_, err = d.ListAccessKeys(ctx, "")
		wantKind(t, err, errs.Sealed)
		_, err = d.Authenticate(ctx, "x")
		wantKind(t, err, errs.Sealed)
		_, err = d.CreateToken(ctx, Token{Name: "n"})
		wantKind(t, err, errs.Sealed)
		_, err = d.Tokens(ctx)
		wantKind(t, err, errs.Sealed)
		wantKind(t, d.RevokeToken(ctx, "n"), errs.Sealed)
		d.Forget()
	}
}

// pausing lets a test act between a look-up's read and what follows.
type pausing struct {
	store.Store
	mu    sync.Mutex
	after func()
}

func (p *pausing) Get(ctx context.Context, key []byte) ([]byte, error) {
	v, err := p.Store.Get(ctx, key)
	p.mu.Lock()
	f := p.after
	p.after = nil
	p.mu.Unlock()
	if f != nil {
		f()
	}
	return v, err
}

// A look-up that read the old record while the key was being deleted must not
// put it back into the cache.
func TestALateLookupDoesNotRevive(t *testing.T) {
	real, _ := open(t)
	st := &pausing{Store: real}
	d, ctx := Open(st), t.Context()
	k, err := d.CreateAccessKey(ctx, NewAccessKey{Project: "p", User: "u"})
	if err != nil {
		t.Fatal(err)
	}
	st.after = func() {
		if err := d.DeleteAccessKey(ctx, k.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.AccessKey(ctx, k.ID); err != nil { // began before the delete: may see it
		t.Fatal(err)
	}
	_, err = d.AccessKey(ctx, k.ID)
	wantKind(t, err, errs.NotFound)

	token, err := d.CreateToken(ctx, Token{Name: "n", Administrator: true})
	if err != nil {
		t.Fatal(err)
	}
	st.after = func() {
		if err := d.RevokeToken(ctx, "n"); err != nil {
			t.Error(err)
		}
	}
	_, _ = d.Authenticate(ctx, string(token))
	_, err = d.Authenticate(ctx, string(token))
	wantKind(t, err, errs.Unauthenticated)
}

// failing commits, then says that it does not know.
type failing struct{ store.Store }

func (f failing) Commit(ctx context.Context, b *store.Batch) (store.Seq, error) {
	if _, err := f.Store.Commit(ctx, b); err != nil {
		return 0, err
	}
	return 0, errs.WrapKind(errs.Unavailable, "failing", errors.New("unknown outcome"))
}

func TestCacheIsEmptiedAfterAnUnknownOutcome(t *testing.T) {
	st, _ := open(t)
	ctx := t.Context()
	k, err := Open(st).CreateAccessKey(ctx, NewAccessKey{Project: "p", User: "u"})
	if err != nil {
		t.Fatal(err)
	}
	d := Open(failing{st})
	if _, err := d.AccessKey(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	wantKind(t, d.DeleteAccessKey(ctx, k.ID), errs.Unavailable)
	_, err = d.AccessKey(ctx, k.ID)
	wantKind(t, err, errs.NotFound)
}

func TestConcurrentUse(t *testing.T) {
	st, _ := open(t)
	d, ctx := Open(st), t.Context()
	var wg sync.WaitGroup
	ids := make(chan string, 64)
	for i := range 8 {
		wg.Go(func() {
			k, err := d.CreateAccessKey(ctx, NewAccessKey{Project: "p", User: "u", Owner: fmt.Sprint("same", i%2)})
			if err != nil && !errs.Is(err, errs.Conflict) {
				t.Error(err)
			}
			if err == nil {
				ids <- k.ID
				for range 50 {
					if _, err := d.AccessKey(ctx, k.ID); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	close(ids)
	all, err := d.ListAccessKeys(ctx, "p")
	if err != nil || len(all) != 2 {
		t.Fatalf("%d keys for two owners, %v", len(all), err)
	}
}

func TestTokens(t *testing.T) {
	st, dir := open(t)
	d, ctx := Open(st), t.Context()
	name, admin, err := d.CreateBootstrapAdministrator(ctx)
	if err != nil || name != BootstrapAdministrator || len(admin) != tokenLength {
		t.Fatalf("%s, %v", name, err)
	}
	for range 2 {
		if got, err := d.Authenticate(ctx, string(admin)); err != nil || !got.Administrator || got.Name != name {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	reader, err := d.CreateToken(ctx, Token{Name: "reader"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Authenticate(ctx, string(reader)); err != nil || got.Administrator {
		t.Fatalf("%+v, %v", got, err)
	}
	_, err = d.CreateToken(ctx, Token{Name: "reader", Administrator: true})
	wantKind(t, err, errs.Exists)
	for _, bad := range []string{"", "a/b", "a\n", strings.Repeat("n", maxName+1)} {
		_, err := d.CreateToken(ctx, Token{Name: bad})
		wantKind(t, err, errs.Invalid)
	}
	// All refusals are the same.
	flipped := bytes.Clone(admin)
	flipped[len(flipped)-1] ^= 4
	var said string
	for _, bad := range []string{"", "x", string(flipped), string(admin[:len(admin)-1]), string(admin) + "A", strings.ToUpper(string(admin)), " " + string(admin[1:])} {
		_, err := d.Authenticate(ctx, bad)
		wantKind(t, err, errs.Unauthenticated)
		if said == "" {
			said = err.Error()
		}
		if err.Error() != said {
			t.Fatalf("%q differs from %q", err, said)
		}
	}
	// Only digests are stored.
	err = st.Scan(ctx, store.Range{}, func(k, v []byte) (bool, error) {
		if bytes.Contains(k, admin[len(tokenPrefix):]) || bytes.Contains(v, admin[len(tokenPrefix):]) {
			t.Errorf("the token is in the store")
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := d.Tokens(ctx)
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	// The bootstrap administrator made again replaces the first.
	_, second, err := d.CreateBootstrapAdministrator(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Authenticate(ctx, string(admin))
	wantKind(t, err, errs.Unauthenticated)
	if err := d.RevokeToken(ctx, "reader"); err != nil {
		t.Fatal(err)
	}
	_, err = d.Authenticate(ctx, string(reader))
	wantKind(t, err, errs.Unauthenticated)
	wantKind(t, d.RevokeToken(ctx, "reader"), errs.NotFound)
	wantKind(t, d.RevokeToken(ctx, ""), errs.NotFound)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := Open(reopen(t, dir)).Authenticate(ctx, string(second)); err != nil || !got.Administrator {
		t.Fatalf("after a restart: %+v, %v", got, err)
	}
}
