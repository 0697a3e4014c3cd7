package objects

import (
	"encoding/binary"
	"sort"
)

// encoder appends the fields of a record. Lengths and unsigned numbers are uvarints.
type encoder struct{ b []byte }

func (e *encoder) byte(v byte)     { e.b = append(e.b, v) }
func (e *encoder) uint(v uint64)   { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)     { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) raw(v []byte)    { e.b = append(e.b, v...) }
func (e *encoder) string(v string) { e.uint(uint64(len(v))); e.b = append(e.b, v...) }
func (e *encoder) size(v int64)    { e.uint(uint64(v)) }
func (e *encoder) strings(v ...string) {
	for _, s := range v {
		e.string(s)
	}
}

// decoder reads what encoder wrote. After the first fault every read gives zero
// and bad is true; it never panics and never allocates more than its input holds.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// size reads a length in bytes of some content; beyond 2^62 it is a fault.
func (d *decoder) size() int64 {
	v := d.uint()
	if v > 1<<62 {
		d.fail()
		return 0
	}
	return int64(v)
}

// count reads how many things of at least min bytes each follow.
func (d *decoder) count(min int) int {
	v := d.uint()
	if v > uint64(len(d.b)/min) {
		d.fail()
		return 0
	}
	return int(v)
}

func (d *decoder) raw(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail()
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string { return string(d.raw(d.count(1))) }

// end reports whether everything was read and nothing was wrong.
func (d *decoder) end() bool { return !d.bad && len(d.b) == 0 }

func (e *encoder) headers(h Headers) {
	e.strings(h.ContentType, h.ContentEncoding, h.ContentDisposition, h.ContentLanguage, h.CacheControl, h.Expires)
	names := make([]string, 0, len(h.User))
	for n := range h.User {
		names = append(names, n)
	}
	sort.Strings(names)
	e.uint(uint64(len(names)))
	for _, n := range names {
		e.strings(n, h.User[n])
	}
}

func (d *decoder) headers() (h Headers) {
	h.ContentType, h.ContentEncoding, h.ContentDisposition = d.string(), d.string(), d.string()
	h.ContentLanguage, h.CacheControl, h.Expires = d.string(), d.string(), d.string()
	n := d.count(2)
	if n > 0 {
		h.User = make(map[string]string, n)
	}
	for range n {
		k := d.string()
		h.User[k] = d.string()
	}
	return h
}

// checksumAlgorithms in the order of their code in records; never reorder.
var checksumAlgorithms = []string{"", "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"}

const (
	typeFullObject = "FULL_OBJECT"
	typeComposite  = "COMPOSITE"
)

var checksumTypes = []string{"", typeFullObject, typeComposite}

func indexOf(list []string, s string) byte {
	for i, v := range list {
		if v == s {
			return byte(i)
		}
	}
	return 0
}

func (e *encoder) checksum(c Checksum) {
	e.byte(indexOf(checksumAlgorithms, c.Algorithm)<<4 | indexOf(checksumTypes, c.Type))
	if c.Algorithm != "" {
		e.string(c.Value)
	}
}

func (d *decoder) checksum() (c Checksum) {
	v := d.byte()
	if int(v>>4) >= len(checksumAlgorithms) || int(v&15) >= len(checksumTypes) {
		d.fail()
		return c
	}
	c.Algorithm, c.Type = checksumAlgorithms[v>>4], checksumTypes[v&15]
	if c.Algorithm != "" {
		c.Value = d.string()
	}
	return c
}
