package objects

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"

	"chancery/internal/errs"
)

func (w *world) putPart(u Upload, n int, b []byte) Part {
	w.tb.Helper()
	p, err := w.PutPart(ctx, PutPart{Bucket: u.Bucket, Key: u.Key, UploadID: u.ID, Number: n, Body: bytesBody(b), Size: int64(len(b))})
	if err != nil {
		w.tb.Fatal(err)
	}
	return p
}

func completion(u Upload, parts ...Part) CompleteUpload {
	in := CompleteUpload{Bucket: u.Bucket, Key: u.Key, UploadID: u.ID, Size: -1}
	for _, p := range parts {
		in.Parts = append(in.Parts, CompletedPart{Number: p.Number, ETag: p.ETag})
	}
	return in
}

// finishUpload makes a multipart object of parts with these sizes and returns its bytes.
func (w *world) finishUpload(key string, sizes ...int) []byte {
	w.tb.Helper()
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: key, Headers: Headers{ContentType: "t/p"}})
	if err != nil {
		w.tb.Fatal(err)
	}
	var all []byte
	var parts []Part
	for i, n := range sizes {
		b := data(n, uint64(1000+i))
		all = append(all, b...)
		parts = append(parts, w.putPart(u, 2*i+1, b))
	}
	o, err := w.CompleteUpload(ctx, completion(u, parts...))
	if err != nil {
		w.tb.Fatal(err)
	}
	if !strings.HasSuffix(o.ETag, fmt.Sprintf("-%d", len(sizes))) || o.PartCount != len(sizes) || o.Size != int64(len(all)) {
		w.tb.Fatalf("%+v", o)
	}
	return all
}

func TestMultipart(t *testing.T) {
	w := newWorld(t)
	all := w.finishUpload("k", MinPart, MinPart+3, 10)
	o := w.want("k", all)
	if o.Headers.ContentType != "t/p" || o.PartCount != 3 {
		t.Error(o)
	}
	w.tidy(1, 2)
	N := int64(len(all))
	for _, g := range []ByteRange{{From: 0, To: 9}, {From: MinPart - 1, To: MinPart}, {From: 5, To: N - 2}, {Suffix: 11}, {Suffix: 10}, {From: 2*MinPart + 2, To: -1}} {
		o, got, err := w.read(Get{Key: "k", Range: &g})
		if err != nil || !bytes.Equal(got, all[o.RangeStart:o.RangeStart+o.RangeLength]) {
			t.Errorf("%+v: %d bytes, %v", g, len(got), err)
		}
	}
	at := int64(0)
	for i, n := range []int64{MinPart, MinPart + 3, 10} {
		o, got, err := w.read(Get{Key: "k", PartNumber: i + 1})
		if err != nil || o.RangeStart != at || o.RangeLength != n || !bytes.Equal(got, all[at:at+n]) || o.PartCount != 3 {
			t.Errorf("part %d: %+v %v", i+1, o, err)
		}
		at += n
	}
	_, _, err := w.read(Get{Key: "k", PartNumber: 4})
	code(t, err, "InvalidPartNumber")
	parts, more, err := w.Parts(ctx, w.bucket, "k", "", 0, 2)
	if err != nil || !more || len(parts) != 2 || parts[1].Number != 2 || parts[1].Size != MinPart+3 {
		t.Error(parts, more, err)
	}
	if parts, more, err = w.Parts(ctx, w.bucket, "k", "", 2, 2); err != nil || more || len(parts) != 1 || parts[0].Number != 3 {
		t.Error(parts, more, err)
	}
	w.put("k", []byte("x"))
	if parts, more, err = w.Parts(ctx, w.bucket, "k", "", 0, 2); err != nil || more || len(parts) != 0 {
		t.Error(parts, more, err)
	}
	w.tidy(1, 0)
	if n := w.stored(pTable); n != 0 {
		t.Errorf("%d chunks are left", n)
	}
}

