package cell

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"chancery/cell/identity"
	"chancery/cell/keys"
	"chancery/cell/seal"
	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/files/faultfs"
	"chancery/internal/store"
	"chancery/wall"
)

var people = func() (out []*age.HybridIdentity) {
	for range 4 {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			panic(err)
		}
		out = append(out, id)
	}
	return out
}()

func holders(quorum int, from, to int) wall.Init {
	in := wall.Init{Quorum: quorum}
	for i := from; i < to; i++ {
		in.Custodians = append(in.Custodians, wall.Custodian{Name: fmt.Sprintf("c%d", i), Recipient: people[i].Recipient().String()})
	}
	return in
}

// small is a cell without S3 and API server: its custody, store and keys are the true ones.
type small struct {
	*Cell
	t *testing.T
}

const dataDir = "/data"

func newSmall(t *testing.T, fsys files.FS) (*small, error) {
	c := &Cell{fs: fsys, log: slog.New(slog.NewTextHandler(io.Discard, nil)), stop: func() {},
		config: wall.Config{Organization: "health", Domain: "zone.example", DataDir: dataDir}}
	s := &small{c, t}
	var err error
	c.keeper, err = seal.Open(c.custodyOptions(s.unsealKeys))
	if err == nil && c.keeper.Status().State == wall.Destroyed {
		c.destroyed(t.Context())
	}
	return s, err
}

// unsealKeys is Cell.unseal as far as the key ring.
func (s *small) unsealKeys(ctx context.Context, root *seal.Root) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	open := &services{log: s.log, stop: stop}
	err := s.openKeys(life, root, open)
	if err != nil {
		_ = open.close()
		return err
	}
	open.directory = identity.Open(open.store)
	s.gate.open(open)
	return nil
}

func (s *small) end() { _ = s.keeper.Seal(context.Background()) }

func (s *small) unsealWith(shares ...[]byte) error {
	for _, share := range shares {
		if _, err := s.keeper.SubmitShare(s.t.Context(), bytes.Clone(share)); err != nil {
			return err
		}
	}
	if st := s.keeper.Status().State; st != wall.Unsealed {
		return fmt.Errorf("the organization is %s", st)
	}
	return nil
}

// shares are what the seal service hands out to the custodians with these numbers.
func (s *small) shares(numbers ...int) (out [][]byte, err error) {
	for _, i := range numbers {
		file, err := s.keeper.Share(fmt.Sprintf("c%d", i))
		if err != nil {
			return nil, err
		}
		out = append(out, decryptShare(s.t, file, people[i]))
	}
	return out, nil
}

func (s *small) ring() *keys.Ring { return s.gate.services.ring }

// write makes a bucket's key and keeps a record sealed under it.
func (s *small) write() error {
	ctx, st := s.t.Context(), s.gate.services.store
	for _, step := range []func(b *store.Batch) error{
		func(b *store.Batch) error { return s.ring().CreateProject(ctx, b, "p") },
		func(b *store.Batch) error { return s.ring().CreateBucket(ctx, b, "p", "b") },
		func(b *store.Batch) error {
			l, err := s.ring().Lease(ctx, "p", "b", keys.CustomerRequest)
			if err != nil {
				return err
			}
			sealed, err := l.SealRecord([]byte("r"), []byte("written before"))
			b.Put([]byte("record"), sealed)
			return err
		},
	} {
		var b store.Batch
		if err := step(&b); err != nil {
			return err
		}
		if _, err := st.Commit(ctx, &b); err != nil {
			return err
		}
	}
	return nil
}

func (s *small) read() error {
	sealed, err := s.gate.services.store.Get(s.t.Context(), []byte("record"))
	if err != nil {
		return err
	}
	l, err := s.ring().Lease(s.t.Context(), "p", "b", keys.CustomerRequest)
	if err != nil {
		return err
	}
	plain, err := l.OpenRecord([]byte("r"), sealed)
	if err == nil && string(plain) != "written before" {
		err = fmt.Errorf("read %q", plain)
	}
	return err
}

