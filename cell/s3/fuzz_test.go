package s3

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

// s3Error demands that every refusal be an S3 error with a status of its own.
func s3Error(t *testing.T, err error) {
	t.Helper()
	var e *apiError
	if !errors.As(err, &e) || codes[e.code].status != e.status || e.status < 400 {
		t.Fatalf("not an S3 error: %v", err)
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=A/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;range, Signature=00")
	f.Add("AWS4-HMAC-SHA256 Credential=,SignedHeaders=,Signature=")
	f.Add("AWS4-HMAC-SHA256")
	f.Fuzz(func(t *testing.T, v string) {
		s, err := parseAuthorization(v)
		if err != nil {
			s3Error(t, err)
			return
		}
		if s.value == "" || s.cred.keyID == "" || len(s.signed) == 0 {
			t.Fatalf("accepted %+v", s)
		}
	})
}

func FuzzPresign(f *testing.F) {
	f.Add("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=00")
	f.Add("X-Amz-Expires=-1&X-Amz-Expires=1")
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := parseQuery(raw)
		if err != nil {
			s3Error(t, err)
			return
		}
		s, _, err := parsePresign(p)
		if err != nil {
			s3Error(t, err)
			return
		}
		if s.expires <= 0 || s.expires.Seconds() > maxExpires {
			t.Fatalf("accepted %v", s.expires)
		}
	})
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/b/k", "//", "/b//../%2F", "/%", "/b/%zz", "/b/%ff", "", "/b/" + strings.Repeat("a", 1025)} {
		f.Add(s, "bucket.s3.example:80")
	}
	f.Fuzz(func(t *testing.T, path, host string) {
		hb := hostBucket(host, []string{"s3.example"})
		b, k, err := splitPath(path, hb)
		if err != nil {
			s3Error(t, err)
			return
		}
		if len(k) > maxKeyBytes || !utf8.ValidString(k) || hb != "" && b != hb {
			t.Fatalf("%q %q → %q %q", path, host, b, k)
		}
		if hb == "" && b != "" {
			// Encoding what was decoded names the same thing.
			again := "/" + string(appendURIEncoded(nil, b, false)) + "/" + string(appendURIEncoded(nil, k, true))
			if b2, k2, err := splitPath(again, ""); err != nil || b2 != b || k2 != k {
				t.Fatalf("%q %q → %q %q %v", b, k, b2, k2, err)
			}
		}
	})
}

func FuzzCopySource(f *testing.F) {
	for _, s := range []string{"/b/k", "bucket/k%20é?versionId=null", "bucket%2Fk+x", "arn:aws:s3:::x", "?"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		c, err := parseCopySource(v)
		if err != nil {
			s3Error(t, err)
			return
		}
		if !plausibleBucket(c.bucket) || c.key == "" || len(c.key) > maxKeyBytes || !utf8.ValidString(c.key) {
			t.Fatalf("%+v", c)
		}
	})
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5", "bytes=5-", "bytes=-0", "bytes=9-1", "bytes=1-2,3-4", "bytes=99999999999999999999-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		r, none := parseRange(v)
		if r == nil {
			return
		}
		if none || (r.Suffix > 0) == (r.From >= 0) || r.Suffix < 0 || r.To >= 0 && r.To < r.From {
			t.Fatalf("%q → %+v", v, r)
		}
	})
}

func FuzzXML(f *testing.F) {
	f.Add([]byte("<Delete><Quiet>true</Quiet><Object><Key>a</Key><VersionId>null</VersionId></Object></Delete>"))
	f.Add([]byte("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>a</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>"))
	f.Add([]byte("<AccessControlPolicy><Owner><ID>p</ID></Owner></AccessControlPolicy>"))
	f.Add([]byte("<!DOCTYPE a><Delete>&x;</Delete>"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if list, _, err := parseDelete(doc); err != nil {
			s3Error(t, err)
		} else if len(list) == 0 || len(list) > maxPage {
			t.Fatal(len(list))
		}
		if parts, err := parseComplete(doc); err != nil {
			s3Error(t, err)
		} else {
			for _, p := range parts {
				if p.Number < 1 || p.Number > maxParts || p.ETag == "" {
					t.Fatalf("%+v", p)
				}
			}
		}
		if err := checkACLDocument(doc, "p"); err != nil {
			s3Error(t, err)
		}
	})
}

// FuzzChunks feeds the chunk reader; whatever it accepts must be framed so that
// its bytes are found again in the input, and unsigned bytes never pass as signed.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("4\r\n0123\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"), true)
	f.Add([]byte("4\r\n0123\r\n0\r\n\r\n"), false)
	f.Add([]byte("4;chunk-signature="+strings.Repeat("0", 64)+"\r\n0123\r\n0\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, trailer bool) {
		for _, payload := range []string{payloadUnsignedTrailer, payloadChunks, payloadChunksTrailer} {
			c := caller{payload: payload, key: []byte("k"), seed: "s"}
			cl := claim{}
			if trailer {
				cl = claim{alg: &algorithms[0], trailer: true}
			}
			x := newChunkReader(&wireReader{q: &request{h: &Handler{}, ctl: http.NewResponseController(nil)}, r: bytes.NewReader(in), left: 1 << 30}, &c, cl)
			out, err := io.ReadAll(x)
			if err != nil {
				s3Error(t, err)
				continue
			}
			if payload != payloadUnsignedTrailer {
				t.Fatalf("a body without a valid signature was accepted: %q", in)
			}
			if len(out) > len(in) {
				t.Fatal("more came out than went in")
			}
		}
	})
}

// FuzzEscape: whatever the bytes, what is written stays inside its element.
func FuzzEscape(f *testing.F) {
	f.Add("a<b>&\"\r\x00\xff\uffff")
	f.Fuzz(func(t *testing.T, s string) {
		b := appendEscaped(nil, s)
		if bytes.ContainsAny(b, "<>\"\r") || !utf8.Valid(b) {
			t.Fatalf("%q → %q", s, b)
		}
		for _, c := range b {
			if c < ' ' && c != '\n' && c != '\t' {
				t.Fatalf("%q → %q", s, b)
			}
		}
		if utf8.ValidString(s) && encodeMeta(decodeMeta(s)) == "" && s != "" {
			t.Fatalf("%q lost", s)
		}
	})
}