func TestCompleteRefusals(t *testing.T) {
	w := newWorld(t)
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	p1, p2, p3 := w.putPart(u, 1, data(MinPart, 1)), w.putPart(u, 2, data(100, 2)), w.putPart(u, 10000, data(70_000, 3))
	bad := p1
	bad.ETag = "00000000000000000000000000000000-1"
	missing := Part{Number: 3, ETag: p1.ETag}
	for name, c := range map[string]struct {
		code string
		in   CompleteUpload
	}{
		"none":       {"MalformedXML", completion(u)},
		"order":      {"InvalidPartOrder", completion(u, p2, p1)},
		"twice":      {"InvalidPartOrder", completion(u, p1, p1)},
		"etag":       {"InvalidPart", completion(u, bad)},
		"missing":    {"InvalidPart", completion(u, p1, missing)},
		"past":       {"InvalidPart", completion(u, p3, Part{Number: 10000, ETag: "x"})},
		"small":      {"EntityTooSmall", completion(u, p1, p2, p3)},
		"number":     {"InvalidArgument", completion(u, Part{Number: 10001, ETag: "x"})},
		"zero":       {"InvalidArgument", completion(u, Part{Number: 0, ETag: "x"})},
		"other key":  {"NoSuchUpload", func() CompleteUpload { c := completion(u, p1); c.Key = "other"; return c }()},
		"unknown id": {"NoSuchUpload", func() CompleteUpload { c := completion(u, p1); c.UploadID = newUploadID(1).String(); return c }()},
		"bad id":     {"NoSuchUpload", func() CompleteUpload { c := completion(u, p1); c.UploadID = "../x"; return c }()},
		"size":       {"InvalidRequest", func() CompleteUpload { c := completion(u, p1, p2); c.Size = 5; return c }()},
		"checksum":   {"InvalidRequest", func() CompleteUpload { c := completion(u, p1, p2); c.Checksum.Algorithm = "CRC32"; return c }()},
		"condition":  {"NoSuchKey", func() CompleteUpload { c := completion(u, p1, p2); c.Conditions.IfMatch = "x"; return c }()},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "past" {
				c.in.Parts = c.in.Parts[1:]
			}
			_, err := w.CompleteUpload(ctx, c.in)
			code(t, err, c.code)
		})
	}
	// The upload is as before: parts may come, and it may be completed.
	again := w.putPart(u, 2, data(200, 4))
	_, err = w.CompleteUpload(ctx, completion(u, p1, p2))
	code(t, err, "InvalidPart")
	in := completion(u, p1, again)
	in.Size = MinPart + 200
	in.Conditions.IfNoneMatch = "*"
	o, err := w.CompleteUpload(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	w.want("k", append(data(MinPart, 1), data(200, 4)...))
	w.tidy(1, 1) // part 10000 is gone
	// Completing again answers as before, also after the object is gone; others are refused.
	for range 2 {
		o2, err := w.CompleteUpload(ctx, in)
		if err != nil || o2.ETag != o.ETag || o2.Size != o.Size {
			t.Fatal(o2, err)
		}
		w.Delete(ctx, Delete{Bucket: w.bucket, Key: "k"})
	}
	_, err = w.CompleteUpload(ctx, completion(u, p1))
	code(t, err, "NoSuchUpload")
	_, err = w.PutPart(ctx, PutPart{Bucket: w.bucket, Key: "k", UploadID: u.ID, Number: 1, Body: bytesBody(data(40_000, 1)), Size: -1})
	code(t, err, "NoSuchUpload")
	code(t, w.AbortUpload(ctx, w.bucket, "k", u.ID), "NoSuchUpload")
	w.tidy(0, 0)
	// A day later it is forgotten.
	w.clock.add(doneTime + 1)
	if s, err := w.Sweep(ctx); err != nil || s.Uploads != 1 {
		t.Fatal(s, err)
	}
	_, err = w.CompleteUpload(ctx, in)
	code(t, err, "NoSuchUpload")
	if n := w.stored("o/") - 5; n != 0 { // project (2), bucket (3)
		t.Errorf("%d entries are left", n)
	}
}

