package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the confined process, and the unprivileged supervisor.
const (
	childArg  = "sandbox-test-child"
	nobodyArg = "sandbox-test-as-nobody"
	nobody    = 65534
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

// child is a small server inside the sandbox.
func child() int {
	view, err := Enter(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	line := make([]byte, 64)
	n, _ := os.Stdin.Read(line)
	mux := http.NewServeMux()
	mux.HandleFunc("/config", func(w http.ResponseWriter, r *http.Request) { w.Write(line[:n]) })
	mux.HandleFunc("/view", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(view) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(os.Environ()) })
	mux.HandleFunc("/attempts", func(w http.ResponseWriter, r *http.Request) {
		var p Probe
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		json.NewEncoder(w).Encode(Attempts(ctx, p))
	})
	var one sync.Mutex // the file names are fixed
	mux.HandleFunc("/files", func(w http.ResponseWriter, r *http.Request) {
		one.Lock()
		defer one.Unlock()
		if err := useFiles(view.DataDir); err != nil {
			http.Error(w, err.Error(), 500)
		}
	})
	l, err := net.Listen("unix", filepath.Join(view.RunDir, "t.sock"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "child serves")
	http.Serve(l, mux)
	return 0
}

// useFiles does what a store does with files.
func useFiles(dir string) error {
	for _, d := range []string{"a", "b"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	tmp, final := filepath.Join(dir, "a", "tmp"), filepath.Join(dir, "b", "final")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if err := os.Rename(tmp, final); err != nil {
		return err
	}
	d, err := os.Open(filepath.Join(dir, "b"))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// logBuffer does not embed the buffer: io.Copy would take its ReadFrom, past the lock.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *logBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

type started struct {
	*Process
	client    *http.Client
	log       *logBuffer
	data, run string
}

// startChild starts a confined child and waits until it serves.
func startChild(t testing.TB, mode Mode, hostUID uint32) *started {
	t.Helper()
	// Short: a socket's path has 108 bytes.
	base, err := os.MkdirTemp("", "sbx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	s := &started{data: filepath.Join(base, "data"), run: filepath.Join(base, "run"), log: &logBuffer{}}
	for _, d := range []string{s.data, s.run} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// The directory above may be closed to the cell's own host uid.
	if err := os.Chmod(base, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Process, err = Start(Spec{Args: []string{childArg}, Env: []string{"ONLY=this"}, DataDir: s.data, RunDir: s.run,
		HostUID: hostUID, Mode: mode, ModeReason: "test", Log: s.log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Kill(); <-s.Done() })
	if err := s.Send([]byte(`{"hello":"config"}`)); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(s.run, "t.sock")
	s.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", sock)
	}}, Timeout: 20 * time.Second}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if c, err := net.Dial("unix", sock); err == nil {
			c.Close()
			return s
		}
		select {
		case <-s.Done():
			t.Fatalf("child ended: %s\n%s", s.Exit(), s.log)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("child does not serve:\n%s", s.log)
		}
	}
}

func (s *started) get(t testing.TB, path string, in, out any) {
	t.Helper()
	var body io.Reader
	if in != nil {
		b, _ := json.Marshal(in)
		body = bytes.NewReader(b)
	}
	resp, err := s.client.Post("http://cell"+path, "application/json", body)
	if err != nil {
		t.Fatalf("%s: %v\n%s", path, err, s.log)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %d %s %v", path, resp.StatusCode, b, err)
	}
	if raw, ok := out.(*string); ok {
		*raw = string(b)
	} else if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			t.Fatal(err)
		}
	}
}

// canaries listen where an attacker inside would like to get, and count.
func canaries(t testing.TB) (Probe, *atomic.Int64) {
	t.Helper()
	var seen atomic.Int64
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("chancery-canary-%d", os.Getpid())
	abs, err := net.Listen("unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close(); udp.Close(); abs.Close() })
	for _, l := range []net.Listener{tcp, abs} {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				seen.Add(1)
				c.Close()
			}
		}()
	}
	go func() {
		b := make([]byte, 2048)
		for {
			if _, _, err := udp.ReadFrom(b); err != nil {
				return
			}
			seen.Add(1)
		}
	}()
	secret := filepath.Join(t.TempDir(), "operator.txt")
	if err := os.WriteFile(secret, []byte("operator's"), 0o644); err != nil {
		t.Fatal(err)
	}
	return Probe{TCP: []string{tcp.Addr().String()}, UDP: []string{udp.LocalAddr().String()}, Abstract: []string{name},
		Paths: []string{secret, "/proc/" + fmt.Sprint(os.Getpid()) + "/environ"}, PIDs: []int{os.Getpid(), 1}}, &seen
}

