package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/files/faultfs"
	"chancery/internal/store"
	"chancery/internal/store/frame"
)

// These tests look at the disk below the store.

var diskKey = bytes.Repeat([]byte{9}, 32)

const diskDir = "/d"

func openDisk(t testing.TB, fsys files.FS) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: diskDir, FS: fsys, Key: diskKey, JournalBytes: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// image is the content of every file of a store.
type image map[string][]byte

func readImage(t testing.TB, fsys files.FS) image {
	t.Helper()
	img := image{}
	for _, dir := range []string{diskDir, filepath.Join(diskDir, engineDir)} {
		infos, err := fsys.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			if info.Dir {
				continue
			}
			name := filepath.Join(dir, info.Name)
			b, err := files.ReadFile(fsys, name, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			img[name] = b
		}
	}
	return img
}

func (img image) disk(t testing.TB) files.FS {
	t.Helper()
	fsys := faultfs.New(1).FS()
	if err := files.MkdirAll(fsys, filepath.Join(diskDir, engineDir)); err != nil {
		t.Fatal(err)
	}
	for name, b := range img {
		f, err := fsys.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
		f.Sync()
		f.Close()
	}
	return fsys
}

func (img image) with(name string, b []byte) image {
	out := image{}
	for n, c := range img {
		out[n] = c
	}
	out[name] = b
	return out
}

// content reads everything that a store tells.
func content(ctx context.Context, fsys files.FS, key []byte) (string, error) {
	s, err := Open(ctx, Options{Dir: diskDir, FS: fsys, Key: key})
	if err != nil {
		return "", err
	}
	defer s.Close()
	var out strings.Builder
	if err := s.Scan(ctx, store.Range{}, func(k, v []byte) (bool, error) {
		fmt.Fprintf(&out, "%q=%q\n", k, v)
		return true, nil
	}); err != nil {
		return "", err
	}
	changes, err := s.Feed().Read(ctx, 0, 1<<20)
	if err != nil {
		return "", err
	}
	c, err := s.Feed().Cursor(ctx, "CANARY-cursor")
	fmt.Fprintf(&out, "%v %d", changes, c)
	return out.String(), err
}

// fill writes a store that has tables, an old and a current journal.
func fill(t testing.TB, s *Store) {
	t.Helper()
	for i := range 60 {
		var b store.Batch
		b.Put(fmt.Appendf(nil, "CANARY-key-%03d", i%40), fmt.Appendf(nil, "CANARY-value-%03d %x", i, rand.New(rand.NewPCG(uint64(i), 1)).Perm(400)))
		b.Change("canary", []byte("CANARY-payload"))
		b.SetCursor("CANARY-cursor", store.Seq(i))
		if _, err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
}

func newImage(t testing.TB) (image, string) {
	t.Helper()
	fsys := faultfs.New(1).FS()
	s := openDisk(t, fsys)
	fill(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	img := readImage(t, fsys)
	want, err := content(t.Context(), img.disk(t), diskKey)
	if err != nil {
		t.Fatal(err)
	}
	tables, journals := 0, 0
	for name := range img {
		if strings.HasSuffix(name, ".sst") {
			tables++
		}
		if strings.Contains(name, journalPrefix) {
			journals++
		}
	}
	if tables == 0 || journals == 0 {
		t.Fatalf("an image of %d tables and %d journals tests little", tables, journals)
	}
	return img, want
}

func TestNothingReadableOnDisk(t *testing.T) {
	img, want := newImage(t)
	if !strings.Contains(want, "CANARY-key") || !strings.Contains(want, "CANARY-value") {
		t.Fatal("the canaries are not in the store")
	}
	for name, b := range img {
		if bytes.Contains(b, []byte("CANARY")) || bytes.Contains(b, []byte("canary")) || strings.Contains(strings.ToLower(name), "canary") {
			t.Errorf("a canary is readable in %s", name)
		}
		// What Pebble writes in plain anywhere: block footers, names, options.
		for _, word := range []string{"pebble", "rocksdb", "leveldb", "[Version]", "comparer"} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%q is readable in %s", word, name)
			}
		}
	}
}

