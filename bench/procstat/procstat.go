// Package procstat reads from /proc what a tree of processes has used: CPU time
// and peak memory. It measures servers from outside, whatever they are written in.
// It must never be part of the product: nothing under cell/, zone/ or internal/ imports it.
package procstat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, the unit of times in /proc/PID/stat; it is 100 on
// every architecture that Linux gives to user space today (proc(5), sysconf(3)).
const ticksPerSecond = 100

// Usage is what a set of processes has used since each of them started.
type Usage struct {
	// CPU is user and system time, that of children who have ended and were waited for included.
	CPU time.Duration
	// RSS is the sum of resident memory now, in bytes; pages shared between processes count in each.
	RSS int64
	// PeakRSS is the sum of each process's own peak (VmHWM), in bytes: an upper bound of the true common peak.
	PeakRSS int64
	// Processes is how many processes were counted.
	Processes int
}

// process is what we read of one process.
type process struct {
	pid, parent int
	cpu         time.Duration
}

// Tree returns root and all its living descendants.
// A root that does not exist is fs.ErrNotExist.
func Tree(root int) ([]int, error) {
	if _, err := readStat(root); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := readStat(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		children[p.parent] = append(children[p.parent], pid)
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// Of sums the usage of processes. One that ended is left out; if none is left
// the error is fs.ErrNotExist.
func Of(pids []int) (Usage, error) {
	var u Usage
	for _, pid := range pids {
		p, err := readStat(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return u, err
		}
		rss, peak, err := readMemory(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return u, err
		}
		u.CPU += p.cpu
		u.RSS += rss
		u.PeakRSS += peak
		u.Processes++
	}
	if u.Processes == 0 {
		return u, fmt.Errorf("procstat: no process of %v is there: %w", pids, fs.ErrNotExist)
	}
	return u, nil
}

// OfTree sums the usage of a process and all its descendants.
func OfTree(root int) (Usage, error) {
	pids, err := Tree(root)
	if err != nil {
		return Usage{}, err
	}
	return Of(pids)
}

// ResetPeak asks the kernel to begin a new peak for each process (proc(5),
// clear_refs 5). It tells whether all of them allowed it; the peak of others is since their start.
func ResetPeak(pids []int) bool {
	all := true
	for _, pid := range pids {
		if os.WriteFile(procFile(pid, "clear_refs"), []byte("5"), 0) != nil {
			all = false
		}
	}
	return all
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// notThere maps the errors of a process that ended between two reads to fs.ErrNotExist.
func notThere(pid int, err error) error {
	if errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "no such process") {
		return fmt.Errorf("procstat: process %d: %w", pid, fs.ErrNotExist)
	}
	return fmt.Errorf("procstat: process %d: %w", pid, err)
}

func readStat(pid int) (process, error) {
	body, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return process{}, notThere(pid, err)
	}
	return parseStat(string(body))
}

// parseStat reads pid, parent and CPU times of a line of /proc/PID/stat (proc(5)).
// The command name, field 2, may hold spaces and parentheses: it ends at the last ")".
func parseStat(line string) (process, error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("procstat: no command name in %q", line)
	}
	rest := strings.Fields(line[end+1:])
	if len(rest) < 15 {
		return process{}, fmt.Errorf("procstat: short line %q", line)
	}
	number := func(field string) (int64, error) { return strconv.ParseInt(strings.TrimSpace(field), 10, 64) }
	pid, err := number(line[:open])
	if err != nil {
		return process{}, fmt.Errorf("procstat: pid: %w", err)
	}
	parent, err := number(rest[1])
	if err != nil {
		return process{}, fmt.Errorf("procstat: ppid: %w", err)
	}
	var ticks int64
	for _, field := range rest[11:15] { // utime, stime, cutime, cstime: fields 14 to 17
		n, err := number(field)
		if err != nil {
			return process{}, fmt.Errorf("procstat: times: %w", err)
		}
		ticks += n
	}
	return process{pid: int(pid), parent: int(parent), cpu: time.Duration(ticks) * time.Second / ticksPerSecond}, nil
}

// readMemory returns VmRSS and VmHWM of /proc/PID/status, in bytes. A process
// that has ended but was not waited for has none: zero.
func readMemory(pid int) (rss, peak int64, err error) {
	body, err := os.ReadFile(procFile(pid, "status"))
	if err != nil {
		return 0, 0, notThere(pid, err)
	}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(line, ":")
		var to *int64
		switch name {
		case "VmRSS":
			to = &rss
		case "VmHWM":
			to = &peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("procstat: process %d: %s: %w", pid, name, err)
		}
		*to = kib << 10
	}
	return rss, peak, nil
}