func ownUID() uint32 {
	if os.Getuid() == 0 {
		return 1879113800
	}
	return 0
}

func testConfinement(t *testing.T, mode Mode, uid uint32) {
	probe, seen := canaries(t)
	s := startChild(t, mode, uid)
	var view View
	s.get(t, "/view", nil, &view)
	if view.Mode != mode {
		t.Errorf("mode %q, want %q", view.Mode, mode)
	}
	// What cannot hold in this mode, for this caller or in this build.
	excused := map[string]bool{}
	if mode == ModePod {
		excused = map[string]bool{"namespaces": true, "own host user": true, "private root": true}
	}
	if uid == 0 {
		excused["own host user"] = true
	}
	if cgoBuild {
		excused["no /proc"] = true
	}
	for _, m := range view.Measures {
		if !m.Enforced && !excused[m.Name] {
			t.Errorf("measure %q is not enforced: %s", m.Name, m.Detail)
		}
		if m.Enforced && excused[m.Name] {
			t.Errorf("measure %q says that it is enforced, but cannot be: %s", m.Name, m.Detail)
		}
		t.Logf("%-42s %-5v %s", m.Name, m.Enforced, m.Detail)
	}
	if len(view.Measures) < 11 {
		t.Errorf("only %d measures", len(view.Measures))
	}

	// Try to break out while ordinary work goes on.
	stop := make(chan struct{})
	worked := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				worked <- n
				return
			default:
			}
			if resp, err := s.client.Post("http://cell/files", "", nil); err == nil {
				if resp.StatusCode == 200 {
					n++
				}
				resp.Body.Close()
			}
		}
	}()
	var attempts []Attempt
	s.get(t, "/attempts", probe, &attempts)
	s.get(t, "/files", nil, nil)
	close(stop)
	if n := <-worked; n == 0 {
		t.Error("no ordinary request was served during the attempts")
	}
	if len(attempts) < 55 {
		t.Errorf("only %d attempts", len(attempts))
	}
	for _, a := range attempts {
		if !a.Refused && !(cgoBuild && strings.HasPrefix(a.Name, "open /proc/")) {
			t.Errorf("attempt %q was not refused: %s", a.Name, a.Detail)
		}
		t.Logf("%-40s %s", a.Name, a.Detail)
	}
	if n := seen.Load(); n != 0 {
		t.Errorf("canaries saw %d packets or connections", n)
	}
	var config, env string
	s.get(t, "/config", nil, &config)
	if config != "{\"hello\":\"config\"}\n" {
		t.Errorf("config line %q", config)
	}
	if s.get(t, "/env", nil, &env); strings.TrimSpace(env) != `["ONLY=this"]` {
		t.Errorf("environment %s", env)
	}
}

func TestNamespaces(t *testing.T) {
	if mode, why := Detect([]string{childArg}, ""); mode != ModeNamespaces {
		t.Skipf("this host has no user namespaces: %s", why)
	}
	testConfinement(t, ModeNamespaces, ownUID())
}

// TestPod shows that without namespaces the other measures still hold.
func TestPod(t *testing.T) { testConfinement(t, ModePod, 0) }

// TestUnprivileged runs the tests above again as nobody.
func TestUnprivileged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: the other tests ran unprivileged already")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Readable by nobody, and in a directory that nobody can pass.
	dir, err := os.MkdirTemp("", "sbx-nobody")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "sandbox.test")
	if err := os.WriteFile(bin, b, 0o755); err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	tmp := filepath.Join(dir, "tmp")
	os.Mkdir(tmp, 0o700)
	os.Chown(tmp, nobody, nobody)
	cmd := exec.Command(bin, "-test.v", "-test.run", "^(TestNamespaces|TestPod|TestNeighbour|TestDies)$")
	cmd.Dir, cmd.Env = tmp, []string{"TMPDIR=" + tmp}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "--- PASS: TestNamespaces") || !strings.Contains(string(out), "--- PASS: TestPod") {
		t.Fatal("the tests did not run as nobody")
	}
}

