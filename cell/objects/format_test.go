package objects

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

var newGolden = flag.Bool("new-golden", false, "make testdata/v1 anew; only for a new version of the format")

// golden is testdata/v1/entries.json: everything below k/ and o/ of a small
// organization, and what is in it. Its one blob lies beside it.
type golden struct {
	Organization string
	// Top is what the root derives for "keys/organization/v1".
	Top     string
	Entries [][2]string // key and value, hexadecimal
	Bucket  string
	Objects map[string]strangersObject
	// An open upload of Key with the id (hexadecimal) and its parts.
	Upload struct {
		Key, ID string
		Record  strangersObject
		Parts   map[int]strangersObject
	}
}

const goldenDir = "testdata/v1"

// entries reads what is stored below k/ and o/.
func (w *world) entries() map[string]string {
	w.tb.Helper()
	out := map[string]string{}
	for _, prefix := range []string{"k/", "o/"} {
		err := w.store.Scan(ctx, store.Prefix([]byte(prefix)), func(k, v []byte) (bool, error) {
			out[string(k)] = string(v)
			return true, nil
		})
		if err != nil {
			w.tb.Fatal(err)
		}
	}
	return out
}

// stranger gives a stranger what is on disk.
func (w *world) stranger() *stranger {
	top, err := testRoot{}.Derive("keys/organization/v1")
	if err != nil {
		w.tb.Fatal(err)
	}
	return &stranger{org: "org-1", top: string(top), store: w.entries(), blob: func(name string) (string, error) {
		b, err := os.ReadFile(filepath.Join(w.dir, "blobs", name))
		return string(b), err
	}}
}

// fill makes one of everything that is small. It returns the id of an open upload.
func (w *world) fill() uploadID {
	w.tb.Helper()
	h := Headers{
		ContentType: "text/plain; charset=utf-8", ContentEncoding: "identity", ContentDisposition: "inline", ContentLanguage: "fr",
		CacheControl: "no-store", Expires: "Thu, 01 Dec 2033 16:00:00 GMT", User: map[string]string{"b": "2", "a": "été", "empty": ""}, StorageClass: "STANDARD_IA",
	}
	put := func(key string, b *body, n int, h Headers) {
		w.tb.Helper()
		if _, err := w.Put(ctx, Put{Bucket: w.bucket, Key: key, Body: b, Size: int64(n), Headers: h}); err != nil {
			w.tb.Fatal(err)
		}
	}
	text := []byte("ce que dit le rapport\n")
	full := md5Body(text)
	full.sums.Checksum = Checksum{Algorithm: "CRC32C", Type: typeFullObject, Value: "AAAAAA=="}
	put("été/rapport 1.txt", full, len(text), h)
	put("empty", bytesBody(nil), 0, Headers{})
	if err := w.ring.RotateBucket(ctx, w.p.ID, w.bucketID()); err != nil {
		w.tb.Fatal(err)
	}
	if err := w.ring.RotateProject(ctx, w.p.ID); err != nil {
		w.tb.Fatal(err)
	}
	put("a/../large", bytesBody(data(70_000, 1)), 70_000, Headers{})
	up := func(key, algorithm string) Upload {
		w.tb.Helper()
		u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: key, Headers: h, ChecksumAlgorithm: algorithm})
		if err != nil {
			w.tb.Fatal(err)
		}
		return u
	}
	u := up("in parts", "SHA256")
	p := w.putPart(u, 3, []byte("the only part"))
	if _, err := w.CompleteUpload(ctx, CompleteUpload{Bucket: w.bucket, Key: u.Key, UploadID: u.ID, Size: -1, Parts: []CompletedPart{{Number: 3, ETag: p.ETag}}}); err != nil {
		w.tb.Fatal(err)
	}
	u = up("open\x00\x01", "CRC64NVME")
	w.putPart(u, 1, []byte("first"))
	w.putPart(u, 10_000, nil)
	id, ok := parseUploadID(u.ID)
	if !ok {
		w.tb.Fatal("an upload id that cannot be read")
	}
	return id
}

func (w *world) bucketID() string {
	w.tb.Helper()
	b, err := w.Bucket(ctx, w.bucket)
	if err != nil {
		w.tb.Fatal(err)
	}
	return b.ID
}

