package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Probe names canaries of the caller's own, which an attacker inside tries to reach.
type Probe struct {
	// TCP and UDP are host:port with a numeric host.
	TCP, UDP []string
	// Paths are files outside.
	Paths []string
	// Abstract are names of abstract Unix sockets outside, without the @.
	Abstract []string
	// PIDs are processes outside, by host process id.
	PIDs []int
}

// Attempt is one attempted break-out. Refused is what must be true.
type Attempt struct {
	Name    string
	Refused bool
	// Detail is the kernel's answer.
	Detail string
}

// Attempts tries to break out in every way it knows, and tells what the kernel
// answered. It is harmless where an attempt succeeds: nothing outside is changed
// beyond a packet to the caller's own canaries.
func Attempts(ctx context.Context, p Probe) []Attempt {
	var out []Attempt
	out = append(out, networkAttempts(ctx, p)...)
	out = append(out, familyAttempts()...)
	out = append(out, fileAttempts(p.Paths)...)
	out = append(out, processAttempts(p.PIDs)...)
	out = append(out, kernelAttempts()...)
	return out
}

// judge makes an Attempt of an error: refused if the error is one of the given
// answers. Success is an escape, and so is an answer that came from outside.
func judge(name string, err error, refusals ...unix.Errno) Attempt {
	if err == nil {
		return Attempt{name, false, "it succeeded"}
	}
	var e unix.Errno
	refused := errors.As(err, &e) && slices.Contains(refusals, e)
	return Attempt{name, refused, err.Error()}
}

// Answers that the local kernel gives before anything leaves.
var localRefusals = []unix.Errno{unix.EPERM, unix.EACCES, unix.ENETUNREACH, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ENOSYS}

func networkAttempts(ctx context.Context, p Probe) []Attempt {
	var out []Attempt
	for _, addr := range p.TCP {
		err := numeric(addr)
		if err == nil {
			var conn net.Conn
			var d net.Dialer
			if conn, err = d.DialContext(ctx, "tcp", addr); err == nil {
				conn.Close()
			}
		}
		out = append(out, judge("TCP to "+addr, err, localRefusals...))
	}
	for _, addr := range p.UDP {
		out = append(out, judge("UDP to "+addr, datagram(ctx, addr, []byte("canary")), localRefusals...))
		if host, _, err := net.SplitHostPort(addr); err == nil {
			dns := net.JoinHostPort(host, "53")
			out = append(out, judge("DNS query to "+dns, datagram(ctx, dns, dnsQuery), localRefusals...))
		}
	}
	for _, name := range p.Abstract {
		// In a network namespace of its own the name does not exist.
		out = append(out, judge("abstract socket @"+name, abstract(name), unix.EPERM, unix.EACCES, unix.ECONNREFUSED))
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err == nil {
		unix.Close(fd)
	}
	return append(out, judge("raw IP socket", err, localRefusals...))
}

// numeric refuses a name: to resolve one is another attempt than the one meant.
func numeric(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err == nil && net.ParseIP(host) == nil {
		err = fmt.Errorf("%q is not a numeric address", host)
	}
	return err
}

func datagram(ctx context.Context, addr string, payload []byte) error {
	if err := numeric(addr); err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(payload)
	return err
}

// dnsQuery asks for the A record of "canary." (RFC 1035 section 4.1).
var dnsQuery = []byte("\x13\x37\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06canary\x00\x00\x01\x00\x01")

func abstract(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + name})
}

