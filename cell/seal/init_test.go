package seal

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/wall"
)

func TestInitRefusesBadInput(t *testing.T) {
	classic, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	good := initOf(2, 3)
	with := func(f func(*wall.Init)) wall.Init {
		in := wall.Init{Quorum: good.Quorum, Custodians: append([]wall.Custodian(nil), good.Custodians...)}
		f(&in)
		return in
	}
	tests := map[string]struct {
		in   wall.Init
		says string
	}{
		"nothing":         {wall.Init{}, "1 to 255 custodians"},
		"quorum 0":        {with(func(in *wall.Init) { in.Quorum = 0 }), "quorum"},
		"quorum > n":      {with(func(in *wall.Init) { in.Quorum = 4 }), "quorum"},
		"quorum negative": {with(func(in *wall.Init) { in.Quorum = -1 }), "quorum"},
		"name":            {with(func(in *wall.Init) { in.Custodians[1].Name = "Zoë" }), "DNS label"},
		"name path":       {with(func(in *wall.Init) { in.Custodians[1].Name = "../x" }), "DNS label"},
		"name empty":      {with(func(in *wall.Init) { in.Custodians[1].Name = "" }), "DNS label"},
		"same name":       {with(func(in *wall.Init) { in.Custodians[1].Name = "c1" }), "two custodians"},
		"same recipient":  {with(func(in *wall.Init) { in.Custodians[1].Recipient = in.Custodians[0].Recipient }), "same recipient"},
		"same, upper": {with(func(in *wall.Init) { in.Custodians[1].Recipient = " " + in.Custodians[0].Recipient + "\n" }),
			"same recipient"},
		"classic":  {with(func(in *wall.Init) { in.Custodians[2].Recipient = classic.Recipient().String() }), "not post-quantum"},
		"secret":   {with(func(in *wall.Init) { in.Custodians[2].Recipient = identities()[2].String() }), "secret identity"},
		"garbage":  {with(func(in *wall.Init) { in.Custodians[2].Recipient = "age1pq1garbage" }), "not a post-quantum"},
		"ssh":      {with(func(in *wall.Init) { in.Custodians[2].Recipient = "ssh-ed25519 AAAA" }), "not a post-quantum"},
		"too many": {wall.Init{Quorum: 1, Custodians: make([]wall.Custodian, 256)}, "255"},
	}
	c := newCell(t, "health")
	k := c.open()
	for name, test := range tests {
		_, err := k.Init(t.Context(), test.in)
		if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "AGE-SECRET") {
			t.Errorf("%s: the error repeats a secret", name)
		}
	}
	if k.Status().State != wall.Uninitialized || c.created != nil {
		t.Fatal("something was done")
	}
	if _, err := os.Stat(filepath.Join(c.o.Dir, stateFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("seal.json is there")
	}
}

func TestInitOnce(t *testing.T) {
	c, k, shares := start(t, "health", 1, 1)
	for _, k := range []*Keeper{k, c.open()} {
		_, err := k.Init(t.Context(), initOf(1, 1))
		wantKind(t, err, errs.Exists)
		mustGive(t, k, shares[0], wall.Unsealed, 0)
		_, err = k.Init(t.Context(), initOf(1, 1))
		wantKind(t, err, errs.Exists)
	}
}

func TestInitWarnsOfOddQuorums(t *testing.T) {
	for _, q := range []struct {
		k, n int
		warn bool
	}{{1, 3, true}, {2, 2, true}, {2, 3, false}} {
		made, err := newCell(t, "health").open().Init(t.Context(), initOf(q.k, q.n))
		if err != nil || (made.Warning != "") != q.warn {
			t.Fatalf("%+v: %q, %v", q, made.Warning, err)
		}
	}
}

