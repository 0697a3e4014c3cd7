package prove

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
)

// TestSearchFinds plants each form of a canary, also across the border of the
// search's window, and wants it found; a clean tree must give nothing.
func TestSearchFinds(t *testing.T) {
	c := Canary{"name", []byte("canary-0123456789ab")}
	for form, planted := range map[string][]byte{
		"raw":      c.Secret,
		"hex":      []byte(hex.EncodeToString(c.Secret)),
		"base64":   []byte(base64.StdEncoding.EncodeToString(append([]byte("x"), c.Secret...))),
		"UTF-16":   bytes.Join(bytes.Split(c.Secret, nil), []byte{0}),
		"reversed": []byte("ba9876543210-yranac"),
	} {
		if form == "UTF-16" {
			planted = append(planted, 0)
		}
		for _, before := range []int{0, 1, 1<<20 - 5, 1<<20 + 17, 2<<20 + 3} {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "f"), append(make([]byte, before), planted...), 0o600); err != nil {
				t.Fatal(err)
			}
			found, err := Search(context.Background(), []string{dir}, []Canary{c})
			if err != nil || len(found.Sightings) == 0 {
				t.Errorf("%s after %d bytes was not found (%v)", form, before, err)
			}
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), bytes.Repeat([]byte("canary-0123456789a "), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := Search(context.Background(), []string{dir}, []Canary{c})
	if err != nil || len(found.Sightings) != 0 || found.Files != 1 || found.Bytes != 1_900_000 {
		t.Errorf("a clean tree: %+v, %v", found, err)
	}
	if err := os.Mkdir(filepath.Join(dir, string(c.Secret)), 0o700); err != nil {
		t.Fatal(err)
	}
	if found, err := Search(context.Background(), []string{dir}, []Canary{c}); err != nil || len(found.Sightings) == 0 {
		t.Errorf("a name was not found: %v", err)
	}
}

// TestControlSearch makes sure that the search's own control passes.
func TestControlSearch(t *testing.T) {
	if err := controlSearch(context.Background(), []Canary{canary("a"), canary("b")}); err != nil {
		t.Fatal(err)
	}
}

// TestZeroOutcomeIsBroken: what no check decided counts as a broken promise.
func TestZeroOutcomeIsBroken(t *testing.T) {
	r := Report{Findings: []Finding{{}, {Outcome: Kept}, {Outcome: NotBuilt}, {Outcome: NotEnforced}, {Outcome: "surely fine"}}}
	if r.Broken() != 2 {
		t.Errorf("%d findings count as broken, want 2", r.Broken())
	}
}
