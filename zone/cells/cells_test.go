package cells

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"chancery/internal/errs"
	"chancery/internal/sandbox"
	"chancery/wall"
)

const childArg = "cells-test-child"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		os.Exit(child(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "cells-test-zone" {
		zoneProcess(os.Args[2])
	}
	os.Exit(m.Run())
}

// child is a cell that speaks over the wall, and misbehaves when asked.
func child(args []string) int {
	view, err := sandbox.Enter(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var c wall.Config
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if c.DataDir != view.DataDir || c.RunDir != view.RunDir || c.Sandbox != string(view.Mode) {
		fmt.Fprintf(os.Stderr, "config %+v, view %+v\n", c, view)
		return 1
	}
	if len(args) > 0 && args[0] == "die" {
		fmt.Fprintln(os.Stderr, "last words")
		return 3
	}
	var unsealed, mute atomic.Bool
	mux := http.NewServeMux()
	status := func(w http.ResponseWriter, r *http.Request) {
		for mute.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		st := wall.Status{Organization: c.Organization, State: wall.SealedState}
		if unsealed.Load() {
			st.State = wall.Unsealed
		}
		json.NewEncoder(w).Encode(st)
	}
	mux.HandleFunc("GET "+wall.PathStatus, status)
	mux.HandleFunc("POST "+wall.PathSeal, func(w http.ResponseWriter, r *http.Request) { unsealed.Store(false); status(w, r) })
	mux.HandleFunc("POST "+wall.PathInit, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(409)
		json.NewEncoder(w).Encode(wall.Failure{Kind: errs.Exists.String(), Message: "the organization is initialized already"})
	})
	mux.HandleFunc("POST "+wall.PathProbe, func(w http.ResponseWriter, r *http.Request) {
		var p wall.Probe
		json.NewDecoder(r.Body).Decode(&p)
		var out wall.ProbeReport
		for _, a := range sandbox.Attempts(r.Context(), sandbox.Probe(p)) {
			out.Attempts = append(out.Attempts, wall.Attempt(a))
		}
		json.NewEncoder(w).Encode(out)
	})
	mux.HandleFunc("POST "+wall.PathShutdown, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(202)
		os.WriteFile(filepath.Join(c.DataDir, "clean"), nil, 0o600)
		go func() { time.Sleep(20 * time.Millisecond); os.Exit(0) }()
	})
	// Not of the wall: the tests' own.
	mux.HandleFunc("/test/", func(w http.ResponseWriter, r *http.Request) {
		switch strings.TrimPrefix(r.URL.Path, "/test/") {
		case "unseal":
			unsealed.Store(true)
		case "crash":
			panicNow()
		case "mute":
			mute.Store(true)
		}
	})
	l, err := net.Listen("unix", filepath.Join(c.RunDir, wall.SocketWall))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "cell serves")
	http.Serve(l, mux)
	return 0
}

func panicNow() { go func() { panic("crash for the test") }() }

// zoneProcess is a zone with one cell; it prints the cell's pid and waits to be killed.
func zoneProcess(dir string) {
	s, err := New(Options{Dir: dir, Args: []string{childArg}})
	if err == nil {
		err = s.Ensure(context.Background(), wall.Config{Organization: "health"})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	st, _ := s.Status("health")
	fmt.Println(st.PID)
	select {}
}

func supervisor(t *testing.T, o Options) *Supervisor {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Args == nil {
		o.Args = []string{childArg}
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.Close(ctx)
	})
	return s
}

func ensure(t *testing.T, s *Supervisor, org string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Ensure(ctx, wall.Config{Organization: org, Domain: "zone.example"}); err != nil {
		t.Fatal(err)
	}
}

func test(t *testing.T, s *Supervisor, org, what string) {
	t.Helper()
	c, err := s.Client(org)
	if err != nil {
		t.Fatal(err)
	}
	c.call(t.Context(), "POST", "/test/"+what, nil, nil) // a crash breaks the connection
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("does not happen: %s", what)
		}
	}
}

