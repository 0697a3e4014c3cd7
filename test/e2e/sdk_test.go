package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"chancery/test/harness"
)

// sdk runs a program of testdata against the default organization.
func sdk(t *testing.T, dir, interpreter, program, bucket string) {
	t.Helper()
	z := sharedZone(t)
	p := project(t, z, "health", "wards")
	source, err := os.ReadFile(filepath.Join("testdata", program))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, program)
	if err := os.WriteFile(path, source, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), interpreter, path, "https://"+z.S3, bucket)
	cmd.Dir = dir
	cmd.Env = append(p.Environ(), "NODE_EXTRA_CA_CERTS="+z.Org("health").CAFile, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", harness.Region+"=us-east-1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// TestJavaScript runs the current AWS SDK for JavaScript, installed by npm for
// this test alone (CHANCERY_E2E_NODE_MODULES names a directory that has it).
func TestJavaScript(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not in PATH")
	}
	dir := t.TempDir()
	if modules := os.Getenv("CHANCERY_E2E_NODE_MODULES"); modules != "" {
		if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
			t.Fatal(err)
		}
	} else {
		if !large() {
			t.Skip("installs a hundred packages: run with CHANCERY_E2E_LARGE=1, or name an installed node_modules in CHANCERY_E2E_NODE_MODULES")
		}
		npm, err := exec.LookPath("npm")
		if err != nil {
			t.Skip("npm is not in PATH")
		}
		cmd := exec.CommandContext(t.Context(), npm, "install", "--no-audit", "--no-fund", "--silent", "@aws-sdk/client-s3", "@aws-sdk/s3-request-presigner")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("npm cannot install the SDK here: %v\n%s", err, out)
		}
	}
	sdk(t, dir, node, "sdk.mjs", "by-javascript")
}

// TestBoto3 runs boto3 where it is installed.
func TestBoto3(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not in PATH")
	}
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import boto3; print(boto3.__version__)").CombinedOutput(); err != nil {
		t.Skipf("no boto3 for %s: %s", python, out)
	}
	sdk(t, t.TempDir(), python, "sdk.py", "by-boto3")
}
