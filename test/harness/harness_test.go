package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadEnv(t *testing.T) {
	path := filepath.Join(t.TempDir(), "demo.env")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# words\n\nexport A='with space and '\\''quote'\\'''\nB=plain/and=equals\nexport C=\"double\"\nD=''\n")
	env, err := ReadEnv(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"A": "with space and 'quote'", "B": "plain/and=equals", "C": "double", "D": ""} {
		if got, ok := env[name]; !ok || got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	for _, bad := range []string{"echo hello", "A='open", "A=a b", "A=$(id)", "A=\"$HOME\"", "=x", "A='a'b'"} {
		write(bad)
		if env, err := ReadEnv(path); err == nil {
			t.Errorf("%q was read as %v", bad, env)
		}
	}
}

// fakeBinary writes a script that stands in for the binary, to see what the
// harness does with one that misbehaves.
func fakeBinary(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chancery")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStartReportsAnEarlyEndWithTheLog(t *testing.T) {
	begun := time.Now()
	_, err := Start(t.Context(), Options{Dir: t.TempDir(), Binary: fakeBinary(t, "echo no room on the disk >&2; exit 3")})
	if err == nil || !strings.Contains(err.Error(), "no room on the disk") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error: %v", err)
	}
	if time.Since(begun) > 30*time.Second {
		t.Errorf("took %v to notice", time.Since(begun))
	}
}

func TestStartGivesUpAndLeavesNoProcess(t *testing.T) {
	dir := t.TempDir()
	// The child writes its id, so that we can see that it was ended too.
	script := `sleep 300 & echo $! > "` + dir + `/child"; sleep 300; true`
	_, err := Start(t.Context(), Options{Dir: dir, Binary: fakeBinary(t, script), Ready: 500 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "not ready after") {
		t.Fatalf("error: %v", err)
	}
	body, err := os.ReadFile(filepath.Join(dir, "child"))
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(body))); os.IsNotExist(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %s is still there", body)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestStartRemovesAnOldEnvironment(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "demo.env"), []byte("AWS_ENDPOINT_URL=https://127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Dir: dir, Binary: fakeBinary(t, "exit 1")}); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(filepath.Join(dir, "demo.env")); !os.IsNotExist(err) {
		t.Errorf("demo.env of the last run is still there: %v", err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var w tail
	for range 3 {
		w.Write([]byte(strings.Repeat("x", tailSize/2)))
	}
	w.Write([]byte("end"))
	if got := w.String(); len(got) != tailSize || !strings.HasSuffix(got, "xend") {
		t.Errorf("%d bytes", len(got))
	}
}
