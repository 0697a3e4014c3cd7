package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// dropPrivileges sets no_new_privs, empties every capability set, forbids
// dumping and core files. Capabilities and no_new_privs belong to a thread, so
// each call is made on all threads of the process.
func dropPrivileges() []Measure {
	return []Measure{dropCapabilities(), noNewPrivileges(), notDumpable(), noCore()}
}

func dropCapabilities() Measure {
	m := Measure{Name: "no capabilities"}
	var failed []string
	m.Detail = "effective, permitted, inheritable, ambient and bounding sets are empty"
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		// EINVAL is a capability that this kernel does not know.
		e := allThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0)
		if e == unix.EPERM {
			// Only who has capabilities may empty the bounding set. It limits what
			// an executed file can gain, and here nothing can be executed.
			m.Detail = "effective, permitted, inheritable and ambient sets are empty; the bounding set could not be touched"
			break
		}
		if e != 0 && e != unix.EINVAL {
			failed = append(failed, fmt.Sprintf("bounding set: %v", e))
			break
		}
	}
	if e := allThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0); e != 0 {
		failed = append(failed, fmt.Sprintf("ambient set: %v", e))
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	// psx makes the call in C on other threads: the two structures must stay where they are.
	var pin runtime.Pinner
	pin.Pin(&header)
	pin.Pin(&none)
	if e := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0, 0); e != 0 {
		failed = append(failed, fmt.Sprintf("capset: %v", e))
	}
	pin.Unpin()

	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		failed = append(failed, fmt.Sprintf("capget: %v", err))
	}
	if have != none {
		failed = append(failed, fmt.Sprintf("still has %x", have))
	}
	m.Enforced = len(failed) == 0
	if !m.Enforced {
		m.Detail = strings.Join(failed, "; ")
	}
	return m
}

func noNewPrivileges() Measure {
	m := Measure{Name: "no_new_privs"}
	if e := allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0); e != 0 {
		m.Detail = e.Error()
		return m
	}
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	m.Enforced, m.Detail = err == nil && v == 1, fmt.Sprintf("prctl answers %d", v)
	return m
}

func notDumpable() Measure {
	m := Measure{Name: "not dumpable"}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		m.Detail = err.Error()
		return m
	}
	v, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	m.Enforced, m.Detail = err == nil && v == 0, "no ptrace and no /proc/PID/mem by another process of the same user"
	return m
}

func noCore() Measure {
	m := Measure{Name: "no core files"}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		m.Detail = err.Error()
		return m
	}
	var got unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_CORE, &got)
	m.Enforced, m.Detail = err == nil && got == unix.Rlimit{}, fmt.Sprintf("RLIMIT_CORE %d, hard %d", got.Cur, got.Max)
	return m
}

// allThreads makes a system call on every thread.
func allThreads(trap uintptr, a, b, c, d uintptr) unix.Errno {
	_, _, e := psx.Syscall6(trap, a, b, c, d, 0, 0)
	return e
}

// ownPID is the process's id in its own pid namespace.
func ownPID() uint32 { return uint32(os.Getpid()) }