// TestNeighbour shows that one cell's files are beyond another's reach, and that
// even on the host they belong to another user.
func TestNeighbour(t *testing.T) {
	uid := ownUID()
	a := startChild(t, ModeNamespaces, uid)
	a.get(t, "/files", nil, nil)
	secret := filepath.Join(a.data, "b", "final")
	other := uid
	if uid != 0 {
		other++
	}
	b := startChild(t, ModeNamespaces, other)
	var attempts []Attempt
	b.get(t, "/attempts", Probe{Paths: []string{secret, a.run, filepath.Join("/proc", fmt.Sprint(a.PID()), "root/data/b/final")}, PIDs: []int{a.PID()}}, &attempts)
	for _, at := range attempts {
		if !at.Refused && !(cgoBuild && strings.HasPrefix(at.Name, "open /proc/")) {
			t.Errorf("%s: %s", at.Name, at.Detail)
		}
	}
	st, err := os.Stat(a.data)
	if err != nil {
		t.Fatal(err)
	}
	if uid != 0 && st.Sys().(*syscall.Stat_t).Uid != uid {
		t.Errorf("data belongs to uid %d, want %d", st.Sys().(*syscall.Stat_t).Uid, uid)
	}
	if st.Mode().Perm() != 0o700 {
		t.Errorf("data has mode %v", st.Mode())
	}
	if uid == 0 {
		return
	}
	// On the host, the neighbour's user cannot read the file either.
	cat := exec.Command("/bin/cat", secret)
	cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	if out, err := cat.CombinedOutput(); err == nil {
		t.Errorf("uid %d could read %s: %d bytes", other, secret, len(out))
	}
}

// TestDies shows that Kill ends a process and that its end is told.
func TestDies(t *testing.T) {
	s := startChild(t, ModeNamespaces, ownUID())
	if s.Exit() != "" || s.OK() {
		t.Error("it says that it has ended")
	}
	s.Kill()
	select {
	case <-s.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("still there")
	}
	if s.Exit() == "" || s.OK() {
		t.Errorf("exit %q", s.Exit())
	}
}

func TestSpecRefused(t *testing.T) {
	ok := Spec{Args: []string{childArg}, DataDir: t.TempDir(), RunDir: t.TempDir(), Mode: ModePod, Log: io.Discard}
	for name, change := range map[string]func(*Spec){
		"zero":      func(s *Spec) { *s = Spec{} },
		"no mode":   func(s *Spec) { s.Mode = "" },
		"relative":  func(s *Spec) { s.DataDir = "data" },
		"same":      func(s *Spec) { s.DataDir = s.RunDir },
		"no log":    func(s *Spec) { s.Log = nil },
		"system":    func(s *Spec) { s.Mode, s.HostUID = ModeNamespaces, 5 },
		"pod uid":   func(s *Spec) { s.HostUID = 70000 },
		"no dir":    func(s *Spec) { s.DataDir = filepath.Join(s.DataDir, "missing") },
		"link":      func(s *Spec) { l := filepath.Join(s.DataDir, "l"); os.Symlink("/etc", l); s.DataDir = l },
		"arguments": func(s *Spec) { s.Args = nil },
	} {
		s := ok
		change(&s)
		if p, err := Start(s); err == nil {
			p.Kill()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHandoffRefused(t *testing.T) {
	for _, in := range []string{"", "\n", "{", "{}\n", `{"Mode":"none"}` + "\n", strings.Repeat("x", maxHandoff+2)} {
		if _, err := Enter(strings.NewReader(in)); err == nil {
			t.Errorf("handoff %.20q was accepted", in)
		}
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		if why := try([]string{childArg}, ""); why != "" {
			b.Fatal(why)
		}
	}
}
