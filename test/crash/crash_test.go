package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"chancery/bench/procstat"
	"chancery/test/harness"
)

// TestKills kills the cell (and every fourth time the whole zone) with SIGKILL
// while six clients write. CHANCERY_CRASH_TIME makes it go on for that long (make soak).
func TestKills(t *testing.T) {
	kills, until := 8, time.Time{}
	if v := os.Getenv("CHANCERY_CRASH_TIME"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		kills, until = 1<<30, time.Now().Add(d)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	zone := harness.Up(t, harness.Options{})
	client := minioClient(t, zone)
	if err := client.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	var writers []*writer
	for id := range 6 {
		writers = append(writers, newWriter(id, client, seed, 20))
	}
	done, acknowledged, unanswered, lost, wrong, resurrected := 0, 0, 0, 0, 0, 0
	for ; done < kills && (until.IsZero() || time.Now().Before(until)); done++ {
		whole := done%4 == 3
		storm(t, zone, writers, time.Duration(100+random.IntN(1200))*time.Millisecond, whole)
		if whole {
			if err := zone.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			client = minioClient(t, zone)
			for _, w := range writers {
				w.client, w.core = client, minio.Core{Client: client}
			}
		} else {
			unseal(t, zone)
		}
		want := make(map[string]int64)
		for _, w := range writers {
			d, err := w.verify(t.Context())
			if err != nil {
				t.Fatalf("after kill %d: %v", done+1, err)
			}
			if d.any() {
				t.Errorf("after kill %d: %+v", done+1, d)
			}
			lost, wrong, resurrected = lost+len(d.lost), wrong+len(d.wrong), resurrected+len(d.resurrected)
			w.present(want)
		}
		if got := listing(t, client); !maps.Equal(got, want) {
			t.Errorf("after kill %d the listing has %d objects, want %d", done+1, len(got), len(want))
		}
		if t.Failed() {
			break
		}
	}
	for _, w := range writers {
		acknowledged, unanswered = acknowledged+w.acknowledged, unanswered+w.unanswered
	}
	fmt.Printf("crash: kills %d, acknowledged writes %d, unanswered %d, lost %d, wrong %d, resurrected %d\n",
		done, acknowledged, unanswered, lost, wrong, resurrected)
	if acknowledged < 10*done {
		t.Errorf("only %d acknowledged writes in %d rounds: the test did not test", acknowledged, done)
	}
}

// storm lets the writers write, kills, and waits until each has met the end.
func storm(t *testing.T, zone *harness.Zone, writers []*writer, life time.Duration, whole bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var group sync.WaitGroup
	ends := make([]error, len(writers))
	for i, w := range writers {
		group.Go(func() { ends[i] = w.run(ctx) })
	}
	time.Sleep(life)
	if whole {
		if err := zone.Kill(); err != nil {
			t.Fatal(err)
		}
	} else {
		pid := cellPID(t, zone)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill cell %d: %v", pid, err)
		}
	}
	group.Wait()
	for i, err := range ends {
		if err == nil {
			t.Fatalf("writer %d was still writing a minute after the kill", i)
		}
	}
}

// cellPID finds the one cell among the zone's descendants.
func cellPID(t *testing.T, zone *harness.Zone) int {
	t.Helper()
	tree, err := procstat.Tree(zone.PID())
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range tree {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue // it ended
		}
		if args := strings.Split(string(line), "\x00"); len(args) > 1 && args[1] == "cell-process" {
			return pid
		}
	}
	t.Fatalf("no cell among the zone's processes %v\n%s", tree, zone.Logs())
	return 0
}

// unseal waits until the cell is back, sealed, and opens it with the demonstration's custodian.
func unseal(t *testing.T, zone *harness.Zone) {
	t.Helper()
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), binary, "org", "unseal", "demo", "--dir", zone.Dir(),
			"--identity", filepath.Join(zone.Dir(), "demo", "custodian.identity"))
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if err == nil {
			return
		}
		if errors.Is(err, context.Canceled) || time.Now().After(deadline) {
			t.Fatalf("unseal: %v\n%s\n%s", err, out.String(), zone.Logs())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func minioClient(t *testing.T, zone *harness.Zone) *minio.Client {
	t.Helper()
	endpoint, err := url.Parse(zone.Env[harness.EndpointURL])
	if err != nil {
		t.Fatal(err)
	}
	https, err := zone.HTTPClient()
	if err != nil {
		t.Fatal(err)
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds:      credentials.NewStaticV4(zone.Env[harness.AccessKeyID], zone.Env[harness.SecretKey], ""),
		Secure:     true,
		Transport:  https.Transport,
		Region:     zone.Env[harness.Region],
		MaxRetries: 1, // a retried write would blur which ones were acknowledged
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func listing(t *testing.T, client *minio.Client) map[string]int64 {
	t.Helper()
	got := make(map[string]int64)
	for info := range client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if info.Err != nil {
			t.Fatal(info.Err)
		}
		got[info.Key] = info.Size
	}
	return got
}
