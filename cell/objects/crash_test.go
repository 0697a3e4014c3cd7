package objects

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/files/faultfs"
)

// model is what was acknowledged: the bytes of each key.
type model map[string][]byte

// step is one operation of the script: what it does, and what it makes of the model.
type step struct {
	name string
	do   func(w *world, s *scriptState) error
	// after changes the model if the step was acknowledged. A step that failed
	// may have happened or not: both are right.
	after func(m model)
}

// scriptState is what steps hand on.
type scriptState struct {
	upload, aborted Upload
	parts           []CompletedPart
}

func putStep(key string, n int, seed uint64) step {
	b := data(n, seed)
	return step{"put " + key, func(w *world, _ *scriptState) error {
		_, err := w.Put(ctx, Put{Bucket: "bucket-a", Key: key, Body: bytesBody(b), Size: int64(n)})
		return err
	}, func(m model) { m[key] = b }}
}

func deleteStep(key string) step {
	return step{"delete " + key, func(w *world, _ *scriptState) error {
		_, err := w.Delete(ctx, Delete{Bucket: "bucket-a", Key: key})
		return err
	}, func(m model) { delete(m, key) }}
}

func partStep(number, n int, seed uint64) step {
	return step{fmt.Sprint("part ", number), func(w *world, s *scriptState) error {
		p, err := w.PutPart(ctx, PutPart{Bucket: "bucket-a", Key: "multi", UploadID: s.upload.ID, Number: number, Body: bytesBody(data(n, seed)), Size: -1})
		if err == nil {
			s.parts = slices.DeleteFunc(s.parts, func(c CompletedPart) bool { return c.Number == number })
			s.parts = append(s.parts, CompletedPart{Number: number, ETag: p.ETag})
		}
		return err
	}, func(model) {}}
}

const crashPart = MinPart

// script is every kind of change, small and large, new and over old.
func script() []step {
	multi := append(data(crashPart, 22), data(50, 23)...)
	return []step{
		{"project", func(w *world, _ *scriptState) (err error) { w.p, err = w.CreateProject(ctx, "p"); return err }, func(model) {}},
		{"bucket", func(w *world, _ *scriptState) error {
			_, err := w.CreateBucket(ctx, CreateBucket{Name: "bucket-a", ProjectID: w.p.ID})
			return err
		}, func(model) {}},
		putStep("small", 100, 1), putStep("large", 70_000, 2), putStep("empty", 0, 3),
		putStep("small", 200, 4), putStep("large", 80_000, 5), putStep("small", 90_000, 6), putStep("large", 10, 7),
		deleteStep("small"), putStep("small", 50_000, 8), deleteStep("large"),
		{"copy", func(w *world, _ *scriptState) error {
			_, err := w.Copy(ctx, Copy{Source: Get{Bucket: "bucket-a", Key: "small"}, Bucket: "bucket-a", Key: "copy"})
			return err
		}, func(m model) { m["copy"] = m["small"] }},
		{"upload", func(w *world, s *scriptState) (err error) {
			s.upload, err = w.CreateUpload(ctx, CreateUpload{Bucket: "bucket-a", Key: "multi"})
			return err
		}, func(model) {}},
		partStep(1, 40_000, 20), partStep(9, 60_000, 21), partStep(1, crashPart, 22), partStep(2, 50, 23),
		putStep("multi", 35_000, 24),
		{"complete", func(w *world, s *scriptState) error {
			in := CompleteUpload{Bucket: "bucket-a", Key: "multi", UploadID: s.upload.ID, Size: -1}
			for _, p := range s.parts {
				if p.Number < 9 {
					in.Parts = append(in.Parts, p)
				}
			}
			_, err := w.CompleteUpload(ctx, in)
			return err
		}, func(m model) { m["multi"] = multi }},
		{"upload 2", func(w *world, s *scriptState) (err error) {
			s.aborted, err = w.CreateUpload(ctx, CreateUpload{Bucket: "bucket-a", Key: "never"})
			return err
		}, func(model) {}},
		{"part of 2", func(w *world, s *scriptState) error {
			_, err := w.PutPart(ctx, PutPart{Bucket: "bucket-a", Key: "never", UploadID: s.aborted.ID, Number: 1, Body: bytesBody(data(40_000, 9)), Size: -1})
			return err
		}, func(model) {}},
		{"abort", func(w *world, s *scriptState) error { return w.AbortUpload(ctx, "bucket-a", "never", s.aborted.ID) }, func(model) {}},
		{"bucket b", func(w *world, _ *scriptState) error {
			_, err := w.CreateBucket(ctx, CreateBucket{Name: "bucket-b", ProjectID: w.p.ID})
			return err
		}, func(model) {}},
		{"delete bucket b", func(w *world, _ *scriptState) error { return w.DeleteBucket(ctx, "bucket-b") }, func(model) {}},
		putStep("multi", 5, 25), deleteStep("multi"),
	}
}