// agree compares what the engine answers for a key with what a stranger read.
func (w *world) agree(key string, s strangersObject) {
	w.tb.Helper()
	o, b, err := w.read(Get{Key: key})
	if err != nil {
		w.tb.Errorf("%q: %v", key, err)
		return
	}
	h := o.Headers
	want := strangersObject{
		Kind: s.Kind, Size: o.Size, Modified: o.Modified.UnixMilli(), ETag: o.ETag, Class: h.StorageClass, Parts: o.PartCount,
		Headers: [6]string{h.ContentType, h.ContentEncoding, h.ContentDisposition, h.ContentLanguage, h.CacheControl, h.Expires}, User: h.User,
	}
	if o.Checksum.Algorithm != "" {
		want.Checksum = strings.Join([]string{o.Checksum.Algorithm, o.Checksum.Type, o.Checksum.Value}, " ")
	}
	if s.bytes != string(b) {
		w.tb.Errorf("%q: other bytes", key)
	}
	s.bytes, s.chunks, s.Sum = "", nil, ""
	if s.Class == "" {
		s.Class = "STANDARD"
	}
	if !reflect.DeepEqual(s, want) {
		w.tb.Errorf("%q: a stranger reads\n%+v, the engine\n%+v", key, s, want)
	}
}

// TestStranger: whoever knows docs/formats can read what the engine writes.
func TestStranger(t *testing.T) {
	w := newWorld(t)
	id := w.fill()
	w.finishUpload("many parts", MinPart, MinPart+1, 10)
	if err := w.ring.RotateOrganization(ctx); err != nil {
		t.Fatal(err)
	}
	b := w.stranger().bucket(w.bucket)
	if b.project != w.p.ID || b.region != "eu-test-1" || b.created != w.clock.now().UnixMilli() || len(b.keys) != 2 {
		t.Errorf("bucket: %+v", b)
	}
	for _, key := range []string{"été/rapport 1.txt", "empty", "a/../large", "in parts", "many parts"} {
		w.agree(key, b.object(key))
	}
	u, parts := b.upload("open\x00\x01", string(id[:]))
	if u.Checksum != "CRC64NVME FULL_OBJECT" || u.Class != "STANDARD_IA" || u.User["a"] != "été" || len(parts) != 2 || parts[1].bytes != "first" || parts[10_000].Size != 0 {
		t.Errorf("upload: %+v %+v", u, parts)
	}
	// The store holds nothing else below o/ than the format page tells.
	for k := range b.store {
		if k[0] == 'o' && !strings.Contains("pibqsodmrutf", k[2:3]) {
			t.Errorf("an entry that is not documented: %q", k)
		}
	}
	done := 0
	for k, v := range b.store {
		if k, ok := strings.CutPrefix(k, "o/f/"+b.id+"/"); ok {
			f := fields(v)
			if done++; f.byte() != 1 || f.int() != w.clock.now().UnixMilli() || len(f.take(32)) != 32 || len(k) != 24 {
				t.Error("a finished upload's entry")
			}
			key := f.string()
			if got, want := b.objectRecord(key, f.rest), b.object(key); !reflect.DeepEqual(got, want) {
				t.Errorf("a finished upload remembers %+v, want %+v", got, want)
			}
		}
	}
	if done != 2 {
		t.Errorf("%d finished uploads are remembered, want 2", done)
	}
}

