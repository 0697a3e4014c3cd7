package e2e

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"chancery/bench/procstat"
)

// TestFiveGiB stores the largest object that one PUT may hold, and the same in
// parts, and reads both back, with bounded memory of zone and cell.
func TestFiveGiB(t *testing.T) {
	if !large() {
		t.Skip("takes 20 GiB of transfers: run with CHANCERY_E2E_LARGE=1 or SOAK=1")
	}
	z := sharedZone(t)
	c := client(t, project(t, z, "health", "wards"))
	bucket(t, c, "five-gib")
	cell, err := z.CellPID(t.Context(), "health")
	if err != nil {
		t.Fatal(err)
	}
	const size = 5 << 30
	// The same bytes each time, without holding them.
	source := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{5}), size) }
	want := sha256.New()
	if _, err := io.Copy(want, source()); err != nil {
		t.Fatal(err)
	}
	for key, o := range map[string]minio.PutObjectOptions{
		"single":    {DisableMultipart: true},
		"multipart": {PartSize: 64 << 20},
	} {
		procstat.ResetPeak([]int{z.PID(), cell})
		start := time.Now()
		if _, err := c.PutObject(t.Context(), "five-gib", key, source(), size, o); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		up := time.Since(start)
		start = time.Now()
		r, err := c.GetObject(t.Context(), "five-gib", key, minio.GetObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got := sha256.New()
		n, err := io.Copy(got, r)
		r.Close()
		if err != nil || n != size || string(got.Sum(nil)) != string(want.Sum(nil)) {
			t.Errorf("%s: %d bytes came back, %v", key, n, err)
		}
		u, err := procstat.Of([]int{z.PID(), cell})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: up %v, down %v, peak of zone and cell %d MiB", key, up.Round(time.Second), time.Since(start).Round(time.Second), u.PeakRSS>>20)
		if u.PeakRSS > 768<<20 {
			t.Errorf("%s: %d MiB of memory", key, u.PeakRSS>>20)
		}
	}
	_, err = c.PutObject(t.Context(), "five-gib", "too-large", io.MultiReader(source(), source()), size+1, minio.PutObjectOptions{DisableMultipart: true})
	refused(t, "one byte more than 5 GiB", err, "EntityTooLarge", "InvalidArgument")
}
