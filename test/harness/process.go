package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"chancery/bench/procstat"
)

// process is one program that we started, with what it printed over all its starts.
type process struct {
	logs tail
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	err  error         // how it ended; read after done
}

// begin starts a program. It must not run.
func (p *process) begin(binary string, args ...string) error {
	if p.Running() {
		return errors.New("harness: the zone runs already")
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = cleanEnvironment()
	cmd.Stdout, cmd.Stderr = &p.logs, &p.logs
	cmd.WaitDelay = 3 * time.Second // a descendant that kept the pipe must not hold Wait for ever
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		p.err = cmd.Wait()
		close(done)
	}()
	return nil
}

// Stop ends the zone as Ctrl-C does, waits until it and its cells are gone, and
// reports an end that was not clean. Stopping a stopped zone does nothing.
func (p *process) Stop() error { return p.end(syscall.SIGINT, 30*time.Second) }

// Kill ends the zone with SIGKILL, as a crash does, and waits until its cells are gone too.
func (p *process) Kill() error { return p.end(syscall.SIGKILL, 10*time.Second) }

func (p *process) end(sig syscall.Signal, wait time.Duration) error {
	if !p.Running() {
		return nil
	}
	pid := p.PID()
	tree, err := procstat.Tree(pid)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("harness: %v to %d: %w", sig, pid, err)
	}
	var problems []error
	select {
	case <-p.done:
		if exit := (*exec.ExitError)(nil); sig != syscall.SIGKILL && errors.As(p.err, &exit) {
			problems = append(problems, fmt.Errorf("harness: the zone ended with %w", p.err))
		}
	case <-time.After(wait):
		problems = append(problems, fmt.Errorf("harness: the zone did not end within %v of %v", wait, sig))
		_ = p.cmd.Process.Kill() // by id, ours; it may have ended this instant
		<-p.done
	}
	p.cmd = nil
	return errors.Join(append(problems, awaitGone(tree, 5*time.Second))...)
}

// awaitGone waits until processes have ended. What is left then is killed, and is an error.
func awaitGone(pids []int, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		left := slices.DeleteFunc(slices.Clone(pids), func(pid int) bool {
			return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
		})
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL) // descendants of the zone we started
			}
			return fmt.Errorf("harness: processes %v outlived the zone", left)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Running tells whether the zone's process was started and has not been ended.
func (p *process) Running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		p.cmd = nil
		return false
	default:
		return true
	}
}

// PID is the zone's process id; 0 when it does not run.
func (p *process) PID() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Logs returns the end of what the zone has printed, over all its starts.
func (p *process) Logs() string { return p.logs.String() }

// tail keeps the last bytes written to it. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	data []byte
}

const tailSize = 256 << 10

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.data = append(w.data, p...)
	if extra := len(w.data) - tailSize; extra > 0 {
		w.data = slices.Delete(w.data, 0, extra)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.data)
}
