package clients

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chancery/test/harness"
)

// awsPrograms returns every different AWS CLI in PATH, with Debian's own: old and
// new generations send different checksums and framings.
func awsPrograms(t *testing.T) []string {
	t.Helper()
	seen := make(map[string]bool)
	var found []string
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin") {
		path := filepath.Join(dir, "aws")
		info, err := os.Stat(path)
		if err != nil || info.Mode()&0o111 == 0 {
			continue
		}
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			t.Fatal(err)
		}
		if !seen[real] {
			seen[real] = true
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		program(t, "aws") // skips, or fails in CI
	}
	return found
}

func TestAWSCLI(t *testing.T) {
	for _, path := range awsPrograms(t) {
		t.Run(strings.Trim(strings.ReplaceAll(path, "/", "_"), "_"), func(t *testing.T) { testAWS(t, path) })
	}
}

func testAWS(t *testing.T, aws string) {
	c := newClient(t, "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=")
	version := strings.TrimSpace(c.run(aws, "--version"))
	t.Log(version)
	if old := regexp.MustCompile(`^aws-cli/(1\.([01]?\d|2[0-8])|2\.(\d|1[0-2]))\.`); old.MatchString(version) {
		// AWS_ENDPOINT_URL came with 1.29 and 2.13 (July 2023).
		c.prefix = []string{"--endpoint-url", c.z.Env[harness.EndpointURL]}
	}
	bucket := bucketName("aws")
	c.run(aws, "s3", "mb", "s3://"+bucket)
	if out := c.run(aws, "s3", "ls"); !strings.Contains(out, bucket) {
		t.Errorf("s3 ls does not show %s:\n%s", bucket, out)
	}

	t.Run("large file", func(t *testing.T) {
		c := c.in(t)
		size := int64(40<<20 + 12345) // above the CLI's threshold: multipart, and ranged reads in parallel
		if large() {
			size = 1 << 30
		}
		src, dst := filepath.Join(t.TempDir(), "large"), filepath.Join(t.TempDir(), "back")
		randomFile(t, src, size)
		c.run(aws, "s3", "cp", "--no-progress", src, "s3://"+bucket+"/large file")
		c.run(aws, "s3", "cp", "--no-progress", "s3://"+bucket+"/large file", dst)
		sameFile(t, src, dst)
	})

	t.Run("sync a tree", func(t *testing.T) {
		c := c.in(t)
		src, dst := t.TempDir(), t.TempDir()
		tree(t, src, 60)
		c.run(aws, "s3", "sync", "--no-progress", src, "s3://"+bucket+"/tree")
		c.run(aws, "s3", "sync", "--no-progress", "s3://"+bucket+"/tree", dst)
		sameTree(t, src, dst)
		if out := c.run(aws, "s3", "sync", "--no-progress", src, "s3://"+bucket+"/tree"); strings.Contains(out, "upload:") {
			t.Errorf("a second sync uploads again:\n%s", out)
		}
		if out := c.run(aws, "s3", "rm", "--recursive", "--quiet", "s3://"+bucket+"/tree"); strings.Contains(out, "failed") {
			t.Error(out)
		}
		if out, _ := c.try(aws, "s3", "ls", "s3://"+bucket+"/tree/"); strings.TrimSpace(out) != "" {
			t.Errorf("left after rm: %s", out)
		}
	})

	t.Run("metadata, ranges and conditions", func(t *testing.T) {
		c := c.in(t)
		file, part := filepath.Join(t.TempDir(), "f"), filepath.Join(t.TempDir(), "part")
		if err := os.WriteFile(file, []byte("0123456789"), 0o644); err != nil {
			t.Fatal(err)
		}
		c.run(aws, "s3api", "put-object", "--bucket", bucket, "--key", "k", "--body", file, "--metadata", "case=42", "--content-type", "text/x-test")
		var head struct {
			ContentLength        int
			ContentType, ETag    string
			ServerSideEncryption string
			Metadata             map[string]string
		}
		out := c.run(aws, "s3api", "head-object", "--output", "json", "--bucket", bucket, "--key", "k")
		if err := json.Unmarshal([]byte(out), &head); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if head.ContentLength != 10 || head.ContentType != "text/x-test" || head.Metadata["case"] != "42" || head.ServerSideEncryption != "aws:kms" {
			t.Errorf("head: %s", out)
		}
		c.run(aws, "s3api", "get-object", "--bucket", bucket, "--key", "k", "--range", "bytes=2-4", part)
		if body, err := os.ReadFile(part); err != nil || string(body) != "234" {
			t.Errorf("range: %q, %v", body, err)
		}
		c.refused("PreconditionFailed", aws, "s3api", "get-object", "--bucket", bucket, "--key", "k", "--if-match", `"00000000000000000000000000000000"`, part)
		c.run(aws, "s3api", "get-object", "--bucket", bucket, "--key", "k", "--if-match", head.ETag, part)
		c.run(aws, "s3api", "copy-object", "--bucket", bucket, "--key", "copy", "--copy-source", bucket+"/k")
		if out := c.run(aws, "s3api", "head-object", "--output", "json", "--bucket", bucket, "--key", "copy"); !strings.Contains(out, `"case": "42"`) {
			t.Errorf("the copy lost its metadata: %s", out)
		}
	})

	t.Run("presigned", func(t *testing.T) {
		c := c.in(t)
		url := strings.TrimSpace(c.run(aws, "s3", "presign", "s3://"+bucket+"/k"))
		status, body := fetch(t, c.z, url)
		if status != 200 || body != "0123456789" {
			t.Errorf("presigned: %d %q", status, body)
		}
		_, after, found := strings.Cut(url, "X-Amz-Signature=")
		if !found {
			// botocore presigns with Signature Version 2 in the old regions of AWS; the demonstration's region must not bear such a name.
			t.Fatalf("not presigned with Signature Version 4 in region %s: %s", c.z.Env[harness.Region], url)
		}
		at := len(url) - len(after)
		other := byte('0')
		if url[at] == other {
			other = '1'
		}
		if status, body := fetch(t, c.z, url[:at]+string(other)+url[at+1:]); status != 403 {
			t.Errorf("with another signature: %d %q", status, body)
		}
	})

	t.Run("errors", func(t *testing.T) {
		c := c.in(t)
		out := filepath.Join(t.TempDir(), "out")
		c.refused("NoSuchKey", aws, "s3api", "get-object", "--bucket", bucket, "--key", "absent", out)
		c.refused("NoSuchBucket", aws, "s3api", "list-objects-v2", "--bucket", bucketName("absent"))
		c.refused("BucketNotEmpty", aws, "s3api", "delete-bucket", "--bucket", bucket)
	})
	c.run(aws, "s3", "rb", "--force", "s3://"+bucket)
	c.refused("404", aws, "s3api", "head-bucket", "--bucket", bucket)
}
