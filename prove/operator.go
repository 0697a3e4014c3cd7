package prove

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7"

	"chancery/internal/errs"
)

// relay stands where the operator's front door stands and writes down every byte
// that it passes on, in both directions.
type relay struct {
	l    net.Listener
	to   string
	mu   sync.Mutex
	seen bytes.Buffer
	open map[net.Conn]bool
	wait sync.WaitGroup
}

func newRelay(ctx context.Context, to string) (*relay, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, "prove.newRelay", err)
	}
	r := &relay{l: l, to: to, open: map[net.Conn]bool{}}
	r.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.wait.Go(func() { r.pass(c) })
		}
	})
	return r, nil
}

func (r *relay) pass(client net.Conn) {
	defer client.Close()
	r.hold(client, true)
	defer r.hold(client, false)
	server, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	record := func(to, from net.Conn) {
		_, _ = io.Copy(io.MultiWriter(to, r), from) // either side may end it
		done <- struct{}{}
	}
	go record(server, client)
	go record(client, server)
	<-done
	client.Close()
	server.Close()
	<-done
}

// Write keeps what passes.
func (r *relay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.Write(p)
}

func (r *relay) hold(c net.Conn, open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if open {
		r.open[c] = true
	} else {
		delete(r.open, c)
	}
}

// close ends the connections, idle ones too, and returns what passed.
func (r *relay) close() []byte {
	r.l.Close()
	r.mu.Lock()
	for c := range r.open {
		c.Close()
	}
	r.mu.Unlock()
	r.wait.Wait()
	return r.seen.Bytes()
}

// checkOperatorView sends canaries through a relay in the operator's place, and
// then searches what passed, the operator's own files, and the cells' logs.
func checkOperatorView(ctx context.Context, e *env) (f Finding, err error) {
	s, err := e.makeScratch(ctx)
	if err != nil {
		return f, err
	}
	f.Did = "Recorded every byte of an upload, a download and an unseal in the front door's place; searched it, the operator's files and the cells' logs."
	var p planted
	secret := p.new("object bytes")
	front, err := newRelay(ctx, e.o.S3)
	if err != nil {
		return f, err
	}
	err = func() error {
		c, err := s.s3(front.l.Addr().String())
		if err != nil {
			return err
		}
		bucket := p.new("bucket name")
		if err := c.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err != nil {
			return err
		}
		name := p.new("object name")
		if _, err := c.PutObject(ctx, bucket, name, strings.NewReader(secret), int64(len(secret)), minio.PutObjectOptions{UserMetadata: map[string]string{"m": p.new("metadata value")}}); err != nil {
			return err
		}
		object, err := c.GetObject(ctx, bucket, name, minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		defer object.Close()
		body, err := io.ReadAll(object)
		if err == nil && string(body) != secret {
			err = errs.New(errs.Corrupt, "prove.checkOperatorView", "the object came back altered")
		}
		return err
	}()
	traffic := front.close()
	if err != nil {
		return f, err
	}
	// The shares of a quorum, on their way to the cell.
	custody, err := newRelay(ctx, e.o.API)
	if err != nil {
		return f, err
	}
	err = func() error {
		if err := s.sealNow(ctx); err != nil {
			return err
		}
		for _, h := range s.holders[:2] {
			payload, err := s.payload(ctx, h)
			if err != nil {
				return err
			}
			p.canaries = append(p.canaries, Canary{"share of " + h.name, bytes.Clone(payload.Share)})
			through := s.seal()
			through.Endpoint = custody.l.Addr().String()
			if _, err := through.Unseal(ctx, h.id); err != nil {
				return err
			}
		}
		return nil
	}()
	shares := custody.close()
	if err != nil {
		return f, err
	}
	p.canaries = append(p.canaries, Canary{"secret access key", []byte(s.secret)}, Canary{"administrator's token", []byte(s.credential.Token)})
	bad := 0
	for _, n := range needles(p.canaries) {
		for _, passed := range [][]byte{traffic, shares} {
			if bytes.Contains(passed, n.bytes) {
				bad++
				evidence(&f, "%s (%s) passed the front door readable", n.canary, n.form)
			}
		}
	}
	if len(traffic) < 1000 || len(shares) < 1000 {
		return f, errs.New(errs.Internal, "prove.checkOperatorView", "the relay saw too little: the check cannot be relied on")
	}
	if err := controlSearch(ctx, p.canaries); err != nil {
		return f, err
	}
	logs, err := filepath.Glob(filepath.Join(e.o.Dir, "cells", "*", "log*"))
	if err != nil {
		return f, errs.WrapKind(errs.Internal, "prove.checkOperatorView", err)
	}
	found, err := Search(ctx, append(logs, filepath.Join(e.o.Dir, "zone")), p.canaries)
	if err != nil {
		return f, err
	}
	f.Evidence = append(f.Evidence, sightingLines(found)...)
	bad += len(found.Sightings)
	evidence(&f, "%d bytes of S3 traffic and %d bytes of custody traffic recorded in the front door's place", len(traffic), len(shares))
	evidence(&f, "%d files of the operator and logs of cells searched, %d bytes, for %d secrets in %d forms", found.Files, found.Bytes, len(p.canaries), found.Forms)
	if bad > 0 {
		return broken(f, fmt.Sprintf("%d secrets can be read by the operator", bad))
	}
	f.Outcome = Kept
	f.Saw = fmt.Sprintf("%d bytes passed, %d files read: ciphertext only, none of %d secrets (shares, keys, names, bytes).", len(traffic)+len(shares), found.Files, len(p.canaries))
	return f, nil
}
