package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"chancery/internal/errs"
)

// update makes the vectors anew. They are made once per version of the format:
// a change of what is checked in is a change of the format.
var update = flag.Bool("update", false, "write testdata anew (needed only for a new version of the format)")

// vectorFile is testdata/vectors.json; docs/formats/segment.md explains it.
type vectorFile struct {
	Comment string        `json:"comment"`
	Key     string        `json:"key"`
	Binding vectorBinding `json:"binding"`
	Good    []goodVector  `json:"good"`
	Bad     []badVector   `json:"bad"`
}

type vectorBinding struct {
	Organization string `json:"organization,omitempty"`
	Bucket       string `json:"bucket,omitempty"`
	Object       string `json:"object,omitempty"`
	Content      string `json:"content,omitempty"` // hex
}

// goodVector is a stream in testdata/NAME.seg. Byte i of its plaintext is i mod 251.
type goodVector struct {
	Name   string `json:"name"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"` // of the plaintext
}

// badVector is made from good ones: the pieces one after the other, then each
// byte of flip XOR 0x01 (counted from the end if negative).
type badVector struct {
	Name    string         `json:"name"`
	Fails   string         `json:"fails"` // the class
	Segment int            `json:"segment"`
	Pieces  []piece        `json:"pieces"`
	Flip    []int          `json:"flip,omitempty"`
	Key     string         `json:"key,omitempty"`     // instead of the file's
	Binding *vectorBinding `json:"binding,omitempty"` // the fields that differ
}

type piece struct {
	From  string `json:"from"`
	Start int    `json:"start"`
	End   int    `json:"end"` // -1 is the end of the stream
}

func (b vectorBinding) over(base Binding) Binding {
	for _, f := range []struct {
		dst *string
		src string
	}{{&base.Organization, b.Organization}, {&base.Bucket, b.Bucket}, {&base.Object, b.Object}} {
		if f.src != "" {
			*f.dst = f.src
		}
	}
	if b.Content != "" {
		c, err := hex.DecodeString(b.Content)
		if err != nil || len(c) != 16 {
			panic("bad content id in the vectors")
		}
		base.Content = [16]byte(c)
	}
	return base
}

func hexKey(t testing.TB, s string) Key {
	k, err := hex.DecodeString(s)
	if err != nil || len(k) != KeySize {
		t.Fatalf("bad key in the vectors: %v", err)
	}
	return Key(k)
}

func loadVectors(t testing.TB) (f vectorFile, streams map[string][]byte) {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	streams = map[string][]byte{}
	for _, g := range f.Good {
		if streams[g.Name], err = os.ReadFile(filepath.Join("testdata", g.Name+".seg")); err != nil {
			t.Fatal(err)
		}
	}
	return f, streams
}

func (v badVector) build(t testing.TB, streams map[string][]byte) []byte {
	var box []byte
	for _, p := range v.Pieces {
		from, ok := streams[p.From]
		if !ok {
			t.Fatalf("no stream %q", p.From)
		}
		end := p.End
		if end < 0 {
			end = len(from)
		}
		box = append(box, from[p.Start:end]...)
	}
	for _, i := range v.Flip {
		if i < 0 {
			i += len(box)
		}
		box[i] ^= 1
	}
	return box
}

// TestVectors reads every vector with both readers.
func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	f, streams := loadVectors(t)
	key, base := hexKey(t, f.Key), f.Binding.over(Binding{})
	if len(f.Good) == 0 || len(f.Bad) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range f.Good {
		t.Run(v.Name, func(t *testing.T) {
			plain, err := Open(nil, key, base, streams[v.Name])
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(plain)
			if len(plain) != v.Size || !bytes.Equal(plain, pattern(v.Size)) || hex.EncodeToString(sum[:]) != v.SHA256 {
				t.Fatal("another plaintext")
			}
			if got, err := readAll(streams[v.Name], key, base); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("the streaming reader differs: %v", err)
			}
		})
	}
	classes := map[string]bool{}
	for _, v := range f.Bad {
		t.Run(v.Name, func(t *testing.T) {
			k, b := key, base
			if v.Key != "" {
				k = hexKey(t, v.Key)
			}
			if v.Binding != nil {
				b = v.Binding.over(base)
			}
			box := v.build(t, streams)
			_, err := Open(nil, k, b, box)
			wantCode(t, err, errs.Corrupt, v.Fails)
			got, err := readAll(box, k, b)
			wantCode(t, err, errs.Corrupt, v.Fails)
			if !bytes.Equal(got, pattern(v.Segment*Size)) {
				t.Fatalf("%d bytes came out before the failure, want %d", len(got), v.Segment*Size)
			}
			classes[v.Fails] = true
		})
	}
	for _, c := range []string{BadHeader, Truncated, Extended, Unauthentic} {
		if !classes[c] {
			t.Errorf("no vector of class %s", c)
		}
	}
}

func readAll(box []byte, k Key, b Binding) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(box), int64(len(box)), k, b)
	if err != nil {
		return nil, err
	}
	g, err := r.Range(0, r.Size())
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return io.ReadAll(g)
}