// families are the socket families and protocols that lead out of a process.
var families = []struct {
	name               string
	domain, typ, proto int
}{
	{"AF_INET", unix.AF_INET, unix.SOCK_STREAM, 0},
	{"AF_INET6", unix.AF_INET6, unix.SOCK_STREAM, 0},
	{"AF_INET with MPTCP", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
	{"AF_INET with SCTP", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP},
	{"AF_PACKET", unix.AF_PACKET, unix.SOCK_RAW, 0x0300},
	{"AF_NETLINK", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
	{"AF_VSOCK", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	{"AF_ALG", unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
	{"AF_BLUETOOTH", unix.AF_BLUETOOTH, unix.SOCK_RAW, 0},
	{"AF_CAN", unix.AF_CAN, unix.SOCK_RAW, 1},
	{"AF_TIPC", unix.AF_TIPC, unix.SOCK_STREAM, 0},
	{"AF_XDP", unix.AF_XDP, unix.SOCK_RAW, 0},
	{"AF_RDS", unix.AF_RDS, unix.SOCK_SEQPACKET, 0},
	{"AF_QIPCRTR", unix.AF_QIPCRTR, unix.SOCK_DGRAM, 0},
	{"AF_KEY", unix.AF_KEY, unix.SOCK_RAW, 2},
}

func familyAttempts() []Attempt {
	var out []Attempt
	for _, f := range families {
		fd, err := unix.Socket(f.domain, f.typ|unix.SOCK_CLOEXEC, f.proto)
		if err == nil {
			unix.Close(fd)
		}
		out = append(out, judge("socket "+f.name, err, unix.EPERM, unix.EACCES))
	}
	pair, err := unix.Socketpair(unix.AF_TIPC, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
	}
	return append(out, judge("socketpair AF_TIPC", err, unix.EPERM, unix.EACCES))
}

func fileAttempts(paths []string) []Attempt {
	refusals := []unix.Errno{unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.EPERM}
	var out []Attempt
	for _, path := range append([]string{"/proc/1/root", "/proc/self/mem", "/dev/mem", "/etc/passwd", dataInside + "/../etc/hosts"}, paths...) {
		f, err := os.Open(path)
		if err == nil {
			f.Close()
		}
		out = append(out, judge("open "+path, err, refusals...))
	}
	_, err := os.ReadDir("/")
	out = append(out, judge("list /", err, refusals...))
	err = os.WriteFile("/canary", nil, 0o600)
	if err == nil {
		os.Remove("/canary")
	}
	return append(out, judge("write /canary", err, unix.EROFS, unix.EACCES, unix.EPERM))
}

func processAttempts(pids []int) []Attempt {
	var out []Attempt
	refusals := []unix.Errno{unix.EPERM, unix.EACCES, unix.ESRCH}
	for _, pid := range append([]int{os.Getppid()}, pids...) {
		if pid == 0 {
			continue // the parent is in another pid namespace; kill(0) would be our own group
		}
		out = append(out,
			judge(fmt.Sprintf("signal to process %d", pid), unix.Kill(pid, 0), refusals...),
			judge(fmt.Sprintf("read memory of process %d", pid), readMemory(pid), refusals...))
	}
	const nobody = 0x3ffffffe // no such process: a kernel that lets the call in says ESRCH
	return append(out,
		judge("ptrace", call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, nobody, 0, 0), unix.EPERM),
		judge("pidfd_open", call(unix.SYS_PIDFD_OPEN, nobody, 0, 0, 0), unix.EPERM),
		judge("pidfd_getfd", call(unix.SYS_PIDFD_GETFD, badFD, 0, 0, 0), unix.EPERM),
		judge("execve", execNothing(), unix.EPERM))
}

func readMemory(pid int) error {
	var b [1]byte
	local := []unix.Iovec{{Base: &b[0], Len: 1}}
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x10000, Len: 1}}, 0)
	return err
}

// execNothing executes a file that does not exist, so that success cannot end us.
func execNothing() error {
	path, _ := unix.BytePtrFromString("/does-not-exist")
	_, _, e := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), 0, 0)
	runtime.KeepAlive(path)
	return e
}

// badFD is a descriptor that is never open.
const badFD = 0x7fffffff

// call makes a system call with arguments that have no effect where it is allowed.
func call(trap, a, b, c, d uintptr) error {
	r, _, e := unix.RawSyscall6(trap, a, b, c, d, 0, 0)
	if e != 0 {
		return e
	}
	return fmt.Errorf("answered %d", r)
}

