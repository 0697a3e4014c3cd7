package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"crypto/tls"

	"chancery/internal/apiserver/kubeconfig"
	"chancery/internal/files"
	"chancery/internal/store"
	"chancery/internal/store/pebblestore"
)

const adminToken = "admin-token"

var widgets = schema.GroupVersionResource{Group: "test.chancery.cloud", Version: "v1", Resource: "widgets"}

// widgetCRD has what ours have: a status, columns, and a rule in CEL.
func widgetCRD() *apiextensionsv1.CustomResourceDefinition {
	str := apiextensionsv1.JSONSchemaProps{Type: "string", Description: "What colour it is."}
	num := apiextensionsv1.JSONSchemaProps{Type: "integer", Description: "How many there are."}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets.test.chancery.cloud"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "test.chancery.cloud", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Singular: "widget", Kind: "Widget", ListKind: "WidgetList", ShortNames: []string{"wd"}},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Subresources:             &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
				AdditionalPrinterColumns: []apiextensionsv1.CustomResourceColumnDefinition{{Name: "Colour", Type: "string", JSONPath: ".spec.colour"}},
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", Description: "A widget to test with.",
					Properties: map[string]apiextensionsv1.JSONSchemaProps{
						"spec": {
							Type: "object", Description: "What is wanted.",
							Properties: map[string]apiextensionsv1.JSONSchemaProps{"colour": str, "count": num},
							XValidations: apiextensionsv1.ValidationRules{{
								Rule: "!has(self.count) || self.count <= 10", Message: "at most ten widgets fit into a box",
							}},
						},
						"status": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"seen": num}},
					},
				}},
			}},
		},
	}
}

type harness struct {
	t      testing.TB
	dir    string
	store  store.Store
	server *Server
	opts   Options
	ready  time.Duration
}

// newHarness starts a server over a real store in a temporary directory.
func newHarness(t testing.TB) *harness {
	h := &harness{t: t, dir: filepath.Join(t.TempDir(), "store")}
	h.opts = Options{
		Name: "test", CRDs: []*apiextensionsv1.CustomResourceDefinition{widgetCRD()}, Version: "0.1.0",
		Authenticate: func(_ context.Context, token string) (string, []string, bool) {
			switch token {
			case adminToken:
				return "admin", []string{"chancery:administrators"}, true
			case "guest-token":
				return "guest", nil, true
			case "liar-token":
				return "liar", []string{"system:masters"}, true
			}
			return "", nil, false
		},
		Authorize: Administrators("chancery:administrators"),
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	h.start()
	t.Cleanup(func() { h.stopAll() })
	return h
}

func (h *harness) start() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	st, err := pebblestore.Open(ctx, pebblestore.Options{Dir: h.dir, FS: files.OS(), Key: make([]byte, 32)})
	if err != nil {
		h.t.Fatal(err)
	}
	begin := time.Now()
	h.store, h.opts.Store = st, st
	if h.server, err = New(ctx, h.opts); err != nil {
		h.t.Fatal(err)
	}
	if err := h.server.Ready(ctx); err != nil {
		h.t.Fatal(err)
	}
	h.ready = time.Since(begin)
}

func (h *harness) stopAll() {
	if h.server != nil {
		h.server.Stop()
		h.server = nil
		if err := h.store.Close(); err != nil {
			h.t.Error(err)
		}
	}
}

func (h *harness) restart() {
	h.stopAll()
	h.start()
}

// config is a client's with a token of its own, through the in-memory listener.
func (h *harness) config(token string) *rest.Config {
	c := h.server.LoopbackConfig()
	c.BearerToken = token
	return c
}

func (h *harness) kube() kubernetes.Interface {
	c, err := kubernetes.NewForConfig(h.config(adminToken))
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *harness) dynamic() dynamic.Interface {
	c, err := dynamic.NewForConfig(h.config(adminToken))
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// listen serves over TLS on a loopback port and writes a kubeconfig for it.
func (h *harness) listen() (kubeconfigPath string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"api.test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		h.t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h.server.Handler())
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	h.t.Cleanup(srv.Close)
	path := filepath.Join(h.t.TempDir(), "kubeconfig")
	err = kubeconfig.Write(files.OS(), path, kubeconfig.Config{
		Name: "test", Server: srv.URL, Token: adminToken, TLSServerName: "api.test",
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return path
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 400 {
		if ok() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("%s: not within 10 s", what)
}