// TestGolden: what version 1 wrote is read for ever, by us and by a stranger.
func TestGolden(t *testing.T) {
	if *newGolden {
		writeGolden(t)
	}
	raw, err := os.ReadFile(filepath.Join(goldenDir, "entries.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "blobs"), os.DirFS(filepath.Join(goldenDir, "blobs"))); err != nil {
		t.Fatal(err)
	}
	st, err := pebblestore.Open(ctx, pebblestore.Options{Dir: filepath.Join(dir, "store"), Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	var b store.Batch
	for _, e := range g.Entries {
		k, kerr := hex.DecodeString(e[0])
		v, verr := hex.DecodeString(e[1])
		if kerr != nil || verr != nil {
			t.Fatal(kerr, verr)
		}
		b.Put(k, v)
	}
	if _, err := st.Commit(ctx, &b); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := boot(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	w.bucket = g.Bucket
	s := w.stranger()
	if top := hex.EncodeToString([]byte(s.top)); top != g.Top || s.org != g.Organization {
		t.Fatalf("the golden files are of another root: %s of %s", g.Top, g.Organization)
	}
	sb := s.bucket(g.Bucket)
	seen := map[string]bool{}
	for key, want := range g.Objects {
		got := sb.object(key)
		w.agree(key, got)
		if seen[string(rune('0'+got.Kind))] = true; !sameObject(got, want) {
			t.Errorf("%q: read %+v, want %+v", key, got, want)
		}
	}
	if len(seen) != 4 {
		t.Errorf("the golden files have contents of %d kinds, want 4", len(seen))
	}
	if list, err := w.List(ctx, List{Bucket: g.Bucket, Max: 1000}); err != nil || len(list.Objects) != len(g.Objects) {
		t.Errorf("a listing has %d objects of %d (%v)", len(list.Objects), len(g.Objects), err)
	}
	id, err := hex.DecodeString(g.Upload.ID)
	if err != nil {
		t.Fatal(err)
	}
	u, parts := sb.upload(g.Upload.Key, string(id))
	if !sameObject(u, g.Upload.Record) || len(parts) != len(g.Upload.Parts) {
		t.Errorf("upload: read %+v with %d parts, want %+v with %d", u, len(parts), g.Upload.Record, len(g.Upload.Parts))
	}
	ours, err := w.ListParts(ctx, ListParts{Bucket: g.Bucket, Key: g.Upload.Key, UploadID: uploadID(id).String(), Max: 10})
	if err != nil || len(ours.Parts) != len(parts) {
		t.Fatal(ours, err)
	}
	for _, p := range ours.Parts {
		got, want := parts[p.Number], g.Upload.Parts[p.Number]
		if !sameObject(got, want) || got.ETag != p.ETag || got.Size != p.Size || got.Checksum != p.Checksum.Algorithm+"  "+p.Checksum.Value {
			t.Errorf("part %d: read %+v, want %+v, the engine %+v", p.Number, got, want, p)
		}
	}
}

// sameObject compares what golden files keep.
func sameObject(a, b strangersObject) bool {
	a.bytes, a.chunks, b.bytes, b.chunks = "", nil, "", nil
	return reflect.DeepEqual(a, b)
}

func writeGolden(t *testing.T) {
	w := newWorld(t)
	id := w.fill()
	s := w.stranger()
	g := golden{Organization: s.org, Top: hex.EncodeToString([]byte(s.top)), Bucket: w.bucket, Objects: map[string]strangersObject{}}
	for _, prefix := range []string{"k/", "o/"} {
		err := w.store.Scan(ctx, store.Prefix([]byte(prefix)), func(k, v []byte) (bool, error) {
			g.Entries = append(g.Entries, [2]string{hex.EncodeToString(k), hex.EncodeToString(v)})
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b := s.bucket(w.bucket)
	for _, key := range []string{"été/rapport 1.txt", "empty", "a/../large", "in parts"} {
		g.Objects[key] = b.object(key)
	}
	g.Upload.Key, g.Upload.ID = "open\x00\x01", hex.EncodeToString(id[:])
	g.Upload.Record, g.Upload.Parts = b.upload(g.Upload.Key, string(id[:]))
	out, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(goldenDir); err != nil {
		t.Fatal(err)
	}
	for info, err := range w.disk.All(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		name := info.ID.String()
		from, to := filepath.Join(w.dir, "blobs", name[:1], name[1:2], name), filepath.Join(goldenDir, "blobs", name[:1], name[1:2], name)
		raw, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(goldenDir, "entries.json"), append(out, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestChangeBytes pins the payloads of the change feed.
func TestChangeBytes(t *testing.T) {
	id := strings.Repeat("a", bucketIDSize)
	o := ObjectChange{Removed, id, "k/é", contentID{1, 2, 15: 3}}
	b := BucketChange{Created, id, "bucket-a", "000000000042"}
	p := ProjectChange{Created, "000000000042", "p"}
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{o.encode(), "\x01\x02\x1a" + id + "\x04k/\xc3\xa9" + "\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03"},
		{b.encode(), "\x01\x01\x1a" + id + "\x08bucket-a\x0c000000000042"},
		{p.encode(), "\x01\x01\x0c000000000042\x01p"},
	} {
		if string(c.got) != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	if got, err := DecodeObjectChange(o.encode()); err != nil || got != o {
		t.Error(got, err)
	}
	if _, err := DecodeObjectChange(append(o.encode(), 0)); err == nil {
		t.Error("a change with more behind it was read")
	}
	if _, err := DecodeProjectChange([]byte("\x02\x01\x0c000000000042\x01p")); err == nil {
		t.Error("a change of another version was read")
	}
}
