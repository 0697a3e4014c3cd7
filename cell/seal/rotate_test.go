package seal

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/files/faultfs"
	"chancery/wall"
)

// rotating is a cell whose whole contents is one file that names the root that it is under.
type rotating struct {
	t  testing.TB
	fs files.FS
	o  Options
	// fail is what Rewrap answers, before or after its work.
	failBefore, failAfter error
	open                  bool
}

func newRotating(t testing.TB, fs files.FS, dir string) *rotating {
	r := &rotating{t: t, fs: fs}
	name := filepath.Join(dir, "contents")
	mark := func(root *Root) []byte {
		b, err := root.Derive("contents")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	r.o = Options{
		Dir: dir, FS: fs, Organization: "health", Domain: "zone.example",
		OnCreate: func(_ context.Context, root *Root, _ bool) (Created, error) {
			return Created{CACertificate: testCA(), Administrator: "admin", Token: []byte(testToken)}, files.WriteFile(fs, name, mark(root))
		},
		OnUnseal: func(_ context.Context, root *Root) error {
			b, err := files.ReadFile(fs, name, 1<<10)
			if err == nil && !bytes.Equal(b, mark(root)) {
				err = errs.New(errs.Corrupt, "test", "under another root")
			}
			r.open = err == nil
			return err
		},
		OnSeal: func(context.Context) { r.open = false },
		Rewrap: func(_ context.Context, old, root *Root) error {
			if r.failBefore != nil {
				return r.failBefore
			}
			b, err := files.ReadFile(fs, name, 1<<10)
			if err != nil {
				return err
			}
			if bytes.Equal(b, mark(root)) {
				return nil // done already
			}
			if !bytes.Equal(b, mark(old)) {
				return errs.New(errs.Corrupt, "test", "under neither root")
			}
			if err := files.WriteFile(fs, name, mark(root)); err != nil {
				return err
			}
			return r.failAfter
		},
	}
	return r
}

func (r *rotating) keeper() *Keeper {
	r.t.Helper()
	k, err := Open(r.o)
	if err != nil {
		r.t.Fatal(err)
	}
	return k
}

// rotated is 2 of 3 among the custodians that initOf does not use first.
func rotated() wall.Init {
	return wall.Init{Quorum: 2, Custodians: []wall.Custodian{
		{Name: "d1", Recipient: identities()[3].Recipient().String()},
		{Name: "d2", Recipient: identities()[4].Recipient().String()},
		{Name: "d3", Recipient: identities()[5].Recipient().String()},
	}}
}

func (r *rotating) newShares(k *Keeper) [][]byte {
	r.t.Helper()
	var out [][]byte
	for i := range 3 {
		file, err := k.Share(fmt.Sprintf("d%d", i+1))
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, decrypt(r.t, file, identities()[3+i]))
	}
	return out
}

func (r *rotating) begin(quorum, n int) (*Keeper, [][]byte) {
	r.t.Helper()
	k := r.keeper()
	made, err := k.Init(r.t.Context(), initOf(quorum, n))
	if err != nil {
		r.t.Fatal(err)
	}
	return k, sharesOf(r.t, made, n)
}

