package clients

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"chancery/test/harness"
)

// fetch gets a URL without any credentials.
func fetch(t *testing.T, z *harness.Zone, url string) (int, string) {
	t.Helper()
	client, err := z.HTTPClient()
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestRclone(t *testing.T) {
	rclone := program(t, "rclone")
	// rclone has names of its own for what demo.env says.
	z := sharedZone(t)
	c := newClient(t,
		"RCLONE_CONFIG_C_TYPE=s3", "RCLONE_CONFIG_C_PROVIDER=Other", "RCLONE_CONFIG_C_ENV_AUTH=true",
		"RCLONE_CONFIG_C_ENDPOINT="+z.Env[harness.EndpointURL], "RCLONE_CONFIG_C_REGION="+z.Env[harness.Region],
		"RCLONE_CONFIG=/dev/null", "RCLONE_CA_CERT="+z.Env[harness.CABundle])
	c.without = harness.CABundle // rclone before 1.68 carries an SDK that fails on this variable; docs/guides/s3-clients.md says so
	n := 250
	if large() {
		n = 5000
	}
	src, dst := t.TempDir(), t.TempDir()
	tree(t, src, n)
	bucket := bucketName("rclone")
	c.run(rclone, "mkdir", "c:"+bucket)
	c.run(rclone, "copy", "--transfers", "8", src, "c:"+bucket+"/tree")
	if out := c.run(rclone, "check", "--download", src, "c:"+bucket+"/tree"); !strings.Contains(out, "0 differences found") {
		t.Errorf("check: %s", out)
	}
	c.run(rclone, "copy", "--transfers", "8", "c:"+bucket+"/tree", dst)
	sameTree(t, src, dst)

	// A changed file must be found, or the check above proves nothing.
	randomFile(t, filepath.Join(src, "d00", "new file"), 100)
	if out, err := c.try(rclone, "check", src, "c:"+bucket+"/tree"); err == nil || !strings.Contains(out, "1 differences found") {
		t.Errorf("check after a change: %v\n%s", err, out)
	}
	c.run(rclone, "sync", src, "c:"+bucket+"/tree")
	c.run(rclone, "check", "--download", src, "c:"+bucket+"/tree")
	c.run(rclone, "purge", "c:"+bucket)
	c.refused("directory not found", rclone, "lsf", "c:"+bucket)
}

func TestS3cmd(t *testing.T) {
	s3cmd := program(t, "s3cmd")
	c := newClient(t)
	endpoint, err := url.Parse(c.z.Env[harness.EndpointURL])
	if err != nil {
		t.Fatal(err)
	}
	// s3cmd reads the key and the secret from the environment, the rest from its file.
	config := filepath.Join(c.home, "s3cfg")
	text := strings.Join([]string{"[default]", "host_base = " + endpoint.Host, "host_bucket = " + endpoint.Host, "bucket_location = " + c.z.Env[harness.Region],
		"ca_certs_file = " + c.z.Env[harness.CABundle], "use_https = True", "multipart_chunk_size_mb = 5", ""}, "\n")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		return c.run(s3cmd, append([]string{"-c", config, "--no-progress"}, args...)...)
	}
	bucket := bucketName("s3cmd")
	run("mb", "s3://"+bucket)
	src, dst := t.TempDir(), t.TempDir()
	tree(t, src, 60)
	randomFile(t, filepath.Join(src, "multipart"), 12<<20)
	run("put", "--recursive", src+"/", "s3://"+bucket+"/tree/")
	run("get", "--recursive", "s3://"+bucket+"/tree/", dst+"/")
	sameTree(t, src, dst)
	if out := run("ls", "s3://"+bucket+"/tree/multipart"); !strings.Contains(out, "12582912") {
		t.Errorf("ls: %s", out)
	}
	run("cp", "s3://"+bucket+"/tree/multipart", "s3://"+bucket+"/copy")
	back := filepath.Join(t.TempDir(), "copy")
	run("get", "s3://"+bucket+"/copy", back)
	sameFile(t, filepath.Join(src, "multipart"), back)
	run("del", "--recursive", "--force", "s3://"+bucket)
	run("rb", "s3://"+bucket)
	c.refused("NoSuchBucket", s3cmd, "-c", config, "ls", "s3://"+bucket)
}

