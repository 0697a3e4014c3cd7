package harness

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"sigs.k8s.io/yaml"
)

// Organization is one of a real zone, with what its administrator holds.
type Organization struct {
	Name string
	// Kubeconfig is the administrator's file, as the command line wrote it at the first start.
	Kubeconfig string
	// CAFile is the organization's certificate authority, PEM.
	CAFile string
	// Token is the administrator's bearer token.
	Token string

	z        *Real
	pool     *x509.CertPool
	mu       sync.Mutex
	projects map[string]*Project
}

// Project is a project of an organization, with one access key.
type Project struct {
	Name          string
	KeyID, Secret string

	org *Organization
}

// fetch gets the administrator's credential as a custodian does.
func (o *Organization) fetch(ctx context.Context) error {
	dir := filepath.Join(o.z.opts.Dir, "administrators")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	o.Kubeconfig, o.CAFile = filepath.Join(dir, o.Name+".kubeconfig"), filepath.Join(dir, o.Name+".ca.pem")
	if _, err := o.z.CLI(ctx, "kubeconfig", "--dir", o.z.Dir(), "--org", o.Name, "--identity", o.z.Identity(o.Name, 0), "--out", o.Kubeconfig); err != nil {
		return err
	}
	raw, err := os.ReadFile(o.Kubeconfig)
	if err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				CA []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct{ User struct{ Token string } }
	}
	if err := yaml.Unmarshal(raw, &config); err != nil || len(config.Clusters) != 1 || len(config.Users) != 1 {
		return fmt.Errorf("harness: the kubeconfig of %s: %w\n%s", o.Name, err, raw)
	}
	o.Token = config.Users[0].User.Token
	if err := os.WriteFile(o.CAFile, config.Clusters[0].Cluster.CA, 0o600); err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	o.pool, err = CertPool(o.CAFile)
	return err
}

// Pool holds the organization's certificate authority alone.
func (o *Organization) Pool() *x509.CertPool { return o.pool }

// Host is the DNS name of a service ("s3", "api", "seal") of the organization.
func (o *Organization) Host(service string) string { return service + "." + o.Name + "." + domain }

// Transport connects to the zone's S3 or API port and trusts this organization's
// authority alone. The server name is that of each request's URL.
func (o *Organization) Transport(service string) *http.Transport {
	address := func() string { return o.z.S3 }
	if service != "s3" {
		address = func() string { return o.z.API }
	}
	return &http.Transport{
		DialContext:         dialer(address),
		TLSClientConfig:     &tls.Config{RootCAs: o.pool, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 32,
	}
}

// API makes one request to the organization's API server, as its administrator.
// in is sent, and the answer is decoded into out, as JSON; both may be nil.
func (o *Organization) API(ctx context.Context, method, path string, in, out any) (status int, err error) {
	body := &bytes.Buffer{}
	if in != nil {
		if err := json.NewEncoder(body).Encode(in); err != nil {
			return 0, fmt.Errorf("harness: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+o.Host("api")+path, body)
	if err != nil {
		return 0, fmt.Errorf("harness: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+o.Token)
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: o.Transport("api"), Timeout: time.Minute}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("harness: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("harness: %w", err)
	}
	if out != nil && resp.StatusCode < 300 {
		if err := json.Unmarshal(answer, out); err != nil {
			return resp.StatusCode, fmt.Errorf("harness: %s %s: %w\n%s", method, path, err, answer)
		}
	}
	return resp.StatusCode, nil
}

const group = "/apis/chancery.cloud/v1alpha1"

// Project makes a project with an access key through the organization's API, or
// returns the one that this method made before.
func (o *Organization) Project(ctx context.Context, name string) (*Project, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.projects[name]; p != nil {
		return p, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	meta := func(kind string, spec any) map[string]any {
		return map[string]any{"apiVersion": "chancery.cloud/v1alpha1", "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec}
	}
	if err := o.until(ctx, http.MethodPost, group+"/projects", meta("Project", map[string]any{}), nil, func() bool { return true }); err != nil {
		return nil, err
	}
	keys := group + "/namespaces/" + name + "/accesskeys"
	if err := o.until(ctx, http.MethodPost, keys, meta("AccessKey", map[string]any{"user": "tester"}), nil, func() bool { return true }); err != nil {
		return nil, err
	}
	var key struct{ Status struct{ SecretName string } }
	if err := o.until(ctx, http.MethodGet, keys+"/"+name, nil, &key, func() bool { return key.Status.SecretName != "" }); err != nil {
		return nil, err
	}
	var secret struct{ Data map[string][]byte }
	if err := o.until(ctx, http.MethodGet, "/api/v1/namespaces/"+name+"/secrets/"+key.Status.SecretName, nil, &secret, func() bool {
		return len(secret.Data[AccessKeyID]) > 0 && len(secret.Data[SecretKey]) > 0
	}); err != nil {
		return nil, err
	}
	p := &Project{Name: name, KeyID: string(secret.Data[AccessKeyID]), Secret: string(secret.Data[SecretKey]), org: o}
	if o.projects == nil {
		o.projects = make(map[string]*Project)
	}
	o.projects[name] = p
	return p, nil
}

// until repeats a request until it succeeds (or the thing exists) and done agrees.
func (o *Organization) until(ctx context.Context, method, path string, in, out any, done func() bool) error {
	for {
		status, err := o.API(ctx, method, path, in, out)
		if err == nil && (status < 300 || method == http.MethodPost && status == http.StatusConflict) && done() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("harness: %s %s: gave up; last answer %d, %w", method, path, status, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Credentials are the project's, for another client.
func (p *Project) Credentials() *credentials.Credentials {
	return credentials.NewStaticV4(p.KeyID, p.Secret, "")
}

// Client is an S3 client with the project's key, at its own organization.
func (p *Project) Client() (*minio.Client, error) { return p.ClientAt(p.org) }

// ClientAt is an S3 client with the project's key, at any organization of the
// zone. It does not try again what failed.
func (p *Project) ClientAt(o *Organization) (*minio.Client, error) {
	return minio.New(o.Host("s3"), &minio.Options{
		Creds: p.Credentials(), Secure: true, Transport: o.Transport("s3"), Region: "us-east-1", MaxRetries: 1, BucketLookup: minio.BucketLookupPath,
	})
}

// Environ is the environment of a client program for this project. It connects to
// the zone's address without a name: that works for the default organization alone.
func (p *Project) Environ() []string {
	return append(cleanEnvironment(),
		EndpointURL+"=https://"+p.org.z.S3, AccessKeyID+"="+p.KeyID, SecretKey+"="+p.Secret,
		Region+"=us-east-1", "AWS_DEFAULT_REGION=us-east-1", CABundle+"="+p.org.CAFile)
}
