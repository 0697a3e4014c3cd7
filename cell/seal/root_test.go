package seal

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"chancery/internal/errs"
	"chancery/wall"
)

func newTestRoot(t *testing.T) *Root {
	t.Helper()
	r, err := NewRoot(bytes.Repeat([]byte{7}, RootKeySize), "health", make([]byte, SaltSize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Destroy)
	return r
}

func TestRoot(t *testing.T) {
	key := bytes.Repeat([]byte{7}, RootKeySize)
	r, err := NewRoot(key, "health", make([]byte, SaltSize))
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes.Trim(key, "\x00")) != 0 {
		t.Fatal("the caller's key was not zeroed")
	}
	seen := map[string]bool{}
	derive := func(r *Root, info string) string {
		k, err := r.Derive(info)
		if err != nil || len(k) != RootKeySize {
			t.Fatalf("%d bytes, %v", len(k), err)
		}
		return string(k)
	}
	for _, info := range []string{"a", "b", "a/b", "A"} {
		if k := derive(r, info); seen[k] || k != derive(r, info) {
			t.Fatal("derived keys are not distinct and stable")
		} else {
			seen[k] = true
		}
	}
	for _, o := range []struct {
		org  string
		salt byte
	}{{"wealth", 0}, {"health", 1}} {
		r2, err := NewRoot(bytes.Repeat([]byte{7}, RootKeySize), o.org, bytes.Repeat([]byte{o.salt}, SaltSize))
		if err != nil {
			t.Fatal(err)
		}
		if seen[derive(r2, "a")] {
			t.Fatalf("organization or salt does not matter: %+v", o)
		}
		r2.Destroy()
	}
	if _, err := r.Derive(""); !errs.Is(err, errs.Invalid) {
		t.Fatalf("empty purpose: %v", err)
	}
	r.Destroy()
	r.Destroy()
	if _, err := r.Derive("a"); !errs.Is(err, errs.Sealed) {
		t.Fatalf("after Destroy: %v", err)
	}
	if r.Memory() != "" {
		t.Fatal("a destroyed root names its memory")
	}
}

// A vector (computed with Python's hmac), so that the derivation cannot change
// unnoticed: old data would be lost.
func TestDerivationVector(t *testing.T) {
	root, err := rootOf(bytes.Repeat([]byte{1}, 32), "health", bytes.Repeat([]byte{2}, SaltSize))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Destroy()
	k, err := root.Derive("seal/check")
	if err != nil {
		t.Fatal(err)
	}
	const want = "91241c06b65ce1d18848828854b5f28413602e299d7f268a7da07cb8e899db9e"
	if got := fmt.Sprintf("%x", k); got != want {
		t.Fatalf("got %s", got)
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	var nilRoot *Root
	for _, r := range []*Root{nilRoot, {}} {
		_, err := r.Derive("x")
		wantKind(t, err, errs.Sealed)
		r.Destroy()
	}
	var nilKeeper *Keeper
	ctx := t.Context()
	for _, k := range []*Keeper{nilKeeper, {}} {
		_, err := k.SubmitShare(ctx, []byte("{}"))
		if err == nil {
			t.Fatal("a zero Keeper takes a share")
		}
		_, err = k.Init(ctx, initOf(1, 1))
		wantKind(t, err, errs.Sealed)
		wantKind(t, k.Seal(ctx), errs.Sealed)
		wantKind(t, k.Destroy(ctx), errs.Sealed)
		_, err = k.Share("c1")
		wantKind(t, err, errs.Sealed)
		_, err = k.Bootstrap()
		wantKind(t, err, errs.Sealed)
		if s := k.Status(); s.State != wall.SealedState {
			t.Fatalf("a zero Keeper is %s", s.State)
		}
		if _, ca, pin, mem := k.Custody(); ca+pin+mem != "" {
			t.Fatal("a zero Keeper knows something")
		}
	}
	for _, o := range []Options{{}, {Organization: "health", Domain: "d"}, {Organization: "Bad", Domain: "d"}} {
		if _, err := Open(o); err == nil {
			t.Fatalf("opened %+v", o)
		}
	}
	for _, key := range [][]byte{nil, make([]byte, 31), make([]byte, 33)} {
		_, err := NewRoot(key, "o", make([]byte, SaltSize))
		wantKind(t, err, errs.Invalid)
	}
	_, err := NewRoot(make([]byte, 32), "o", nil)
	wantKind(t, err, errs.Invalid)
}

// Nothing prints a secret.
func TestSecretsDoNotPrint(t *testing.T) {
	r := newTestRoot(t)
	p := wall.SharePayload{Organization: "health", Custodian: "c1", Share: []byte("SHARE"), Commitments: [][]byte{[]byte("COMMIT")}}
	b := wall.Bootstrap{Organization: "health", User: "admin", Token: "TOKEN"}
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %s", r, r, r, r), fmt.Sprintf("%v %+v %#v %s", p, p, p, p), fmt.Sprintf("%v %+v %#v %s", b, b, b, b)} {
		for _, bad := range []string{"SHARE", "COMMIT", "TOKEN", "\x07", "[7", "0x7", "83 72"} {
			if strings.Contains(s, bad) {
				t.Fatalf("printed a secret: %s", s)
			}
		}
	}
}

// With memfd_secret not even this process can read the key through the kernel;
// without it the kind of memory must say so.
func TestRootMemory(t *testing.T) {
	r := newTestRoot(t)
	t.Log(r.Memory())
	f, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	buf := make([]byte, RootKeySize)
	_, err = f.ReadAt(buf, int64(uintptr(unsafe.Pointer(&r.key.data[0]))))
	switch r.Memory() {
	case "memfd_secret":
		if err == nil {
			t.Fatal("the kernel reads the root key's memory")
		}
	default:
		if !strings.HasPrefix(r.Memory(), "anonymous memory") || !strings.Contains(r.Memory(), "memfd_secret") {
			t.Fatalf("the memory is not described: %q", r.Memory())
		}
	}
}

// The fallback works too, and says what it is.
func TestAnonymousMemory(t *testing.T) {
	m, err := mapAnonymous(32, os.Getpagesize(), os.ErrInvalid)
	if err != nil {
		t.Fatal(err)
	}
	copy(m.data, "secret")
	if !strings.HasPrefix(m.kind, "anonymous memory, ") || !strings.Contains(m.kind, "not dumped") {
		t.Fatal(m.kind)
	}
	m.destroy()
	if m.data != nil {
		t.Fatal("still there")
	}
}

func TestDeriveWhileDestroyed(t *testing.T) {
	r := newTestRoot(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if _, err := r.Derive("x"); err != nil && !errs.Is(err, errs.Sealed) {
					t.Error(err)
				}
			}
		})
	}
	r.Destroy()
	wg.Wait()
}
