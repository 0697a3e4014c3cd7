package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chancery/bench/s3load"
)

func TestCells(t *testing.T) {
	o, err := parse([]string{"--sizes", "4KiB,1MiB", "--ops", "put,list", "--clients", "3", "--duration", "2s"})
	if err != nil {
		t.Fatal(err)
	}
	cells, err := o.cells()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range cells {
		got = append(got, string(c.Operation)+" "+s3load.SizeName(c.Size))
		if c.Clients != 3 || c.Duration != 2*time.Second || c.Mode != s3load.Unsigned {
			t.Errorf("cell %+v", c)
		}
	}
	if want := "put 4KiB,put 1MiB,list 0B"; strings.Join(got, ",") != want {
		t.Errorf("cells %v, want %s", got, want)
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{"--nothing"}, {"extra"}, {"--start", "x", "--tree", "1"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
	for _, size := range []string{"", "x", "-1", "1TiB", "6GiB", "4 KiB"} {
		if n, err := parseSize(size); err == nil {
			t.Errorf("size %q is %d", size, n)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "")
	if err := run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "AWS_ENDPOINT_URL is not set") {
		t.Errorf("without an endpoint: %v", err)
	}
}

func TestPeer(t *testing.T) {
	env := filepath.Join(t.TempDir(), "peer.env")
	if err := os.WriteFile(env, []byte("AWS_ENDPOINT_URL=https://127.0.0.1:1\nAWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY='s e'\nAWS_REGION=eu-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := peer("other," + env)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "other" || p.Endpoint != "https://127.0.0.1:1" || p.Secret != "s e" || p.PIDs != nil {
		t.Errorf("peer %+v", p)
	}
	for _, bad := range []string{"other", "," + env, "other," + env + ",x", "other," + env + ",1,2", "other,/nowhere", "other," + env + ",2147483000"} {
		if _, err := peer(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