func TestLife(t *testing.T) {
	s := supervisor(t, Options{})
	ensure(t, s, "health")
	ensure(t, s, "school")
	ensure(t, s, "health") // again: nothing changes
	all := s.List()
	if len(all) != 2 || all[0].Organization != "health" || all[0].Phase != Running || all[0].Cell.Organization != "health" || all[0].RSSBytes == 0 {
		t.Fatalf("%+v", all)
	}
	if os.Getuid() == 0 && (all[0].HostUID < firstUID || all[0].HostUID == all[1].HostUID) {
		t.Errorf("user ids %d and %d", all[0].HostUID, all[1].HostUID)
	}
	c, err := s.Client("health")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Init(t.Context(), wall.Init{}); !errs.Is(err, errs.Exists) || !strings.Contains(err.Error(), "initialized already") {
		t.Errorf("the failure came as %v", err)
	}
	// A cell's probe over the wall: the neighbour's and the operator's files, our own process.
	dir := s.o.Dir
	report, err := c.Probe(t.Context(), wall.Probe{Paths: []string{filepath.Join(dir, "cells/school/data"), filepath.Join(dir, "cells/uids.json")}, PIDs: []int{os.Getpid(), all[1].PID}})
	if err != nil || len(report.Attempts) < 50 {
		t.Fatalf("%d attempts, %v", len(report.Attempts), err)
	}
	for _, a := range report.Attempts {
		// A build with cgo (the race detector) has a /proc of its own.
		if !a.Refused && !strings.HasPrefix(a.Name, "open /proc/") {
			t.Errorf("%s: %s", a.Name, a.Detail)
		}
	}
	if err := s.Remove(t.Context(), "health"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cells/health/data/clean")); err != nil {
		t.Errorf("the cell did not end cleanly: %v", err)
	}
	if _, ok := s.Status("health"); ok {
		t.Error("removed, but known")
	}
	if err := s.Remove(t.Context(), "health"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "cells/school/log"))
	if err != nil || !strings.Contains(string(log), "cell serves") {
		t.Errorf("log %q %v", log, err)
	}
	if _, err := New(Options{Dir: dir, Args: []string{childArg}}); err == nil {
		t.Error("two supervisors in one directory")
	}
}

// TestCrash ends an unsealed cell from inside and from outside.
func TestCrash(t *testing.T) {
	s := supervisor(t, Options{Timing: Timing{MinPause: 10 * time.Millisecond, Watch: 20 * time.Millisecond}})
	ensure(t, s, "health")
	for i, how := range []func(Status){
		func(Status) { test(t, s, "health", "crash") },
		func(st Status) { syscall.Kill(st.PID, syscall.SIGKILL) },
	} {
		test(t, s, "health", "unseal")
		waitFor(t, "unsealed", func() bool { st, _ := s.Status("health"); return st.Cell.State == wall.Unsealed })
		before, _ := s.Status("health")
		how(before)
		waitFor(t, "restart", func() bool {
			st, _ := s.Status("health")
			return st.Restarts == i+1 && st.Phase == Running && st.PID != before.PID
		})
		st, _ := s.Status("health")
		if st.Cell.State != wall.SealedState {
			t.Errorf("state after the restart: %s", st.Cell.State)
		}
		if st.LastExit == "" {
			t.Error("no reason given")
		}
		t.Log(st.LastExit)
	}
}

func TestBackOff(t *testing.T) {
	s := supervisor(t, Options{Args: []string{childArg, "die"}, Timing: Timing{MinPause: 20 * time.Millisecond, MaxPause: 80 * time.Millisecond}})
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	err := s.Ensure(ctx, wall.Config{Organization: "health"})
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "last words") {
		t.Errorf("%v", err)
	}
	st, _ := s.Status("health")
	// 20, 40, then 80 ms between: at most 8 or so, where without a pause it would be dozens.
	if st.Restarts < 2 || st.Restarts > 10 {
		t.Errorf("%d restarts", st.Restarts)
	}
}