// TestFlippedBit flips bits in every file: the store gives an error or the same data.
func TestFlippedBit(t *testing.T) {
	img, want := newImage(t)
	rng := rand.New(rand.NewPCG(5, 6))
	perFile := 40
	if testing.Short() {
		perFile = 5
	}
	flips, refused := 0, 0
	newest := newestJournal(img)
	for name, b := range img {
		if len(b) == 0 {
			continue // markers and locks: the name is all there is
		}
		offsets := []int{0, len(b) - 1, min(20, len(b)-1), min(frame.Sector, len(b)-1), min(frame.Sector+headBytes, len(b)-1), max(0, len(b)-frame.Sector)}
		for range perFile {
			offsets = append(offsets, rng.IntN(len(b)))
		}
		for _, off := range offsets {
			bad := bytes.Clone(b)
			bad[off] ^= 1 << rng.IntN(8)
			got, err := content(t.Context(), img.with(name, bad).disk(t), diskKey)
			flips++
			switch {
			case err != nil:
				refused++
				if !errs.Is(err, errs.Corrupt) {
					t.Errorf("%s at %d: not called corrupt: %v", name, off, err)
				}
			case got != want:
				t.Fatalf("%s at %d of %d: other data without an error", name, off, len(b))
			case name == newest || strings.HasSuffix(name, storeName):
				// All of these is read at every start.
				t.Errorf("%s at %d of %d: not noticed", name, off, len(b))
			}
		}
	}
	t.Logf("%d flips, %d refused", flips, refused)
	if refused < flips/2 {
		t.Errorf("only %d of %d flips were refused", refused, flips)
	}
}

const headBytes = 44

func newestJournal(img image) (newest string) {
	for name := range img {
		if strings.Contains(name, journalPrefix) {
			newest = max(newest, name)
		}
	}
	return newest
}

// TestMovedCiphertext swaps files and frames, shortens and removes files.
func TestMovedCiphertext(t *testing.T) {
	img, want := newImage(t)
	var tables []string
	journal, manifest := newestJournal(img), ""
	for name, b := range img {
		switch {
		case strings.HasSuffix(name, ".sst"):
			tables = append(tables, name)
		case strings.Contains(name, "MANIFEST") && len(b) > 0:
			manifest = max(manifest, name)
		}
	}
	other, _ := newImage(t)
	swapSectors := func(b []byte, i, j int) []byte {
		out := bytes.Clone(b)
		copy(out[i*frame.Sector:(i+1)*frame.Sector], b[j*frame.Sector:])
		copy(out[j*frame.Sector:(j+1)*frame.Sector], b[i*frame.Sector:])
		return out
	}
	cases := map[string]image{
		"journal of another store":   img.with(journal, other[journal]),
		"manifest of another store":  img.with(manifest, other[manifest]),
		"STORE of another store":     img.with(filepath.Join(diskDir, storeName), other[filepath.Join(diskDir, storeName)]),
		"journal without a middle":   img.with(journal, append(bytes.Clone(img[journal][:4*frame.Sector]), img[journal][8*frame.Sector:]...)),
		"journal with swapped parts": img.with(journal, swapSectors(img[journal], 2, 5)),
		"journal zeroed in the middle": img.with(journal, func() []byte {
			b := bytes.Clone(img[journal])
			clear(b[frame.Sector*2 : frame.Sector*4])
			return b
		}()),
		"journal cut into its header": img.with(journal, img[journal][:100]),
		"empty journal":               img.with(journal, nil),
		"empty manifest":              img.with(manifest, nil),
		"manifest cut to its start":   img.with(manifest, img[manifest][:frame.Sector*3]),
	}
	if len(tables) > 1 {
		cases["swapped tables"] = img.with(tables[0], img[tables[1]]).with(tables[1], img[tables[0]])
	}
	for _, name := range tables {
		cases["table of another store "+name] = img.with(name, other[name])
		cases["short table "+name] = img.with(name, img[name][:len(img[name])-1])
		cases["empty table "+name] = img.with(name, nil)
	}
	for name := range img {
		if strings.HasSuffix(name, lockName) || strings.HasSuffix(name, ".log") || strings.Contains(name, "OPTIONS") {
			continue // hold nothing
		}
		less := img.with(name, nil)
		delete(less, name)
		cases["without "+name] = less
	}
	for name, bad := range cases {
		got, err := content(t.Context(), bad.disk(t), diskKey)
		if err == nil && got != want {
			t.Errorf("%s: other data without an error", name)
		} else if err == nil && !strings.Contains(name, "table") && (!strings.Contains(name, "without") || strings.Contains(name, journal)) {
			t.Errorf("%s: not noticed", name)
		}
	}
	if _, err := content(t.Context(), img.disk(t), bytes.Repeat([]byte{1}, 32)); !errs.Is(err, errs.Corrupt) {
		t.Errorf("wrong key: %v", err)
	}
}

