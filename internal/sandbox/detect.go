package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Detect finds out by trying how a process can be confined on this host: it
// starts one in ModeNamespaces that builds its root and ends. args are those of
// a later Start. The second result is the reason, for people; in ModePod what
// the kernel refused.
func Detect(args []string, program string) (Mode, string) {
	reason := try(args, program)
	if reason == "" {
		return ModeNamespaces, "user namespaces work"
	}
	if pod := os.Getenv("KUBERNETES_SERVICE_HOST"); pod != "" {
		reason += " (in a Kubernetes pod, which is the outer sandbox)"
	}
	return ModePod, reason
}

func try(args []string, program string) string {
	dir, err := os.MkdirTemp("", "chancery-sandbox-")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = os.RemoveAll(dir) }() // an empty directory of ours
	data, run := filepath.Join(dir, "data"), filepath.Join(dir, "run")
	for _, d := range []string{data, run} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err.Error()
		}
	}
	var log bytes.Buffer
	p, err := start(Spec{Args: args, DataDir: data, RunDir: run, Mode: ModeNamespaces, Log: &log, Program: program}, true)
	if err != nil {
		return fmt.Sprintf("user namespaces are refused: %v", err)
	}
	p.CloseInput()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		p.Kill()
		<-p.Done()
	}
	if p.OK() {
		return ""
	}
	return fmt.Sprintf("namespaces can be made but not used: %s: %s", p.Exit(), strings.TrimSpace(log.String()))
}
