package harness

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Variables that a demo.env must hold; they are the names that clients know.
const (
	EndpointURL = "AWS_ENDPOINT_URL"
	AccessKeyID = "AWS_ACCESS_KEY_ID"
	SecretKey   = "AWS_SECRET_ACCESS_KEY"
	Region      = "AWS_REGION"
	CABundle    = "AWS_CA_BUNDLE"
	Kubeconfig  = "KUBECONFIG"
)

// function is a shell function on one line, such as: rclone() { …; }
var function = regexp.MustCompile(`^[a-z0-9_]+\(\) \{.*\}$`)

// ReadEnv reads a file of shell assignments, one a line ("export NAME='value'",
// "NAME=value"), as `chancery up` writes demo.env. Functions are
// passed over; anything else in it is an error.
func ReadEnv(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("harness: %w", err)
	}
	defer f.Close()
	env := make(map[string]string)
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		// Functions in it are for people's shells.
		if line == "" || strings.HasPrefix(line, "#") || function.MatchString(line) {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok || name == "" || strings.ContainsAny(name, " \t'\"$") {
			return nil, fmt.Errorf("harness: %s:%d: not an assignment", path, n)
		}
		if value, err = unquote(value); err != nil {
			return nil, fmt.Errorf("harness: %s:%d: %s: %w", path, n, name, err)
		}
		env[name] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("harness: %s: %w", path, err)
	}
	return env, nil
}

// unquote understands one bare, single-quoted or double-quoted word, and the
// shell's way of writing a single quote inside single quotes (quote, backslash, quote, quote).
func unquote(s string) (string, error) {
	switch {
	case strings.HasPrefix(s, "'"):
		inner := strings.ReplaceAll(s, `'\''`, "\x00")
		if len(inner) < 2 || !strings.HasSuffix(inner, "'") || strings.Contains(inner[1:len(inner)-1], "'") {
			return "", fmt.Errorf("unbalanced quotes")
		}
		return strings.ReplaceAll(inner[1:len(inner)-1], "\x00", "'"), nil
	case strings.HasPrefix(s, `"`):
		if len(s) < 2 || !strings.HasSuffix(s, `"`) || strings.ContainsAny(s[1:len(s)-1], "\"$`\\") {
			return "", fmt.Errorf("unbalanced quotes, or an expansion")
		}
		return s[1 : len(s)-1], nil
	case strings.ContainsAny(s, " \t'\"$`\\;&|"):
		return "", fmt.Errorf("needs quotes")
	}
	return s, nil
}

// complete tells which of the variables every client needs is missing.
func complete(env map[string]string) error {
	for _, name := range []string{EndpointURL, AccessKeyID, SecretKey, Region, CABundle} {
		if env[name] == "" {
			return fmt.Errorf("harness: %s is missing", name)
		}
	}
	return nil
}
