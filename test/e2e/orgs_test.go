package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/signer"

	"chancery/test/harness"
)

// verb is one operation of S3 on a bucket, as bytes on the wire.
type verb struct {
	name, method, query, body string
	object                    bool // on an object of the bucket
	header                    map[string]string
}

// verbs are all that the wire protocol knows. SOURCE in a header is the bucket and object tried.
var verbs = []verb{
	{name: "HeadBucket", method: "HEAD"},
	{name: "ListObjects", method: "GET"},
	{name: "ListObjectsV2", method: "GET", query: "list-type=2"},
	{name: "ListObjectVersions", method: "GET", query: "versions"},
	{name: "ListMultipartUploads", method: "GET", query: "uploads"},
	{name: "GetBucketLocation", method: "GET", query: "location"},
	{name: "GetBucketVersioning", method: "GET", query: "versioning"},
	{name: "GetBucketEncryption", method: "GET", query: "encryption"},
	{name: "GetBucketAcl", method: "GET", query: "acl"},
	{name: "GetBucketPolicy", method: "GET", query: "policy"},
	{name: "GetBucketTagging", method: "GET", query: "tagging"},
	{name: "GetBucketLifecycle", method: "GET", query: "lifecycle"},
	{name: "PutBucketAcl", method: "PUT", query: "acl", header: map[string]string{"X-Amz-Acl": "private"}},
	{name: "DeleteBucket", method: "DELETE"},
	{name: "DeleteObjects", method: "POST", query: "delete", body: `<Delete><Object><Key>secret</Key></Object></Delete>`},
	{name: "GetObject", method: "GET", object: true},
	{name: "GetObject range", method: "GET", object: true, header: map[string]string{"Range": "bytes=0-3"}},
	{name: "HeadObject", method: "HEAD", object: true},
	{name: "GetObjectAttributes", method: "GET", query: "attributes", object: true, header: map[string]string{"X-Amz-Object-Attributes": "ETag,ObjectSize"}},
	{name: "GetObjectAcl", method: "GET", query: "acl", object: true},
	{name: "GetObjectTagging", method: "GET", query: "tagging", object: true},
	{name: "PutObject", method: "PUT", object: true, body: "overwritten"},
	{name: "PutObjectAcl", method: "PUT", query: "acl", object: true, header: map[string]string{"X-Amz-Acl": "private"}},
	{name: "CopyObject onto itself", method: "PUT", object: true, header: map[string]string{"X-Amz-Copy-Source": "SOURCE", "X-Amz-Metadata-Directive": "REPLACE"}},
	{name: "DeleteObject", method: "DELETE", object: true},
	{name: "CreateMultipartUpload", method: "POST", query: "uploads", object: true},
	{name: "UploadPart", method: "PUT", query: "partNumber=1&uploadId=UPLOAD", object: true, body: "a part"},
	{name: "UploadPartCopy", method: "PUT", query: "partNumber=1&uploadId=UPLOAD", object: true, header: map[string]string{"X-Amz-Copy-Source": "SOURCE"}},
	{name: "ListParts", method: "GET", query: "uploadId=UPLOAD", object: true},
	{name: "CompleteMultipartUpload", method: "POST", query: "uploadId=UPLOAD", object: true,
		body: `<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"00000000000000000000000000000000"</ETag></Part></CompleteMultipartUpload>`},
	{name: "AbortMultipartUpload", method: "DELETE", query: "uploadId=UPLOAD", object: true},
}

// answer is what came back, without what differs from one request to the next.
type answer struct {
	status int
	code   string
	header map[string]bool // names
	body   string
}

