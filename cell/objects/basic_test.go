package objects

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"chancery/internal/errs"
)

var ctx = context.Background()

func TestPutGetAllSizes(t *testing.T) {
	w := newWorld(t)
	refs, inline := 0, 0
	for _, n := range []int{0, 1, 4096, InlineMax - 1, InlineMax, InlineMax + 1, 64 << 10, 64<<10 + 1, 1 << 20, 3<<20 + 17} {
		for _, size := range []int64{int64(n), -1} {
			b := data(n, uint64(n))
			key := "size/" + strings.Repeat("k", 1+n%7) + time.Duration(n).String() + time.Duration(size).String()
			o, err := w.Put(ctx, Put{Bucket: w.bucket, Key: key, Body: bytesBody(b), Size: size, Headers: Headers{ContentType: "text/x", User: map[string]string{"a": "1", "b": "ü"}}})
			if err != nil {
				t.Fatal(n, err)
			}
			if !strings.HasSuffix(o.ETag, "-1") || len(o.ETag) != 34 {
				t.Errorf("an ETag that may be taken for an MD5: %q", o.ETag)
			}
			got := w.want(key, b)
			if got.ETag != o.ETag || got.Headers.ContentType != "text/x" || got.Headers.User["b"] != "ü" || len(got.Headers.User) != 2 ||
				got.Headers.StorageClass != "STANDARD" || got.KeyID == "" || !got.Modified.Equal(o.Modified) || got.PartCount != 0 {
				t.Errorf("%d: put said %+v, get says %+v", n, o, got)
			}
			switch {
			case n > InlineMax:
				refs++
			case n > 0:
				inline++
			}
		}
	}
	w.tidy(inline, refs)
}

func TestMD5ETag(t *testing.T) {
	w := newWorld(t)
	o, err := w.Put(ctx, Put{Bucket: w.bucket, Key: "k", Body: md5Body([]byte("hello")), Size: 5})
	if err != nil || o.ETag != "5d41402abc4b2a76b9719d911017c592" {
		t.Fatal(o.ETag, err)
	}
}

