package pebblestore

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"chancery/internal/store"
)

// A stranger has docs/formats/store.md, Go's standard library and Pebble, and
// nothing of ours. Whoever has to change the functions below changes a format that
// is on disks.

func strangerDerive(key []byte, salt, info string) []byte {
	k, err := hkdf.Key(sha256.New, key, []byte(salt), info, 32)
	if err != nil {
		panic(err)
	}
	return k
}

// strangerOpen opens nonce, ciphertext and tag; nil if they do not verify.
func strangerOpen(key []byte, aad string, box []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	plain, err := gcm.Open([]byte{}, box[:12], box[12:], []byte(aad))
	if err != nil {
		return nil
	}
	return plain
}

func u64(n int) string { return string(binary.BigEndian.AppendUint64(nil, uint64(n))) }

// fileKey checks a file's header and derives its key.
func fileKey(file, key []byte, kind, role string) []byte {
	if string(file[:16]) != "chancery-st\x00\x01"+kind+"\x00\x00" || !bytes.Equal(file[48:64], make([]byte, 16)) {
		panic("not a file of version 1: " + role)
	}
	return strangerDerive(key, string(file[16:48]), "chancery store file v1 "+kind+" "+role)
}

// strangerLog reads the frames of a log that ends whole.
func strangerLog(file, key []byte, role string) (payloads [][]byte) {
	k := fileKey(file, key, "L", role)
	for at, number := 512, 0; at < len(file); number++ {
		head := strangerOpen(k, "H", file[at:at+44])
		if head == nil || string(head[:8]) != u64(number) {
			panic("a damaged frame in " + role)
		}
		n := int(binary.BigEndian.Uint64(head[8:]))
		size := (44 + 28 + n + 511) / 512 * 512
		body := strangerOpen(k, "B"+u64(number), file[at+44:at+size])
		if body == nil {
			panic("a damaged body in " + role)
		}
		payloads = append(payloads, body[:n])
		at += size
	}
	return payloads
}

// strangerTable reads a whole table.
func strangerTable(file, key []byte, role string) (plain []byte) {
	k := fileKey(file, key, "T", role)
	for at, number := 64, 0; at < len(file); number++ {
		n, last := 8192+28, "\x00"
		if at+n >= len(file) {
			n, last = len(file)-at, "\x01"
		}
		p := strangerOpen(k, "T"+last+u64(number), file[at:at+n])
		if p == nil {
			panic("a damaged frame in " + role)
		}
		plain, at = append(plain, p...), at+n
	}
	return plain
}

// strangerStore reads a closed store: its engine's entries with the journals' on top.
func strangerStore(t *testing.T, dir string, key []byte) map[string]string {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	list := func(sub string) (names []string) {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	identity := strangerLog(read("STORE"), key, "STORE")[0]
	if len(identity) != 18 || identity[0] != 1 || identity[1] != 1 {
		t.Fatalf("identity %x", identity)
	}
	id := string(identity[2:])
	engine, journal := strangerDerive(key, id, "chancery store engine v1"), strangerDerive(key, id, "chancery store journal v1")
	mem := vfs.NewMem()
	for _, name := range list("engine") {
		var plain []byte
		switch file := read("engine/" + name); {
		case strings.HasSuffix(name, ".sst"), strings.HasSuffix(name, ".blob"):
			plain = strangerTable(file, engine, name)
		case strings.HasPrefix(name, "MANIFEST-"), strings.HasPrefix(name, "OPTIONS-"):
			plain = bytes.Join(strangerLog(file, engine, name), nil)
		case strings.HasPrefix(name, "marker."):
		default:
			continue // LOCK, N.log
		}
		f, err := mem.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	db, err := pebble.Open("", &pebble.Options{FS: mem, ErrorIfNotExists: true, Logger: strangerLogger{}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	applied := uint64(0)
	if v, done, err := db.Get([]byte("ms")); err == nil {
		applied = binary.BigEndian.Uint64(v)
		_ = done.Close()
	}
	for _, name := range list("") { // in the order of numbers
		if !strings.HasPrefix(name, "journal-") {
			continue
		}
		frames := strangerLog(read(name), journal, name)
		if base := binary.BigEndian.Uint64(frames[0]); base > applied {
			t.Fatalf("%s follows on %d, the engine has %d", name, base, applied)
		}
		for _, p := range frames[1:] {
			first, last := binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
			if last <= applied {
				continue
			}
			if first != applied+1 {
				t.Fatalf("%s goes on with %d after %d", name, first, applied)
			}
			b := db.NewBatch()
			if err := b.SetRepr(p[16:]); err != nil {
				t.Fatal(err)
			}
			if err := db.Apply(b, nil); err != nil {
				t.Fatal(err)
			}
			applied = last
		}
	}
	out := map[string]string{}
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for it.First(); it.Valid(); it.Next() {
		out[string(it.Key())] = string(it.Value())
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

type strangerLogger struct{}

func (strangerLogger) Infof(string, ...any)           {}
func (strangerLogger) Errorf(string, ...any)          {}
func (strangerLogger) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

// TestStranger: whoever has the key, store.md and Pebble reads every entry, from
// tables and from journals.
func TestStranger(t *testing.T) {
	dir, key := t.TempDir(), bytes.Repeat([]byte{5}, 32)
	want := map[string]string{}
	ctx := context.Background()
	session := func(n int) {
		t.Helper()
		s, err := Open(ctx, Options{Dir: dir, Key: key, JournalBytes: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			var b store.Batch
			k, v := fmt.Sprintf("key-%02d", (7*i+n)%100), strings.Repeat(fmt.Sprint(n, i, " "), 400)
			b.Put([]byte(k), []byte(v))
			want["u"+k] = v
			gone := fmt.Sprintf("key-%02d", (11*i)%100)
			if gone != k {
				b.Delete([]byte(gone))
				delete(want, "u"+gone)
			}
			if i == 30 {
				b.Change("topic", []byte("payload"))
				b.SetCursor("reader", 5)
			}
			seq, err := s.Commit(ctx, &b)
			if err != nil {
				t.Fatal(err)
			}
			want["ms"] = u64(int(seq))
			if i == 30 {
				want["f"+u64(int(seq))+"\x00\x00\x00\x00"] = "\x05topicpayload"
				want["creader"] = u64(5)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		got := strangerStore(t, dir, key)
		for k, v := range want {
			if got[k] != v {
				t.Errorf("session %d: %q holds %d bytes, want %d", n, k, len(got[k]), len(v))
			}
		}
		for k := range got {
			if _, ok := want[k]; !ok {
				t.Errorf("session %d: %q is there", n, k)
			}
		}
	}
	session(1)
	session(2)
	tables, err := filepath.Glob(filepath.Join(dir, "engine", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: the test reads journals alone (%v)", err)
	}
	journals, err := filepath.Glob(filepath.Join(dir, "journal-*"))
	if err != nil || !slices.ContainsFunc(journals, func(name string) bool {
		st, err := os.Stat(name)
		return err == nil && st.Size() > 2048
	}) {
		t.Fatalf("no journal with a record: the test reads tables alone (%v)", err)
	}
}
