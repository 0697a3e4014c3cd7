// Package prove checks the ten promises live, adversarially, and from outside: it
// plants canaries, kills processes, tries to break out, and reads the raw disk,
// then says what it did and what it saw. It changes nothing that belongs to an
// organization: what it needs, it makes in a scratch organization of its own and removes.
//
// It must never report a promise as kept that it did not test in this run.
package prove

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// Promises are the ten sentences that the product is (docs/concepts.md).
var Promises = [...]string{
	1:  "Sealed is unreadable",
	2:  "No way out",
	3:  "The operator is outside the wall",
	4:  "Acknowledged is durable",
	5:  "Nothing happens unseen",
	6:  "Nothing enters unsigned, nothing leaves uninspected",
	7:  "An embassy is foreign ground",
	8:  "The exit is open",
	9:  "It outlives its makers",
	10: "Erased is erased",
}

// Outcome of a check. The zero Outcome counts as broken.
type Outcome string

const (
	// Kept: the attack was made and failed.
	Kept Outcome = "kept"
	// Broken: the promise does not hold here.
	Broken Outcome = "BROKEN"
	// NotEnforced: this host's kernel lacks what the check needs; other layers may still hold.
	NotEnforced Outcome = "not enforced on this host"
	// NotBuilt: there is nothing to check yet in this version.
	NotBuilt Outcome = "not built yet"
)

// Finding is the result of one check.
type Finding struct {
	Promise int     `json:"promise"`
	Title   string  `json:"title"`
	Check   string  `json:"check"`
	Outcome Outcome `json:"outcome"`
	// Did and Saw are one sentence each.
	Did string `json:"did,omitempty"`
	Saw string `json:"saw,omitempty"`
	// Evidence are the details behind Saw, a line each.
	Evidence []string `json:"evidence,omitempty"`
	// Missing are the measures that this host's kernel does not enforce, a line each.
	Missing []string      `json:"missing,omitempty"`
	Took    time.Duration `json:"tookNanoseconds"`
}

// Report is a whole run.
type Report struct {
	Zone     string    `json:"zone"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Findings []Finding `json:"findings"`
}

// Broken counts the findings that are neither kept, nor unenforceable here, nor unbuilt.
func (r Report) Broken() int {
	n := 0
	for _, f := range r.Findings {
		switch f.Outcome {
		case Kept, NotEnforced, NotBuilt:
		default:
			n++
		}
	}
	return n
}

// check is one live test of a promise.
type check struct {
	promise int
	name    string
	run     func(ctx context.Context, e *env) (Finding, error)
}

// runAll runs the checks in order. An error of a check is a broken promise: what
// could not be shown is not claimed. It stops when ctx ends: a check that was
// interrupted has found nothing.
func runAll(ctx context.Context, e *env, checks []check, each func(Finding)) []Finding {
	var out []Finding
	for _, c := range checks {
		begin := time.Now()
		f, err := c.run(ctx, e)
		if ctx.Err() != nil {
			return out
		}
		if err != nil {
			f.Outcome = Broken
			f.Saw = "the check could not be carried out: " + err.Error()
		}
		f.Promise, f.Title, f.Check, f.Took = c.promise, Promises[c.promise], c.name, time.Since(begin)
		if each != nil {
			each(f)
		}
		out = append(out, f)
	}
	return out
}

// Print writes a finding as one line; below it what is missing on this host, and
// the evidence if it is asked for or the promise is broken.
func Print(w io.Writer, f Finding, verbose bool) {
	words := strings.Join(strings.Fields(f.Did+" "+f.Saw), " ")
	fmt.Fprintf(w, "%2d  %-13s  %s / %s: %s (%.1f s)\n", f.Promise, f.Outcome, f.Title, f.Check, words, f.Took.Seconds())
	for _, line := range f.Missing {
		fmt.Fprintf(w, "      - %s\n", line)
	}
	if verbose || f.Outcome == Broken {
		for _, line := range f.Evidence {
			fmt.Fprintf(w, "      - %s\n", line)
		}
	}
}
