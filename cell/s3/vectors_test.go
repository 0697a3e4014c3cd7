package s3

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"chancery/cell/identity"
	"chancery/cell/objects"
)

// The examples of the S3 API reference ("Signature Calculations for the
// Authorization Header", "…Transferring Payload in Multiple Chunks", "…Including
// Trailing Headers", "Authenticating Requests: Using Query Parameters").
const (
	docKey    = "AKIAIOSFODNN7EXAMPLE"
	docSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" //nolint:gosec // AWS's documented example
)

var docTime = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)

func docHandler(t *testing.T) (http.Handler, *memory) {
	t.Helper()
	m := newMemory()
	m.now = func() time.Time { return docTime }
	h := New(Options{
		Objects: m, Policy: ownProject{}, Region: "us-east-1", Domains: []string{"s3.amazonaws.com"},
		Keys: fixedKeys{docKey: identity.AccessKey{ID: docKey, Secret: docSecret, Project: "p1", User: "u"}},
		Now:  func() time.Time { return docTime },
	})
	m.buckets["examplebucket"] = mustBucket(m)
	return h, m
}

func docAuth(signed, sig string) string {
	return "AWS4-HMAC-SHA256 Credential=" + docKey + "/20130524/us-east-1/s3/aws4_request,SignedHeaders=" + signed + ",Signature=" + sig
}