// A failing OnCreate leaves the organization uninitialized, and the next Init knows of it.
func TestInitAgainAfterFailure(t *testing.T) {
	c := newCell(t, "health")
	k := c.open()
	c.fail = errs.New(errs.Exhausted, "store.Open", "no room")
	_, err := k.Init(t.Context(), initOf(1, 1))
	wantKind(t, err, errs.Exhausted)
	if c.again || k.Status().State != wall.Uninitialized {
		t.Fatalf("again %v, %s", c.again, k.Status().State)
	}
	first := c.created
	c.fail = nil
	if _, err := c.open().Init(t.Context(), initOf(1, 1)); err != nil {
		t.Fatal(err)
	}
	if !c.again || bytes.Equal(first, c.created) {
		t.Fatal("the second Init does not know of the first, or has its root")
	}
}

// killFS is a file system of a process that is killed at its n-th operation:
// from then on nothing happens any more.
type killFS struct {
	files.FS
	left int
}

var errKilled = errors.New("killed")

func (k *killFS) op() error {
	if k.left--; k.left < 0 {
		return errKilled
	}
	return nil
}

func (k *killFS) Create(name string) (files.File, error) {
	if err := k.op(); err != nil {
		return nil, err
	}
	f, err := k.FS.Create(name)
	return killFile{f, k}, err
}

func (k *killFS) Rename(a, b string) error {
	if err := k.op(); err != nil {
		return err
	}
	return k.FS.Rename(a, b)
}

func (k *killFS) Remove(name string) error {
	if err := k.op(); err != nil {
		return err
	}
	return k.FS.Remove(name)
}

func (k *killFS) SyncDir(name string) error {
	if err := k.op(); err != nil {
		return err
	}
	return k.FS.SyncDir(name)
}

type killFile struct {
	files.File
	k *killFS
}

func (f killFile) Write(p []byte) (int, error) {
	if err := f.k.op(); err != nil {
		n, _ := f.File.Write(p[:len(p)/2]) // a torn write
		return n, err
	}
	return f.File.Write(p)
}

func (f killFile) Sync() error {
	if err := f.k.op(); err != nil {
		return err
	}
	return f.File.Sync()
}

// Killed at any file operation of Open and Init, the organization is afterwards
// uninitialized, and can be initialized, or complete, and can be unsealed.
func TestKilledDuringInit(t *testing.T) {
	complete, redone := 0, 0
	for n := 0; ; n++ {
		c := newCell(t, "health")
		k := &killFS{FS: files.OS(), left: n}
		c.o.FS = k
		finished := false
		if keeper, err := Open(c.o); err == nil {
			_, err = keeper.Init(t.Context(), initOf(2, 3))
			finished = err == nil
		}
		killed := k.left < 0
		c.o.FS = nil
		again := c.open()
		var made wall.Initialized
		switch again.Status().State {
		case wall.Uninitialized:
			if finished {
				t.Fatalf("operation %d: an acknowledged Init is gone", n)
			}
			var err error
			if made, err = again.Init(t.Context(), initOf(2, 3)); err != nil {
				t.Fatalf("operation %d: %v", n, err)
			}
			redone++
		case wall.SealedState:
			made.Shares = map[string]string{}
			for _, name := range again.Status().Custodians {
				file, err := again.Share(name)
				if err != nil {
					t.Fatal(err)
				}
				made.Shares[name] = file
			}
			complete++
		default:
			t.Fatalf("operation %d: %s", n, again.Status().State)
		}
		shares := sharesOf(t, made, 3)
		mustGive(t, again, shares[2], wall.SealedState, 1)
		mustGive(t, again, shares[0], wall.Unsealed, 0)
		if !bytes.Equal(c.created, c.opened) {
			t.Fatalf("operation %d: the root is not the one that everything was made under", n)
		}
		if !killed {
			if !finished {
				t.Fatal("Init failed without being killed")
			}
			t.Logf("%d operations; redone after %d kills, complete after %d", n, redone, complete-1)
			if redone < 10 || complete < 2 {
				t.Fatal("the kills did not hit")
			}
			return
		}
	}
}