func TestRestic(t *testing.T) {
	restic := program(t, "restic")
	z := sharedZone(t)
	bucket := bucketName("restic")
	c := newClient(t, "RESTIC_REPOSITORY=s3:"+z.Env[harness.EndpointURL]+"/"+bucket, "RESTIC_PASSWORD=of this test only",
		"AWS_DEFAULT_REGION="+z.Env[harness.Region])
	run := func(args ...string) string { // restic 0.14 knows the CA by this option only
		t.Helper()
		return c.run(restic, append([]string{"--cacert", z.Env[harness.CABundle]}, args...)...)
	}
	src := t.TempDir()
	if large() {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			t.Fatal(err)
		}
		src = filepath.Join(strings.TrimSpace(string(root)), "src")
		if _, err := os.Stat(src); err != nil {
			t.Fatalf("the Go source tree: %v", err)
		}
	} else {
		tree(t, src, 250)
		randomFile(t, filepath.Join(src, "big"), 20<<20)
	}
	run("init")
	run("backup", "--quiet", src)
	if out := run("check", "--read-data"); !strings.Contains(out, "no errors were found") {
		t.Errorf("check: %s", out)
	}
	dst := t.TempDir()
	run("restore", "latest", "--target", dst)
	sameTree(t, src, filepath.Join(dst, src))
	if !large() {
		randomFile(t, filepath.Join(src, "second"), 1<<20)
		run("backup", "--quiet", src)
		run("forget", "--keep-last", "1", "--prune")
		if out := run("check", "--read-data"); !strings.Contains(out, "no errors were found") {
			t.Errorf("check after prune: %s", out)
		}
	}
}

func TestMinioGo(t *testing.T) {
	z := sharedZone(t)
	mc, err := z.Minio()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	bucket := bucketName("minio")
	if err := mc.MakeBucket(ctx, bucket, minio.MakeBucketOptions{Region: z.Env[harness.Region]}); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"empty": 0, "one": 1, "inline": 30 << 10, "segments": 64<<10*3 + 7, "multipart": 17<<20 + 3} {
		for _, stream := range []bool{false, true} {
			t.Run(name+map[bool]string{false: "", true: " of unknown size"}[stream], func(t *testing.T) {
				data := make([]byte, size)
				if _, err := rand.Read(data); err != nil {
					t.Fatal(err)
				}
				key := "dir/" + name
				length, opts := int64(size), minio.PutObjectOptions{ContentType: "x/y", UserMetadata: map[string]string{"case": name}}
				if stream {
					length, opts.PartSize = -1, 5<<20
				}
				put, err := mc.PutObject(ctx, bucket, key, bytes.NewReader(data), length, opts)
				if err != nil {
					t.Fatal(err)
				}
				if put.Size != int64(size) {
					t.Errorf("put %d bytes, told %d", size, put.Size)
				}
				obj, err := mc.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer obj.Close()
				back, err := io.ReadAll(obj)
				if err != nil || !bytes.Equal(back, data) {
					t.Fatalf("read %d bytes, %v; equal: %v", len(back), err, bytes.Equal(back, data))
				}
				info, err := mc.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
				if err != nil || info.Size != int64(size) || info.ContentType != "x/y" || info.UserMetadata["Case"] != name {
					t.Errorf("stat: size %d, type %q, metadata %v, %v", info.Size, info.ContentType, info.UserMetadata, err)
				}
				if size > 10 {
					at := make([]byte, 9)
					if _, err := obj.ReadAt(at, int64(size-9)); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(at, data[size-9:]) {
						t.Errorf("the last bytes: %v", err)
					}
				}
			})
		}
	}
	var listed []string
	for o := range mc.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		listed = append(listed, o.Key)
	}
	if got, want := strings.Join(listed, " "), "dir/empty dir/inline dir/multipart dir/one dir/segments"; got != want {
		t.Errorf("listed %q, want %q", got, want)
	}
	if _, err := mc.StatObject(ctx, bucket, "absent", minio.StatObjectOptions{}); minio.ToErrorResponse(err).StatusCode != http.StatusNotFound {
		t.Errorf("stat of nothing: %v", err)
	}
	if err := mc.RemoveBucket(ctx, bucket); minio.ToErrorResponse(err).Code != "BucketNotEmpty" {
		t.Errorf("removing a bucket with objects in it: %v", err)
	}
	for failure := range mc.RemoveObjects(ctx, bucket, mc.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true}), minio.RemoveObjectsOptions{}) {
		t.Errorf("remove %s: %v", failure.ObjectName, failure.Err)
	}
	if err := mc.RemoveBucket(ctx, bucket); err != nil {
		t.Error(err)
	}
}

// TestRestartKeepsData stops and starts the zone as a person does, and reads again.
func TestRestartKeepsData(t *testing.T) {
	z := harness.Up(t, harness.Options{})
	mc, err := z.Minio()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 200<<10)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	bucket := bucketName("restart")
	if err := mc.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := mc.PutObject(t.Context(), bucket, "k", bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	key := z.Env[harness.AccessKeyID]
	if err := z.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := z.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if z.Env[harness.AccessKeyID] != key {
		t.Errorf("the access key changed from %s to %s", key, z.Env[harness.AccessKeyID])
	}
	if mc, err = z.Minio(); err != nil { // the port may be another
		t.Fatal(err)
	}
	obj, err := mc.GetObject(t.Context(), bucket, "k", minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Close()
	back, err := io.ReadAll(obj)
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("after a restart: %d bytes, %v", len(back), err)
	}
}
