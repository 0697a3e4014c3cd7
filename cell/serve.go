package cell

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"chancery/cell/identity"
	"chancery/cell/seal"
	"chancery/internal/errs"
	"chancery/wall"
)

// server is one socket and what answers on it.
type server struct {
	http *http.Server
	l    net.Listener
	tls  bool
}

func (s server) serve() error {
	var err error
	if s.tls {
		err = s.http.ServeTLS(s.l, "", "")
	} else {
		err = s.http.Serve(s.l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return errs.WrapKind(errs.Unavailable, "cell.serve", err)
}

// shutdown lets requests in flight end until ctx ends, then breaks them off.
func (s server) shutdown(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // nothing is left to be told
	}
}

// certificateHolder keeps the organization's certificates from the first unseal on.
type certificateHolder struct {
	atomic.Pointer[identity.Certificates]
}

// listen makes the three sockets. All are there, or none.
func (c *Cell) listen(ctx context.Context) ([]server, error) {
	errorLog := slog.NewLogLogger(quiet{c.log.Handler()}, slog.LevelWarn)
	s3 := c.server(ctx, calm(c.log, http.HandlerFunc(c.serveS3)), errorLog)
	// HTTP/1.1 alone: S3 clients speak nothing else by default, and it is cheaper.
	s3.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	s3.TLSConfig.NextProtos = []string{"http/1.1"}
	// An answer to a new connection is as large as that to an old one.
	s3.TLSConfig.DynamicRecordSizingDisabled = true
	s3.ConnContext = withWire
	api := c.server(ctx, calm(c.log, c.apiHandler()), errorLog)
	ours := c.server(ctx, calm(c.log, c.wallHandler()), errorLog)
	var out []server
	for _, s := range []struct {
		name string
		http *http.Server
		tls  bool
	}{{wall.SocketWall, ours, false}, {wall.SocketAPI, api, true}, {wall.SocketS3, s3, true}} {
		path := filepath.Join(c.config.RunDir, s.name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errs.WrapKind(errs.Unavailable, "cell.listen", err)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			return nil, errs.WrapKind(errs.Unavailable, "cell.listen", err)
		}
		if s.http == s3 {
			l = wires{l}
		}
		out = append(out, server{s.http, l, s.tls})
	}
	return out, nil
}

func (c *Cell) server(ctx context.Context, h http.Handler, errorLog *log.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          errorLog,
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.certificate},
	}
}

// certificate chooses the cell's face: the sealed identity for the seal service,
// the organization's own certificate for all else. Before the first unseal there
// is only the sealed identity, since the other's key lies in the encrypted store.
func (c *Cell) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if strings.HasPrefix(strings.ToLower(hello.ServerName), "seal.") {
		return c.keeper.Identity().Certificate(), nil
	}
	if own := c.certificates.Load(); own != nil {
		return own.GetCertificate(hello)
	}
	return c.keeper.Identity().Certificate(), nil
}

// serveS3 answers S3 while the organization is unsealed.
func (c *Cell) serveS3(w http.ResponseWriter, r *http.Request) {
	p, ok := c.gate.enter()
	if !ok {
		if c.keeper.Status().State == wall.Destroyed {
			answerS3Destroyed(w, c.config.Organization)
			return
		}
		w.Header().Set("Retry-After", "30")
		answerS3Sealed(w, c.config.Organization)
		return
	}
	defer p.leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(p.breaking, cancel)()
	g := gather(w, r)
	defer func() { _ = g.end() }() // a client that is gone is no error
	p.s3.ServeHTTP(g, r.WithContext(ctx))
}

// apiHandler serves the seal service, always, and the organization's API server while it is unsealed.
func (c *Cell) apiHandler() http.Handler {
	custody := seal.Handler(c.keeper)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, wall.PathSealPrefix) {
			// A custodian's share must only ever travel under the key that it names.
			if r.TLS == nil || !strings.HasPrefix(strings.ToLower(r.TLS.ServerName), "seal.") {
				answerFailure(w, http.StatusMisdirectedRequest, errs.New(errs.Invalid, "cell", "the seal service answers under the server name %s only", c.host("seal")))
				return
			}
			custody.ServeHTTP(w, r)
			return
		}
		p, ok := c.gate.enter()
		if !ok {
			if c.keeper.Status().State == wall.Destroyed {
				answerAPIDestroyed(w, c.config.Organization)
				return
			}
			// No Retry-After: kubectl would wait for it ten times over before it shows why.
			answerAPISealed(w, c.config.Organization)
			return
		}
		defer p.leave()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(p.closing, cancel)()
		p.control.Handler().ServeHTTP(w, r.WithContext(ctx))
	})
}

func answerS3Sealed(w http.ResponseWriter, organization string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusServiceUnavailable)
	// The organization is a DNS label: nothing in it needs escaping.
	_, _ = w.Write([]byte(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>Sealed</Code><Message>The organization " + organization +
		" is sealed. A quorum of its custodians must unseal it: chancery org unseal " + organization + " --identity FILE</Message></Error>"))
}

// answerAPISealed answers a Kubernetes Status, which kubectl shows as it is.
func answerAPISealed(w http.ResponseWriter, organization string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "code": http.StatusServiceUnavailable,
		"reason": "Sealed", "message": "the organization " + organization + " is sealed; a quorum of its custodians must unseal it: chancery org unseal " + organization + " --identity FILE",
	})
}

func answerFailure(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(wall.Failure{Kind: errs.KindOf(err).String(), Message: err.Error()})
}

// quiet drops the HTTP server's talk about single connections (a failed
// handshake, a vanished client): clients could fill the log with it.
type quiet struct{ slog.Handler }

func (quiet) Enabled(context.Context, slog.Level) bool { return false }
