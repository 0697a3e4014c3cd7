package objects

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"

	"chancery/internal/errs"
	"chancery/internal/store"
)

func TestBucketNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"abc": true, "a-b.c1": true, strings.Repeat("a", 63): true, "1.2.3.4.5": true, "192.168.5": true,
		"ab": false, strings.Repeat("a", 64): false, "Abc": false, "a_b": false, "-abc": false, "abc-": false, ".abc": false,
		"abc.": false, "a..b": false, "192.168.5.4": false, "xn--abc": false, "sthree-abc": false, "amzn-s3-demo-x": false,
		"abc-s3alias": false, "abc--ol-s3": false, "abc.mrap": false, "abc--x-s3": false, "abc--table-s3": false, "": false, "a/b": false, "aüb": false,
	} {
		if err := checkBucketName("t", name); (err == nil) != ok || err != nil && errs.CodeOf(err) != "InvalidBucketName" {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestBuckets(t *testing.T) {
	w := newWorld(t)
	p2, err := w.CreateProject(ctx, "second")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^\d{12}$`).MatchString(p2.ID) {
		t.Errorf("project id %q", p2.ID)
	}
	_, err = w.CreateBucket(ctx, CreateBucket{Name: "x", ProjectID: w.p.ID})
	code(t, err, "InvalidBucketName")
	_, err = w.CreateBucket(ctx, CreateBucket{Name: w.bucket, ProjectID: w.p.ID})
	code(t, err, "BucketAlreadyOwnedByYou")
	_, err = w.CreateBucket(ctx, CreateBucket{Name: w.bucket, ProjectID: p2.ID})
	code(t, err, "BucketAlreadyExists")
	_, err = w.CreateBucket(ctx, CreateBucket{Name: "elsewhere", ProjectID: p2.ID, Region: "mars-1"})
	code(t, err, "InvalidLocationConstraint")
	_, err = w.CreateBucket(ctx, CreateBucket{Name: "nobodys", ProjectID: "000000000000"})
	kind(t, err, errs.NotFound)
	b, err := w.CreateBucket(ctx, CreateBucket{Name: "bucket-b", ProjectID: p2.ID, Region: "eu-test-1"})
	if err != nil || b.KeyID == "" || len(b.ID) != bucketIDSize || b.Region != "eu-test-1" || b.ProjectID != p2.ID {
		t.Fatal(b, err)
	}
	got, err := w.Bucket(ctx, "bucket-b")
	if err != nil || got != b {
		t.Fatal(got, b, err)
	}
	_, err = w.Bucket(ctx, "bucket-c")
	code(t, err, "NoSuchBucket")
	for id, want := range map[string]string{"": "bucket-a bucket-b", p2.ID: "bucket-b", w.p.ID: "bucket-a", "1": ""} {
		list, err := w.Buckets(ctx, id)
		var names []string
		for _, b := range list {
			names = append(names, b.Name)
		}
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("buckets of %q: %v %v", id, names, err)
		}
	}
	w.put("k", []byte("x"))
	code(t, w.DeleteBucket(ctx, w.bucket), "BucketNotEmpty")
	w.want("k", []byte("x"))
	w.put("k2", []byte("y")) // open as before
	for _, k := range []string{"k", "k2"} {
		if _, err := w.Delete(ctx, Delete{Bucket: w.bucket, Key: k}); err != nil {
			t.Fatal(err)
		}
	}
	u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	code(t, w.DeleteBucket(ctx, w.bucket), "BucketNotEmpty")
	if err := w.AbortUpload(ctx, w.bucket, "k", u.ID); err != nil {
		t.Fatal(err)
	}
	kind(t, w.DeleteProject(ctx, "p"), errs.Conflict)
	if err := w.DeleteBucket(ctx, w.bucket); err != nil {
		t.Fatal(err)
	}
	code(t, w.DeleteBucket(ctx, w.bucket), "NoSuchBucket")
	_, err = w.Put(ctx, Put{Bucket: w.bucket, Key: "k", Body: bytesBody(nil)})
	code(t, err, "NoSuchBucket")
	// The name is free again, also for others; nothing of the old bucket is seen.
	if _, err = w.CreateBucket(ctx, CreateBucket{Name: w.bucket, ProjectID: p2.ID}); err != nil {
		t.Fatal(err)
	}
	if l, err := w.List(ctx, List{Bucket: w.bucket, Max: 10}); err != nil || len(l.Objects) != 0 {
		t.Fatal(l, err)
	}
	if err := w.DeleteProject(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	kind(t, w.DeleteProject(ctx, "p"), errs.NotFound)
	_, err = w.CreateBucket(ctx, CreateBucket{Name: "late", ProjectID: w.p.ID})
	kind(t, err, errs.NotFound)
	list, err := w.Projects(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "second" {
		t.Fatal(list, err)
	}
	w.tidy(0, 0)
	for _, p := range []string{pDoomedB, pDoomedP, "o/z/"} {
		if w.stored(p) != 0 {
			t.Errorf("%s is not empty", p)
		}
	}
}

func TestProjects(t *testing.T) {
	w := newWorld(t)
	for _, n := range []string{"", "-a", "a-", "A", "a.b", "a b", strings.Repeat("a", 64), "ü"} {
		_, err := w.CreateProject(ctx, n)
		kind(t, err, errs.Invalid)
	}
	_, err := w.CreateProject(ctx, "p")
	kind(t, err, errs.Exists)
	p, err := w.Project(ctx, "p")
	if err != nil || p != w.p {
		t.Fatal(p, w.p, err)
	}
	_, err = w.Project(ctx, "q")
	kind(t, err, errs.NotFound)
}

func TestChangeFeed(t *testing.T) {
	w := newWorld(t)
	w.put("k/ü", []byte("1"))
	w.put("k/ü", data(50_000, 1))
	w.Delete(ctx, Delete{Bucket: w.bucket, Key: "k/ü"})
	w.Delete(ctx, Delete{Bucket: w.bucket, Key: "k/ü"}) // changes nothing
	if err := w.DeleteBucket(ctx, w.bucket); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteProject(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	var got []string
	var after store.Seq
	for {
		list, err := w.store.Feed().Read(ctx, after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		for _, c := range list {
			after = c.Seq
			switch c.Topic {
			case TopicObject:
				v, err := DecodeObjectChange(c.Payload)
				if err != nil || v.Content == [16]byte{} || len(v.BucketID) != bucketIDSize {
					t.Fatal(v, err)
				}
				got = append(got, fmt.Sprint("object ", v.Op, " ", v.Key))
			case TopicBucket:
				v, err := DecodeBucketChange(c.Payload)
				if err != nil || v.ProjectID != w.p.ID {
					t.Fatal(v, err)
				}
				got = append(got, fmt.Sprint("bucket ", v.Op, " ", v.Name))
			case TopicProject:
				v, err := DecodeProjectChange(c.Payload)
				if err != nil || v.ProjectID != w.p.ID {
					t.Fatal(v, err)
				}
				got = append(got, fmt.Sprint("project ", v.Op, " ", v.Name))
			}
		}
	}
	want := "project 1 p, bucket 1 bucket-a, object 1 k/ü, object 1 k/ü, object 2 k/ü, bucket 2 bucket-a, project 2 p"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("feed: %s\nwant: %s", s, want)
	}
}

// TestDestroyed: after the key's end nothing can be read, everything can be removed.
func TestDestroyed(t *testing.T) {
	for _, whole := range []bool{false, true} {
		w := newWorld(t)
		w.put("small", []byte("x"))
		w.put("large", data(100_000, 1))
		w.finishUpload("parts", MinPart, 10)
		u, err := w.CreateUpload(ctx, CreateUpload{Bucket: w.bucket, Key: "up"})
		if err != nil {
			t.Fatal(err)
		}
		w.putPart(u, 1, data(100_000, 2))
		w.putPart(u, 2, data(10, 2))
		_, rc, err := w.Get(ctx, Get{Bucket: w.bucket, Key: "small"})
		if err != nil {
			t.Fatal(err)
		}
		rc.Close()
		b, _ := w.Bucket(ctx, w.bucket)
		if whole {
			err = w.ring.DestroyProject(ctx, w.p.ID)
		} else {
			err = w.ring.DestroyBucket(ctx, w.p.ID, b.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		in := Get{Bucket: w.bucket, Key: "small"}
		for _, k := range []string{"small", "large", "parts"} {
			_, _, err := w.read(Get{Key: k})
			kind(t, err, errs.Destroyed)
		}
		_, err = w.Head(ctx, in)
		kind(t, err, errs.Destroyed)
		_, err = w.List(ctx, List{Bucket: w.bucket, Max: 10})
		kind(t, err, errs.Destroyed)
		_, err = w.ListUploads(ctx, ListUploads{Bucket: w.bucket, Max: 10})
		kind(t, err, errs.Destroyed)
		_, err = w.ListParts(ctx, ListParts{Bucket: w.bucket, Key: "up", UploadID: u.ID, Max: 10})
		kind(t, err, errs.Destroyed)
		_, err = w.Put(ctx, Put{Bucket: w.bucket, Key: "new", Body: bytesBody(nil)})
		kind(t, err, errs.Destroyed)
		_, err = w.Copy(ctx, Copy{Source: in, Bucket: w.bucket, Key: "copy"})
		kind(t, err, errs.Destroyed)
		_, _, err = w.Parts(ctx, w.bucket, "parts", "", 0, 10)
		kind(t, err, errs.Destroyed)
		if b, err := w.Bucket(ctx, w.bucket); err != nil || b.KeyID != "" {
			t.Error("a bucket whose key is destroyed must still be seen", b, err)
		}
		// Removal: one by one, and the rest with the bucket.
		if d, err := w.Delete(ctx, Delete{Bucket: w.bucket, Key: "large"}); err != nil || !d.Existed {
			t.Fatal(d, err)
		}
		if err := w.DeleteBucket(ctx, w.bucket); err != nil {
			t.Fatal(err)
		}
		w.tidy(0, 0)
		if n := w.stored("o/") - w.stored(pProject) - w.stored(pProjectID); n != 0 {
			t.Errorf("%d entries are left", n)
		}
		if err := w.DeleteProject(ctx, "p"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDeleteBucketAgainstPuts: a put that is acknowledged is in a bucket that was not deleted.
func TestDeleteBucketAgainstPuts(t *testing.T) {
	w := newWorld(t)
	for round := range 8 {
		name := fmt.Sprintf("race-%d", round)
		b, err := w.CreateBucket(ctx, CreateBucket{Name: name, ProjectID: w.p.ID})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		acked := 0
		for i := range 6 {
			wg.Go(func() {
				size := 10
				if i%2 == 0 {
					size = 40_000
				}
				_, err := w.Put(ctx, Put{Bucket: name, Key: fmt.Sprint(i), Body: bytesBody(data(size, 1)), Size: int64(size)})
				if err == nil {
					mu.Lock()
					acked++
					mu.Unlock()
				} else if c := errs.CodeOf(err); c != "NoSuchBucket" && !errs.Is(err, errs.Destroyed) {
					t.Errorf("put: %v", err)
				}
			})
		}
		deleted := false
		wg.Go(func() {
			err := w.DeleteBucket(ctx, name)
			if deleted = err == nil; err != nil {
				if errs.CodeOf(err) != "BucketNotEmpty" {
					t.Errorf("delete: %v", err)
				}
			}
		})
		wg.Wait()
		if deleted && acked > 0 {
			t.Fatalf("bucket deleted with %d acknowledged objects", acked)
		}
		if !deleted {
			l, err := w.List(ctx, List{Bucket: name, Max: 100})
			if err != nil || len(l.Objects) != acked || acked != 6 {
				t.Fatal(len(l.Objects), acked, err)
			}
			continue
		}
		if n := w.stored(pObject + b.ID); n != 0 {
			t.Fatalf("%d objects in a deleted bucket", n)
		}
	}
}

// TestRotatedKey: what was written before a rotation stays readable; a new key seals new objects.
func TestRotatedKey(t *testing.T) {
	w := newWorld(t)
	w.put("before", []byte("x"))
	w.put("before-large", data(70_000, 3))
	b, _ := w.Bucket(ctx, w.bucket)
	for _, f := range []func() error{
		func() error { return w.ring.RotateBucket(ctx, w.p.ID, b.ID) },
		func() error { return w.ring.RotateProject(ctx, w.p.ID) },
		func() error { return w.ring.RotateOrganization(ctx) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
		w.want("before", []byte("x"))
		w.want("before-large", data(70_000, 3))
		w.put("after", []byte("y"))
		w.want("after", []byte("y"))
	}
	if l, err := w.List(ctx, List{Bucket: w.bucket, Max: 10}); err != nil || len(l.Objects) != 3 {
		t.Fatal(l, err)
	}
}

// rotatingBody rotates the key while the body is read.
type rotatingBody struct {
	io.Reader
	f func()
}

func (r rotatingBody) Finish() (Sums, error) { r.f(); return Sums{}, nil }

func TestRotationDuringPut(t *testing.T) {
	w := newWorld(t)
	b, _ := w.Bucket(ctx, w.bucket)
	for _, n := range []int{100, 100_000} {
		d := data(n, 5)
		_, err := w.Put(ctx, Put{Bucket: w.bucket, Key: "k", Size: -1, Body: rotatingBody{bytesBody(d), func() {
			if err := w.ring.RotateBucket(ctx, w.p.ID, b.ID); err != nil {
				t.Error(err)
			}
		}}})
		if err != nil {
			t.Fatal(err)
		}
		w.want("k", d)
	}
	_, err := w.Put(ctx, Put{Bucket: w.bucket, Key: "k2", Size: -1, Body: rotatingBody{bytesBody(data(100_000, 5)), func() {
		if err := w.ring.DestroyBucket(ctx, w.p.ID, b.ID); err != nil {
			t.Error(err)
		}
	}}})
	kind(t, err, errs.Destroyed)
	if n := w.blobCount(); n != 1 {
		t.Errorf("%d blobs, want 1", n)
	}
}
