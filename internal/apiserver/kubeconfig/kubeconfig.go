// Package kubeconfig writes the one file that kubectl and its kin need to reach
// an API server of ours. It must never write a token where others can read it.
package kubeconfig

import (
	"net/url"

	"sigs.k8s.io/yaml"

	"chancery/internal/errs"
	"chancery/internal/files"
)

// Config is one cluster, one user and one context that joins them.
type Config struct {
	// Name of the cluster, the user and the context: "ORG" or "operator@ZONE".
	Name string
	// Server is the URL, https://HOST:PORT.
	Server string
	// CA is the PEM of the certificate authority that signed the server's certificate.
	CA []byte
	// Token is the bearer token. It is a secret.
	Token string
	// TLSServerName is expected of the server's certificate instead of the URL's
	// host, and sent as SNI; empty for the URL's host.
	TLSServerName string
	// Namespace that commands use when none is given; empty for "default".
	Namespace string
}

// Marshal returns the file's content. It holds the token.
func Marshal(c Config) ([]byte, error) {
	const op = "kubeconfig.Marshal"
	u, err := url.Parse(c.Server)
	switch {
	case c.Name == "":
		return nil, errs.New(errs.Invalid, op, "a kubeconfig needs a name")
	case err != nil || u.Scheme != "https" || u.Host == "":
		return nil, errs.New(errs.Invalid, op, "server %q: want https://HOST:PORT", c.Server)
	case len(c.CA) == 0 || c.Token == "":
		return nil, errs.New(errs.Invalid, op, "a kubeconfig needs a certificate authority and a token")
	}
	cluster := map[string]any{"server": c.Server, "certificate-authority-data": c.CA}
	if c.TLSServerName != "" {
		cluster["tls-server-name"] = c.TLSServerName
	}
	context := map[string]any{"cluster": c.Name, "user": c.Name}
	if c.Namespace != "" {
		context["namespace"] = c.Namespace
	}
	out, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": c.Name,
		"clusters": []any{map[string]any{"name": c.Name, "cluster": cluster}},
		"users":    []any{map[string]any{"name": c.Name, "user": map[string]any{"token": c.Token}}},
		"contexts": []any{map[string]any{"name": c.Name, "context": context}},
	})
	return out, errs.Wrap(op, err)
}

// Write writes the file at once and for its owner alone (mode 0600).
func Write(fs files.FS, path string, c Config) error {
	body, err := Marshal(c)
	if err != nil {
		return err
	}
	return errs.Wrap("kubeconfig.Write", files.WriteFile(fs, path, body))
}