// Nothing secret is in any file of the data directory, in any usual encoding.
// The TLS key of the sealed identity is the one exception, told in ADR 0005.
func TestNoSecretOnDisk(t *testing.T) {
	c, k, shares := start(t, "health", 2, 3)
	secrets := map[string][]byte{"token": []byte(testToken), "derived key": c.created}
	given := map[int][]byte{}
	for _, s := range shares {
		p, err := wall.ParseSharePayload(s)
		if err != nil {
			t.Fatal(err)
		}
		secrets["share "+p.Custodian] = p.Share
		for i, cm := range p.Commitments {
			secrets["commitment "+string(rune('0'+i))] = cm
		}
		given[p.Index] = p.Share
	}
	secret, err := recoverSecret(2, given)
	if err != nil {
		t.Fatal(err)
	}
	secrets["root secret"] = bytes.Clone(secret)
	root, err := rootOf(secret, "health", k.st.Current.salt())
	if err != nil {
		t.Fatal(err)
	}
	secrets["root key"] = bytes.Clone(root.key.data)
	root.Destroy()
	mustGive(t, k, shares[0], wall.SealedState, 1)
	mustGive(t, k, shares[1], wall.Unsealed, 0)

	found := 0
	err = filepath.WalkDir(c.o.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", d.Name(), fi.Mode())
		}
		b, err := os.ReadFile(path)
		found++
		for name, s := range secrets {
			for _, form := range [][]byte{s, []byte(hex.EncodeToString(s)), []byte(strings.ToUpper(hex.EncodeToString(s))),
				[]byte(base64.RawStdEncoding.EncodeToString(s)), []byte(base64.RawURLEncoding.EncodeToString(s))} {
				if bytes.Contains(b, form) {
					t.Errorf("%s is in %s", name, d.Name())
				}
			}
		}
		return err
	})
	if err != nil || found != 2 {
		t.Fatalf("%d files, %v", found, err)
	}
}

func TestDestroy(t *testing.T) {
	c, k, shares := start(t, "health", 1, 2)
	wantKind(t, k.Destroy(t.Context()), errs.Sealed)
	mustGive(t, k, shares[0], wall.Unsealed, 0)
	if err := k.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.live.Derive("x"); !errs.Is(err, errs.Sealed) {
		t.Fatalf("the root lives: %v", err)
	}
	for _, k := range []*Keeper{k, c.open()} {
		if s := k.Status(); s.State != wall.Destroyed || len(s.Custodians) != 0 {
			t.Fatalf("%+v", s)
		}
		_, err := give(t, k, shares[1])
		wantKind(t, err, errs.Destroyed)
		_, err = k.Init(t.Context(), initOf(1, 1))
		wantKind(t, err, errs.Destroyed)
		_, err = k.Share("c1")
		wantKind(t, err, errs.NotFound)
		if err := k.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestContextEndsWaiting(t *testing.T) {
	c := newCell(t, "health")
	entered, leave := make(chan struct{}), make(chan struct{})
	create := c.o.OnCreate
	c.o.OnCreate = func(ctx context.Context, r *Root, again bool) (Created, error) {
		close(entered)
		<-leave
		return create(ctx, r, again)
	}
	k := c.open()
	done := make(chan error)
	go func() { _, err := k.Init(t.Context(), initOf(1, 1)); done <- err }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantKind(t, k.Seal(ctx), errs.Unavailable)
	if k.Status().State != wall.Uninitialized { // answers while Init runs
		t.Fatal(k.Status().State)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// An organization whose seal.json got lost is not overwritten, however often one tries.
func TestInitSparesData(t *testing.T) {
	c, _, _ := start(t, "health", 1, 1)
	if err := os.Remove(filepath.Join(c.o.Dir, stateFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(c.o.Dir, "store", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.created = nil
	for range 2 {
		_, err := c.open().Init(t.Context(), initOf(1, 1))
		wantKind(t, err, errs.Exists)
	}
	if c.created != nil {
		t.Fatal("OnCreate was called")
	}
	if err := os.Remove(filepath.Join(c.o.Dir, "store", "x")); err != nil { // an empty directory is nothing
		t.Fatal(err)
	}
	if _, err := c.open().Init(t.Context(), initOf(1, 1)); err != nil {
		t.Fatal(err)
	}
}
