package s3load

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// fakeS3 is a server in memory with just what the driver needs. It is strict: a
// request that it does not understand fails the measurement.
type fakeS3 struct {
	mu      sync.Mutex
	buckets map[string]map[string][]byte
	puts    int
	// damage, if set, may change what a GET answers.
	damage func([]byte) []byte
	// hide is how many keys a listing leaves out.
	hide int
}

func newFake() *fakeS3 { return &fakeS3{buckets: map[string]map[string][]byte{}} }

func (f *fakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := f.serve(w, r); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func (f *fakeS3) serve(w http.ResponseWriter, r *http.Request) error {
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=ID/") {
		return fmt.Errorf("not signed: %q", r.Header.Get("Authorization"))
	}
	body, err := decodeBody(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	bucket, key, isObject := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	objects, exists := f.buckets[bucket]
	if !isObject {
		switch {
		case r.Method == http.MethodPut && !exists:
			f.buckets[bucket] = map[string][]byte{}
			return nil
		case r.Method == http.MethodDelete && exists && len(objects) == 0:
			delete(f.buckets, bucket)
			w.WriteHeader(http.StatusNoContent)
			return nil
		case r.Method == http.MethodGet && exists:
			return f.list(w, r, objects)
		}
		return fmt.Errorf("bucket request not understood: %s %s", r.Method, r.URL)
	}
	if !exists {
		return fmt.Errorf("no bucket %s", bucket)
	}
	data, found := objects[key]
	switch r.Method {
	case http.MethodPut:
		objects[key] = body
		f.puts++
		return nil
	case http.MethodDelete:
		delete(objects, key)
		w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodGet, http.MethodHead:
		if !found {
			http.Error(w, "NoSuchKey", http.StatusNotFound)
			return nil
		}
		if f.damage != nil {
			data = f.damage(bytes.Clone(data))
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, err := w.Write(data)
		return err
	}
	return fmt.Errorf("not understood: %s %s", r.Method, r.URL)
}

func (f *fakeS3) list(w io.Writer, r *http.Request, objects map[string][]byte) error {
	q := r.URL.Query()
	if canonical := strings.ReplaceAll(q.Encode(), "+", "%20"); r.URL.RawQuery != canonical {
		return fmt.Errorf("query %s is not canonical, so its signature is wrong: want %s", r.URL.RawQuery, canonical)
	}
	if q.Get("list-type") != "2" {
		return fmt.Errorf("not a version 2 listing: %s", r.URL)
	}
	limit, err := strconv.Atoi(q.Get("max-keys"))
	if err != nil {
		return err
	}
	var keys []string
	for key := range objects {
		if strings.HasPrefix(key, q.Get("prefix")) && key > q.Get("continuation-token") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if q.Get("prefix") != "" {
		keys = keys[:max(0, len(keys)-f.hide)]
	}
	type content struct{ Key string }
	page := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Contents              []content
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
	}{IsTruncated: len(keys) > limit}
	keys = keys[:min(len(keys), limit)]
	for _, key := range keys {
		page.Contents = append(page.Contents, content{key})
	}
	if page.IsTruncated {
		page.NextContinuationToken = keys[len(keys)-1]
	}
	return xml.NewEncoder(w).Encode(page)
}

// decodeBody reads a body and verifies what its mode promises.
func decodeBody(r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	switch hash := r.Header.Get("X-Amz-Content-Sha256"); hash {
	case unsignedPayload:
		return raw, nil
	case unsignedTrailer:
		return decodeTrailer(r.Header, raw)
	default:
		if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != hash {
			return nil, fmt.Errorf("wrong payload hash %s", hash)
		}
		return raw, nil
	}
}

func decodeTrailer(h http.Header, raw []byte) ([]byte, error) {
	var data []byte
	for {
		line, rest, ok := bytes.Cut(raw, []byte("\r\n"))
		if !ok {
			return nil, fmt.Errorf("chunk header without end")
		}
		n, err := strconv.ParseUint(string(line), 16, 32)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			raw = rest
			break
		}
		if uint64(len(rest)) < n+2 || string(rest[n:n+2]) != "\r\n" {
			return nil, fmt.Errorf("chunk without end")
		}
		data, raw = append(data, rest[:n]...), rest[n+2:]
	}
	want := "x-amz-checksum-crc32:" + base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(data))) + "\r\n\r\n"
	if string(raw) != want {
		return nil, fmt.Errorf("trailer %q, want %q", raw, want)
	}
	if h.Get("X-Amz-Trailer") != "x-amz-checksum-crc32" || h.Get("X-Amz-Decoded-Content-Length") != strconv.Itoa(len(data)) {
		return nil, fmt.Errorf("headers of the trailer: %v", h)
	}
	return data, nil
}
