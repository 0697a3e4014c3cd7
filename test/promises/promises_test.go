// Package promises runs `chancery prove` against a real zone, as anyone may.
package promises

import (
	"encoding/json"
	"errors"
	"os/exec"
	"testing"

	"chancery/test/harness"
)

// report is what a script reads of `chancery prove --output json`.
type report struct {
	Findings []struct {
		Promise             int
		Check, Outcome, Saw string
		Evidence, Missing   []string
	}
}

func TestProve(t *testing.T) {
	zone := harness.Up(t, harness.Options{})
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), binary, "prove", "--dir", zone.Dir(), "--output", "json").Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Errorf("exit status %d: %s", exit.ExitCode(), exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	kept := map[int]int{}
	for _, f := range r.Findings {
		switch f.Outcome {
		case "kept":
			kept[f.Promise]++
		case "not enforced on this host":
			// All attempts were refused; what the kernel lacks is told by name.
			if len(f.Missing) == 0 {
				t.Errorf("promise %d, %s: not enforced, but nothing is named", f.Promise, f.Check)
			}
			kept[f.Promise]++
		case "not built yet":
		default:
			t.Errorf("promise %d, %s: %s: %s %q", f.Promise, f.Check, f.Outcome, f.Saw, f.Evidence)
		}
	}
	for promise, checks := range map[int]int{1: 2, 2: 2, 3: 1, 4: 1, 9: 1, 10: 1} {
		if kept[promise] != checks {
			t.Errorf("promise %d: %d checks kept, want %d", promise, kept[promise], checks)
		}
	}
	// What the checks made is gone again.
	left, err := exec.CommandContext(t.Context(), binary, "status", "--dir", zone.Dir(), "--output", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ Organizations []json.RawMessage }
	if err := json.Unmarshal(left, &status); err != nil || len(status.Organizations) != 1 {
		t.Errorf("%d organizations are left, want the demonstration's alone (%v)", len(status.Organizations), err)
	}
}
