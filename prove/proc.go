package prove

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"chancery/internal/errs"
	"chancery/internal/sandbox"
)

// cellsOf lists the cells below a zone's process: its children that run as cells.
func cellsOf(zone int) ([]int, error) {
	const op = "prove.cellsOf"
	if zone <= 0 {
		return nil, errs.New(errs.Invalid, op, "the zone's process is not known")
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	var out []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it ended
		}
		// pid (comm) state ppid …; comm may hold anything, so count from the last parenthesis.
		rest := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(rest) < 2 || rest[1] != strconv.Itoa(zone) {
			continue
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		if args := strings.Split(string(line), "\x00"); len(args) > 1 && args[1] == sandbox.Subcommand {
			out = append(out, pid)
		}
	}
	return out, nil
}

// socketTables are the network families that /proc lists, by file.
var socketTables = []string{"tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6", "packet", "netlink", "mptcp"}

// inetSockets lists the network sockets that a process holds, whatever namespace
// they were born in: its descriptors that are no Unix sockets.
func inetSockets(pid int) ([]string, error) {
	const op = "prove.inetSockets"
	before, err := socketsOf(pid)
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	// A socket that the process made is in the table of its own namespace; one
	// that it accepted is in that of whoever connected: ours.
	known := map[string]bool{}
	for _, table := range []string{fmt.Sprintf("/proc/%d/net/unix", pid), "/proc/self/net/unix"} {
		inodes, err := inodes(table, 6)
		if err != nil {
			return nil, errs.WrapKind(errs.Unavailable, op, err)
		}
		maps.Copy(known, inodes)
	}
	// Only what is there before and after the tables were read can be judged.
	after, err := socketsOf(pid)
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	var out []string
	for descriptor, inode := range after {
		if before[descriptor] == inode && !known[inode] {
			out = append(out, fmt.Sprintf("descriptor %s is socket %s, in no table of Unix sockets", descriptor, inode))
		}
	}
	slices.Sort(out)
	return out, nil
}

// socketsOf lists the sockets that a process holds: inode by descriptor.
func socketsOf(pid int) (map[string]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			out[entry.Name()] = strings.TrimSuffix(inode, "]")
		}
	}
	return out, nil
}

// inodes reads the inode column of a table in /proc/PID/net.
func inodes(path string, column int) (map[string]bool, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for i, line := range strings.Split(string(body), "\n") {
		if fields := strings.Fields(line); i > 0 && len(fields) > column {
			out[fields[column]] = true
		}
	}
	return out, nil
}

// connection is one row of a process's own rows in a socket table.
type connection struct {
	table, local, remote string
	listening            bool
}

// connections lists the sockets of the network families that a process holds.
func connections(pid int) ([]connection, error) {
	const op = "prove.connections"
	sockets, err := socketsOf(pid)
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	mine := map[string]bool{}
	for _, inode := range sockets {
		mine[inode] = true
	}
	var out []connection
	for _, table := range socketTables {
		body, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if errors.Is(err, fs.ErrNotExist) {
			continue // this kernel has no such family
		}
		if err != nil {
			return nil, errs.WrapKind(errs.Unavailable, op, err)
		}
		for i, line := range strings.Split(string(body), "\n") {
			fields := strings.Fields(line)
			if i == 0 || len(fields) == 0 {
				continue
			}
			inode, local, remote, state := "", "", "", ""
			if table == "packet" || table == "netlink" {
				inode = fields[len(fields)-1]
			} else if len(fields) > 9 {
				inode, local, remote, state = fields[9], fields[1], fields[2], fields[3]
			}
			if mine[inode] {
				out = append(out, connection{table, local, remote, state == "0A"})
			}
		}
	}
	return out, nil
}
