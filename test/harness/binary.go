package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

var binary struct {
	once sync.Once
	path string
	err  error
}

// Binary returns the path of the chancery binary: that of the environment
// variable CHANCERY_BINARY if it is set, else bin/chancery in the tree, built by
// scripts/build.sh. It builds at most once in a process, and processes that run at
// the same time wait for each other.
func Binary() (string, error) {
	binary.once.Do(func() { binary.path, binary.err = findBinary() })
	return binary.path, binary.err
}

func findBinary() (string, error) {
	if path := os.Getenv("CHANCERY_BINARY"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("harness: CHANCERY_BINARY: %w", err)
		}
		return filepath.Abs(path)
	}
	top, err := moduleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(top, "bin", "chancery")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("harness: %w", err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", fmt.Errorf("harness: %w", err)
	}
	defer lock.Close() // gives the lock back
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("harness: lock %s: %w", lock.Name(), err)
	}
	out, err := exec.Command(filepath.Join(top, "scripts", "build.sh"), path).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("harness: build %s: %w\n%s", path, err, out)
	}
	return path, nil
}

// moduleRoot finds go.mod above the working directory. Tests run in their
// package's directory; runtime.Caller would not do, since -trimpath hides it.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("harness: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("harness: no go.mod above the working directory")
		}
		dir = parent
	}
}
