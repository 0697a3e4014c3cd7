// Command store measures the store against the alternative that ADR 0002
// weighed: Badger with its own encryption. Each run is a process of its own, so
// that memory and written bytes are those of one engine.
//
//	go run ./bench/store [-n 4000] [-dir DIR]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"

	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

var (
	engine  = flag.String("engine", "", "inner use: run this engine")
	phase   = flag.String("phase", "", "inner use: write or recover")
	writers = flag.Int("writers", 1, "inner use: goroutines that commit")
	size    = flag.Int("size", 512, "bytes of a value")
	count   = flag.Int("n", 4000, "commits of each run with 64 writers; a quarter with one")
	dir     = flag.String("dir", "", "where to work; empty is a temporary directory")
)

// kv is what both engines can do.
type kv interface {
	commit(key, value []byte) error
	get(key []byte) error
	scan() (int, error)
	close() error
}

func open(engine, dir string) (kv, error) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	switch engine {
	case "pebblestore":
		s, err := pebblestore.Open(context.Background(), pebblestore.Options{Dir: dir, Key: key})
		return ours{s}, err
	case "badger":
		// Sized like our store: small memtables and caches, one compactor pair.
		o := badger.DefaultOptions(dir).WithEncryptionKey(key).WithIndexCacheSize(16 << 20).WithBlockCacheSize(16 << 20).
			WithMemTableSize(8 << 20).WithNumMemtables(2).WithNumCompactors(2).WithSyncWrites(true).
			WithValueLogFileSize(64 << 20).WithLogger(nil)
		db, err := badger.Open(o)
		return theirs{db}, err
	}
	return nil, errors.New("no such engine")
}

type ours struct{ s *pebblestore.Store }

func (o ours) commit(k, v []byte) error {
	var b store.Batch
	b.Put(k, v)
	_, err := o.s.Commit(context.Background(), &b)
	return err
}
func (o ours) get(k []byte) error { _, err := o.s.Get(context.Background(), k); return err }
func (o ours) scan() (n int, err error) {
	err = o.s.Scan(context.Background(), store.Range{}, func(_, _ []byte) (bool, error) { n++; return true, nil })
	return n, err
}
func (o ours) close() error { return o.s.Close() }

type theirs struct{ db *badger.DB }

func (t theirs) commit(k, v []byte) error {
	return t.db.Update(func(tx *badger.Txn) error { return tx.Set(k, v) })
}
func (t theirs) get(k []byte) error {
	return t.db.View(func(tx *badger.Txn) error {
		it, err := tx.Get(k)
		if err != nil {
			return err
		}
		_, err = it.ValueCopy(nil)
		return err
	})
}
func (t theirs) scan() (n int, err error) {
	err = t.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := it.Item().Value(func([]byte) error { return nil }); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}
func (t theirs) close() error { return t.db.Close() }

type result struct {
	OpsPerSecond, CPUMillisPerOp, GetMicros, ScanMillis, OpenMillis float64
	PeakRSSMiB, WrittenMiB, DiskMiB                                 float64
	Entries                                                         int
}

func main() {
	flag.Parse()
	var err error
	if *engine != "" {
		err = inner()
	} else {
		err = outer()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/store:", err)
		os.Exit(1)
	}
}

func keyOf(i int) []byte { return fmt.Appendf(nil, "bucket/%03d/object/%08d", i%97, i) }

func inner() error {
	start := time.Now()
	s, err := open(*engine, *dir)
	if err != nil {
		return err
	}
	r := result{OpenMillis: float64(time.Since(start).Microseconds()) / 1e3}
	if *phase == "write" {
		if err := write(s, &r); err != nil {
			return err
		}
	}
	start = time.Now()
	if r.Entries, err = s.scan(); err != nil {
		return err
	}
	r.ScanMillis = float64(time.Since(start).Microseconds()) / 1e3
	r.PeakRSSMiB, r.WrittenMiB = status("VmHWM:"), ioWritten()
	r.DiskMiB = du(*dir)
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return err
	}
	if *phase == "write" {
		os.Exit(0) // as a crash: what follows is recovery
	}
	return s.close()
}

