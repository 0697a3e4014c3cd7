package s3load

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSignatureOfAWSExample uses the published example "GET Object" of the
// documentation of Signature Version 4 for S3 (header-based authentication).
func TestSignatureOfAWSExample(t *testing.T) {
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	s := &signer{creds: Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", Region: "us-east-1"}}
	req, err := http.NewRequest(http.MethodGet, "https://examplebucket.s3.amazonaws.com/test.txt", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=0-9")
	s.sign(req, empty, time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC))
	const want = "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
	if got := req.Header.Get("Authorization"); !strings.HasSuffix(got, want) {
		t.Errorf("Authorization: %s\nwant … %s", got, want)
	}
}

// serveFake starts a fake over TLS and returns it as a target whose server is this process.
func serveFake(t *testing.T, f *fakeS3) Target {
	t.Helper()
	server := httptest.NewTLSServer(f)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return Target{
		Name: "fake", Endpoint: server.URL, Roots: roots,
		Credentials: Credentials{AccessKeyID: "ID", Secret: "secret", Region: "eu-1"},
		PIDs:        func() ([]int, error) { return []int{os.Getpid()}, nil },
	}
}

func TestEveryOperationInEveryMode(t *testing.T) {
	for _, op := range []Operation{Put, Get, Mixed, List} {
		for _, mode := range []Mode{Unsigned, Signed, Trailer} {
			for _, size := range []int{0, 5000} {
				t.Run(string(op)+"/"+string(mode)+"/"+SizeName(size), func(t *testing.T) {
					f := newFake()
					r, err := Run(t.Context(), serveFake(t, f), Cell{
						Operation: op, Size: size, Clients: 3, Mode: mode, Objects: 7,
						Duration: 60 * time.Millisecond, Warmup: 10 * time.Millisecond,
					})
					if err != nil {
						t.Fatal(err)
					}
					if r.Operations == 0 || r.OpsPerSecond <= 0 || r.P50 <= 0 || r.P99 < r.P50 || !r.HasServer || r.PeakRSS == 0 {
						t.Errorf("result %+v", r)
					}
					if moves := op != List && size > 0; moves != (r.MiBPerSecond > 0) {
						t.Errorf("%v MiB/s", r.MiBPerSecond)
					}
					if op == Put && f.puts < r.Operations {
						t.Errorf("%d operations reported, the server saw %d", r.Operations, f.puts)
					}
					if len(f.buckets) != 0 {
						t.Errorf("left behind: %d buckets", len(f.buckets))
					}
				})
			}
		}
	}
}

func TestListWalksPages(t *testing.T) {
	f := newFake()
	target := serveFake(t, f)
	cell := Cell{Operation: List, Clients: 1, Duration: 200 * time.Millisecond, Objects: 2*listPage + 1}
	if _, err := Run(t.Context(), target, cell); err != nil {
		t.Error(err)
	}
	f.hide = 1
	if _, err := Run(t.Context(), target, cell); err == nil || !strings.Contains(err.Error(), "a walk found 2000 keys, want 2001") {
		t.Errorf("a listing that leaves a key out: %v", err)
	}
}

func TestWrongBytesFailTheMeasurement(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"flipped": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"short":   func(b []byte) []byte { return b[:len(b)-1] },
		"long":    func(b []byte) []byte { return append(b, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.damage = damage
			_, err := Run(t.Context(), serveFake(t, f), Cell{Operation: Get, Size: 300, Clients: 2, Duration: 50 * time.Millisecond, Objects: 2})
			if err == nil || !strings.Contains(err.Error(), "bytes") {
				t.Errorf("error: %v", err)
			}
			if len(f.buckets) != 0 {
				t.Error("the bucket was left behind")
			}
		})
	}
}

func TestServerErrorsFailTheMeasurement(t *testing.T) {
	target := serveFake(t, newFake())
	target.AccessKeyID = "OTHER"
	_, err := Run(t.Context(), target, Cell{Operation: Put, Size: 1, Clients: 1, Duration: time.Millisecond})
	if answer := (*statusError)(nil); !errors.As(err, &answer) || answer.code != http.StatusBadRequest {
		t.Errorf("error: %v", err)
	}
}

func TestInterruptCleansUp(t *testing.T) {
	f := newFake()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := Run(ctx, serveFake(t, f), Cell{Operation: Put, Size: 10, Clients: 2, Duration: time.Hour})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error: %v", err)
	}
	if len(f.buckets) != 0 {
		t.Error("the bucket was left behind")
	}
}

func TestBadCellsAndTargets(t *testing.T) {
	good := Cell{Operation: Put, Size: 1, Clients: 1, Duration: time.Second}
	for name, change := range map[string]func(*Cell){
		"operation": func(c *Cell) { c.Operation = "rename" },
		"size":      func(c *Cell) { c.Size = -1 },
		"clients":   func(c *Cell) { c.Clients = 0 },
		"duration":  func(c *Cell) { c.Duration = 0 },
		"mode":      func(c *Cell) { c.Mode = "md5" },
	} {
		cell := good
		change(&cell)
		if _, err := Run(t.Context(), serveFake(t, newFake()), cell); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	creds := Credentials{"ID", "secret", "eu-1"}
	for _, target := range []Target{{Credentials: creds}, {Endpoint: "ftp://x", Credentials: creds}, {Endpoint: "https://x/path", Credentials: creds}, {Endpoint: "https://x"}} {
		if _, err := Run(t.Context(), target, good); err == nil || !strings.Contains(err.Error(), "s3load: ") {
			t.Errorf("target %+v: %v", target.Endpoint, err)
		}
	}
}

func TestPercentile(t *testing.T) {
	var times []time.Duration
	for i := range 100 {
		times = append(times, time.Duration(i+1))
	}
	for p, want := range map[int]time.Duration{50: 50, 99: 99, 100: 100, 1: 1} {
		if got := percentile(times, p); got != want {
			t.Errorf("p%d = %d, want %d", p, got, want)
		}
	}
	if got := percentile([]time.Duration{7}, 50); got != 7 {
		t.Errorf("of one value: %d", got)
	}
	if got := percentile([]time.Duration{1, 9}, 99); got != 9 {
		t.Errorf("p99 of two: %d", got)
	}
}

func TestReports(t *testing.T) {
	r := Result{Target: "chancery", Operation: Put, Size: 1 << 20, HasServer: true, ServerCPUPerOp: 1500 * time.Microsecond, PeakRSS: 64 << 20, PeakIsOfCell: true}
	r.fill([]time.Duration{2 * time.Millisecond, time.Millisecond}, 2<<20, time.Second, time.Microsecond)
	var table strings.Builder
	if err := WriteTable(&table, []Result{r, {Target: "other", Operation: List}}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(table.String()), "\n")
	if len(lines) != 4 || !slices.Equal(strings.Fields(lines[2]), strings.Fields("| chancery| put| 1MiB| 2| 2.0| 1.00| 2.00| 1.50| 64| 0.00|")) || !strings.Contains(lines[3], "not seen") {
		t.Errorf("table:\n%s", table.String())
	}
	path := filepath.Join(t.TempDir(), "r.json")
	if err := (Report{Machine: Machine(), Results: []Result{r}}).WriteJSON(path); err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(body, &back); err != nil || len(back.Results) != 1 || back.Results[0] != r || back.Machine["processors"] == "" {
		t.Errorf("read back: %+v, %v", back, err)
	}
}
