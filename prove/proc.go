package prove

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	unixInodes, err := inodes(filepath.Join("/proc", strconv.Itoa(pid), "net", "unix"), 6)
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	var out []string
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		inode, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		inode = strings.TrimSuffix(inode, "]")
		if unixInodes[inode] {
			continue
		}
		if still, err := os.Readlink(filepath.Join(dir, entry.Name())); err != nil || still != target {
			continue // a connection that came or went between the two readings
		}
		if again, err := inodes(filepath.Join("/proc", strconv.Itoa(pid), "net", "unix"), 6); err == nil && again[inode] {
			continue
		}
		out = append(out, "descriptor "+entry.Name()+" is "+target)
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

// held lists the inodes of the sockets that a process holds.
func held(pid int) (map[string]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			if inode, ok := strings.CutPrefix(target, "socket:["); ok {
				out[strings.TrimSuffix(inode, "]")] = true
			}
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
	mine, err := held(pid)
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
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
