package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"chancery/bench/procstat"
	"chancery/bench/s3load"
	"chancery/test/harness"
)

// started is a server that we started and will stop.
type started struct {
	target s3load.Target
	start  s3load.ServerStart
	stop   func() error
}

// settleIdle is how long a started server is left alone before its idle memory is read.
const settleIdle = 3 * time.Second

// startAll starts our server, and MinIO where it is. What it returns must be
// stopped, also when there is an error.
func startAll(ctx context.Context, o options) ([]started, error) {
	var all []started
	ours, err := startChancery(ctx, o.start)
	if err != nil {
		return all, err
	}
	all = append(all, ours)
	if o.minio != "" {
		path, err := exec.LookPath(o.minio)
		if err != nil {
			fmt.Printf("no %s in PATH: measuring alone\n", o.minio)
		} else {
			theirs, err := startMinIO(ctx, path)
			if err != nil {
				return all, err
			}
			all = append(all, theirs)
		}
	}
	time.Sleep(settleIdle)
	for i := range all {
		pids, err := all[i].target.PIDs()
		if err != nil {
			return all, err
		}
		u, err := procstat.Of(pids)
		if err != nil {
			return all, err
		}
		all[i].start.Target, all[i].start.IdleRSS, all[i].start.Processes = all[i].target.Name, u.RSS, u.Processes
	}
	return all, nil
}

func startChancery(ctx context.Context, binary string) (started, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return started{}, err
	}
	dir, err := os.MkdirTemp("", "chancery-bench-")
	if err != nil {
		return started{}, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	zone, err := harness.Start(ctx, harness.Options{Dir: filepath.Join(dir, "data"), Binary: binary})
	if err != nil {
		return started{}, errors.Join(err, remove())
	}
	stop := func() error { return errors.Join(zone.Stop(), remove()) }
	t, err := target("chancery", zone.Env, zone.PID())
	if err != nil {
		return started{}, errors.Join(err, stop())
	}
	return started{target: t, start: s3load.ServerStart{ReadySeconds: zone.StartTime.Seconds()}, stop: stop}, nil
}

// startMinIO starts MinIO as it must be to compare: TLS, and encryption of every
// object by its built-in key service.
func startMinIO(ctx context.Context, binary string) (started, error) {
	dir, err := os.MkdirTemp("", "minio-bench-")
	if err != nil {
		return started{}, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	roots, err := writeCertificate(filepath.Join(dir, "certs"))
	if err != nil {
		return started{}, errors.Join(err, remove())
	}
	var kms [32]byte
	secret := rand.Text()
	if _, err := rand.Read(kms[:]); err != nil {
		return started{}, errors.Join(err, remove())
	}
	address, err := freeAddress()
	if err != nil {
		return started{}, errors.Join(err, remove())
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return started{}, errors.Join(err, remove())
	}
	defer log.Close()
	cmd := exec.Command(binary, "server", "--quiet", "--address", address, "--certs-dir", filepath.Join(dir, "certs"), filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(),
		"MINIO_ROOT_USER=bench-admin", "MINIO_ROOT_PASSWORD="+secret, "MINIO_BROWSER=off", "MINIO_UPDATE=off",
		"MINIO_KMS_SECRET_KEY=bench-key:"+base64.StdEncoding.EncodeToString(kms[:]), "MINIO_KMS_AUTO_ENCRYPTION=on")
	cmd.Stdout, cmd.Stderr = log, log
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return started{}, errors.Join(err, remove())
	}
	stop := func() error {
		err := cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it ends by our signal
		return errors.Join(err, remove())
	}
	t := s3load.Target{
		Name: "minio", Endpoint: "https://" + address, Roots: roots,
		Credentials: s3load.Credentials{AccessKeyID: "bench-admin", Secret: secret, Region: "us-east-1"},
		PIDs:        func() ([]int, error) { return procstat.Tree(cmd.Process.Pid) },
	}
	if err := awaitHealth(ctx, t.Endpoint+"/minio/health/cluster", roots); err != nil {
		text, _ := os.ReadFile(log.Name()) // best effort: it only explains
		return started{}, errors.Join(fmt.Errorf("minio: %w\n%s", err, text), stop())
	}
	return started{target: t, start: s3load.ServerStart{ReadySeconds: time.Since(begun).Seconds()}, stop: stop}, nil
}

// freeAddress finds a loopback port that is free now. Another program may take
// it before the server does; then the server says so and the run fails.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// writeCertificate makes a self-signed certificate for 127.0.0.1 under the names that MinIO looks for.
func writeCertificate(dir string) (*x509.CertPool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "public.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "private.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		return nil, err
	}
	return harness.CertPool(filepath.Join(dir, "public.crt"))
}

func awaitHealth(ctx context.Context, url string, roots *x509.CertPool) error {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
