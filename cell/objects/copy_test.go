package objects

import (
	"bytes"
	"testing"
	"time"
)

func TestCopy(t *testing.T) {
	w := newWorld(t)
	if _, err := w.CreateBucket(ctx, CreateBucket{Name: "bucket-b", ProjectID: w.p.ID}); err != nil {
		t.Fatal(err)
	}
	b := data(100_000, 1)
	bd := md5Body(b)
	bd.sums.Checksum = Checksum{Algorithm: "CRC32", Value: b64("CRC32", b), Type: "FULL_OBJECT"}
	src, err := w.Put(ctx, Put{Bucket: w.bucket, Key: "src", Body: bd, Size: -1, Headers: Headers{ContentType: "a/b", User: map[string]string{"x": "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	from := Get{Bucket: w.bucket, Key: "src"}
	same := func(o Object, ct string) {
		t.Helper()
		g, got, err := w.read(Get{Bucket: o.Bucket, Key: o.Key})
		if err != nil || !bytes.Equal(got, b) || g.Headers.ContentType != ct || g.ETag != o.ETag || g.Checksum != o.Checksum {
			t.Fatalf("%+v %v", g, err)
		}
	}
	o, err := w.Copy(ctx, Copy{Source: from, Bucket: "bucket-b", Key: "dst"})
	if err != nil || o.ETag != src.ETag || o.Checksum != src.Checksum || o.Headers.User["x"] != "1" {
		t.Fatal(o, err)
	}
	same(o, "a/b")
	if o, err = w.Copy(ctx, Copy{Source: from, Bucket: "bucket-b", Key: "dst", Replace: true, Headers: Headers{ContentType: "c/d"}, ChecksumAlgorithm: "SHA256"}); err != nil || len(o.Headers.User) != 0 || o.Checksum != (Checksum{"SHA256", b64("SHA256", b), "FULL_OBJECT"}) {
		t.Fatal(o, err)
	}
	same(o, "c/d")
	// Onto itself.
	_, err = w.Copy(ctx, Copy{Source: from, Bucket: w.bucket, Key: "src"})
	code(t, err, "InvalidRequest")
	_, err = w.Copy(ctx, Copy{Source: from, Bucket: w.bucket, Key: "src", Headers: Headers{StorageClass: "STANDARD"}})
	code(t, err, "InvalidRequest")
	if o, err = w.Copy(ctx, Copy{Source: from, Bucket: w.bucket, Key: "src", Headers: Headers{StorageClass: "STANDARD_IA"}}); err != nil || o.Headers.StorageClass != "STANDARD_IA" || o.Headers.ContentType != "a/b" {
		t.Fatal(o, err)
	}
	if o, err = w.Copy(ctx, Copy{Source: from, Bucket: w.bucket, Key: "src", Replace: true, Headers: Headers{ContentType: "e/f"}}); err != nil {
		t.Fatal(o, err)
	}
	same(o, "e/f")
	// A multipart object becomes a single one; its composite checksum a whole one.
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "multi", ChecksumAlgorithm: "SHA256"})
	if err != nil {
		t.Fatal(err)
	}
	p1, p2 := w.putPart(u, 1, data(MinPart, 7)), w.putPart(u, 2, b)
	if _, err := w.CompleteUpload(ctx, completion(u, p1, p2)); err != nil {
		t.Fatal(err)
	}
	all := append(data(MinPart, 7), b...)
	o, err = w.Copy(ctx, Copy{Source: Get{Bucket: w.bucket, Key: "multi"}, Bucket: w.bucket, Key: "single"})
	if err != nil || o.PartCount != 0 || o.Checksum != (Checksum{"SHA256", b64("SHA256", all), "FULL_OBJECT"}) {
		t.Fatal(o, err)
	}
	if g := w.want("single", all); g.PartCount != 0 {
		t.Error(g)
	}
	// Refusals.
	later := src.Modified.Add(time.Hour)
	for _, c := range []struct {
		code string
		in   Copy
	}{
		{"NoSuchKey", Copy{Source: Get{Bucket: w.bucket, Key: "nope"}, Bucket: w.bucket, Key: "x"}},
		{"NoSuchBucket", Copy{Source: Get{Bucket: "nope", Key: "nope"}, Bucket: w.bucket, Key: "x"}},
		{"NoSuchBucket", Copy{Source: from, Bucket: "nope", Key: "x"}},
		{"KeyTooLongError", Copy{Source: from, Bucket: w.bucket, Key: string(make([]byte, 1025))}},
		{"PreconditionFailed", Copy{Source: Get{Bucket: w.bucket, Key: "src", Conditions: Conditions{IfMatch: "x"}}, Bucket: w.bucket, Key: "x"}},
		{"PreconditionFailed", Copy{Source: Get{Bucket: w.bucket, Key: "src", Conditions: Conditions{IfModifiedSince: later}}, Bucket: w.bucket, Key: "x"}},
		{"PreconditionFailed", Copy{Source: from, Bucket: w.bucket, Key: "multi", Conditions: Conditions{IfNoneMatch: "*"}}},
		{"InvalidRequest", Copy{Source: from, Bucket: w.bucket, Key: "x", ChecksumAlgorithm: "MD4"}},
		{"InvalidRequest", Copy{Source: Get{Bucket: w.bucket, Key: "src", Range: &ByteRange{From: 0, To: 1}}, Bucket: w.bucket, Key: "x"}},
		{"NoSuchVersion", Copy{Source: Get{Bucket: w.bucket, Key: "src", VersionID: "v"}, Bucket: w.bucket, Key: "x"}},
	} {
		_, err := w.Copy(ctx, c.in)
		code(t, err, c.code)
	}
	_, err = w.Head(ctx, Get{Bucket: w.bucket, Key: "x"})
	code(t, err, "NoSuchKey")
}

func TestCopyPart(t *testing.T) {
	w := newWorld(t)
	b := data(MinPart+1000, 1)
	w.put("src", b)
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "dst", ChecksumAlgorithm: "CRC64NVME"})
	if err != nil {
		t.Fatal(err)
	}
	in := CopyPart{Source: Get{Bucket: w.bucket, Key: "src"}, Bucket: w.bucket, Key: "dst", UploadID: u.ID, Number: 1}
	p1, err := w.CopyPart(ctx, in)
	if err != nil || p1.Size != int64(len(b)) || p1.Checksum.Value != b64("CRC64NVME", b) {
		t.Fatal(p1, err)
	}
	in.Number, in.Source.Range = 2, &ByteRange{From: 10, To: 99}
	p2, err := w.CopyPart(ctx, in)
	if err != nil || p2.Size != 90 {
		t.Fatal(p2, err)
	}
	for _, g := range []ByteRange{{From: 10, To: int64(len(b))}, {From: 10, To: -1}} {
		in.Source.Range = &g
		_, err = w.CopyPart(ctx, in)
		code(t, err, "InvalidArgument")
	}
	in.Source.Range = nil
	in.Number = 0
	_, err = w.CopyPart(ctx, in)
	code(t, err, "InvalidArgument")
	in.Number, in.UploadID = 1, "nope"
	_, err = w.CopyPart(ctx, in)
	code(t, err, "NoSuchUpload")
	all := append(bytes.Clone(b), b[10:100]...)
	o, err := w.CompleteUpload(ctx, completion(u, p1, p2))
	if err != nil || o.Checksum != (Checksum{"CRC64NVME", b64("CRC64NVME", all), "FULL_OBJECT"}) {
		t.Fatal(o, err)
	}
	w.want("dst", all)
}
