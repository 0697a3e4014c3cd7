package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"chancery/test/harness"
)

// TestScripts runs testdata/*.txtar: the command line as an operator and
// custodians use it. `chancery` in them is the real binary.
func TestScripts(t *testing.T) {
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			bin := filepath.Join(env.WorkDir, ".bin")
			if err := os.MkdirAll(bin, 0o755); err != nil {
				return err
			}
			if err := os.Symlink(binary, filepath.Join(bin, "chancery")); err != nil {
				return err
			}
			env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("CHANCERY_DIR", filepath.Join(env.WorkDir, "zone"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": await,
			"s3":    askS3,
		},
	})
}

// await repeats a command until it succeeds and prints what matches a regular
// expression, for at most a minute: await REGEXP COMMAND ARG…
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await REGEXP COMMAND ARG…")
	}
	want, err := regexp.Compile(args[0])
	ts.Check(err)
	deadline := time.Now().Add(time.Minute)
	for {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v did not succeed within a minute: %v", args, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// askS3 makes one unsigned request to the zone's S3 port under a server name, and
// wants its answer to hold a text: s3 SERVER-NAME TEXT. The certificate is whatever
// the cell shows: after a restart that is the sealed identity.
func askS3(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: s3 SERVER-NAME TEXT")
	}
	got, err := unsigned(ts.MkAbs("zone"), args[0])
	ts.Check(err)
	if !strings.Contains(got, args[1]) {
		ts.Fatalf("S3 answers %s, want %s", got, args[1])
	}
}
