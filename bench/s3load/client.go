package s3load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Target is a server to measure.
type Target struct {
	// Name is what the report calls it.
	Name string
	// Endpoint is its URL, "https://host:port". Plain http works too; the report says so.
	Endpoint string
	Credentials
	// Roots are the CAs to trust; nil is the system's.
	Roots *x509.CertPool
	// PIDs returns the server's processes now; nil if they cannot be seen from here (then no CPU is reported).
	PIDs func() ([]int, error)
}

// client speaks the few requests of S3 that a load needs, over connections that
// it keeps. It holds no state of a request, so that its own cost stays small.
type client struct {
	endpoint string
	http     *http.Client
	sign     *signer
}

func newClient(t Target, connections int) (*client, error) {
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("s3load: endpoint %q: want https://host:port", t.Endpoint)
	}
	if t.AccessKeyID == "" || t.Secret == "" || t.Region == "" {
		return nil, fmt.Errorf("s3load: target %s: access key, secret and region are needed", t.Name)
	}
	return &client{
		endpoint: u.Scheme + "://" + u.Host,
		sign:     &signer{creds: t.Credentials},
		http: &http.Client{Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: t.Roots, MinVersion: tls.VersionTLS12},
			TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1, as S3 clients speak it
			MaxIdleConnsPerHost: connections,
			MaxConnsPerHost:     connections,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
			WriteBufferSize:     64 << 10,
			ReadBufferSize:      64 << 10,
		}},
	}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// statusError is an answer other than the one wanted.
type statusError struct {
	method, path, status, body string
	code                       int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("s3load: %s %s: %s: %s", e.method, e.path, e.status, e.body)
}

// do sends a request and returns the answer if its status is 2xx. The caller closes the body.
func (c *client) do(ctx context.Context, method, path, query string, body io.Reader, length int64, payload string, header http.Header) (*http.Response, error) {
	target := c.endpoint + path
	if query != "" {
		target += "?" + query
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = length
	for name, values := range header {
		req.Header[name] = values
	}
	c.sign.sign(req, payload, time.Now())
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // best effort: it only explains
		return nil, &statusError{method: method, path: path, status: resp.Status, code: resp.StatusCode, body: string(text)}
	}
	return resp, nil
}

// drain does a request whose answer has no body that matters.
func (c *client) drain(ctx context.Context, method, path, query string) error {
	resp, err := c.do(ctx, method, path, query, nil, 0, unsignedPayload, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return err
}

func (c *client) createBucket(ctx context.Context, bucket string) error {
	return c.drain(ctx, http.MethodPut, "/"+bucket, "")
}

func (c *client) deleteBucket(ctx context.Context, bucket string) error {
	return c.drain(ctx, http.MethodDelete, "/"+bucket, "")
}

func (c *client) head(ctx context.Context, bucket, key string) error {
	return c.drain(ctx, http.MethodHead, "/"+bucket+"/"+key, "")
}

func (c *client) delete(ctx context.Context, bucket, key string) error {
	return c.drain(ctx, http.MethodDelete, "/"+bucket+"/"+key, "")
}

// put uploads a payload.
func (c *client) put(ctx context.Context, bucket, key string, p *payload) error {
	body, length, hash, header := p.request()
	resp, err := c.do(ctx, http.MethodPut, "/"+bucket+"/"+key, "", body, length, hash, header)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return err
}

// get downloads and compares every byte with what was uploaded; scratch is where it reads to.
func (c *client) get(ctx context.Context, bucket, key string, want, scratch []byte) error {
	resp, err := c.do(ctx, http.MethodGet, "/"+bucket+"/"+key, "", nil, 0, unsignedPayload, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	at := 0
	for {
		n, err := resp.Body.Read(scratch)
		if at+n > len(want) || !bytes.Equal(scratch[:n], want[at:at+n]) {
			return fmt.Errorf("s3load: GET %s/%s: wrong bytes after offset %d", bucket, key, at)
		}
		at += n
		if err == io.EOF {
			if at != len(want) {
				return fmt.Errorf("s3load: GET %s/%s: %d bytes, want %d", bucket, key, at, len(want))
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("s3load: GET %s/%s: %w", bucket, key, err)
		}
	}
}

// list reads one page of at most 1,000 keys and returns the keys, and the
// continuation token of the next page, empty after the last.
func (c *client) list(ctx context.Context, bucket, prefix, token string) ([]string, string, error) {
	// The canonical query of SigV4: sorted by name, and escaped as url.QueryEscape does but for the space.
	query := ""
	if token != "" {
		query = "continuation-token=" + escape(token) + "&"
	}
	query += "list-type=2&max-keys=" + strconv.Itoa(listPage) + "&prefix=" + escape(prefix)
	resp, err := c.do(ctx, http.MethodGet, "/"+bucket, query, nil, 0, unsignedPayload, nil)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	var page struct {
		Contents              []struct{ Key string }
		IsTruncated           bool
		NextContinuationToken string
	}
	if err := xml.NewDecoder(resp.Body).Decode(&page); err != nil {
		return nil, "", fmt.Errorf("s3load: list %s: %w", bucket, err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil { // so that the connection can be used again
		return nil, "", err
	}
	keys := make([]string, len(page.Contents))
	for i, o := range page.Contents {
		keys[i] = o.Key
	}
	if page.IsTruncated && page.NextContinuationToken == "" {
		return nil, "", fmt.Errorf("s3load: list %s: cut short without a token", bucket)
	}
	return keys, page.NextContinuationToken, nil
}

const listPage = 1000

func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
