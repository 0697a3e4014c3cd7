package blobdir_test

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"

	"chancery/cell/blobs"
	"chancery/cell/blobs/blobdir"
	"chancery/cell/blobs/blobtest"
	"chancery/internal/errs"
	"chancery/internal/files/faultfs"
	"chancery/internal/segment"
)

// history is what a client knows: which blobs it was told are durable, and what is in them.
type history map[blobs.ID][]byte

// disk returns a disk on which the data directory is there and durable, as the
// owner of the tree has to see to.
func disk(seed uint64) *faultfs.Disk {
	d := faultfs.New(seed)
	if err := d.FS().Mkdir("/data"); err != nil {
		panic(err)
	}
	if err := d.FS().SyncDir("/"); err != nil {
		panic(err)
	}
	return d
}

// work writes, removes and reads blobs until the first error, and notes what was
// acknowledged.
func (h history) work(d *faultfs.Disk) error {
	e, err := blobdir.Open("/data/blobs", d.FS())
	if err != nil {
		return err
	}
	s := blobs.New(e)
	for i, n := range []int{0, 100, 5*segment.Size + 3} {
		data := blobtest.Pattern(n)
		id, size, err := s.Write(ctx, key, binding, bytes.NewReader(data))
		if err != nil {
			return err
		}
		if size != int64(n) {
			return errors.New("another size")
		}
		h[id] = data
		if i == 1 {
			delete(h, id) // from here on it may be there or not
			if err := s.Remove(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// check opens the disk anew and demands that all acknowledged blobs are whole,
// and that a sweep leaves nothing else.
func (h history) check(t *testing.T, d *faultfs.Disk) {
	t.Helper()
	e, err := blobdir.Open("/data/blobs", d.FS())
	if err != nil {
		t.Fatal("opening again: ", err)
	}
	s := blobs.New(e)
	read := func() {
		t.Helper()
		for id, data := range h {
			r, err := s.Read(ctx, id, int64(len(data)), key, binding, 0, int64(len(data)))
			if err != nil {
				t.Fatalf("an acknowledged blob of %d bytes: %v", len(data), err)
			}
			got, err := io.ReadAll(r)
			r.Close()
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("an acknowledged blob of %d bytes came back as %d others: %v", len(data), len(got), err)
			}
		}
	}
	read()
	if _, _, err := s.Sweep(ctx, 0, func(id blobs.ID) (bool, error) { _, ok := h[id]; return ok, nil }); err != nil {
		t.Fatal(err)
	}
	left := 0
	for info, err := range e.All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := h[info.ID]; !ok {
			t.Fatal("an orphan is left after the sweep")
		}
		left++
	}
	if left != len(h) {
		t.Fatalf("%d blobs are listed, %d were acknowledged", left, len(h))
	}
	read()
}

// steps runs the whole work once and returns how many operations it takes, and
// how many of them opening takes.
func steps(t *testing.T) (open, all int) {
	t.Helper()
	d := disk(1)
	if _, err := blobdir.Open("/data/blobs", d.FS()); err != nil {
		t.Fatal(err)
	}
	open = d.Ops()
	d = disk(1)
	if err := (history{}).work(d); err != nil {
		t.Fatal(err)
	}
	return open, d.Ops()
}

// TestPowerLoss turns the power off at every file operation.
func TestPowerLoss(t *testing.T) {
	open, all := steps(t)
	for n := 3; n <= all+1; n++ { // the first two made the data directory
		seeds := uint64(4)
		if n > 40 && n < open-20 { // one directory is like the other
			seeds = uint64(n%5) / 4
		}
		for seed := range seeds {
			d := disk(seed + uint64(n)*100)
			d.CrashAt(n)
			h := history{}
			if err := h.work(d); (err == nil) != (n > all) {
				t.Fatalf("operation %d: the work ended with %v", n, err)
			}
			d.Restart()
			h.check(t, d)
			// What is written after the recovery survives the next loss too.
			if err := h.work(d); err != nil {
				t.Fatal(err)
			}
			d.PowerLoss()
			d.Restart()
			h.check(t, d)
		}
	}
	t.Logf("%d operations, %d of them to open", all, open)
}

// TestKilledThenPowerLoss: the process ends at every operation, another takes
// over on what it left in the cache of the system, and then the power goes.
func TestKilledThenPowerLoss(t *testing.T) {
	_, all := steps(t)
	for n := 3; n <= all; n++ {
		d := disk(uint64(n))
		d.Inject(func(i int, _ faultfs.Op, _ string) error {
			if i >= n {
				return syscall.EIO
			}
			return nil
		})
		h := history{}
		if err := h.work(d); err == nil {
			t.Fatal("the fault did not strike")
		}
		d.Inject(nil)
		if err := h.work(d); err != nil {
			t.Fatalf("operation %d: the next process: %v", n, err)
		}
		d.PowerLoss()
		d.Restart()
		h.check(t, d)
	}
}

// TestFaults fails every single operation once, with and without room on the
// disk: the error has the right kind, and what was acknowledged stays.
func TestFaults(t *testing.T) {
	open, all := steps(t)
	for fault, kind := range map[error]errs.Kind{syscall.EIO: errs.Unavailable, syscall.ENOSPC: errs.Exhausted, syscall.EDQUOT: errs.Exhausted} {
		for n := open - 20; n <= all; n++ {
			d := disk(uint64(n))
			d.FailAt(n, fault)
			h := history{}
			err := h.work(d)
			if err != nil && !errs.Is(err, kind) {
				t.Fatalf("%v at operation %d: %v (%v)", fault, n, err, errs.KindOf(err))
			}
			h.check(t, d)
			d.PowerLoss()
			d.Restart()
			h.check(t, d)
		}
	}
}

// TestDiskFull: nothing is kept of what does not fit, and the engine works again
// once there is room.
func TestDiskFull(t *testing.T) {
	d := disk(1)
	e, err := blobdir.Open("/data/blobs", d.FS())
	if err != nil {
		t.Fatal(err)
	}
	s := blobs.New(e)
	data := blobtest.Pattern(10 * segment.Size)
	for _, room := range []int64{0, 1, 100, segment.Size, 5 * segment.Size, 10 * segment.Size} {
		d.Room(room)
		_, _, err := s.Write(ctx, key, binding, bytes.NewReader(data))
		if !errs.Is(err, errs.Exhausted) {
			t.Fatalf("room for %d: %v", room, err)
		}
		for range e.All(ctx) {
			t.Fatal("something is kept")
		}
	}
	d.Room(-1)
	h := history{}
	id, _, err := s.Write(ctx, key, binding, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	h[id] = data
	h.check(t, d)
}

// TestReadErrors: a disk that cannot read is Unavailable, not NotFound, not wrong bytes.
func TestReadErrors(t *testing.T) {
	d := disk(1)
	h := history{}
	if err := h.work(d); err != nil {
		t.Fatal(err)
	}
	e, err := blobdir.Open("/data/blobs", d.FS())
	if err != nil {
		t.Fatal(err)
	}
	s := blobs.New(e)
	for id, data := range h {
		for n := 0; ; n++ {
			start, struck := d.Ops(), false
			d.Inject(func(i int, _ faultfs.Op, _ string) error {
				if i == start+1+n {
					struck = true
					return syscall.EIO
				}
				return nil
			})
			r, err := s.Read(ctx, id, int64(len(data)), key, binding, 0, int64(len(data)))
			var got []byte
			if err == nil {
				got, err = io.ReadAll(r)
				r.Close()
			}
			if !struck {
				break
			}
			if !errs.Is(err, errs.Unavailable) || !bytes.HasPrefix(data, got) {
				t.Fatalf("operation %d: %v (%v)", n, err, errs.KindOf(err))
			}
		}
	}
	d.Inject(nil)
	h.check(t, d)
}
