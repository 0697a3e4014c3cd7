package apiserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const childEnv = "CHANCERY_TEST_NO_SOCKET"

// TestNoSocket runs a server in a process that the kernel kills at the first
// socket of any kind, as a cell has none of the network's. It also tells how
// much memory an idle server takes.
func TestNoSocket(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		noSocketChild(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNoSocket$", "-test.v")
	cmd.Env = []string{childEnv + "=1", "TMPDIR=" + t.TempDir()} // nothing else of ours
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "served without a socket") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range regexp.MustCompile(`(?m)^.*(served|Rss|Vm).*$`).FindAllString(string(out), -1) {
		t.Log(strings.TrimSpace(line))
	}
	// The trap itself works: a socket kills.
	cmd = exec.Command(os.Args[0], "-test.run=^TestNoSocket$")
	cmd.Env = []string{childEnv + "=break"}
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Fatalf("a socket did not kill:\n%s", out)
	}
}

func noSocketChild(t *testing.T) {
	filter := seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Names: []string{"socket", "socketpair"}, Action: seccomp.ActionKillProcess}},
	}}
	if err := seccomp.LoadFilter(filter); err != nil {
		t.Skipf("no seccomp here: %v", err)
	}
	if os.Getenv(childEnv) == "break" {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		t.Logf("alive with socket %d, %v", fd, err)
		return
	}
	h := newHarness(t)
	h.namespace("p1")
	c := h.dynamic().Resource(widgets).Namespace("p1")
	for i := range 50 {
		if _, err := c.Create(context.Background(), widget("p1", fmt.Sprintf("w%d", i), 1), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := c.List(context.Background(), metav1.ListOptions{}); err != nil || len(list.Items) != 50 {
		t.Fatal(err)
	}
	t.Logf("served without a socket, ready in %v", h.ready)
	status, err := os.ReadFile("/proc/self/status")
	if err == nil {
		t.Logf("%s", status)
	}
}