func TestPartRefusals(t *testing.T) {
	w := newWorld(t)
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "k", ChecksumAlgorithm: "SHA256"})
	if err != nil || u.ChecksumType != "COMPOSITE" {
		t.Fatal(u, err)
	}
	put := func(n int, size int64, b Body) error {
		_, err := w.PutPart(ctx, PutPart{Bucket: w.bucket, Key: "k", UploadID: u.ID, Number: n, Body: b, Size: size})
		return err
	}
	code(t, put(0, -1, bytesBody(nil)), "InvalidArgument")
	code(t, put(10001, -1, bytesBody(nil)), "InvalidArgument")
	code(t, put(1, MaxSingle+1, bytesBody(nil)), "EntityTooLarge")
	code(t, put(1, 3, bytesBody(nil)), "IncompleteBody")
	code(t, put(1, -1, nil), "InvalidArgument")
	code(t, put(1, -1, &body{Reader: strings.NewReader("x"), sums: Sums{Checksum: Checksum{Algorithm: "CRC32", Value: "AAAAAA=="}}}), "InvalidRequest")
	for _, c := range [][2]string{{"MD4", ""}, {"", "COMPOSITE"}, {"SHA256", "FULL_OBJECT"}, {"CRC64NVME", "COMPOSITE"}, {"CRC32", "HALF"}} {
		_, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "k", ChecksumAlgorithm: c[0], ChecksumType: c[1]})
		code(t, err, "InvalidRequest")
	}
	if l, err := w.ListParts(ctx, ListParts{Bucket: w.bucket, Key: "k", UploadID: u.ID, Max: 10}); err != nil || len(l.Parts) != 0 {
		t.Fatal(l, err)
	}
	w.tidy(0, 0)
	if err := w.AbortUpload(ctx, w.bucket, "k", u.ID); err != nil {
		t.Fatal(err)
	}
}

func TestListParts(t *testing.T) {
	w := newWorld(t)
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{7, 2, 10000, 300, 256} {
		w.putPart(u, n, data(n, 1))
	}
	var got []int
	after := 0
	for {
		l, err := w.ListParts(ctx, ListParts{Bucket: w.bucket, Key: "k", UploadID: u.ID, After: after, Max: 2})
		if err != nil || l.Upload.ID != u.ID {
			t.Fatal(l, err)
		}
		for _, p := range l.Parts {
			if p.Size != int64(p.Number) {
				t.Error(p)
			}
			got = append(got, p.Number)
		}
		if !l.Truncated {
			break
		}
		after = l.Next
	}
	if fmt.Sprint(got) != "[2 7 256 300 10000]" {
		t.Error(got)
	}
	if l, err := w.ListParts(ctx, ListParts{Bucket: w.bucket, Key: "k", UploadID: u.ID, After: 10000, Max: 2}); err != nil || len(l.Parts) != 0 {
		t.Error(l, err)
	}
	if err := w.AbortUpload(ctx, w.bucket, "k", u.ID); err != nil {
		t.Fatal(err)
	}
	_, err = w.ListParts(ctx, ListParts{Bucket: w.bucket, Key: "k", UploadID: u.ID, Max: 2})
	code(t, err, "NoSuchUpload")
	w.tidy(0, 0)
}

