package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"chancery/internal/errs"
)

// Process is a started process. Its input is open until CloseInput.
type Process struct {
	// Mode is how it was started.
	Mode            Mode
	dataDir, runDir string
	cmd             *exec.Cmd
	input           io.WriteCloser
	done            chan struct{}
	exit            error
	started         time.Time
}

// The launcher is one OS thread that never ends: the kernel sends Pdeathsig when
// the *thread* that made the child dies, and Go ends threads as it likes.
var launcher = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// Start starts a confined process and gives it its handoff. The process dies
// with this one. Errors: errs.Invalid for a wrong Spec, errs.Unavailable with
// the kernel's reason otherwise.
func Start(s Spec) (*Process, error) { return start(s, false) }

func start(s Spec, check bool) (*Process, error) {
	const op = "sandbox.Start"
	if err := s.validate(); err != nil {
		return nil, err
	}
	owner, err := s.prepareDirs()
	if err != nil {
		return nil, err
	}
	h := handoff{Mode: s.Mode, ModeReason: s.ModeReason, DataDir: s.DataDir, RunDir: s.RunDir,
		HostUID: owner, OwnUID: uint32(os.Getuid()), Check: check, Namespaces: ownNamespaces()}

	program := s.Program
	if program == "" {
		program = "/proc/self/exe"
	}
	cmd := &exec.Cmd{Path: program, Args: append([]string{"chancery"}, s.Args...), Env: append([]string{}, s.Env...), Dir: "/"}
	cmd.Stdout, cmd.Stderr = s.Log, s.Log
	cmd.WaitDelay = s.DrainTime
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = 2 * time.Second
	}
	// A session of its own: no terminal to push input into, and Ctrl-C on the
	// supervisor's terminal reaches the supervisor alone, which ends us cleanly.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if s.Mode == ModeNamespaces {
		h.Groups = setNamespaces(cmd.SysProcAttr, owner)
		for _, t := range []struct {
			dir string
			fd  *int
		}{{s.DataDir, &h.DataTree}, {s.RunDir, &h.RunTree}} {
			// A cell's own host uid may not pass the directories above its own;
			// root clones the mount here, an unprivileged caller has no need to.
			if tree, ok := cloneTree(t.dir); ok {
				defer tree.Close()
				cmd.ExtraFiles = append(cmd.ExtraFiles, tree)
				*t.fd = 2 + len(cmd.ExtraFiles)
			}
		}
	}
	p := &Process{Mode: s.Mode, dataDir: s.DataDir, runDir: s.RunDir, cmd: cmd, done: make(chan struct{}), started: time.Now()}
	if s.Mode == ModeNamespaces {
		p.dataDir, p.runDir = dataInside, runInside
	}
	if p.input, err = cmd.StdinPipe(); err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	failed := make(chan error)
	launcher() <- func() { failed <- cmd.Start() }
	if err := <-failed; err != nil {
		p.input.Close()
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	go p.wait()
	line, err := json.Marshal(h)
	if err == nil {
		err = p.Send(line)
	}
	if err != nil {
		p.Kill()
		<-p.done
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	return p, nil
}

// setNamespaces asks for new namespaces in which the process is uid 0 and, on
// the host, owner. It returns what becomes of the supplementary groups.
func setNamespaces(a *syscall.SysProcAttr, owner uint32) string {
	a.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWNET
	gid := int(owner)
	root := os.Getuid() == 0
	if !root || owner == 0 {
		gid = os.Getgid()
	}
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(owner), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	a.GidMappingsEnableSetgroups = root
	a.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: !root}
	if root {
		return "dropped"
	}
	return "kept: the caller is unprivileged and cannot drop them"
}

func (s *Spec) validate() error {
	const op = "sandbox.Start"
	switch {
	case len(s.Args) == 0:
		return errs.New(errs.Invalid, op, "no argument to select the confined code")
	case !filepath.IsAbs(s.DataDir) || !filepath.IsAbs(s.RunDir):
		return errs.New(errs.Invalid, op, "data and run directory must be absolute paths")
	case s.DataDir == s.RunDir:
		return errs.New(errs.Invalid, op, "data and run directory must differ")
	case s.Mode != ModeNamespaces && s.Mode != ModePod:
		return errs.New(errs.Invalid, op, "unknown mode %q", s.Mode)
	case s.HostUID != 0 && os.Getuid() != 0:
		return errs.New(errs.Invalid, op, "only root can give a process another user id")
	case s.HostUID != 0 && s.Mode == ModePod:
		return errs.New(errs.Invalid, op, "a user id of its own needs namespaces")
	case s.HostUID != 0 && s.HostUID < 1000:
		return errs.New(errs.Invalid, op, "user id %d belongs to the system", s.HostUID)
	case s.Log == nil:
		return errs.New(errs.Invalid, op, "no log")
	}
	return nil
}

// prepareDirs gives the two directories to the process's host uid, mode 0700,
// and returns that uid. Only the two themselves: what is in them was made by the
// same uid (the supervisor keeps the allocation), and walking it at each start
// would be slow, and open to links planted inside.
func (s *Spec) prepareDirs() (uint32, error) {
	const op = "sandbox.Start"
	owner := s.HostUID
	if owner == 0 {
		owner = uint32(os.Getuid())
	}
	for _, dir := range []string{s.DataDir, s.RunDir} {
		f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return 0, errs.WrapKind(errs.Invalid, op, err)
		}
		err = f.Chmod(0o700)
		if err == nil && s.HostUID != 0 {
			err = f.Chown(int(owner), int(owner))
		}
		f.Close()
		if err != nil {
			return 0, errs.WrapKind(errs.Unavailable, op, err)
		}
	}
	return owner, nil
}

// cloneTree makes a detached bind mount of dir. It needs CAP_SYS_ADMIN.
func cloneTree(dir string) (*os.File, bool) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return nil, false
	}
	return os.NewFile(uintptr(fd), dir), true
}

func ownNamespaces() map[string]string {
	m := make(map[string]string, len(namespaces))
	for _, name := range namespaces {
		if id, err := os.Readlink("/proc/self/ns/" + name); err == nil {
			m[name] = id
		}
	}
	return m
}

func (p *Process) wait() {
	p.exit = p.cmd.Wait()
	close(p.done)
}

// Send writes one line to the process's standard input.
func (p *Process) Send(line []byte) error {
	if _, err := p.input.Write(append(append([]byte{}, line...), '\n')); err != nil {
		return errs.WrapKind(errs.Unavailable, "sandbox.Send", err)
	}
	return nil
}

// CloseInput closes the process's standard input.
func (p *Process) CloseInput() { p.input.Close() }

// PID is the process's id on the host.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Started is when it was started.
func (p *Process) Started() time.Time { return p.started }

// Done is closed when the process has ended and its log is drained.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit tells how the process ended, in words; empty before it did.
func (p *Process) Exit() string {
	select {
	case <-p.done:
		if p.cmd.ProcessState != nil {
			return p.cmd.ProcessState.String()
		}
		return fmt.Sprint(p.exit)
	default:
		return ""
	}
}

// OK tells whether the process ended with status 0.
func (p *Process) OK() bool {
	select {
	case <-p.done:
		return p.exit == nil
	default:
		return false
	}
}

// Kill ends the process at once. All its threads and, in ModeNamespaces,
// everything in its pid namespace end with it.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() } // an error here means that it has ended

// DataDir is the data directory as the process sees it.
func (p *Process) DataDir() string { return p.dataDir }

// RunDir is the run directory as the process sees it.
func (p *Process) RunDir() string { return p.runDir }
