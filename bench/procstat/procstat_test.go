package procstat

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const times = " S 7 1 1 0 -1 0 0 0 0 0 150 50 20 5 20 0"
	p, err := parseStat("42 (a) b) c" + ")" + times)
	if err != nil {
		t.Fatal(err)
	}
	if p.pid != 42 || p.parent != 7 || p.cpu != 2250*time.Millisecond {
		t.Errorf("got %+v", p)
	}
	for _, bad := range []string{"", "42 a S 1", "42 (a) S 1", "x (a)" + times, "42 (a) S y 1 1 0 -1 0 0 0 0 0 150 50 20 5 20 0", "42 (a) S 7 1 1 0 -1 0 0 0 0 0 z 50 20 5 20 0"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

// TestTreeSeesGrandchildrenAndTheirTime starts a shell that starts a shell which
// computes, and looks for the time used in the sum over our own tree.
func TestTreeSeesGrandchildrenAndTheirTime(t *testing.T) {
	// The trailing true keeps either shell from replacing itself with its last command.
	cmd := exec.Command("sh", "-c", "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 60; true'; true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	root := cmd.Process.Pid
	defer func() {
		tree, _ := Tree(root)
		for _, pid := range tree {
			if p, err := os.FindProcess(pid); err == nil {
				p.Kill()
			}
		}
		cmd.Wait()
	}()

	deadline := time.Now().Add(30 * time.Second)
	for {
		tree, err := Tree(root)
		if err != nil {
			t.Fatal(err)
		}
		u, err := Of(tree)
		if err != nil {
			t.Fatal(err)
		}
		if u.Processes >= 3 && u.CPU >= 20*time.Millisecond && u.RSS > 0 && u.PeakRSS >= u.RSS {
			self, err := Tree(os.Getpid())
			if err != nil || !slices.Contains(self, root) {
				t.Errorf("our own tree %v, %v does not hold %d", self, err, root)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s the tree %v shows only %+v", tree, u)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestProcessThatIsNotThere(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	gone := cmd.Process.Pid
	if _, err := Tree(gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Tree: %v", err)
	}
	if _, err := Of([]int{gone}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Of: %v", err)
	}
	if u, err := Of([]int{gone, os.Getpid()}); err != nil || u.Processes != 1 {
		t.Errorf("Of with one living: %+v, %v", u, err)
	}
}

func TestResetPeak(t *testing.T) {
	if !ResetPeak([]int{os.Getpid()}) {
		t.Skip("this kernel does not let a process reset its own peak")
	}
	if ResetPeak([]int{-1}) {
		t.Error("a process that cannot exist allowed it")
	}
}