func TestListUploads(t *testing.T) {
	w := newWorld(t)
	var want []string
	for _, k := range []string{"a", "a", "a/1", "a/2", "a\x00", "b", "c/1"} {
		u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: k})
		if err != nil {
			t.Fatal(err)
		}
		w.clock.add(1e9)
		want = append(want, k+" "+u.ID)
	}
	want[2], want[3], want[4] = want[4], want[2], want[3] // byte order: a, a\0, a/1
	for _, max := range []int{1, 2, 3, 1000} {
		var got []string
		in := ListUploads{Bucket: w.bucket, Max: max}
		for {
			l, err := w.ListUploads(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range l.Uploads {
				got = append(got, u.Key+" "+u.ID)
			}
			if !l.Truncated {
				break
			}
			in.KeyMarker, in.UploadIDMarker = l.NextKeyMarker, l.NextUploadIDMarker
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("max %d:\n%q\n%q", max, got, want)
		}
	}
	show := func(in ListUploads) string {
		in.Bucket, in.Max = w.bucket, 2
		var s []string
		for {
			l, err := w.ListUploads(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range l.Uploads {
				s = append(s, u.Key)
			}
			for _, p := range l.CommonPrefixes {
				s = append(s, "["+p+"]")
			}
			if !l.Truncated {
				return strings.Join(s, " ")
			}
			in.KeyMarker, in.UploadIDMarker = l.NextKeyMarker, l.NextUploadIDMarker
		}
	}
	for _, c := range []struct {
		in   ListUploads
		want string
	}{
		{ListUploads{Delimiter: "/"}, "a a a\x00 [a/] b [c/]"},
		{ListUploads{Prefix: "a/"}, "a/1 a/2"},
		{ListUploads{Prefix: "a", Delimiter: "/"}, "a a a\x00 [a/]"},
		{ListUploads{KeyMarker: "a"}, "a\x00 a/1 a/2 b c/1"},
		{ListUploads{KeyMarker: "a/1", Delimiter: "/"}, "b [c/]"},
	} {
		if got := show(c.in); got != c.want {
			t.Errorf("%+v: %q, want %q", c.in, got, c.want)
		}
	}
	_, err := w.ListUploads(ctx, ListUploads{Bucket: w.bucket, Max: 1, KeyMarker: "a", UploadIDMarker: "x"})
	code(t, err, "InvalidArgument")
}

func TestMultipartETag(t *testing.T) {
	w := newWorld(t)
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	var digests []byte
	var parts []Part
	for i, n := range []int{MinPart, 5} {
		b := data(n, uint64(i))
		p, err := w.PutPart(ctx, PutPart{Bucket: w.bucket, Key: "k", UploadID: u.ID, Number: i + 1, Body: md5Body(b), Size: -1})
		if err != nil {
			t.Fatal(err)
		}
		sum := md5.Sum(b)
		digests = append(digests, sum[:]...)
		parts = append(parts, p)
	}
	parts[1].ETag = `"` + parts[1].ETag + `"`
	o, err := w.CompleteUpload(ctx, completion(u, parts...))
	sum := md5.Sum(digests)
	if want := hex.EncodeToString(sum[:]) + "-2"; err != nil || o.ETag != want {
		t.Errorf("%q, want %q, %v", o.ETag, want, err)
	}
}

func b64(algorithm string, b []byte) string {
	h := newHash(algorithm)
	h.Write(b)
	return hashValue(h)
}

func TestMultipartChecksums(t *testing.T) {
	w := newWorld(t)
	sizes := []int{MinPart, MinPart + 1, 17, 0}
	for _, c := range []struct{ algorithm, kind string }{
		{"CRC32", "FULL_OBJECT"}, {"CRC32C", "FULL_OBJECT"}, {"CRC64NVME", ""}, {"CRC32", ""}, {"CRC32C", "COMPOSITE"}, {"SHA1", ""}, {"SHA256", "COMPOSITE"},
	} {
		key := c.algorithm + c.kind
		u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: key, ChecksumAlgorithm: c.algorithm, ChecksumType: c.kind})
		if err != nil {
			t.Fatal(err)
		}
		var all, hashes []byte
		in := CompleteUpload{Bucket: w.bucket, Key: key, UploadID: u.ID, Size: -1}
		for i, n := range sizes {
			if i == 2 {
				n = MinPart + 9 // no part but the last may be small
			}
			b := data(n, uint64(i))
			all = append(all, b...)
			sum := b64(c.algorithm, b)
			bd := bytesBody(b)
			if i%2 == 0 { // the client brings it, else it is computed here
				bd.sums.Checksum = Checksum{Algorithm: c.algorithm, Value: sum, Type: "FULL_OBJECT"}
			}
			p, err := w.PutPart(ctx, PutPart{Bucket: w.bucket, Key: key, UploadID: u.ID, Number: i + 1, Body: bd, Size: -1})
			if err != nil || p.Checksum.Value != sum {
				t.Fatal(p, sum, err)
			}
			raw, _ := base64.StdEncoding.DecodeString(sum)
			hashes = append(hashes, raw...)
			in.Parts = append(in.Parts, CompletedPart{Number: i + 1, ETag: p.ETag, Checksum: p.Checksum})
		}
		want := b64(c.algorithm, all)
		wantType := "FULL_OBJECT"
		if u.ChecksumType == "COMPOSITE" {
			want, wantType = b64(c.algorithm, hashes)+"-4", "COMPOSITE"
		}
		in.Checksum = Checksum{Algorithm: c.algorithm, Value: b64(c.algorithm, []byte("wrong"))}
		_, err = w.CompleteUpload(ctx, in)
		code(t, err, "BadDigest")
		in.Checksum = Checksum{Algorithm: "SHA1", Value: "x"}
		if c.algorithm == "SHA1" {
			in.Checksum.Algorithm = "CRC32"
		}
		_, err = w.CompleteUpload(ctx, in)
		code(t, err, "InvalidRequest")
		wrong := in
		wrong.Checksum = Checksum{}
		wrong.Parts = append([]CompletedPart(nil), in.Parts...)
		wrong.Parts[0].Checksum.Value = "AAAA"
		_, err = w.CompleteUpload(ctx, wrong)
		code(t, err, "InvalidPart")
		in.Checksum = Checksum{Algorithm: c.algorithm, Value: want, Type: wantType}
		o, err := w.CompleteUpload(ctx, in)
		if err != nil || o.Checksum != in.Checksum {
			t.Fatalf("%v: %+v, want %+v, %v", c, o.Checksum, in.Checksum, err)
		}
		if h := w.want(key, all); h.Checksum != in.Checksum {
			t.Errorf("%+v", h.Checksum)
		}
		if p, _, err := w.read(Get{Key: key, PartNumber: 2}); err != nil || p.Checksum.Value != in.Parts[1].Checksum.Value {
			t.Errorf("part read: %+v %v", p.Checksum, err)
		}
	}
}

