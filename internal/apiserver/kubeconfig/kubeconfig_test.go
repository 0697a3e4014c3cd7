package kubeconfig

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"chancery/internal/errs"
	"chancery/internal/files"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	c := Config{
		Name: "health", Server: "https://127.0.0.1:6443", CA: []byte("-----BEGIN CERTIFICATE-----\n"), Token: "s3cret: \"odd\"",
		TLSServerName: "api.health.zone.example", Namespace: "p1",
	}
	if err := Write(files.OS(), path, c); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v: want 0600", info.Mode(), err)
	}
	loaded, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx := loaded.Contexts[loaded.CurrentContext]
	cluster, user := loaded.Clusters[ctx.Cluster], loaded.AuthInfos[ctx.AuthInfo]
	if cluster.Server != c.Server || string(cluster.CertificateAuthorityData) != string(c.CA) || cluster.TLSServerName != c.TLSServerName || user.Token != c.Token || ctx.Namespace != "p1" {
		t.Errorf("read back %+v %+v %+v", cluster, user, ctx)
	}
}

func TestMarshalRefuses(t *testing.T) {
	good := Config{Name: "a", Server: "https://a:1", CA: []byte("x"), Token: "t"}
	for name, spoil := range map[string]func(*Config){
		"no name":    func(c *Config) { c.Name = "" },
		"plain http": func(c *Config) { c.Server = "http://a:1" },
		"no host":    func(c *Config) { c.Server = "https://" },
		"no CA":      func(c *Config) { c.CA = nil },
		"no token":   func(c *Config) { c.Token = "" },
	} {
		c := good
		spoil(&c)
		if _, err := Marshal(c); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
