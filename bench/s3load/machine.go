package s3load

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Machine describes this machine for a report, as far as /proc tells.
func Machine() map[string]string {
	m := map[string]string{
		"architecture": runtime.GOARCH,
		"processors":   strconv.Itoa(runtime.NumCPU()),
		"go":           runtime.Version(),
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m["kernel"] = strings.TrimSpace(string(release))
	}
	if name, ok := procField("/proc/cpuinfo", "model name"); ok {
		m["processor"] = name
	}
	if total, ok := procField("/proc/meminfo", "MemTotal"); ok {
		m["memory"] = total
	}
	return m
}

func procField(path, name string) (string, bool) {
	body, err := os.ReadFile(path)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(body)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}