func TestRotate(t *testing.T) {
	r := newRotating(t, files.OS(), t.TempDir())
	k, shares := r.begin(1, 2)
	_, err := k.Rotate(t.Context(), rotated())
	wantKind(t, err, errs.Sealed)
	mustGive(t, k, shares[0], wall.Unsealed, 0)
	_, err = k.Rotate(t.Context(), wall.Init{Quorum: 9})
	wantKind(t, err, errs.Invalid)
	made, err := k.Rotate(t.Context(), rotated())
	if err != nil || len(made.Shares) != 3 {
		t.Fatal(err)
	}
	if s := k.Status(); s.State != wall.Unsealed || s.Quorum != 2 || s.Custodians[0] != "d1" || !r.open {
		t.Fatalf("%+v", s)
	}
	fresh := r.newShares(k)
	for _, k := range []*Keeper{k, r.keeper()} {
		if err := k.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := give(t, k, shares[1])
		wantKind(t, err, errs.Invalid)
		mustGive(t, k, fresh[0], wall.SealedState, 1)
		mustGive(t, k, fresh[2], wall.Unsealed, 0)
		if _, err := k.Bootstrap(); !errs.Is(err, errs.NotFound) {
			t.Fatalf("the old credential is still there: %v", err)
		}
	}
	b, err := os.ReadFile(filepath.Join(r.o.Dir, stateFile))
	if err != nil || strings.Contains(string(b), "previous") || strings.Contains(string(b), "next") {
		t.Fatalf("the rotation left something behind (%v)", err)
	}
	c := newCell(t, "health") // no Rewrap
	k2 := c.open()
	m2, err := k2.Init(t.Context(), initOf(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	mustGive(t, k2, sharesOf(t, m2, 1)[0], wall.Unsealed, 0)
	_, err = k2.Rotate(t.Context(), rotated())
	wantKind(t, err, errs.Unsupported)
	if k2.Status().State != wall.Unsealed {
		t.Fatal("a refused rotation sealed")
	}
}

// Rewrap fails before or after its work. The new custodians can always finish;
// the old ones go back, if nothing was rewrapped.
func TestRotateFails(t *testing.T) {
	bad := errs.New(errs.Exhausted, "test", "no room")
	for _, test := range []struct {
		name          string
		before, after error
		byOld, works  bool
	}{
		{"before, new", bad, nil, false, true}, {"after, new", nil, bad, false, true},
		{"before, old", bad, nil, true, true}, {"after, old", nil, bad, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRotating(t, files.OS(), t.TempDir())
			k, shares := r.begin(1, 1)
			mustGive(t, k, shares[0], wall.Unsealed, 0)
			r.failBefore, r.failAfter = test.before, test.after
			_, err := k.Rotate(t.Context(), rotated())
			wantKind(t, err, errs.Exhausted)
			if k.Status().State != wall.SealedState || r.open {
				t.Fatal("not sealed")
			}
			r.failBefore, r.failAfter = nil, nil
			k = r.keeper()
			fresh := r.newShares(k)
			if test.byOld {
				_, err := give(t, k, shares[0])
				if (err == nil) != test.works {
					t.Fatalf("the old custodians: %v", err)
				}
				if test.works { // and the rotation is off
					if s := k.Status(); s.State != wall.Unsealed || s.Custodians[0] != "c1" {
						t.Fatalf("%+v", s)
					}
					_, err := give(t, k, fresh[0])
					wantKind(t, err, errs.Invalid)
					return
				}
				if k.Status().State != wall.SealedState {
					t.Fatal("half open")
				}
			}
			mustGive(t, k, fresh[0], wall.SealedState, 1)
			mustGive(t, k, fresh[1], wall.Unsealed, 0)
			if s := k.Status(); s.Custodians[0] != "d1" || !r.open {
				t.Fatalf("%+v", s)
			}
		})
	}
}

// Shares of both ceremonies never add up.
func TestCeremoniesDoNotMix(t *testing.T) {
	r := newRotating(t, files.OS(), t.TempDir())
	k, shares := r.begin(2, 3)
	mustGive(t, k, shares[0], wall.SealedState, 1)
	mustGive(t, k, shares[1], wall.Unsealed, 0)
	r.failBefore = errs.New(errs.Exhausted, "test", "no room")
	_, err := k.Rotate(t.Context(), rotated())
	wantKind(t, err, errs.Exhausted)
	fresh := r.newShares(k)
	for _, s := range [][]byte{shares[0], fresh[0]} {
		if _, err := give(t, k, s); err != nil {
			t.Fatal(err)
		}
	}
	if s := k.Status(); s.State != wall.SealedState || s.SharesGiven != 1 {
		t.Fatalf("%+v", s)
	}
}

// Power is lost, or an operation fails, at every file operation of Init, unseal
// and Rotate. Afterwards a quorum, old or new, opens the organization, or it
// was never acknowledged.
func TestEveryFaultOfALife(t *testing.T) {
	const dir = "/data"
	for _, fault := range []string{"crash", "EIO", "ENOSPC"} {
		for n := 1; ; n++ {
			disk := faultfs.New(uint64(n))
			fs := disk.FS()
			if err := fs.Mkdir(dir); err != nil {
				t.Fatal(err)
			}
			if err := fs.SyncDir("/"); err != nil {
				t.Fatal(err)
			}
			base := disk.Ops()
			switch fault {
			case "crash":
				disk.CrashAt(base + n)
			case "EIO":
				disk.FailAt(base+n, syscall.EIO)
			default:
				disk.FailAt(base+n, syscall.ENOSPC)
			}
			initialized, rotatedOK := false, false
			var old [][]byte
			r := newRotating(t, fs, dir)
			if k, err := Open(r.o); err == nil {
				if made, err := k.Init(t.Context(), initOf(1, 1)); err == nil {
					initialized = true
					old = sharesOf(t, made, 1)
					if _, err := give(t, k, old[0]); err == nil {
						_, err = k.Rotate(t.Context(), rotated())
						rotatedOK = err == nil
					}
				}
			}
			reached := disk.Ops()-base >= n
			disk.FailAt(0, nil)
			disk.Restart()
			what := fmt.Sprintf("%s at operation %d", fault, n)
			k, err := Open(r.o)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			s := k.Status()
			if s.State == wall.Uninitialized {
				if initialized {
					t.Fatalf("%s: an acknowledged Init is lost", what)
				}
				k, shares := r.begin(1, 1)
				mustGive(t, k, shares[0], wall.Unsealed, 0)
			} else if s.Custodians[0] == "d1" {
				fresh := r.newShares(k)
				mustGive(t, k, fresh[1], wall.SealedState, 1)
				mustGive(t, k, fresh[2], wall.Unsealed, 0)
			} else {
				if rotatedOK {
					t.Fatalf("%s: an acknowledged rotation is lost", what)
				}
				file, err := k.Share("c1")
				if err != nil {
					t.Fatal(err)
				}
				mustGive(t, k, decrypt(t, file, identities()[0]), wall.Unsealed, 0)
			}
			if !r.open {
				t.Fatalf("%s: not open", what)
			}
			if !reached {
				if !rotatedOK || n < 30 {
					t.Fatalf("%s: the run ended early (%d operations)", what, n)
				}
				t.Logf("%s: %d operations", fault, n-1)
				break
			}
		}
	}
}