// decrypted returns the plaintext of all files, joined.
func decrypted(t *testing.T, s *Store, fsys files.FS) []byte {
	t.Helper()
	var all []byte
	for path, b := range readImage(t, fsys) {
		name := filepath.Base(path)
		if len(b) == 0 || name == storeName || name == lockName {
			continue
		}
		r := bytes.NewReader(b)
		if filepath.Dir(path) == diskDir {
			all = append(all, readLog(t, r, s.key, name)...)
			continue
		}
		ro, err := roleOf(name)
		if err != nil {
			t.Fatal(err)
		}
		if !ro.table {
			all = append(all, readLog(t, r, s.vfs.key, ro.name)...)
			continue
		}
		tr, err := frame.NewTableReader(r, int64(len(b)), s.vfs.key, ro.name)
		if err != nil {
			t.Fatal(err)
		}
		plain := make([]byte, tr.Size())
		if _, err := tr.ReadAt(plain, 0); err != nil {
			t.Fatal(err)
		}
		all = append(all, plain...)
	}
	return all
}

func readLog(t *testing.T, r *bytes.Reader, key []byte, role string) (all []byte) {
	t.Helper()
	l, err := frame.NewLogReader(r, r.Size(), key, role)
	for err == nil {
		var p []byte
		if p, err = l.Next(); err == nil {
			all = append(all, p...)
		}
	}
	if err != io.EOF && !errors.Is(err, frame.ErrTorn) {
		t.Fatal(err)
	}
	return all
}

// secret returns bytes that no compression can hide.
func secret(i int) []byte {
	rng := rand.NewChaCha8([32]byte{byte(i), 77})
	b := make([]byte, 64)
	rng.Read(b)
	return b
}

func TestPurgedValuesAreInNoFile(t *testing.T) {
	fsys := faultfs.New(1).FS()
	s := openDisk(t, fsys)
	defer s.Close()
	ctx := t.Context()
	commit := func(f func(b *store.Batch)) {
		t.Helper()
		var b store.Batch
		f(&b)
		if _, err := s.Commit(ctx, &b); err != nil {
			t.Fatal(err)
		}
	}
	has := func(i int) bool { return bytes.Contains(decrypted(t, s, fsys), secret(i)) }
	mustPurge := func(r store.Range) {
		t.Helper()
		c, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := s.Purge(c, r); err != nil {
			t.Fatal(err)
		}
	}

	// 1: only in the journal. 2: overwritten. 3: in a range deletion. 4: stays.
	commit(func(b *store.Batch) { b.Put([]byte("k1"), secret(1)); b.Put([]byte("k2"), secret(2)) })
	commit(func(b *store.Batch) { b.Put([]byte("k3"), secret(3)); b.Put([]byte("k4"), secret(4)) })
	commit(func(b *store.Batch) { b.Delete([]byte("k1")); b.Put([]byte("k2"), []byte("new")) })
	commit(func(b *store.Batch) { b.DeleteRange([]byte("k3"), []byte("k4")) })
	for i := 1; i <= 4; i++ {
		if !has(i) {
			t.Fatalf("value %d is not found before the purge: the test is blind", i)
		}
	}
	mustPurge(store.Prefix([]byte("k")))
	for i := 1; i <= 3; i++ {
		if has(i) {
			t.Errorf("value %d is still on disk", i)
		}
	}
	if !has(4) {
		t.Error("a live value is gone")
	}

	// In deep tables, and kept by a snapshot in the same table as its deletion.
	commit(func(b *store.Batch) { b.Put([]byte("m"), secret(5)) })
	mustPurge(store.Range{}) // pushes it down
	commit(func(b *store.Batch) { b.Put([]byte("n"), secret(6)) })
	snap, err := s.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	commit(func(b *store.Batch) { b.Delete([]byte("m")); b.Delete([]byte("n")) })
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	if !has(5) || !has(6) {
		t.Fatal("the snapshot's values are not found: the test is blind")
	}
	snap.Close()
	mustPurge(store.Range{Start: []byte("m"), End: []byte("o")})
	if has(5) || has(6) {
		t.Errorf("still on disk: deep %v, beside its deletion %v", has(5), has(6))
	}

	// Under load: many flushes and journals around it.
	commit(func(b *store.Batch) { b.Put([]byte("q"), secret(7)) })
	fill(t, s)
	commit(func(b *store.Batch) { b.Delete([]byte("q")) })
	fill(t, s)
	mustPurge(store.Range{Start: []byte("q"), End: []byte("q\x00")})
	if has(7) {
		t.Error("value 7 is still on disk")
	}
	if v, err := s.Get(ctx, []byte("k4")); err != nil || !bytes.Equal(v, secret(4)) {
		t.Errorf("a live value is damaged: %v", err)
	}
}