func TestCombineCRC(t *testing.T) {
	for _, a := range []string{"CRC32", "CRC32C", "CRC64NVME"} {
		c, ok := newCombiner(a)
		if !ok {
			t.Fatal(a)
		}
		for _, n := range [][2]int{{0, 0}, {1, 0}, {0, 1}, {1, 1}, {1000, 3}, {3, 100_003}, {4096, 65536}} {
			x, y := data(n[0], 1), data(n[1], 2)
			cx, _ := c.parse(b64(a, x))
			cy, _ := c.parse(b64(a, y))
			if got, want := c.format(c.combine(cx, cy, int64(n[1]))), b64(a, append(x, y...)); got != want {
				t.Errorf("%s %v: %s, want %s", a, n, got, want)
			}
		}
	}
	// Length beyond 32 bits: 5 GiB of zeros after one byte, in steps and at once.
	c, _ := newCombiner("CRC64NVME")
	zero := func(n int) uint64 { v, _ := c.parse(b64("CRC64NVME", make([]byte, n))); return v }
	z := zero(1 << 20)
	size := int64(1 << 20)
	for size < 5<<30 {
		z = c.combine(z, z, size)
		size *= 2
	}
	x, _ := c.parse(b64("CRC64NVME", []byte("x")))
	once, step := c.combine(x, z, size), x
	m := zero(1 << 20)
	for range size >> 20 {
		step = c.combine(step, m, 1<<20)
	}
	if once != step {
		t.Error("combining 8 GiB at once differs from doing it in steps")
	}
	if _, ok := newCombiner("SHA256"); ok {
		t.Error("SHA256 cannot be combined")
	}
}

