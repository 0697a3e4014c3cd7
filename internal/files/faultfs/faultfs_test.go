package faultfs_test

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/files/faultfs"
)

func create(t *testing.T, fsys files.FS, name, content string) files.File {
	t.Helper()
	f, err := fsys.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPowerLossKeepsWhatWasSynced(t *testing.T) {
	lostName, lostData, keptData := 0, 0, 0
	for seed := range uint64(40) {
		d := faultfs.New(seed)
		fsys := d.FS()
		f := create(t, fsys, "/synced", "durable")
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := fsys.SyncDir("/"); err != nil {
			t.Fatal(err)
		}
		f.Write([]byte("+more"))
		create(t, fsys, "/nameless", "x").Sync()
		d.PowerLoss()
		if _, err := fsys.Stat("/synced"); err == nil {
			t.Fatal("an operation without power")
		}
		d.Restart()
		if err := f.Sync(); err == nil {
			t.Fatal("a handle outlived the power loss")
		}
		got, err := files.ReadFile(fsys, "/synced", 100)
		if err != nil || !strings.HasPrefix(string(got), "durable") {
			t.Fatalf("seed %d: %q %v", seed, got, err)
		}
		if string(got) == "durable" {
			lostData++
		} else {
			keptData++
		}
		if _, err := fsys.Stat("/nameless"); errs.Is(err, errs.NotFound) {
			lostName++
		}
	}
	if lostName == 0 || lostName == 40 || lostData == 0 || keptData == 0 {
		t.Errorf("not varied: %d names, %d contents lost, %d kept", lostName, lostData, keptData)
	}
}

func TestWriteFileIsAtomicAtEveryOperation(t *testing.T) {
	for n := 1; ; n++ {
		for seed := range uint64(8) {
			d := faultfs.New(seed)
			fsys := d.FS()
			if err := files.WriteFile(fsys, "/f", []byte("old")); err != nil {
				t.Fatal(err)
			}
			d.CrashAt(d.Ops() + n)
			err := files.WriteFile(fsys, "/f", bytes.Repeat([]byte("new"), 1000))
			off := d.Off()
			d.Restart()
			got, rerr := files.ReadFile(fsys, "/f", 1<<20)
			if rerr != nil || string(got) != "old" && len(got) != 3000 {
				t.Fatalf("n=%d seed=%d: %d bytes, %v", n, seed, len(got), rerr)
			}
			if err == nil && len(got) != 3000 {
				t.Fatalf("n=%d seed=%d: an acknowledged write is gone", n, seed)
			}
			if !off {
				if n < 5 {
					t.Fatalf("only %d operations", n)
				}
				return
			}
		}
	}
}

func TestFaults(t *testing.T) {
	d := faultfs.New(1)
	fsys := d.FS()
	f := create(t, fsys, "/f", "0123456789")
	d.FailAt(d.Ops()+1, syscall.EIO)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Errorf("second sync: %v", err)
	}
	d.Room(5)
	n, err := f.Write(make([]byte, 10))
	if n != 5 || !errs.Is(err, errs.Exhausted) || !files.IsFull(err) {
		t.Errorf("full disk: %d %v", n, err)
	}
	if err := f.Truncate(5); err != nil {
		t.Error(err)
	}
	if n, err := f.WriteAt(make([]byte, 10), 5); n != 10 || err != nil {
		t.Errorf("room again: %d %v", n, err)
	}
	l, err := fsys.Lock("/L")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsys.Lock("/L"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("second lock: %v", err)
	}
	l.Close()
	if _, err := fsys.Lock("/L"); err != nil {
		t.Error(err)
	}
}