func write(s kv, r *result) error {
	var next atomic.Int64
	var failed atomic.Value
	var wg sync.WaitGroup
	before, start := cpu(), time.Now()
	for range *writers {
		wg.Go(func() {
			rng := rand.NewChaCha8([32]byte{1})
			value := make([]byte, *size)
			for {
				i := int(next.Add(1))
				if i > *count {
					return
				}
				rng.Read(value)
				if err := s.commit(keyOf(i), value); err != nil {
					failed.Store(err)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	if err, ok := failed.Load().(error); ok {
		return err
	}
	r.OpsPerSecond = float64(*count) / took.Seconds()
	r.CPUMillisPerOp = (cpu() - before).Seconds() * 1e3 / float64(*count)
	start = time.Now()
	const gets = 2000
	for range gets {
		if err := s.get(keyOf(1 + rand.IntN(*count))); err != nil {
			return err
		}
	}
	r.GetMicros = float64(time.Since(start).Microseconds()) / gets
	return nil
}

func outer() error {
	root := *dir
	if root == "" {
		var err error
		if root, err = os.MkdirTemp("", "bench-store-"); err != nil {
			return err
		}
		defer os.RemoveAll(root)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Println("engine       writers  ops/s  cpu ms/op  get µs  peak RSS MiB  written MiB  disk MiB | recovery ms  peak RSS MiB  scan ms")
	for _, w := range []int{1, 64} {
		n := *count
		if w == 1 {
			n = max(n/4, 1)
		}
		for _, e := range []string{"pebblestore", "badger"} {
			d := filepath.Join(root, fmt.Sprintf("%s-%d", e, w))
			run := func(phase string) (r result, err error) {
				c := exec.Command(self, "-engine", e, "-phase", phase, "-writers", fmt.Sprint(w), "-n", fmt.Sprint(n), "-size", fmt.Sprint(*size), "-dir", d)
				c.Stderr = os.Stderr
				out, err := c.Output()
				if err != nil {
					return r, fmt.Errorf("%s %s: %w", e, phase, err)
				}
				return r, json.Unmarshal(out, &r)
			}
			a, err := run("write")
			if err != nil {
				return err
			}
			b, err := run("recover")
			if err != nil {
				return err
			}
			if b.Entries != n {
				return fmt.Errorf("%s has %d of %d entries after recovery", e, b.Entries, n)
			}
			fmt.Printf("%-12s %7d %6.0f %10.3f %7.1f %13.1f %12.1f %9.1f | %11.1f %13.1f %8.1f\n", e, w, a.OpsPerSecond, a.CPUMillisPerOp, a.GetMicros,
				a.PeakRSSMiB, a.WrittenMiB, a.DiskMiB, b.OpenMillis, b.PeakRSSMiB, b.ScanMillis)
		}
	}
	return nil
}

func cpu() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// status reads a size in KiB from /proc/self/status, and returns MiB.
func status(name string) float64 {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		var kib float64
		if rest, ok := strings.CutPrefix(line, name); ok {
			fmt.Sscan(rest, &kib)
			return kib / 1024
		}
	}
	return 0
}

// ioWritten returns the MiB that the kernel was asked to write to disks.
func ioWritten() float64 {
	b, _ := os.ReadFile("/proc/self/io")
	for line := range strings.Lines(string(b)) {
		var n float64
		if rest, ok := strings.CutPrefix(line, "write_bytes:"); ok {
			fmt.Sscan(rest, &n)
			return n / (1 << 20)
		}
	}
	return 0
}

// du returns the MiB that the files of a directory occupy.
func du(dir string) (mib float64) {
	_ = filepath.Walk(dir, func(name string, _ os.FileInfo, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(name, &st) == nil {
			mib += float64(st.Blocks) * 512 / (1 << 20)
		}
		return nil
	})
	return mib
}
