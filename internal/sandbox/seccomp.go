package sandbox

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// allowed are the system calls that a Go server with files and Unix sockets
// makes. Everything else, known today or not, is refused with EPERM: a list of
// what is forbidden would miss what the next kernel brings, and the calls of the
// 32-bit ABI.
var allowed = strings.Fields(`
	read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2
	open openat openat2 close close_range fcntl dup dup2 dup3 lseek
	stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents getdents64
	mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat
	chmod fchmod fchmodat fchmodat2 utimensat truncate ftruncate fallocate
	fsync fdatasync sync_file_range syncfs fadvise64 copy_file_range sendfile splice tee flock statfs fstatfs umask getcwd
	munmap mremap madvise mincore msync mlock mlock2 munlock brk membarrier memfd_secret
	futex futex_wait futex_wake futex_waitv nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time
	timer_create timer_settime timer_gettime timer_delete setitimer getitimer
	rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend sigaltstack restart_syscall
	gettid getpid getppid getuid geteuid getgid getegid getgroups getpgrp getsid capget
	getrlimit prlimit64 getrusage sched_yield sched_getaffinity getcpu sysinfo uname getrandom
	exit exit_group set_robust_list get_robust_list set_tid_address rseq arch_prctl
	epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 pipe pipe2
	poll ppoll select pselect6
	bind listen accept accept4 connect getsockname getpeername setsockopt getsockopt shutdown
	sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg`)

// cloneNew are the flags of clone(2) that make a namespace.
const cloneNew = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// condition is a test of one argument of a system call.
type condition struct {
	arg uint32
	// one, if not empty, lists the values that the argument may have. Its upper half must be 0.
	one []uint32
	// set and clear are bits of the lower half that must be set or not; the upper half is not looked at.
	set, clear uint32
}

// conditional are system calls that are allowed with some arguments only.
func conditional() map[string][]condition {
	family := []condition{{arg: 0, one: []uint32{unix.AF_UNIX}}}
	notExecutable := []condition{{arg: 2, clear: unix.PROT_EXEC}}
	return map[string][]condition{
		// No family but Unix sockets: vsock is not namespaced, and a socket of any
		// other family is a road that no one here needs.
		"socket": family, "socketpair": family,
		// Threads, no processes, no namespaces.
		"clone": {{arg: 0, set: unix.CLONE_THREAD, clear: cloneNew}},
		// No new executable memory.
		"mmap": notExecutable, "mprotect": notExecutable,
		// Signals to itself only: the Go runtime preempts its threads by signal.
		"tgkill": {{arg: 0, one: []uint32{ownPID()}}},
		"prctl":  {{arg: 0, one: []uint32{unix.PR_SET_VMA, unix.PR_SET_NAME, unix.PR_GET_NO_NEW_PRIVS, unix.PR_GET_DUMPABLE, unix.PR_GET_SECCOMP}}},
	}
}

// Offsets in struct seccomp_data (linux/seccomp.h); arguments are 64 bits wide.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// filter assembles the program for an architecture. Its shape is plain on
// purpose: each test that succeeds ends in a return, so nothing falls through.
// It also returns how many system calls it allows.
func filter(info *arch.Info) ([]bpf.Instruction, int) {
	refuse := func(e unix.Errno) bpf.Instruction {
		return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)}
	}
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	prog := []bpf.Instruction{
		// A call by another architecture's ABI (int 0x80 on amd64) has other numbers.
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		refuse(unix.EPERM),
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
	}
	n := 0
	for _, name := range allowed {
		// Newer architectures lack the older calls. The x32 ABI's numbers carry a
		// bit that none of these has.
		if nr, ok := info.SyscallNames[name]; ok {
			prog = append(prog, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(nr), SkipTrue: 1}, allow)
			n++
		}
	}
	rules := conditional()
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		if nr, ok := info.SyscallNames[name]; ok {
			block := append(tests(rules[name]), allow)
			prog = append(prog, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(nr), SkipTrue: uint8(len(block))})
			prog = append(prog, block...)
			n++
		}
	}
	// The C library tries clone3 first and falls back on ENOSYS alone; its flags
	// lie in memory, where a filter cannot see them.
	if nr, ok := info.SyscallNames["clone3"]; ok {
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(nr), SkipTrue: 1}, refuse(unix.ENOSYS))
	}
	return append(prog, refuse(unix.EPERM)), n
}

// tests returns instructions that refuse unless every condition holds.
func tests(conditions []condition) []bpf.Instruction {
	deny := bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	var out []bpf.Instruction
	for _, c := range conditions {
		low, high := offArgs+8*c.arg, offArgs+8*c.arg+4 // little endian: see applySeccomp
		if len(c.one) > 0 {
			out = append(out, bpf.LoadAbsolute{Off: high, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1}, deny,
				bpf.LoadAbsolute{Off: low, Size: 4})
			for i, v := range c.one {
				out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(c.one) - i)})
			}
			out = append(out, deny)
			continue
		}
		out = append(out, bpf.LoadAbsolute{Off: low, Size: 4})
		if c.set != 0 {
			out = append(out, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: c.set, SkipTrue: 1}, deny)
		}
		if c.clear != 0 {
			out = append(out, bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: c.clear, SkipTrue: 1}, deny)
		}
	}
	return out
}

// applySeccomp installs the filter on all threads.
func applySeccomp() Measure {
	m := Measure{Name: "seccomp"}
	info, err := arch.GetInfo("")
	if err != nil || (runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64") {
		m.Detail = fmt.Sprintf("no filter written for %s", runtime.GOARCH)
		return m
	}
	prog, n := filter(info)
	raw, err := bpf.Assemble(prog)
	if err != nil {
		m.Detail = err.Error()
		return m
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(code)
	if e != 0 {
		m.Detail = fmt.Sprintf("seccomp: %v", e)
		return m
	}
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	m.Enforced = err == nil && mode == unix.SECCOMP_MODE_FILTER
	m.Detail = fmt.Sprintf("%d system calls allowed, on all threads; everything else answers EPERM", n)
	return m
}