func TestSilent(t *testing.T) {
	s := supervisor(t, Options{Timing: Timing{MinPause: 10 * time.Millisecond, Watch: 20 * time.Millisecond, Silent: 1500 * time.Millisecond}})
	ensure(t, s, "health")
	test(t, s, "health", "mute")
	waitFor(t, "restart of a silent cell", func() bool {
		st, _ := s.Status("health")
		return st.Restarts == 1 && strings.Contains(st.LastExit, "silent") && st.Phase == Running
	})
}

// TestZoneDies kills a zone with SIGKILL: its cells must die with it.
func TestZoneDies(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "cells-test-zone", t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil || pid < 2 {
		cmd.Process.Kill()
		t.Fatalf("no cell: %v", err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the cell does not run: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	waitFor(t, "the cell dies", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}

// TestPlantedLink shows that the zone follows no link that a cell made: the cell
// cannot make one, and a link that is there is refused.
func TestPlantedLink(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "operator.sock")
	l, err := net.Listen("unix", target)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	run := filepath.Join(dir, "run")
	os.Mkdir(run, 0o700)
	if err := os.Symlink(target, filepath.Join(run, wall.SocketS3)); err != nil {
		t.Fatal(err)
	}
	if c, err := dial(t.Context(), run, wall.SocketS3); !errs.Is(err, errs.Corrupt) {
		if c != nil {
			c.Close()
		}
		t.Errorf("a planted link was followed: %v", err)
	}
	os.Remove(filepath.Join(run, wall.SocketS3))
	os.WriteFile(filepath.Join(run, wall.SocketS3), nil, 0o600)
	if _, err := dial(t.Context(), run, wall.SocketS3); !errs.Is(err, errs.Corrupt) {
		t.Errorf("a file was taken for a socket: %v", err)
	}
}

// TestLongPath: a socket's path may be longer than sockaddr_un.
func TestLongPath(t *testing.T) {
	s := supervisor(t, Options{Dir: filepath.Join(t.TempDir(), strings.Repeat("long-", 40))})
	ensure(t, s, "health")
}

func TestUIDsStay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	s := supervisor(t, Options{Dir: dir})
	ensure(t, s, "health")
	ensure(t, s, "school")
	a, _ := s.Status("health")
	b, _ := s.Status("school")
	s.Close(t.Context())
	s2 := supervisor(t, Options{Dir: dir})
	ensure(t, s2, "school")
	ensure(t, s2, "health")
	a2, _ := s2.Status("health")
	b2, _ := s2.Status("school")
	if a.HostUID != a2.HostUID || b.HostUID != b2.HostUID {
		t.Errorf("ids changed: %d %d → %d %d", a.HostUID, b.HostUID, a2.HostUID, b2.HostUID)
	}
	// A data directory from elsewhere is adopted, all of it.
	s2.Remove(t.Context(), "health")
	f := filepath.Join(dir, "cells/health/data/sub/file")
	os.MkdirAll(filepath.Dir(f), 0o700)
	os.WriteFile(f, nil, 0o600)
	os.Chown(filepath.Join(dir, "cells/health/data"), 0, 0)
	ensure(t, s2, "health")
	st, err := os.Stat(f)
	if err != nil || st.Sys().(*syscall.Stat_t).Uid != a.HostUID {
		t.Errorf("not adopted: %v", err)
	}
}

func TestLogBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	line := []byte(strings.Repeat("x", 999) + "\n")
	for range 3 * maxLog / len(line) {
		l.Write(line)
	}
	l.Write([]byte("the \x1b[31mend\n"))
	if got := l.last(); got != "the ?[31mend" {
		t.Errorf("last line %q", got)
	}
	l.Close()
	l.Write(line)
	var total int64
	for _, p := range []string{path, path + ".1"} {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if total > 2*maxLog || total < maxLog {
		t.Errorf("%d bytes of log", total)
	}
}

func TestRefused(t *testing.T) {
	if _, err := New(Options{}); !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
	s := supervisor(t, Options{})
	for _, name := range []string{"", "..", "a/b", "UPPER"} {
		if err := s.Ensure(t.Context(), wall.Config{Organization: name}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := s.Dial(t.Context(), "none", wall.SocketS3); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
}