func TestOverwriteAndDeleteLeaveNothing(t *testing.T) {
	w := newWorld(t)
	sizes := []int{0, 10, 100_000, 20, 200_000, 0, 300_000}
	for i, n := range sizes {
		w.put("k", data(n, uint64(i)))
		w.want("k", data(n, uint64(i)))
	}
	w.tidy(0, 1)
	d, err := w.Delete(ctx, Delete{Bucket: w.bucket, Key: "k"})
	if err != nil || !d.Existed {
		t.Fatal(d, err)
	}
	if d, err = w.Delete(ctx, Delete{Bucket: w.bucket, Key: "k"}); err != nil || d.Existed {
		t.Fatal("a second delete", d, err)
	}
	_, _, err = w.read(Get{Key: "k"})
	code(t, err, "NoSuchKey")
	_, err = w.Head(ctx, Get{Bucket: w.bucket, Key: "k"})
	code(t, err, "NoSuchKey")
	w.tidy(0, 0)
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x", 1025)
	put := func(f func(*Put)) error {
		p := Put{Bucket: w.bucket, Key: "k", Body: bytesBody([]byte("12345")), Size: 5}
		f(&p)
		_, err := w.Put(ctx, p)
		return err
	}
	for _, c := range []struct {
		name, code string
		f          func(*Put)
	}{
		{"no bucket", "NoSuchBucket", func(p *Put) { p.Bucket = "nope" }},
		{"empty bucket", "NoSuchBucket", func(p *Put) { p.Bucket = "" }},
		{"long bucket", "NoSuchBucket", func(p *Put) { p.Bucket = long }},
		{"empty key", "InvalidURI", func(p *Put) { p.Key = "" }},
		{"bad UTF-8", "InvalidURI", func(p *Put) { p.Key = "a\xff" }},
		{"long key", "KeyTooLongError", func(p *Put) { p.Key = long }},
		{"long key in runes", "KeyTooLongError", func(p *Put) { p.Key = strings.Repeat("ü", 513) }},
		{"metadata", "MetadataTooLarge", func(p *Put) { p.Headers.User = map[string]string{"a": strings.Repeat("v", 2048)} }},
		{"headers", "RequestHeaderSectionTooLarge", func(p *Put) { p.Headers.ContentType = strings.Repeat("v", 9000) }},
		{"declared too large", "EntityTooLarge", func(p *Put) { p.Size = MaxSingle + 1 }},
		{"short", "IncompleteBody", func(p *Put) { p.Size = 6 }},
		{"overlong", "IncompleteBody", func(p *Put) { p.Size = 4 }},
		{"empty but promised", "IncompleteBody", func(p *Put) { p.Body = bytesBody(nil) }},
		{"short blob", "IncompleteBody", func(p *Put) { p.Body, p.Size = bytesBody(data(100_000, 1)), 100_001 }},
		{"overlong blob", "IncompleteBody", func(p *Put) { p.Body, p.Size = bytesBody(data(100_000, 1)), 99_999 }},
		{"vanished client", "IncompleteBody", func(p *Put) { p.Body, p.Size = &body{Reader: failing(3, io.ErrUnexpectedEOF)}, -1 }},
		{"vanished client late", "IncompleteBody", func(p *Put) { p.Body, p.Size = &body{Reader: failing(99_999, io.ErrUnexpectedEOF)}, -1 }},
		{"bad digest", "BadDigest", func(p *Put) {
			p.Body = &body{Reader: strings.NewReader("12345"), err: errs.Coded(errs.Invalid, "t", "BadDigest", "x")}
		}},
		{"bad digest late", "BadDigest", func(p *Put) {
			p.Body, p.Size = &body{Reader: failing(99_999, io.EOF), err: errs.Coded(errs.Invalid, "t", "BadDigest", "x")}, -1
		}},
		{"bad chunk", "SignatureDoesNotMatch", func(p *Put) {
			p.Body, p.Size = &body{Reader: failing(99_999, errs.Coded(errs.Denied, "t", "SignatureDoesNotMatch", "x"))}, -1
		}},
		{"no body", "InvalidArgument", func(p *Put) { p.Body = nil }},
	} {
		t.Run(c.name, func(t *testing.T) { code(t, put(c.f), c.code) })
	}
	kind(t, put(func(p *Put) { p.Body, p.Size = &body{Reader: failing(9, errBoom)}, -1 }), errs.Invalid)
	kind(t, put(func(p *Put) { p.Body, p.Size = &body{Reader: failing(99_999, errBoom)}, -1 }), errs.Invalid)
	// What is just allowed.
	for _, f := range []func(*Put){
		func(p *Put) { p.Key = strings.Repeat("x", 1024) },
		func(p *Put) { p.Headers.User = map[string]string{"a": strings.Repeat("v", 2047)} },
		func(p *Put) { p.Key = "../../etc//passwd/./\x00\u2028" },
	} {
		if err := put(f); err != nil {
			t.Error(err)
		}
	}
	if n := w.stored(pObject); n != 3 {
		t.Errorf("%d objects, want 3: a refused put left something", n)
	}
	w.tidy(3, 0)
}