func TestDocumentedHeaderSignatures(t *testing.T) {
	h, m := docHandler(t)
	m.objects["examplebucket"]["test.txt"] = &stored{data: []byte("0123456789abcdef"), obj: m.keep("examplebucket", "test.txt", m.lastIn.Headers, []byte("0123456789abcdef"), "e", objects.Checksum{}, nil).obj}
	const empty = emptySHA256
	tests := []struct {
		name, method, target, body string
		headers                    map[string]string
		status                     int
	}{
		{"get with range", "GET", "/test.txt", "", map[string]string{
			"Range": "bytes=0-9", "X-Amz-Content-Sha256": empty,
			"Authorization": docAuth("host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
		}, 206},
		{"put", "PUT", "/test$file.text", "Welcome to Amazon S3.", map[string]string{
			"Date": "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class": "REDUCED_REDUNDANCY",
			"X-Amz-Content-Sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
			"Authorization":        docAuth("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
		}, 200},
		{"bucket lifecycle", "GET", "/?lifecycle", "", map[string]string{
			"X-Amz-Content-Sha256": empty,
			"Authorization":        docAuth("host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
		}, 404},
		{"list", "GET", "/?max-keys=2&prefix=J", "", map[string]string{
			"X-Amz-Content-Sha256": empty,
			"Authorization":        docAuth("host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
		}, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, flip := range []bool{false, true} {
				r := httptest.NewRequest(tt.method, "http://examplebucket.s3.amazonaws.com"+tt.target, strings.NewReader(tt.body))
				r.RequestURI = tt.target
				r.Header.Set("X-Amz-Date", "20130524T000000Z")
				for k, v := range tt.headers {
					r.Header.Set(k, v)
				}
				want := tt.status
				if flip {
					a := r.Header.Get("Authorization")
					last := byte('0')
					if a[len(a)-1] == '0' {
						last = '1'
					}
					r.Header.Set("Authorization", a[:len(a)-1]+string(last))
					want = 403
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != want {
					t.Errorf("flipped %v: status %d, want %d\n%s", flip, w.Code, want, w.Body)
				}
			}
		})
	}
}

func TestDocumentedPresignedURL(t *testing.T) {
	h, m := docHandler(t)
	m.keep("examplebucket", "test.txt", m.lastIn.Headers, []byte("hello"), "e", objects.Checksum{}, nil)
	const target = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request" +
		"&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
	for _, tt := range []struct {
		target string
		status int
	}{
		{target, 200},
		{strings.Replace(target, "Expires=86400", "Expires=86401", 1), 403},
		{strings.Replace(target, "test.txt", "test.tx", 1), 403},
		{strings.Replace(target, "Expires=86400", "Expires=604801", 1), 400},
		{strings.Replace(target, "us-east-1", "eu-west-1", 1), 400},
		{target + "&versionId=null", 403},
	} {
		r := httptest.NewRequest("GET", "http://examplebucket.s3.amazonaws.com"+tt.target, nil)
		r.RequestURI = tt.target
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%s: status %d, want %d\n%s", tt.target, w.Code, tt.status, w.Body)
		}
	}
}

// chunk frames one signed chunk.
func chunk(data []byte, sig string) []byte {
	var b bytes.Buffer
	b.WriteString(strings.ToLower(hexOf(len(data))) + ";chunk-signature=" + sig + "\r\n")
	b.Write(data)
	if len(data) > 0 {
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

const (
	docChunk1 = "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"
	docChunk2 = "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"
	docChunk3 = "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"
)

func docChunked(h http.Handler, body []byte, trailer bool) *httptest.ResponseRecorder {
	r := httptest.NewRequest("PUT", "http://s3.amazonaws.com/examplebucket/chunkObject.txt", bytes.NewReader(body))
	r.RequestURI = "/examplebucket/chunkObject.txt"
	r.Header.Set("X-Amz-Date", "20130524T000000Z")
	r.Header.Set("X-Amz-Storage-Class", "REDUCED_REDUNDANCY")
	r.Header.Set("X-Amz-Content-Sha256", payloadChunks)
	r.Header.Set("Content-Encoding", "aws-chunked")
	r.Header.Set("X-Amz-Decoded-Content-Length", "66560")
	r.ContentLength = 66824
	r.Header.Set("Content-Length", "66824")
	r.Header.Set("Authorization", docAuth("content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
		"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"))
	if trailer {
		r.ContentLength = -1
		r.Header.Del("Content-Length")
		r.Header.Set("X-Amz-Content-Sha256", payloadChunksTrailer)
		r.Header.Set("X-Amz-Trailer", "x-amz-checksum-crc32c")
		r.Header.Set("Authorization", docAuth("content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer",
			"106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"))
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestDocumentedChunks(t *testing.T) {
	h, m := docHandler(t)
	a := bytes.Repeat([]byte("a"), 65536)
	good := slicesConcat(chunk(a, docChunk1), chunk(a[:1024], docChunk2), chunk(nil, docChunk3), []byte("\r\n"))
	if w := docChunked(h, good, false); w.Code != 200 {
		t.Fatalf("status %d\n%s", w.Code, w.Body)
	}
	if s := m.objects["examplebucket"]["chunkObject.txt"]; len(s.data) != 66560 || s.obj.Headers.ContentEncoding != "" {
		t.Errorf("stored %d bytes, encoding %q", len(s.data), s.obj.Headers.ContentEncoding)
	}
	delete(m.objects["examplebucket"], "chunkObject.txt")
	flipped := bytes.Clone(good)
	flipped[1000] ^= 1
	extra := append(bytes.Clone(good), 'x')
	bad := map[string]struct {
		body []byte
		code string
	}{
		"a flipped byte":           {flipped, "SignatureDoesNotMatch"},
		"cut in a chunk":           {good[:40000], "IncompleteBody"},
		"cut before the last":      {good[:len(good)-88], "IncompleteBody"},
		"bytes after the end":      {extra, "IncompleteBody"},
		"first chunk twice":        {slicesConcat(chunk(a, docChunk1), chunk(a[:1024], docChunk1), chunk(nil, docChunk3)), "SignatureDoesNotMatch"},
		"last chunk's signature":   {slicesConcat(chunk(a, docChunk1), chunk(a[:1024], docChunk2), chunk(nil, docChunk1), []byte("\r\n")), "SignatureDoesNotMatch"},
		"a chunk left out":         {slicesConcat(chunk(a, docChunk1), chunk(nil, docChunk3), []byte("\r\n")), "SignatureDoesNotMatch"},
		"no signature":             {[]byte("10000\r\n" + string(a) + "\r\n0\r\n\r\n"), "IncompleteBody"},
		"a negative size":          {[]byte("-1;chunk-signature=" + docChunk1 + "\r\n"), "IncompleteBody"},
		"an endless chunk header":  {bytes.Repeat([]byte("0"), 1<<20), "IncompleteBody"},
		"a size beyond any upload": {[]byte("ffffffffffffffff;chunk-signature=" + docChunk1 + "\r\n"), "IncompleteBody"},
	}
	for name, b := range bad {
		w := docChunked(h, b.body, false)
		if !strings.Contains(w.Body.String(), "<Code>"+b.code+"</Code>") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if m.objects["examplebucket"]["chunkObject.txt"] != nil {
			t.Fatalf("%s: something was kept", name)
		}
	}
}

func TestDocumentedTrailer(t *testing.T) {
	h, m := docHandler(t)
	a := bytes.Repeat([]byte("a"), 65536)
	data := slicesConcat(chunk(a, "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"),
		chunk(a[:1024], "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"),
		chunk(nil, "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992"))
	const sig = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"
	sum := "x-amz-checksum-crc32c:sOO8/Q==\r\n"
	for name, tt := range map[string]struct{ trailer, code string }{
		"good":                  {sum + "x-amz-trailer-signature:" + sig + "\r\n\r\n", ""},
		"good, bare newline":    {"x-amz-checksum-crc32c:sOO8/Q==\n\r\nx-amz-trailer-signature:" + sig + "\r\n\r\n", ""},
		"wrong sum":             {"x-amz-checksum-crc32c:sOO8/A==\r\nx-amz-trailer-signature:" + sig + "\r\n\r\n", "SignatureDoesNotMatch"},
		"no signature":          {sum + "\r\n", "SignatureDoesNotMatch"},
		"signature of other":    {sum + "x-amz-trailer-signature:" + docChunk1 + "\r\n\r\n", "SignatureDoesNotMatch"},
		"not announced":         {"x-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:" + sig + "\r\n\r\n", "MalformedTrailerError"},
		"missing":               {"x-amz-trailer-signature:" + sig + "\r\n\r\n", "MalformedTrailerError"},
		"twice":                 {sum + sum + "x-amz-trailer-signature:" + sig + "\r\n\r\n", "MalformedTrailerError"},
		"too long":              {"x-amz-checksum-crc32c:" + strings.Repeat("A", 5000) + "\r\n\r\n", "IncompleteBody"},
		"nothing after the end": {"", "MalformedTrailerError"},
		"bytes after the end":   {sum + "x-amz-trailer-signature:" + sig + "\r\n\r\nGET", "IncompleteBody"},
	} {
		delete(m.objects["examplebucket"], "chunkObject.txt")
		w := docChunked(h, append(bytes.Clone(data), tt.trailer...), true)
		kept := m.objects["examplebucket"]["chunkObject.txt"]
		if tt.code == "" {
			if w.Code != 200 || kept == nil || kept.obj.Checksum.Value != "sOO8/Q==" || w.Header().Get("X-Amz-Checksum-Crc32c") != "sOO8/Q==" {
				t.Errorf("%s: %d %v %s", name, w.Code, w.Header(), w.Body)
			}
			continue
		}
		if !strings.Contains(w.Body.String(), "<Code>"+tt.code+"</Code>") || kept != nil {
			t.Errorf("%s: %d kept %v %s", name, w.Code, kept != nil, w.Body)
		}
	}
}

var _ io.Reader = (*chunkReader)(nil)