func kernelAttempts() []Attempt {
	eperm := unix.EPERM
	out := []Attempt{
		judge("io_uring_setup", call(unix.SYS_IO_URING_SETUP, 0, 0, 0, 0), eperm),
		judge("io_uring_enter", call(unix.SYS_IO_URING_ENTER, badFD, 0, 0, 0), eperm),
		judge("mount", mountNothing(), eperm),
		judge("move_mount", call(unix.SYS_MOVE_MOUNT, badFD, 0, badFD, 0), eperm),
		judge("fsopen", call(unix.SYS_FSOPEN, 0, badFD, 0, 0), eperm),
		judge("open_tree", call(unix.SYS_OPEN_TREE, badFD, 0, badFD, 0), eperm),
		judge("pivot_root", call(unix.SYS_PIVOT_ROOT, 0, 0, 0, 0), eperm),
		judge("chroot", call(unix.SYS_CHROOT, 0, 0, 0, 0), eperm),
		judge("unshare(user)", unshare(unix.CLONE_NEWUSER), eperm),
		judge("unshare(net)", unshare(unix.CLONE_NEWNET), eperm),
		judge("setns", call(unix.SYS_SETNS, badFD, 0, 0, 0), eperm),
		judge("clone3", call(unix.SYS_CLONE3, 0, 0, 0, 0), unix.ENOSYS, eperm),
		judge("bpf", call(unix.SYS_BPF, 0xffff, 0, 0, 0), eperm),
		judge("perf_event_open", call(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, badFD), eperm),
		judge("keyctl", call(unix.SYS_KEYCTL, 0xffff, 0, 0, 0), eperm),
		judge("add_key", call(unix.SYS_ADD_KEY, 0, 0, 0, 0), eperm),
		judge("kexec_load", call(unix.SYS_KEXEC_LOAD, 0, 0xffff, 0, 0), eperm),
		judge("init_module", call(unix.SYS_INIT_MODULE, 0, 0, 0, 0), eperm),
		judge("finit_module", call(unix.SYS_FINIT_MODULE, badFD, 0, 0, 0), eperm),
		judge("userfaultfd", call(unix.SYS_USERFAULTFD, 0xffff, 0, 0, 0), eperm),
		judge("open_by_handle_at", call(unix.SYS_OPEN_BY_HANDLE_AT, badFD, 0, 0, 0), eperm),
		judge("name_to_handle_at", call(unix.SYS_NAME_TO_HANDLE_AT, badFD, 0, 0, 0), eperm),
		judge("setuid", call(unix.SYS_SETRESUID, 0xfffe, 0xfffe, 0xfffe, 0), eperm),
		judge("ioctl TIOCSTI", call(unix.SYS_IOCTL, badFD, unix.TIOCSTI, 0, 0), eperm),
		judge("reboot", call(unix.SYS_REBOOT, 0, 0, 0, 0), eperm),
		judge("executable memory", executable(), eperm),
		judge("dumpable again", dumpable(), eperm),
	}
	return append(out, abiAttempts()...)
}

// abiAttempts tries a call by the x32 ABI, whose numbers a filter may forget.
func abiAttempts() []Attempt {
	if runtime.GOARCH != "amd64" {
		return nil
	}
	const x32 = 0x40000000
	return []Attempt{judge("x32 socket", call(x32|unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0, 0), unix.EPERM, unix.ENOSYS)}
}

func mountNothing() error {
	err := unix.Mount("canary", "/", "tmpfs", unix.MS_RDONLY, "size=4k")
	if err == nil {
		unix.Unmount("/", unix.MNT_DETACH)
	}
	return err
}

func dumpable() error {
	err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	if err == nil {
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	return err
}

func executable() error {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		unix.Munmap(b)
	}
	return err
}

// unshare runs on a thread of its own, which ends with it: should it succeed,
// the rest of the process stays where it was.
func unshare(flags int) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		result <- unix.Unshare(flags)
	}()
	return <-result
}