func TestZeroEngineRefuses(t *testing.T) {
	var e *Engine
	for _, e := range []*Engine{e, {}} {
		_, err := e.Put(ctx, Put{Bucket: "b", Key: "k", Body: bytesBody(nil)})
		kind(t, err, errs.Unavailable)
		_, err = e.List(ctx, List{Bucket: "b", Max: 1})
		kind(t, err, errs.Unavailable)
		_, err = e.CreateProject(ctx, "p")
		kind(t, err, errs.Unavailable)
		kind(t, e.DeleteBucket(ctx, "bbb"), errs.Unavailable)
	}
	if _, err := New(ctx, Options{}); !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

func TestRanges(t *testing.T) {
	w := newWorld(t)
	for _, n := range []int{1000, 200_000} {
		b := data(n, 9)
		w.put("k", b)
		N := int64(n)
		for _, c := range []struct {
			g          ByteRange
			start, len int64
		}{
			{ByteRange{From: 0, To: 0}, 0, 1},
			{ByteRange{From: 0, To: -1}, 0, N},
			{ByteRange{From: 5, To: 99}, 5, 95},
			{ByteRange{From: N - 1, To: -1}, N - 1, 1},
			{ByteRange{From: N - 10, To: N + 50}, N - 10, 10},
			{ByteRange{Suffix: 7}, N - 7, 7},
			{ByteRange{Suffix: N + 7}, 0, N},
			{ByteRange{From: N / 2, To: N/2 + N/4}, N / 2, N/4 + 1},
		} {
			o, got, err := w.read(Get{Key: "k", Range: &c.g})
			if err != nil || o.RangeStart != c.start || o.RangeLength != c.len || !o.Partial || string(got) != string(b[c.start:c.start+c.len]) {
				t.Errorf("%+v of %d: start %d length %d, %d bytes, %v", c.g, n, o.RangeStart, o.RangeLength, len(got), err)
			}
			h, err := w.Head(ctx, Get{Bucket: w.bucket, Key: "k", Range: &c.g})
			if err != nil || h.RangeStart != c.start || h.RangeLength != c.len {
				t.Errorf("head %+v: %+v %v", c.g, h, err)
			}
		}
		for _, g := range []ByteRange{{From: N, To: -1}, {From: N + 5, To: N + 9}} {
			o, _, err := w.read(Get{Key: "k", Range: &g})
			code(t, err, "InvalidRange")
			if o.Size != N {
				t.Error("InvalidRange without the actual size")
			}
		}
		_, _, err := w.read(Get{Key: "k", Range: &ByteRange{From: 5, To: 4}})
		code(t, err, "InvalidArgument")
		_, _, err = w.read(Get{Key: "k", Range: &ByteRange{From: 0, To: 4}, PartNumber: 1})
		code(t, err, "InvalidRequest")
		o, got, err := w.read(Get{Key: "k", PartNumber: 1})
		if err != nil || !o.Partial || string(got) != string(b) || o.PartCount != 0 {
			t.Error("part 1 of a single put", o, err)
		}
		_, _, err = w.read(Get{Key: "k", PartNumber: 2})
		code(t, err, "InvalidPartNumber")
		_, _, err = w.read(Get{Key: "k", PartNumber: 10001})
		code(t, err, "InvalidArgument")
	}
	w.put("empty", nil)
	_, _, err := w.read(Get{Key: "empty", Range: &ByteRange{From: 0, To: 0}})
	code(t, err, "InvalidRange")
	_, _, err = w.read(Get{Key: "empty", Range: &ByteRange{Suffix: 1}})
	code(t, err, "InvalidRange")
	_, _, err = w.read(Get{Key: "k", VersionID: "3HL4kqtJvjVBH40Nrjfkd"})
	code(t, err, "NoSuchVersion")
	if _, _, err = w.read(Get{Key: "empty", VersionID: "null"}); err != nil {
		t.Error(err)
	}
}

func TestReadConditions(t *testing.T) {
	w := newWorld(t)
	o := w.put("k", []byte("x"))
	before, at, after := o.Modified.Add(-time.Hour), o.Modified.Truncate(time.Second), o.Modified.Add(time.Hour)
	for _, c := range []struct {
		c    Conditions
		code string
	}{
		{Conditions{IfMatch: o.ETag}, ""},
		{Conditions{IfMatch: "*"}, ""},
		{Conditions{IfMatch: `"` + o.ETag + `"`}, ""},
		{Conditions{IfMatch: "other, " + o.ETag}, ""},
		{Conditions{IfMatch: "W/" + o.ETag}, "PreconditionFailed"},
		{Conditions{IfMatch: "other"}, "PreconditionFailed"},
		{Conditions{IfUnmodifiedSince: before}, "PreconditionFailed"},
		{Conditions{IfUnmodifiedSince: at}, ""},
		{Conditions{IfUnmodifiedSince: after}, ""},
		{Conditions{IfMatch: o.ETag, IfUnmodifiedSince: before}, ""},
		{Conditions{IfMatch: "other", IfUnmodifiedSince: after}, "PreconditionFailed"},
		{Conditions{IfNoneMatch: o.ETag}, "NotModified"},
		{Conditions{IfNoneMatch: "W/" + o.ETag}, "NotModified"},
		{Conditions{IfNoneMatch: "*"}, "NotModified"},
		{Conditions{IfNoneMatch: "other"}, ""},
		{Conditions{IfModifiedSince: before}, ""},
		{Conditions{IfModifiedSince: at}, "NotModified"},
		{Conditions{IfModifiedSince: after}, "NotModified"},
		{Conditions{IfNoneMatch: "other", IfModifiedSince: after}, ""},
		{Conditions{IfNoneMatch: o.ETag, IfModifiedSince: before}, "NotModified"},
		{Conditions{IfMatch: "other", IfNoneMatch: o.ETag}, "PreconditionFailed"},
	} {
		got, _, err := w.read(Get{Key: "k", Conditions: c.c})
		if errs.CodeOf(err) != c.code || c.code == "" && err != nil {
			t.Errorf("get %+v: %v", c.c, err)
		}
		if got.ETag != o.ETag {
			t.Errorf("get %+v: no object beside the verdict", c.c)
		}
		if _, err = w.Head(ctx, Get{Bucket: w.bucket, Key: "k", Conditions: c.c}); errs.CodeOf(err) != c.code {
			t.Errorf("head %+v: %v", c.c, err)
		}
	}
}

func TestWriteConditions(t *testing.T) {
	w := newWorld(t)
	put := func(c Conditions) (Object, error) {
		return w.Put(ctx, Put{Bucket: w.bucket, Key: "k", Body: bytesBody([]byte("x")), Size: 1, Conditions: c})
	}
	_, err := put(Conditions{IfMatch: "abc"})
	code(t, err, "NoSuchKey")
	o, err := put(Conditions{IfNoneMatch: "*"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = put(Conditions{IfNoneMatch: "*"})
	code(t, err, "PreconditionFailed")
	_, err = put(Conditions{IfMatch: "abc"})
	code(t, err, "PreconditionFailed")
	o2, err := put(Conditions{IfMatch: o.ETag})
	if err != nil {
		t.Fatal(err)
	}
	_, err = put(Conditions{IfMatch: o.ETag})
	code(t, err, "PreconditionFailed")
	_, err = w.Delete(ctx, Delete{Bucket: w.bucket, Key: "k", Conditions: Conditions{IfMatch: o.ETag}})
	code(t, err, "PreconditionFailed")
	if _, err = w.Delete(ctx, Delete{Bucket: w.bucket, Key: "k", Conditions: Conditions{IfMatch: o2.ETag}}); err != nil {
		t.Fatal(err)
	}
	_, err = w.Delete(ctx, Delete{Bucket: w.bucket, Key: "k", Conditions: Conditions{IfMatch: o2.ETag}})
	code(t, err, "NoSuchKey")
	_, err = w.Delete(ctx, Delete{Bucket: w.bucket, Key: "k", VersionID: "v"})
	code(t, err, "NoSuchVersion")
}

// deletingBody deletes the object while it is being overwritten.
type deletingBody struct {
	*body
	f func()
}

func (d deletingBody) Finish() (Sums, error) { d.f(); return d.body.Finish() }

func TestConditionalConflict(t *testing.T) {
	w := newWorld(t)
	o := w.put("k", []byte("x"))
	_, err := w.Put(ctx, Put{Bucket: w.bucket, Key: "k", Size: 1, Conditions: Conditions{IfMatch: o.ETag},
		Body: deletingBody{bytesBody([]byte("y")), func() { w.Delete(ctx, Delete{Bucket: w.bucket, Key: "k"}) }}})
	code(t, err, "ConditionalRequestConflict")
	_, err = w.Put(ctx, Put{Bucket: w.bucket, Key: "k", Size: 1, Conditions: Conditions{IfNoneMatch: "*"},
		Body: deletingBody{bytesBody([]byte("y")), func() { w.put("k", []byte("z")) }}})
	code(t, err, "PreconditionFailed")
	w.want("k", []byte("z"))
}
