package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"chancery/internal/errs"
)

// Enter is the first thing that a confined process calls, before any other
// goroutine or descriptor exists. It reads the handoff from in (unbuffered: what
// follows the first line is left), builds the private root, and gives up every
// privilege. After an error the caller must end: half a wall is none.
func Enter(in io.Reader) (View, error) {
	const op = "sandbox.Enter"
	h, err := readHandoff(in)
	if err != nil {
		return View{}, err
	}
	v := View{Mode: h.Mode, DataDir: h.DataDir, RunDir: h.RunDir}
	switch h.Mode {
	case ModeNamespaces:
		v.Measures = append(v.Measures, checkNamespaces(h)...)
		v.Measures = append(v.Measures, checkDescriptors(h))
		if err := privateRoot(h); err != nil {
			return View{}, errs.WrapKind(errs.Unavailable, op, err)
		}
		v.DataDir, v.RunDir = dataInside, runInside
		v.Measures = append(v.Measures, checkRoot()...)
	case ModePod:
		v.Measures = append(v.Measures,
			Measure{"namespaces", false, "not used: " + h.ModeReason},
			Measure{"own host user", false, fmt.Sprintf("runs as uid %d like its supervisor", h.OwnUID)},
			checkDescriptors(h),
			Measure{"private root", false, "the root of the pod; Landlock alone hides it"})
	default:
		return View{}, errs.New(errs.Invalid, op, "unknown mode %q", h.Mode)
	}
	if h.Check {
		os.Exit(0)
	}
	v.Measures = append(v.Measures, lockDown(v)...)
	return v, nil
}

// lockDown gives up privileges. The order matters: bounding set while the
// capabilities last, no_new_privs before Landlock and seccomp, seccomp last
// since it refuses the calls of all the others.
func lockDown(v View) []Measure {
	m := dropPrivileges()
	m = append(m, applyLandlock(v)...)
	return append(m, applySeccomp())
}

// readHandoff reads one line, a byte at a time, so that the caller's own line stays unread.
func readHandoff(in io.Reader) (handoff, error) {
	const op = "sandbox.Enter"
	var h handoff
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(in, b); err != nil {
			return h, errs.New(errs.Invalid, op, "no handoff on standard input; this command is started by the supervisor, not by hand")
		}
		if b[0] == '\n' {
			break
		}
		if line = append(line, b[0]); len(line) > maxHandoff {
			return h, errs.New(errs.Invalid, op, "handoff over %d bytes", maxHandoff)
		}
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return h, errs.New(errs.Invalid, op, "handoff: %v", err)
	}
	return h, nil
}

// checkNamespaces compares the process's namespaces with its supervisor's.
func checkNamespaces(h handoff) []Measure {
	own := ownNamespaces()
	var fresh, shared []string
	for _, name := range namespaces {
		if own[name] != "" && h.Namespaces[name] != "" && own[name] != h.Namespaces[name] {
			fresh = append(fresh, name)
		} else {
			shared = append(shared, name)
		}
	}
	ns := Measure{"namespaces", len(shared) == 0, "own " + strings.Join(fresh, ", ")}
	if len(shared) > 0 {
		ns.Detail += "; shared or unknown " + strings.Join(shared, ", ")
	}
	user := Measure{"own host user", h.HostUID != h.OwnUID, fmt.Sprintf("uid %d on the host; supplementary groups %s", h.HostUID, h.Groups)}
	if !user.Enforced {
		user.Detail = fmt.Sprintf("uid %d, the supervisor's own (only root can give another); supplementary groups %s", h.HostUID, h.Groups)
	}
	return []Measure{ns, user}
}

// checkDescriptors looks for descriptors that came from outside: a socket born
// in a namespace with a route is a way out.
func checkDescriptors(h handoff) Measure {
	m := Measure{Name: "no inherited descriptors"}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		m.Detail = err.Error()
		return m
	}
	var bad []string
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // the descriptor of the listing itself
		}
		own := strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "anon_inode:[event") ||
			target == os.DevNull || target == "/dev/cgroup" || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/sys/fs/cgroup/")
		if e.Name() == fmt.Sprint(h.DataTree) || e.Name() == fmt.Sprint(h.RunTree) {
			own = true // used by privateRoot, then closed
		}
		if !own {
			bad = append(bad, e.Name()+" "+target)
		}
	}
	m.Enforced = len(bad) == 0
	if m.Detail = "standard input and the log only"; !m.Enforced {
		m.Detail = "also open: " + strings.Join(bad, ", ")
	}
	return m
}

// checkRoot looks at the root that privateRoot made.
func checkRoot() []Measure {
	m := Measure{Name: "private root"}
	var names []string
	entries, err := os.ReadDir("/")
	for _, e := range entries {
		names = append(names, "/"+e.Name())
	}
	var st unix.Statfs_t
	if err == nil {
		err = unix.Statfs("/", &st)
	}
	if err != nil {
		m.Detail = err.Error()
		return []Measure{m}
	}
	want := dataInside + " " + runInside
	if cgoBuild {
		want = dataInside + " /proc " + runInside
	}
	m.Enforced = strings.Join(names, " ") == want && st.Flags&unix.ST_RDONLY != 0 && os.Getpid() == 1
	m.Detail = fmt.Sprintf("tmpfs, read-only, holds %s", strings.Join(names, " "))
	proc := Measure{"no /proc", !cgoBuild, "not mounted"}
	if cgoBuild {
		proc.Detail = "a build with cgo needs one (of its own pid namespace); build with CGO_ENABLED=0"
	}
	return []Measure{m, proc}
}
