package objects

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// A stranger has the documents of docs/formats and nothing of ours: he reads what
// the tests of the format hand him with the standard library alone. Whoever has to
// change this file changes a format that is on disks.

// stranger reads an organization from the key that the root derives for
// "keys/organization/v1".
type stranger struct {
	org, top string
	// store holds the entries below k/ and o/; blob reads a file of the blobs directory by its name.
	store map[string]string
	blob  func(name string) (string, error)
}

// strangersObject is what a record says, with the bytes.
type strangersObject struct {
	Kind           byte
	Size, Modified int64
	ETag           string
	Checksum       string // algorithm, type and value, with spaces between
	Class          string
	Parts          int
	Headers        [6]string
	User           map[string]string
	// Sum is SHA-256 of the bytes.
	Sum string

	chunks []uint64
	bytes  string
}

func lp(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }

func u32(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

// unseal opens nonce, ciphertext and tag; what does not verify ends the test.
func unseal(key, aad, box string) string {
	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	plain, err := gcm.Open(nil, []byte(box[:12]), []byte(box[12:]), []byte(aad))
	if err != nil {
		panic(fmt.Sprintf("does not verify; bound to %q", aad))
	}
	return string(plain)
}

func derive(key, salt, info string) string {
	k, err := hkdf.Key(sha256.New, []byte(key), []byte(salt), info, 32)
	if err != nil {
		panic(err)
	}
	return string(k)
}

// keysOf opens the boxes of a key record under its parent's keys by version.
func (s *stranger) keysOf(entry string, level int, id, parentID string, parents map[int]string) map[int]string {
	rec := s.store[entry]
	if len(rec) < 12 || rec[:2] != "\x01\x01" {
		panic("no live key record at " + entry)
	}
	parent := int(binary.BigEndian.Uint32([]byte(rec[2:])))
	out := map[int]string{}
	for boxes := rec[12:]; boxes != ""; boxes = boxes[64:] {
		version := int(binary.BigEndian.Uint32([]byte(boxes)))
		aad := lp("chancery.keys.wrap.v1") + string([]byte{byte(level)}) + lp(s.org) + lp(id) + lp(parentID) + u32(version) + u32(parent)
		out[version] = unseal(parents[parent], aad, boxes[4:64])
	}
	return out
}

// bucketKeys goes down the hierarchy.
func (s *stranger) bucketKeys(project, bucket string) map[int]string {
	generation := int(binary.BigEndian.Uint32([]byte(s.store["k/o"][2:])))
	org := s.keysOf("k/o", 1, s.org, "root", map[int]string{generation: s.top})
	return s.keysOf("k/b/"+project+"/"+bucket, 3, bucket, project, s.keysOf("k/p/"+project, 2, project, s.org, org))
}

// strangersBucket is a bucket that was found by its name.
type strangersBucket struct {
	*stranger
	id, project, region string
	created             int64
	keys                map[int]string
}

func (s *stranger) bucket(name string) *strangersBucket {
	rec, ok := s.store["o/b/"+name]
	if !ok {
		panic("no bucket " + name)
	}
	f := fields(rec)
	if f.byte() != 1 {
		panic("a bucket record of another version")
	}
	b := &strangersBucket{stranger: s, id: f.string(), project: f.string(), region: f.string(), created: f.int()}
	f.end()
	b.keys = s.bucketKeys(b.project, b.id)
	return b
}

// record opens a sealed record.
func (b *strangersBucket) record(bound, sealed string) *reader {
	if sealed[0] != 1 {
		panic("a sealed record of another format")
	}
	version := int(binary.BigEndian.Uint32([]byte(sealed[1:])))
	key := derive(b.keys[version], "", lp("chancery.keys.record-key.v1")+lp(b.org)+lp(b.id))
	return fields(unseal(key, lp("chancery.keys.record.v1")+sealed[:5]+lp(b.org)+lp(b.id)+lp(bound), sealed[5:]))
}

// object reads the current version of a key.
func (b *strangersBucket) object(key string) strangersObject {
	return b.objectRecord(key, b.store["o/o/"+b.id+"/"+key])
}

func (b *strangersBucket) objectRecord(key, raw string) strangersObject {
	f := b.record("object\x00"+b.id+raw[:18]+key, raw[18:])
	o := b.content(f, key, raw[:18])
	f.end()
	if o.Kind == 4 {
		id := raw[2:18]
		for chunk, size := range o.chunks {
			name := id + string([]byte{byte(chunk >> 8), byte(chunk)})
			before := len(o.bytes)
			for _, p := range b.table(key, name) {
				o.bytes += p.bytes
			}
			if uint64(len(o.bytes)-before) != size {
				panic("a chunk of another size")
			}
		}
	}
	return o.whole()
}

func (o strangersObject) whole() strangersObject {
	if int64(len(o.bytes)) != o.Size {
		panic(fmt.Sprintf("%d bytes, want %d", len(o.bytes), o.Size))
	}
	sum := sha256.Sum256([]byte(o.bytes))
	o.Sum = hex.EncodeToString(sum[:])
	return o
}

// table reads one chunk of a part table.
func (b *strangersBucket) table(key, name string) (parts []strangersObject) {
	raw := b.store["o/m/"+b.id+"/"+name]
	open := fields(raw)
	if open.byte() != 1 {
		panic("a part table of another version")
	}
	n := int(open.uint())
	heads := open.take(18 * n)
	f := b.record("table\x00"+b.id+raw[:len(raw)-len(open.rest)]+name, open.rest)
	for i := range n {
		parts = append(parts, b.content(f, key, heads[18*i:18*i+18]).whole())
	}
	f.end()
	return parts
}

// content reads the fields of a record and, unless it has parts, its bytes.
func (b *strangersBucket) content(f *reader, key, head string) strangersObject {
	if head[0] != 1 {
		panic("a record of another version")
	}
	o := strangersObject{Kind: head[1], Size: int64(f.uint()), Modified: f.int(), ETag: f.string(), Checksum: f.checksum(), Class: f.string(), Parts: int(f.uint())}
	switch o.Kind {
	case 2, 3:
		content, version, salt := f.take(16), int(f.uint()), f.take(32)
		var stream string
		if o.Kind == 2 {
			stream = b.store["o/d/"+b.id+"/"+head[2:]]
		} else {
			name := hex.EncodeToString([]byte(head[2:]))
			if b.store["o/r/"+head[2:]] != b.id {
				panic("no reference to blob " + name)
			}
			var err error
			if stream, err = b.blob(name[:1] + "/" + name[1:2] + "/" + name); err != nil {
				panic(err)
			}
		}
		k := derive(b.keys[version], salt, lp("chancery.keys.stream.v1")+lp(b.org)+lp(b.id)+lp(key)+content)
		o.bytes = openStream(k, lp("chancery.segment.v1")+lp(b.org)+lp(b.id)+lp(key)+content, stream, int(o.Size))
	case 4:
		for range f.uint() {
			o.chunks = append(o.chunks, f.uint())
		}
	}
	f.headers(&o)
	return o
}

// upload reads an open upload: its headers, algorithm, checksum type, and parts by number.
func (b *strangersBucket) upload(key, id string) (o strangersObject, parts map[int]strangersObject) {
	escaped := strings.ReplaceAll(key, "\x00", "\x00\xff") + "\x00\x01" + id
	raw := b.store["o/u/"+b.id+"/"+escaped]
	f := b.record("upload\x00"+b.id+escaped, raw[2:])
	o.Modified = f.int()
	o.Checksum = f.string() + " " + f.string()
	o.Class = f.string()
	f.headers(&o)
	f.end()
	parts = map[int]strangersObject{}
	for k, v := range b.store {
		if number, ok := strings.CutPrefix(k, "o/t/"+b.id+"/"+id); ok {
			p := b.record("part\x00"+b.id+v[:18]+id+number, v[18:])
			parts[int(binary.BigEndian.Uint16([]byte(number)))] = b.content(p, key, v[:18]).whole()
			p.end()
		}
	}
	return o, parts
}

// openStream reads a whole stream of segment.md.
func openStream(key, binding, stream string, size int) (plain string) {
	header, body := stream[:32], stream[32:]
	if header[:16] != "chancseg\x01\x01\x10\x00\x00\x00\x00\x00" {
		panic("not a stream of version 1")
	}
	for number := uint64(0); ; number++ {
		n, last := 12+1<<16+16, "\x00"
		if len(body) <= n {
			n, last = len(body), "\x01"
		}
		plain += unseal(key, binding+header+string(binary.BigEndian.AppendUint64(nil, number))+last, body[:n])
		if body = body[n:]; last == "\x01" {
			break
		}
	}
	if len(plain) != size {
		panic("a stream of another size")
	}
	return plain
}

// reader reads the fields of a record.
type reader struct{ rest string }

func fields(s string) *reader { return &reader{s} }

func (r *reader) take(n int) string {
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *reader) byte() byte { return r.take(1)[0] }

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint([]byte(r.rest))
	if n <= 0 {
		panic("no uvarint")
	}
	r.take(n)
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint([]byte(r.rest))
	if n <= 0 {
		panic("no varint")
	}
	r.take(n)
	return v
}

func (r *reader) string() string { return r.take(int(r.uint())) }

func (r *reader) end() {
	if r.rest != "" {
		panic("bytes are left")
	}
}

func (r *reader) checksum() string {
	b := r.byte()
	if b>>4 == 0 {
		return ""
	}
	algorithm := []string{"", "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"}[b>>4]
	return algorithm + " " + []string{"", "FULL_OBJECT", "COMPOSITE"}[b&15] + " " + r.string()
}

func (r *reader) headers(o *strangersObject) {
	for i := range o.Headers {
		o.Headers[i] = r.string()
	}
	n := int(r.uint())
	if n > 0 {
		o.User = map[string]string{}
	}
	for range n {
		name := r.string()
		o.User[name] = r.string()
	}
}