// begun is an unsealed organization 1 of 1, with something in it.
func begun(t *testing.T, disk *faultfs.Disk) (*small, [][]byte) {
	t.Helper()
	fsys := disk.FS()
	if err := fsys.Mkdir(dataDir); err != nil {
		t.Fatal(err)
	}
	if err := fsys.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	s, err := newSmall(t, fsys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.keeper.Init(t.Context(), holders(1, 0, 1)); err != nil {
		t.Fatal(err)
	}
	shares, err := s.shares(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.unsealWith(shares...); err != nil {
		t.Fatal(err)
	}
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
	return s, shares
}

// TestRotateTheRoot: one custodian becomes two of three. The old share is refused
// by name, the new ones open, the new bootstrap file gives a working administrator.
func TestRotateTheRoot(t *testing.T) {
	disk := faultfs.New(1)
	s, old := begun(t, disk)
	if err := (custody{s.Cell}).Rotate(t.Context(), holders(2, 1, 4)); err != nil {
		t.Fatal(err)
	}
	present, ok := custody{s.Cell}.Present()
	if !ok || present.Quorum != 2 || len(present.Custodians) != 3 || present.Custodians[0].Name != "c1" || present.Memory == "" {
		t.Fatalf("%+v, %v", present, ok)
	}
	if key, root, err := s.ring().Generations(t.Context()); key != 1 || root != 2 || err != nil {
		t.Fatal(key, root, err)
	}
	if err := s.read(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fs.Stat(s.nextKeyFile()); !errs.Is(err, errs.NotFound) {
		t.Fatalf("store.key.next is left: %v", err)
	}
	file, err := s.keeper.Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	b, err := wall.ParseBootstrap(decryptShare(t, file, people[2]))
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.gate.services.directory.Authenticate(t.Context(), b.Token)
	if err != nil || !token.Administrator || token.Name != b.User || token.Ceremony != present.Ceremony {
		t.Fatalf("%+v, %v", token, err)
	}
	if before, err := s.gate.services.directory.OldBootstrap(t.Context(), present.Ceremony); err != nil || !slices.Equal(before, []string{"administrator"}) {
		t.Fatal(before, err)
	}
	s.end()

	s, err = newSmall(t, disk.FS())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.unsealWith(old...); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "c0") {
		t.Fatalf("the old share: %v", err)
	}
	shares, err := s.shares(3, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.unsealWith(shares...); err != nil {
		t.Fatal(err)
	}
	if err := s.read(); err != nil {
		t.Fatal(err)
	}
	s.end()
}

// TestEveryFaultOfARotation loses power, or fails, at every file operation of a
// rotation. Afterwards the old custodians open the organization, or the new ones,
// never nobody; all is there; and the rotation can be done again.
func TestEveryFaultOfARotation(t *testing.T) {
	// First: how often each way out was taken, so that the test is seen to test.
	ways := map[string]int{}
	for fault, cause := range map[string]error{"power loss": nil, "EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC} {
		for _, first := range []string{"old", "new"} {
			n := 1
			for ; ; n++ {
				if !rotateWithFault(t, ways, fault, cause, n, first) {
					break
				}
				if cause != nil {
					n += 2
				}
				if testing.Short() {
					n += 6
				}
			}
			t.Logf("%s, %s custodians first: %d operations", fault, first, n-1)
			if n < 30 {
				t.Errorf("%s: the rotation has only %d operations", fault, n-1)
			}
		}
	}
	t.Logf("%v", ways)
	for _, way := range []string{"old quorum took it back", "old quorum was refused, new one finished", "new quorum finished", "rotated"} {
		if ways[way] == 0 {
			t.Errorf("no fault led to: %s", way)
		}
	}
}

// rotateWithFault is one rotation with a fault at its n-th operation; false if it has fewer.
func rotateWithFault(t *testing.T, ways map[string]int, fault string, cause error, n int, first string) bool {
	t.Helper()
	what := fmt.Sprintf("%s at operation %d, %s custodians first", fault, n, first)
	disk := faultfs.New(uint64(n))
	s, old := begun(t, disk)
	base := disk.Ops()
	if cause == nil {
		disk.CrashAt(base + n)
	} else {
		disk.FailAt(base+n, cause)
	}
	rotateErr := (custody{s.Cell}).Rotate(t.Context(), holders(2, 1, 4))
	reached := disk.Ops()-base >= n
	disk.FailAt(0, nil)
	if cause == nil {
		disk.PowerLoss()
	}
	s.end() // as the end of the process would; with the power off it writes nothing
	disk.Restart()

	s, err := newSmall(t, disk.FS())
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	status := s.keeper.Status()
	asksNew := status.Custodians[0] == "c1"
	if rotateErr == nil && !asksNew {
		t.Fatalf("%s: an acknowledged rotation is lost", what)
	}
	var fresh [][]byte
	if asksNew {
		if fresh, err = s.shares(2, 3); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	opened := false
	if !asksNew || first == "old" {
		err := s.unsealWith(old...)
		opened = err == nil
		switch {
		case opened && asksNew:
			ways["old quorum took it back"]++
		case opened:
			ways["nothing had begun"]++
		case !asksNew:
			t.Fatalf("%s: only the old custodians are asked, and they cannot open: %v", what, err)
		case errs.Is(err, errs.Denied):
			ways["old quorum was refused, new one finished"]++
		case !errs.Is(err, errs.Invalid): // another ceremony: the rotation is complete
			t.Fatalf("%s: the old custodians: %v", what, err)
		}
	}
	if !opened {
		if err := s.unsealWith(fresh...); err != nil {
			t.Fatalf("%s: nobody can open: %v", what, err)
		}
		if rotateErr == nil {
			ways["rotated"]++
		} else {
			ways["new quorum finished"]++
		}
	}
	if err := s.read(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if _, err := s.fs.Stat(s.nextKeyFile()); !errs.Is(err, errs.NotFound) {
		t.Fatalf("%s: store.key.next is left: %v", what, err)
	}
	// And again, without a fault.
	if err := (custody{s.Cell}).Rotate(t.Context(), holders(1, 2, 4)); err != nil {
		t.Fatalf("%s: rotated again: %v", what, err)
	}
	s.end()
	if s, err = newSmall(t, disk.FS()); err != nil {
		t.Fatal(err)
	}
	last, err := s.shares(3)
	if err != nil {
		t.Fatal(err)
	}
	if err := inOrder(func() error { return s.unsealWith(last...) }, s.read); err != nil {
		t.Fatalf("%s: after the second rotation: %v", what, err)
	}
	s.end()
	return reached
}

func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// TestEveryFaultOfADestruction: wherever it is cut short, the organization is
// untouched, or gone for good after the next unsealing; never half there.
func TestEveryFaultOfADestruction(t *testing.T) {
	ways := map[string]int{}
	for fault, cause := range map[string]error{"power loss": nil, "EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC} {
		for n := 1; ; n++ {
			what := fmt.Sprintf("%s at operation %d", fault, n)
			disk := faultfs.New(uint64(n))
			s, shares := begun(t, disk)
			base := disk.Ops()
			if cause == nil {
				disk.CrashAt(base + n)
			} else {
				disk.FailAt(base+n, cause)
			}
			destroyErr := (custody{s.Cell}).Destroy(t.Context())
			reached := disk.Ops()-base >= n
			disk.FailAt(0, nil)
			if cause == nil {
				disk.PowerLoss()
			}
			s.end()
			disk.Restart()
			s, err := newSmall(t, disk.FS())
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if s.keeper.Status().State != wall.Destroyed {
				if destroyErr == nil {
					t.Fatalf("%s: an acknowledged destruction is lost", what)
				}
				err := s.unsealWith(shares...)
				switch {
				case err == nil:
					ways["untouched"]++
					if err := s.read(); err != nil {
						t.Fatalf("%s: half there: %v", what, err)
					}
					if err := (custody{s.Cell}).Destroy(t.Context()); err != nil {
						t.Fatalf("%s: destroyed again: %v", what, err)
					}
				case errs.Is(err, errs.Destroyed):
					ways["ended by the next unsealing"]++
				default:
					t.Fatalf("%s: %v", what, err)
				}
			} else {
				ways["destroyed"]++
			}
			if err := s.unsealWith(shares...); !errs.Is(err, errs.Destroyed) {
				t.Fatalf("%s: a share after the end: %v", what, err)
			}
			for _, path := range []string{s.keyFile(), s.nextKeyFile(), s.storeDir(), s.blobDir()} {
				if _, err := s.fs.Stat(path); !errs.Is(err, errs.NotFound) {
					t.Fatalf("%s: %s is left (%v)", what, path, err)
				}
			}
			if again, err := newSmall(t, disk.FS()); err != nil || again.keeper.Status().State != wall.Destroyed {
				t.Fatalf("%s: after a restart: %v", what, err)
			}
			if !reached {
				t.Logf("%s: %d operations", fault, n-1)
				break
			}
			if cause != nil {
				n += 2
			}
			if testing.Short() {
				n += 6
			}
		}
	}
	t.Logf("%v", ways)
	for _, way := range []string{"untouched", "ended by the next unsealing", "destroyed"} {
		if ways[way] == 0 {
			t.Errorf("no fault led to: %s", way)
		}
	}
}