// ask sends a verb with a project's credentials to a host of the zone.
func (v verb) ask(t *testing.T, transport http.RoundTripper, host string, p *harness.Project, bucket, upload string) answer {
	t.Helper()
	u := url.URL{Scheme: "https", Host: host, Path: "/" + bucket, RawQuery: strings.ReplaceAll(v.query, "UPLOAD", upload)}
	if v.object {
		u.Path += "/secret"
	}
	req, err := http.NewRequestWithContext(t.Context(), v.method, u.String(), strings.NewReader(v.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range v.header {
		req.Header.Set(name, strings.ReplaceAll(value, "SOURCE", "/"+bucket+"/secret"))
	}
	req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	if v.name == "DeleteObjects" {
		req.Header.Set("Content-Md5", md5of(v.body))
	}
	req = signer.SignV4(*req, p.KeyID, p.Secret, "", "us-east-1")
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Fatalf("%s: %v", v.name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", v.name, err)
	}
	a := answer{status: resp.StatusCode, header: map[string]bool{}, body: string(body)}
	for name := range resp.Header {
		a.header[name] = true
	}
	var e struct {
		Code  string
		Error struct{ Code string } // of a multi-delete
	}
	if xml.Unmarshal(body, &e) == nil {
		a.code = e.Code + e.Error.Code
	}
	return a
}

// TestOtherOrganization tries every verb of one organization with the credentials
// of the other, at either name: the key is unknown there, and the answer for a
// bucket that exists is the same as for one that does not.
func TestOtherOrganization(t *testing.T) {
	z := sharedZone(t)
	victim, attacker := project(t, z, "justice", "courts"), project(t, z, "health", "wards")
	own := client(t, victim)
	bucket(t, own, "case-files")
	secret := random(100)
	put(t, own, "case-files", "secret", secret)
	upload, err := minio.Core{Client: own}.NewMultipartUpload(t.Context(), "case-files", "secret", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	justice, health := z.Org("justice"), z.Org("health")
	atVictim, atOwn := justice.Transport("s3"), health.Transport("s3")
	defer atVictim.CloseIdleConnections()
	defer atOwn.CloseIdleConnections()
	for _, v := range verbs {
		there := v.ask(t, atVictim, justice.Host("s3"), attacker, "case-files", upload)
		nothing := v.ask(t, atVictim, justice.Host("s3"), attacker, "no-such-bucket", upload)
		if there.status != 403 || v.method != "HEAD" && there.code != "InvalidAccessKeyId" {
			t.Errorf("%s at the other's name: %d %s", v.name, there.status, there.body)
		}
		if there.status != nothing.status || there.code != nothing.code || !maps.Equal(there.header, nothing.header) {
			t.Errorf("%s tells a bucket of the other that exists (%+v) from one that does not (%+v)", v.name, there, nothing)
		}
		// At his own organization the other's bucket is a name that does not exist.
		here := v.ask(t, atOwn, health.Host("s3"), attacker, "case-files", upload)
		if here.status != 404 || v.method != "HEAD" && here.code != "NoSuchBucket" {
			t.Errorf("%s of the other's bucket at his own name: %d %s", v.name, here.status, here.body)
		}
	}
	buckets, err := client(t, attacker).ListBuckets(t.Context())
	if err != nil || slices.ContainsFunc(buckets, func(b minio.BucketInfo) bool { return b.Name == "case-files" }) {
		t.Errorf("the other's buckets: %v %v", buckets, err)
	}
	foreign, err := attacker.ClientAt(justice)
	if err != nil {
		t.Fatal(err)
	}
	_, err = foreign.ListBuckets(t.Context())
	refused(t, "ListBuckets at the other's name", err, "InvalidAccessKeyId")
	refused(t, "MakeBucket at the other's name", foreign.MakeBucket(t.Context(), "planted", minio.MakeBucketOptions{}), "InvalidAccessKeyId")
	// Names are each organization's own: the same name is free at the other.
	bucket(t, client(t, attacker), "case-files")
	holds(t, own, "case-files", "secret", secret)
}

// TestOtherProject tries every verb of one project with the key of another in the same organization.
func TestOtherProject(t *testing.T) {
	z := sharedZone(t)
	victim, attacker := project(t, z, "health", "research"), project(t, z, "health", "wards")
	own := client(t, victim)
	bucket(t, own, "trial-data")
	secret := random(100)
	put(t, own, "trial-data", "secret", secret)
	upload, err := minio.Core{Client: own}.NewMultipartUpload(t.Context(), "trial-data", "secret", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	health := z.Org("health")
	transport := health.Transport("s3")
	defer transport.CloseIdleConnections()
	for _, v := range verbs {
		a := v.ask(t, transport, health.Host("s3"), attacker, "trial-data", upload)
		denied := a.status == 403 && (v.method == "HEAD" || a.code == "AccessDenied")
		if v.name == "DeleteObjects" { // decided for each key
			denied = denied || a.status == 200 && a.code == "AccessDenied" && !strings.Contains(a.body, "<Deleted>")
		}
		if !denied {
			t.Errorf("%s: %d %s", v.name, a.status, a.body)
		}
	}
	// A copy out of the other's bucket into his own.
	thief := client(t, attacker)
	bucket(t, thief, "loot")
	_, err = thief.CopyObject(t.Context(), minio.CopyDestOptions{Bucket: "loot", Object: "x"}, minio.CopySrcOptions{Bucket: "trial-data", Object: "secret"})
	refused(t, "copy out", err, "AccessDenied")
	mine, err := minio.Core{Client: thief}.NewMultipartUpload(t.Context(), "loot", "x", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = minio.Core{Client: thief}.CopyObjectPart(t.Context(), "trial-data", "secret", "loot", "x", mine, 1, 0, 100, nil)
	refused(t, "copy of a part", err, "AccessDenied")
	refused(t, "his bucket's name", thief.MakeBucket(t.Context(), "trial-data", minio.MakeBucketOptions{}), "BucketAlreadyExists")
	buckets, err := thief.ListBuckets(t.Context())
	if err != nil || slices.ContainsFunc(buckets, func(b minio.BucketInfo) bool { return b.Name == "trial-data" }) {
		t.Errorf("the list of buckets: %v %v", buckets, err)
	}
	if _, err := own.StatObject(t.Context(), "trial-data", "secret", minio.StatObjectOptions{}); err != nil {
		t.Error(err)
	}
	holds(t, own, "trial-data", "secret", secret)
}

// TestServerNames mixes TLS server name and Host header: whatever the header
// says, the cell of the server name answers, and it knows only its own keys.
func TestServerNames(t *testing.T) {
	z := sharedZone(t)
	victim, attacker := project(t, z, "justice", "courts"), project(t, z, "health", "wards")
	own := client(t, victim)
	bucket(t, own, "sealed-letters")
	secret := random(64)
	put(t, own, "sealed-letters", "secret", secret)
	health, justice := z.Org("health"), z.Org("justice")
	getVerb := verbs[slices.IndexFunc(verbs, func(v verb) bool { return v.name == "GetObject" })]
	for name, c := range map[string]struct {
		sni, host string
		p         *harness.Project
		status    int
		code      string
	}{
		"victim's key, attacker's cell, victim's host": {health.Host("s3"), justice.Host("s3"), victim, 403, "InvalidAccessKeyId"},
		"attacker's key and cell, victim's host":       {health.Host("s3"), justice.Host("s3"), attacker, 404, "NoSuchBucket"},
		"attacker's key, victim's cell, own host":      {justice.Host("s3"), health.Host("s3"), attacker, 403, "InvalidAccessKeyId"},
		"host style across":                            {health.Host("s3"), "sealed-letters." + justice.Host("s3"), attacker, 404, "NoSuchBucket"},
	} {
		transport := health.Transport("s3")
		transport.TLSClientConfig.ServerName = c.sni
		transport.TLSClientConfig.RootCAs = z.Org(strings.Split(c.sni, ".")[1]).Pool()
		a := getVerb.ask(t, transport, c.host, c.p, "sealed-letters", "")
		transport.CloseIdleConnections()
		if a.status != c.status || a.code != c.code || bytes.Contains([]byte(a.body), secret) {
			t.Errorf("%s: %d %s, want %d %s", name, a.status, a.code, c.status, c.code)
		}
	}
	// On one connection, after requests that are in order.
	conn, err := tls.Dial("tcp", z.S3, &tls.Config{ServerName: health.Host("s3"), RootCAs: health.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for i, host := range []string{health.Host("s3"), justice.Host("s3"), health.Host("s3")} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+host+"/sealed-letters/secret", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		req = signer.SignV4(*req, victim.KeyID, victim.Secret, "", "us-east-1")
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(lines, req)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 403 || !bytes.Contains(body, []byte("InvalidAccessKeyId")) {
			t.Errorf("request %d with host %s: %d %s", i, host, resp.StatusCode, body)
		}
	}
	// Names that are nobody's get no certificate and no cell.
	for _, name := range []string{"s3.nobody.zone.example", "health.zone.example", "s3.health.zone.example.evil.test", "api.health.zone.example"} {
		c, err := tls.Dial("tcp", z.S3, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // any certificate would be the defect
		if err == nil {
			c.Close()
			t.Errorf("S3 port: the name %s got a certificate", name)
		} else if !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("S3 port: the name %s: %v", name, err)
		}
	}
}

// TestCertificates: each organization has a key and an authority of its own, and
// neither vouches for the other.
func TestCertificates(t *testing.T) {
	z := sharedZone(t)
	seen := map[string]string{}
	for _, org := range []string{"health", "justice"} {
		other := map[string]string{"health": "justice", "justice": "health"}[org]
		for service, address := range map[string]string{"s3": z.S3, "api": z.API} {
			name := z.Org(org).Host(service)
			c, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, RootCAs: z.Org(org).Pool()})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			leaf := c.ConnectionState().PeerCertificates[0]
			c.Close()
			key := base64.StdEncoding.EncodeToString(leaf.RawSubjectPublicKeyInfo)
			if owner := seen[key]; owner != "" && owner != org {
				t.Errorf("%s and %s show the same key", owner, org)
			}
			seen[key] = org
			if _, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, RootCAs: z.Org(other).Pool()}); err == nil {
				t.Errorf("%s is vouched for by the authority of %s", name, other)
			}
			for _, n := range leaf.DNSNames {
				if strings.Contains(n, other) {
					t.Errorf("the certificate of %s is also for %s", org, n)
				}
			}
		}
	}
}

// TestOtherAPI tries the API token of one organization at the other's endpoint
// and at the operator's, and the operator's at the organizations'.
func TestOtherAPI(t *testing.T) {
	z := sharedZone(t)
	health, justice := z.Org("health"), z.Org("justice")
	operator, err := os.ReadFile(z.Dir() + "/zone/operator.token")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(host string, o *harness.Organization, token, path string) int {
		transport := o.Transport("api")
		if host == "" {
			transport.DialContext, host = nil, z.Operator
			transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // only the answer matters
		}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+host+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	const buckets = "/apis/chancery.cloud/v1alpha1/buckets"
	for _, c := range []struct {
		what, host string
		o          *harness.Organization
		token      string
		want       int
	}{
		{"own", health.Host("api"), health, health.Token, 200},
		{"health at justice", justice.Host("api"), justice, health.Token, 401},
		{"justice at health", health.Host("api"), health, justice.Token, 401},
		{"nobody at health", health.Host("api"), health, "", 401},
		{"operator at health", health.Host("api"), health, string(operator), 401},
		{"operator at justice", justice.Host("api"), justice, string(operator), 401},
		{"health at the operator", "", health, health.Token, 401},
	} {
		for _, path := range []string{buckets, "/api/v1/secrets", "/openapi/v3", "/apis", "/metrics"} {
			got := ask(c.host, c.o, c.token, path)
			if got != c.want && !(c.want == 200 && got == 404) {
				t.Errorf("%s: %s answers %d, want %d", c.what, path, got, c.want)
			}
		}
	}
	// The S3 credentials of a project are no API credentials.
	p := project(t, z, "health", "wards")
	for _, token := range []string{p.Secret, p.KeyID, p.KeyID + ":" + p.Secret} {
		if got := ask(health.Host("api"), health, token, buckets); got != 401 {
			t.Errorf("an access key at the API: %d", got)
		}
	}
	if path, err := exec.LookPath("kubectl"); err == nil {
		cmd := exec.CommandContext(t.Context(), path, "--kubeconfig", health.Kubeconfig, "--server", "https://"+z.API,
			"--tls-server-name", justice.Host("api"), "--certificate-authority", justice.CAFile, "get", "buckets", "-A")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(strings.ToLower(string(out)), "unauthorized") && !strings.Contains(string(out), "logged in to the server") {
			t.Errorf("kubectl with the other's token: %v\n%s", err, out)
		}
	}
}

// TestSealPort: the seal service answers only under the name of the sealed
// identity, and no other organization's share gets anywhere.
func TestSealPort(t *testing.T) {
	z := sharedZone(t)
	out, err := z.CLI(t.Context(), "org", "unseal", "justice", "--dir", z.Dir(), "--identity", z.Identity("health", 0))
	if err == nil && !strings.Contains(out, "nothing was sent") {
		t.Errorf("a custodian of health at justice: %s", out)
	}
	health := z.Org("health")
	transport := health.Transport("api")
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + health.Host("api") + "/seal/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("the seal service under the API's name: %d, want 421", resp.StatusCode)
	}
	// On the S3 port the seal name is nobody's.
	if c, err := net.Dial("tcp", z.S3); err == nil {
		tc := tls.Client(c, &tls.Config{ServerName: health.Host("seal"), InsecureSkipVerify: true}) //nolint:gosec // no certificate is expected
		if tc.HandshakeContext(t.Context()) == nil {
			t.Error("the S3 port serves the seal name")
		}
		c.Close()
	}
}