// runScript runs until a step fails; it returns what may be there: the model with
// every acknowledged step, and with the failed one too.
func runScript(w *world) (sure, maybe model, failed string, err error) {
	sure, s := model{}, &scriptState{}
	for _, st := range script() {
		maybe = maps.Clone(sure)
		st.after(maybe)
		if err := st.do(w, s); err != nil {
			return sure, maybe, st.name, err
		}
		sure = maps.Clone(maybe)
	}
	return sure, sure, "", nil
}

// checkWorld compares what is there with the model, key by key, by reads and by a listing.
func checkWorld(w *world, sure, maybe model) error {
	w.bucket = "bucket-a"
	if _, err := w.Bucket(ctx, w.bucket); err != nil {
		if errs.CodeOf(err) == codeNoSuchBucket && len(sure) == 0 {
			return nil
		}
		return err
	}
	got := model{}
	l, err := w.List(ctx, List{Bucket: w.bucket, Max: 1000})
	if err != nil {
		return err
	}
	for _, o := range l.Objects {
		h, b, err := w.read(Get{Key: o.Key})
		if err != nil {
			return fmt.Errorf("listed %q: %w", o.Key, err)
		}
		if h.Size != o.Size || h.ETag != o.ETag || h.Size != int64(len(b)) {
			return fmt.Errorf("%q is listed as %d bytes, is %d", o.Key, o.Size, len(b))
		}
		got[o.Key] = b
	}
	same := func(m model) bool { return maps.EqualFunc(got, m, bytes.Equal) }
	if !same(sure) && !same(maybe) {
		return fmt.Errorf("there are %v; acknowledged %v, or with the last step %v", describe(got), describe(sure), describe(maybe))
	}
	return nil
}

func describe(m model) string {
	var s []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		s = append(s, fmt.Sprintf("%s:%d", k, len(m[k])))
	}
	return fmt.Sprint(s)
}

// checkClean finishes what is open and demands that nothing is left over.
func checkClean(w *world) error {
	if n := w.stored("o/z/") + w.stored(pDoomedB) + w.stored(pDoomedP); n != 0 {
		return fmt.Errorf("%d intents or doomed keys are left after opening", n)
	}
	if _, err := w.Sweep(ctx); err != nil {
		return err
	}
	if a, b := w.stored(pRef), w.blobCount(); a != b {
		return fmt.Errorf("%d references, %d blobs after a sweep", a, b)
	}
	for _, name := range []string{"bucket-a", "bucket-b"} {
		if _, err := w.Bucket(ctx, name); err != nil {
			continue
		}
		ups, err := w.ListUploads(ctx, ListUploads{Bucket: name, Max: 100})
		if err != nil {
			return err
		}
		for _, u := range ups.Uploads {
			l, err := w.ListParts(ctx, ListParts{Bucket: name, Key: u.Key, UploadID: u.ID, Max: 100})
			if err != nil {
				return err
			}
			if len(l.Parts) > 0 { // what was acknowledged as a part can be completed
				o, err := w.CompleteUpload(ctx, completion(u, l.Parts[:1]...))
				if err != nil {
					return err
				}
				if _, b, err := w.read(Get{Bucket: name, Key: u.Key}); err != nil || int64(len(b)) != o.Size {
					return fmt.Errorf("completed after the crash: %d bytes of %d: %w", len(b), o.Size, err)
				}
			} else if err := w.AbortUpload(ctx, name, u.Key, u.ID); err != nil {
				return err
			}
		}
		l, err := w.List(ctx, List{Bucket: name, Max: 1000})
		if err != nil {
			return err
		}
		for _, o := range l.Objects {
			if _, err := w.Delete(ctx, Delete{Bucket: name, Key: o.Key}); err != nil {
				return err
			}
		}
		if err := w.DeleteBucket(ctx, name); err != nil {
			return err
		}
	}
	for _, p := range []string{pInline, pRef, pTable, pPart, pUpload, pObject, pDone, pBucket, pState, pOwned} {
		if n := w.stored(p); n != 0 {
			return fmt.Errorf("%d entries are left under %s", n, p)
		}
	}
	if n := w.blobCount(); n != 0 {
		return fmt.Errorf("%d blobs are left", n)
	}
	return nil
}