// TestManyParts: the records of 10,000 inline parts are made as PutPart and
// CompleteUpload make them, without 50 GB of data: only the rule of 5 MiB is not asked.
func TestManyParts(t *testing.T) {
	w := newWorld(t)
	bk, l, err := w.open(ctx, "t", w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	all, err := w.manyParts(bk, l, "many", maxParts, 64)
	if err != nil {
		t.Fatal(err)
	}
	o := w.want("many", all)
	if o.PartCount != maxParts {
		t.Error(o.PartCount)
	}
	for _, n := range []int{1, 256, 257, 5000, maxParts} {
		at := int64(n-1) * 64
		o, got, err := w.read(Get{Key: "many", PartNumber: n})
		if err != nil || o.RangeStart != at || !bytes.Equal(got, all[at:at+64]) {
			t.Errorf("part %d: %+v %v", n, o, err)
		}
	}
	g := ByteRange{From: 255*64 + 3, To: 257*64 + 9}
	if _, got, err := w.read(Get{Key: "many", Range: &g}); err != nil || !bytes.Equal(got, all[g.From:g.To+1]) {
		t.Error(len(got), err)
	}
	if n := w.stored(pTable); n != (maxParts+partsPerChunk-1)/partsPerChunk {
		t.Errorf("%d chunks", n)
	}
	parts, more, err := w.Parts(ctx, w.bucket, "many", "", 9500, 1000)
	if err != nil || more || len(parts) != 500 || parts[499].Number != maxParts {
		t.Error(len(parts), more, err)
	}
	if parts, more, err = w.Parts(ctx, w.bucket, "many", "", 100, 1000); err != nil || !more || len(parts) != 1000 || parts[0].Number != 101 {
		t.Error(len(parts), more, err)
	}
	if _, err := w.Delete(ctx, Delete{Bucket: w.bucket, Key: "many"}); err != nil {
		t.Fatal(err)
	}
	w.tidy(0, 0)
	if n := w.stored(pTable); n != 0 {
		t.Errorf("%d chunks are left", n)
	}
}

// TestUploadRaces: parts, completes and aborts at once; whatever wins, nothing is lost or left.
func TestUploadRaces(t *testing.T) {
	w := newWorld(t)
	for round := range 12 {
		key := fmt.Sprint("k", round)
		u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		first := data(40_000, 1)
		p := w.putPart(u, 1, first)
		var wg sync.WaitGroup
		var mu sync.Mutex
		completed, aborted := 0, 0
		allowed := func(what string, err error, codes ...string) {
			for _, c := range codes {
				if errs.CodeOf(err) == c {
					return
				}
			}
			t.Errorf("%s: %v", what, err)
		}
		for range 2 {
			wg.Go(func() {
				if _, err := w.CompleteUpload(ctx, completion(u, p)); err == nil {
					mu.Lock()
					completed++
					mu.Unlock()
				} else {
					allowed("complete", err, "NoSuchUpload", "InvalidPart")
				}
			})
		}
		for i := range 3 {
			wg.Go(func() {
				number := 1 + i%2
				_, err := w.PutPart(ctx, PutPart{Bucket: w.bucket, Key: key, UploadID: u.ID, Number: number, Body: bytesBody(data(50_000, 9)), Size: -1})
				if err != nil {
					allowed("part", err, "NoSuchUpload")
				}
			})
		}
		if round%2 == 0 {
			wg.Go(func() {
				if err := w.AbortUpload(ctx, w.bucket, key, u.ID); err == nil {
					mu.Lock()
					aborted++
					mu.Unlock()
				} else {
					allowed("abort", err, "NoSuchUpload")
				}
			})
		}
		wg.Wait()
		if completed > 0 && aborted > 0 {
			t.Fatal("completed and aborted")
		}
		switch {
		case completed > 0:
			w.want(key, first)
			w.Delete(ctx, Delete{Bucket: w.bucket, Key: key})
		case aborted > 0:
			_, _, err := w.read(Get{Key: key})
			code(t, err, "NoSuchKey")
		default: // part 1 was replaced before the completes
			if err := w.AbortUpload(ctx, w.bucket, key, u.ID); err != nil {
				t.Fatal(err)
			}
		}
		w.tidy(0, 0)
		if n := w.stored(pPart) + w.stored(pUpload); n != 0 {
			t.Fatalf("%d records are left", n)
		}
	}
}