func writeVectors(t *testing.T) {
	f := vectorFile{
		Comment: "Vectors of the segment format, version 1. Explained in docs/formats/segment.md.",
		Key:     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
		Binding: vectorBinding{
			Organization: "health", Bucket: "b7f3c2", Object: "2026/été/rapport.pdf",
			Content: "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
		},
	}
	key, b := hexKey(t, f.Key), f.Binding.over(Binding{})
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join("testdata", name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range []goodVector{{"empty", 0, ""}, {"one", 1, ""}, {"full", Size, ""}, {"full-and-one", Size + 1, ""}, {"two-full", 2 * Size, ""}} {
		plain := pattern(g.Size)
		box, err := Seal(nil, key, b, plain)
		if err != nil {
			t.Fatal(err)
		}
		write(g.Name+".seg", box)
		sum := sha256.Sum256(plain)
		g.SHA256 = hex.EncodeToString(sum[:])
		f.Good = append(f.Good, g)
	}
	const s1 = HeaderSize + sealed // where the second segment begins
	all := func(name string) []piece { return []piece{{name, 0, -1}} }
	f.Bad = []badVector{
		{Name: "nothing", Fails: Truncated, Pieces: []piece{{"empty", 0, 0}}},
		{Name: "header only", Fails: Truncated, Pieces: []piece{{"one", 0, HeaderSize}}},
		{Name: "magic", Fails: BadHeader, Pieces: all("one"), Flip: []int{0}},
		{Name: "version", Fails: BadHeader, Pieces: all("one"), Flip: []int{8}},
		{Name: "suite", Fails: BadHeader, Pieces: all("one"), Flip: []int{9}},
		{Name: "segment size", Fails: BadHeader, Pieces: all("one"), Flip: []int{10}},
		{Name: "flags", Fails: BadHeader, Pieces: all("one"), Flip: []int{11}},
		{Name: "reserved", Fails: BadHeader, Pieces: all("one"), Flip: []int{15}},
		{Name: "stream id", Fails: Unauthentic, Pieces: all("one"), Flip: []int{16}},
		{Name: "nonce", Fails: Unauthentic, Pieces: all("one"), Flip: []int{HeaderSize}},
		{Name: "ciphertext", Fails: Unauthentic, Pieces: all("one"), Flip: []int{HeaderSize + 12}},
		{Name: "tag", Fails: Unauthentic, Pieces: all("one"), Flip: []int{-1}},
		{Name: "second segment altered", Fails: Unauthentic, Segment: 1, Pieces: all("two-full"), Flip: []int{-100}},
		{Name: "last byte missing", Fails: Unauthentic, Segment: 1, Pieces: []piece{{"two-full", 0, s1 + sealed - 1}}},
		{Name: "cut inside the tag", Fails: Truncated, Pieces: []piece{{"empty", 0, HeaderSize + Overhead - 1}}},
		{Name: "cut after the second nonce", Fails: Truncated, Pieces: []piece{{"two-full", 0, s1 + 12}}},
		{Name: "cut at a boundary", Fails: Truncated, Pieces: []piece{{"two-full", 0, s1}}},
		{Name: "an empty segment after a full one", Fails: Truncated, Pieces: []piece{{"full", 0, -1}, {"empty", HeaderSize, -1}}},
		{Name: "lengthened at a boundary", Fails: Extended, Pieces: []piece{{"full", 0, -1}, {"two-full", s1, -1}}},
		{Name: "a byte more", Fails: Unauthentic, Pieces: []piece{{"one", 0, -1}, {"one", 0, 1}}},
		{Name: "segments swapped", Fails: Unauthentic, Pieces: []piece{{"two-full", 0, HeaderSize}, {"two-full", s1, -1}, {"two-full", HeaderSize, s1}}},
		{Name: "first segment repeated", Fails: Unauthentic, Segment: 1, Pieces: []piece{{"two-full", 0, s1}, {"two-full", HeaderSize, s1}}},
		{Name: "second segment of another stream", Fails: Unauthentic, Segment: 1, Pieces: []piece{{"two-full", 0, s1}, {"full-and-one", s1, -1}}},
		{Name: "header of another stream", Fails: Unauthentic, Pieces: []piece{{"full", 0, HeaderSize}, {"one", HeaderSize, -1}}},
		{Name: "another key", Fails: Unauthentic, Pieces: all("one"), Key: "010102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"},
		{Name: "another organization", Fails: Unauthentic, Pieces: all("one"), Binding: &vectorBinding{Organization: "defence"}},
		{Name: "another bucket", Fails: Unauthentic, Pieces: all("one"), Binding: &vectorBinding{Bucket: "b7f3c3"}},
		{Name: "another object", Fails: Unauthentic, Pieces: all("one"), Binding: &vectorBinding{Object: "2026/ete/rapport.pdf"}},
		{Name: "another content", Fails: Unauthentic, Pieces: all("one"), Binding: &vectorBinding{Content: "f0f1f2f3f4f5f6f7f8f9fafbfcfdfefe"}},
		{Name: "a byte moved from bucket to organization", Fails: Unauthentic, Pieces: all("one"), Binding: &vectorBinding{Organization: "healthb", Bucket: "7f3c2"}},
	}
	raw, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	write("vectors.json", append(raw, '\n'))
}
