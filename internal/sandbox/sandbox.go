// Package sandbox confines a process so that all it can reach is two
// directories and the Unix sockets that it makes itself: new namespaces, a
// private read-only root, no capabilities, Landlock and seccomp.
//
// Outside, Start re-executes this binary. Inside, the first thing that the new
// process does is Enter. Attempts tries to break out, as an attacker would, so
// that the confinement can be shown and not only claimed.
//
// It must never skip a measure in silence: what the kernel refuses comes back
// as a Measure with Enforced false. And it must never hand a process more than
// Spec names: no environment, no descriptor beyond standard input and the log.
package sandbox

import (
	"io"
	"time"
)

// Subcommand is the first argument of a confined process: main calls the code
// that calls Enter before anything else when it sees it.
const Subcommand = "cell-process"

// Mode is how a process is confined.
type Mode string

const (
	// ModeNamespaces is the full confinement.
	ModeNamespaces Mode = "namespaces"
	// ModePod is for a host that forbids user namespaces, such as a Kubernetes
	// pod with the RuntimeDefault seccomp profile. The pod is then the outer
	// sandbox; Landlock, seccomp, no capabilities and non-dumpable still apply.
	ModePod Mode = "pod"
)

// Where a process in ModeNamespaces sees its two directories.
const (
	dataInside = "/data"
	runInside  = "/run"
)

// Measure is one confinement measure and whether it holds.
type Measure struct {
	Name     string
	Enforced bool
	// Detail is the kernel's answer, or what exactly holds.
	Detail string
}

// Spec says what to start.
type Spec struct {
	// Args are the arguments of the new process after the program's own name;
	// the first selects the code that calls Enter. Never put a secret here.
	Args []string
	// Env is the whole environment ("NAME=value"). Nothing is inherited.
	Env []string
	// DataDir and RunDir are absolute paths of directories that exist. They are
	// all that the process sees; Start gives them to HostUID with mode 0700.
	DataDir, RunDir string
	// HostUID is the user and group id that the process has on the host, in
	// ModeNamespaces when the caller is root. It must be of this process alone.
	// 0 keeps the caller's own (for an unprivileged caller it must be 0).
	HostUID uint32
	// Mode must be set; see Detect.
	Mode Mode
	// ModeReason tells why Mode was chosen, for the measures.
	ModeReason string
	// Log receives what the process writes to standard output and error.
	Log io.Writer
	// Program is the file to execute; empty is this program itself.
	Program string
	// DrainTime bounds the reading of the log after the process ends. 0 is 2 s.
	DrainTime time.Duration
}

// View is what a confined process knows of its confinement.
type View struct {
	Mode Mode
	// DataDir and RunDir are the two directories as the process sees them.
	DataDir, RunDir string
	// Measures is one entry for each measure, in the order in which they were taken.
	Measures []Measure
}

// handoff is the first line on the standard input of a new process.
type handoff struct {
	Mode            Mode
	ModeReason      string
	DataDir, RunDir string
	// DataTree and RunTree are descriptors of detached mount trees, 0 if the
	// process must open the paths itself.
	DataTree, RunTree int
	HostUID, OwnUID   uint32
	Groups            string
	// Namespaces are the caller's, as "user:[4026531837]", by name.
	Namespaces map[string]string
	// Check makes the process end with status 0 once its root stands.
	Check bool
}

// maxHandoff bounds the handoff line, in bytes.
const maxHandoff = 64 << 10

// namespaces are the ones that a process in ModeNamespaces has of its own.
var namespaces = []string{"user", "mnt", "pid", "ipc", "uts", "cgroup", "net"}