func newDisk(t *testing.T, seed uint64) (*faultfs.Disk, files.FS) {
	t.Helper()
	d := faultfs.New(seed)
	fsys := d.FS()
	if err := errors.Join(fsys.Mkdir("/d"), fsys.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	return d, fsys
}

// TestPowerLoss cuts the power at sampled file operations of the script, opens
// again, and demands what was acknowledged, bit for bit, and nothing else.
func TestPowerLoss(t *testing.T) {
	d, fsys := newDisk(t, 1)
	w, err := boot(t, "/d", fsys)
	if err != nil {
		t.Fatal(err)
	}
	booted := d.Ops()
	sure, _, failed, err := runScript(w)
	if err != nil {
		t.Fatal(failed, err)
	}
	if err := checkWorld(w, sure, sure); err != nil {
		t.Fatal(err)
	}
	total := d.Ops()
	w.close()
	samples := 120
	if testing.Short() {
		samples = 25
	}
	steps := map[string]int{}
	for i := range samples {
		at := booted + 1 + i*(total-booted)/samples
		d, fsys := newDisk(t, uint64(i))
		w, err := boot(t, "/d", fsys)
		if err != nil {
			t.Fatal(err)
		}
		d.CrashAt(at)
		sure, maybe, failed, err := runScript(w)
		if err == nil {
			d.PowerLoss()
		}
		steps[failed]++
		w.ring.Close()
		w.store.Close() // fails, there is no power
		d.Restart()
		if w, err = boot(t, "/d", fsys); err != nil {
			t.Fatalf("power lost at operation %d (%s): open: %v", at, failed, err)
		}
		if err := checkWorld(w, sure, maybe); err != nil {
			t.Fatalf("power lost at operation %d (%s): %v", at, failed, err)
		}
		if err := checkClean(w); err != nil {
			t.Fatalf("power lost at operation %d (%s): %v", at, failed, err)
		}
		w.close()
	}
	t.Logf("%d power losses among %d operations; by step: %v", samples, total, steps)
}

// TestFaults makes single file operations fail: the answer is an error, and the
// engine, or at least a reopened one, has what was acknowledged.
func TestFaults(t *testing.T) {
	d, fsys := newDisk(t, 1)
	w, err := boot(t, "/d", fsys)
	if err != nil {
		t.Fatal(err)
	}
	booted := d.Ops()
	if _, _, failed, err := runScript(w); err != nil {
		t.Fatal(failed, err)
	}
	total := d.Ops()
	w.close()
	samples := 60
	if testing.Short() {
		samples = 12
	}
	for i := range samples {
		at := booted + 1 + i*(total-booted)/samples
		fault := syscall.EIO
		if i%2 == 1 {
			fault = syscall.ENOSPC
		}
		d, fsys := newDisk(t, uint64(i))
		w, err := boot(t, "/d", fsys)
		if err != nil {
			t.Fatal(err)
		}
		d.FailAt(at, fault)
		sure, maybe, failed, err := runScript(w)
		if err != nil && errs.KindOf(err) == errs.Invalid {
			t.Errorf("%v at operation %d (%s): a fault of ours is blamed on the client: %v", fault, at, failed, err)
		}
		d.Inject(nil)
		w.ring.Close()
		w.store.Close()
		if w, err = boot(t, "/d", fsys); err != nil {
			t.Fatalf("%v at operation %d (%s): open: %v", fault, at, failed, err)
		}
		if err := checkWorld(w, sure, maybe); err != nil {
			t.Fatalf("%v at operation %d (%s): %v", fault, at, failed, err)
		}
		if err := checkClean(w); err != nil {
			t.Fatalf("%v at operation %d (%s): %v", fault, at, failed, err)
		}
		w.close()
	}
}

// TestStuckEnding: what was marked as ending by somebody who is no more is opened
// by whoever needs it, and by a restart.
func TestStuckEnding(t *testing.T) {
	dir := t.TempDir()
	w, err := boot(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.begin()
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	bk, err := w.findBucket(ctx, "t", w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := parseUploadID(u.ID)
	stick := func() {
		for _, k := range [][2][]byte{
			{stateKey(bk.id), key2(pIntentB, bk.id)},
			{projectIDKey(w.p.ID), key2(pIntentP, w.p.ID)},
			{uploadKey(bk.id, "k", uid), key2(pIntentU, string(uid[:]))},
		} {
			if _, err := w.flip(ctx, "t", k[0], k[1], errBoom); err != nil {
				t.Fatal(err)
			}
			w.ends.unlock(k[1])
		}
		if w.stored(pIntent) != 3 {
			t.Fatal("no intents")
		}
	}
	stick()
	w.put("new", []byte("y"))
	p := w.putPart(u, 1, []byte("z"))
	if _, err := w.CreateBucket(ctx, CreateBucket{Name: "bucket-b", ProjectID: w.p.ID}); err != nil {
		t.Fatal(err)
	}
	if n := w.stored(pIntent); n != 0 {
		t.Errorf("%d intents are left", n)
	}
	stick()
	// While somebody is at it a writer waits for him.
	if !w.ends.tryLock(key2(pIntentB, bk.id)) {
		t.Fatal("locked")
	}
	done := make(chan error, 1)
	go func() {
		_, err := w.Put(ctx, Put{Bucket: w.bucket, Key: "late", Body: bytesBody(nil)})
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatal("a put into an ending bucket did not wait:", err)
	case <-time.After(50 * time.Millisecond):
	}
	w.ends.unlock(key2(pIntentB, bk.id))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	stick()
	w.close()
	if w, err = boot(t, dir, nil); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	w.bucket = "bucket-a"
	if n := w.stored(pIntent); n != 0 {
		t.Errorf("%d intents are left after a restart", n)
	}
	if _, err := w.CompleteUpload(ctx, completion(u, p)); err != nil {
		t.Fatal(err)
	}
	w.want("k", []byte("z"))
}

// TestDiskFull: writes are refused as Exhausted, nothing half is kept, reads go on,
// and everything works again once there is room.
func TestDiskFull(t *testing.T) {
	d, fsys := newDisk(t, 3)
	w, err := boot(t, "/d", fsys)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	w.begin()
	small, large := data(1000, 1), data(100_000, 2)
	w.put("small", small)
	w.put("large", large)
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "up"})
	if err != nil {
		t.Fatal(err)
	}
	p := w.putPart(u, 1, large)
	for _, room := range []int64{0, 512, 60_000} {
		d.Room(room)
		full := 0
		for i := range 40 {
			for _, n := range []int{2000, 90_000} {
				_, err := w.Put(ctx, Put{Bucket: w.bucket, Key: fmt.Sprint("x", i), Body: bytesBody(data(n, 3)), Size: int64(n)})
				if err != nil {
					kind(t, err, errs.Exhausted)
					full++
				}
			}
			if full > 5 {
				break
			}
		}
		if full == 0 {
			t.Errorf("room for %d bytes was enough", room)
		}
		w.CompleteUpload(ctx, completion(u, Part{Number: 1, ETag: "wrong"})) // leaves the upload as it is
		w.want("small", small)
		w.want("large", large)
		d.Room(-1)
		w.put("after", large)
		w.want("after", large)
		if _, err := w.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if a, b := w.stored(pRef), w.blobCount(); a != b {
			t.Errorf("%d references, %d blobs", a, b)
		}
	}
	if _, err := w.CompleteUpload(ctx, completion(u, p)); err != nil {
		t.Fatal(err)
	}
	w.want("up", large)
}
