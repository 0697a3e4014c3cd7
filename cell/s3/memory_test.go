package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"chancery/cell/identity"
	"chancery/cell/objects"
	"chancery/cell/policy"
	"chancery/internal/errs"
)

// memory is an objects.Service in memory, for tests of the wire alone: it keeps
// whole bodies and takes one lock, which the real engine never does.
type memory struct {
	mu      sync.Mutex
	buckets map[string]objects.Bucket
	objects map[string]map[string]*stored
	uploads map[string]*memUpload
	serial  int
	now     func() time.Time
	// broken makes every call fail with it; tear makes reads fail after that many bytes.
	broken error
	tear   int
	lastIn objects.Put
	// delay makes copies and completions slow.
	delay time.Duration
}

type stored struct {
	obj   objects.Object
	data  []byte
	parts []objects.Part
}

type memUpload struct {
	u     objects.Upload
	parts map[int]*stored
}

func newMemory() *memory {
	return &memory{buckets: map[string]objects.Bucket{}, objects: map[string]map[string]*stored{}, uploads: map[string]*memUpload{}, now: time.Now, tear: -1}
}

func coded(kind errs.Kind, code string) error { return errs.Coded(kind, "memory", code, "%s", code) }

func (m *memory) CreateProject(context.Context, string) (objects.Project, error) {
	return objects.Project{}, nil
}
func (m *memory) Project(context.Context, string) (objects.Project, error) {
	return objects.Project{}, nil
}
func (m *memory) Projects(context.Context) ([]objects.Project, error) { return nil, nil }
func (m *memory) DeleteProject(context.Context, string) error         { return nil }

func (m *memory) CreateBucket(_ context.Context, in objects.CreateBucket) (objects.Bucket, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return objects.Bucket{}, m.broken
	}
	if b, ok := m.buckets[in.Name]; ok {
		if b.ProjectID == in.ProjectID {
			return b, coded(errs.Exists, "BucketAlreadyOwnedByYou")
		}
		return b, coded(errs.Exists, "BucketAlreadyExists")
	}
	if len(in.Name) > 63 || in.Name != strings.ToLower(in.Name) {
		return objects.Bucket{}, coded(errs.Invalid, "InvalidBucketName")
	}
	b := objects.Bucket{ID: in.Name + "-id", Name: in.Name, ProjectID: in.ProjectID, Region: in.Region, Created: m.now(), KeyID: "arn:aws:kms:" + in.Region + ":" + in.ProjectID + ":key/" + in.Name + "-key"}
	m.buckets[in.Name] = b
	m.objects[in.Name] = map[string]*stored{}
	return b, nil
}

func (m *memory) Bucket(_ context.Context, name string) (objects.Bucket, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return objects.Bucket{}, m.broken
	}
	b, ok := m.buckets[name]
	if !ok {
		return b, coded(errs.NotFound, "NoSuchBucket")
	}
	return b, nil
}

func (m *memory) Buckets(_ context.Context, project string) ([]objects.Bucket, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []objects.Bucket
	for _, b := range m.buckets {
		if project == "" || b.ProjectID == project {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b objects.Bucket) int { return strings.Compare(a.Name, b.Name) })
	return out, m.broken
}

func (m *memory) DeleteBucket(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.objects[name]) > 0 {
		return coded(errs.Conflict, "BucketNotEmpty")
	}
	delete(m.buckets, name)
	return nil
}

func take(b objects.Body) ([]byte, objects.Sums, error) {
	data, err := io.ReadAll(b)
	if err != nil {
		return nil, objects.Sums{}, errs.Wrap("memory", err)
	}
	s, err := b.Finish()
	return data, s, err
}

func etagOf(data []byte, s objects.Sums) string {
	if s.MD5 != nil {
		return hex.EncodeToString(s.MD5)
	}
	h := md5.Sum(append([]byte("opaque"), data...))
	return hex.EncodeToString(h[:]) + "-1"
}

func (m *memory) Put(_ context.Context, in objects.Put) (objects.Object, error) {
	data, sums, err := take(in.Body)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return objects.Object{}, m.broken
	}
	if err != nil {
		return objects.Object{}, err
	}
	m.lastIn = in
	old := m.objects[in.Bucket][in.Key]
	if in.Conditions.IfNoneMatch == "*" && old != nil || in.Conditions.IfMatch != "" && (old == nil || old.obj.ETag != in.Conditions.IfMatch) {
		return objects.Object{}, coded(errs.Conflict, "PreconditionFailed")
	}
	return m.keep(in.Bucket, in.Key, in.Headers, data, etagOf(data, sums), sums.Checksum, nil).obj, nil
}

func (m *memory) keep(bucket, key string, h objects.Headers, data []byte, etag string, sum objects.Checksum, parts []objects.Part) *stored {
	s := &stored{obj: objects.Object{Bucket: bucket, Key: key, Size: int64(len(data)), ETag: etag, Modified: m.now(), Headers: h,
		Checksum: sum, KeyID: m.buckets[bucket].KeyID, PartCount: len(parts), RangeLength: int64(len(data))}, data: data, parts: parts}
	m.objects[bucket][key] = s
	return s
}

func (m *memory) find(in objects.Get) (*stored, objects.Object, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return nil, objects.Object{}, nil, m.broken
	}
	s := m.objects[in.Bucket][in.Key]
	if s == nil {
		return nil, objects.Object{}, nil, coded(errs.NotFound, "NoSuchKey")
	}
	if in.VersionID != "" && in.VersionID != "null" {
		return nil, objects.Object{}, nil, coded(errs.NotFound, "NoSuchVersion")
	}
	o, data, c := s.obj, s.data, in.Conditions
	mod := o.Modified.Truncate(time.Second)
	switch {
	case c.IfMatch != "" && c.IfMatch != "*" && c.IfMatch != o.ETag,
		c.IfMatch == "" && !c.IfUnmodifiedSince.IsZero() && mod.After(c.IfUnmodifiedSince):
		return s, o, nil, coded(errs.Conflict, "PreconditionFailed")
	case c.IfNoneMatch == "*" || c.IfNoneMatch != "" && c.IfNoneMatch == o.ETag,
		c.IfNoneMatch == "" && !c.IfModifiedSince.IsZero() && !mod.After(c.IfModifiedSince):
		return s, o, nil, coded(errs.Conflict, "NotModified")
	}
	if in.PartNumber > 0 {
		o.Partial = true
		if in.PartNumber > max(1, len(s.parts)) {
			return s, o, nil, coded(errs.Invalid, "InvalidPartNumber")
		}
		if len(s.parts) > 0 {
			for _, p := range s.parts[:in.PartNumber-1] {
				o.RangeStart += p.Size
			}
			o.RangeLength = s.parts[in.PartNumber-1].Size
			data = data[o.RangeStart : o.RangeStart+o.RangeLength]
		}
	}
	if r := in.Range; r != nil {
		from, to := r.From, r.To
		if r.Suffix > 0 {
			from, to = max(0, o.Size-r.Suffix), o.Size-1
		}
		if to < 0 || to >= o.Size {
			to = o.Size - 1
		}
		if from >= o.Size {
			return s, o, nil, coded(errs.Invalid, "InvalidRange")
		}
		o.Partial, o.RangeStart, o.RangeLength = true, from, to-from+1
		data = data[from : to+1]
	}
	return s, o, data, nil
}

type tornReader struct {
	r    io.Reader
	left int
}

func (t *tornReader) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, errs.New(errs.Corrupt, "memory", "a segment failed authentication")
	}
	n, err := t.r.Read(p[:min(len(p), t.left)])
	t.left -= n
	return n, err
}

func (m *memory) Get(_ context.Context, in objects.Get) (objects.Object, io.ReadCloser, error) {
	_, o, data, err := m.find(in)
	if err != nil {
		return o, nil, err
	}
	var r io.Reader = bytes.NewReader(data)
	if m.tear >= 0 {
		r = &tornReader{r, m.tear}
	}
	return o, io.NopCloser(r), nil
}

func (m *memory) Head(_ context.Context, in objects.Get) (objects.Object, error) {
	_, o, _, err := m.find(in)
	return o, err
}

func (m *memory) Delete(_ context.Context, in objects.Delete) (objects.Deleted, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.objects[in.Bucket][in.Key]
	if in.Conditions.IfMatch != "" && (s == nil || s.obj.ETag != in.Conditions.IfMatch) {
		return objects.Deleted{}, coded(errs.Conflict, "PreconditionFailed")
	}
	delete(m.objects[in.Bucket], in.Key)
	return objects.Deleted{Existed: s != nil}, nil
}

func (m *memory) Copy(_ context.Context, in objects.Copy) (objects.Object, error) {
	s, o, data, err := m.find(in.Source)
	if err != nil {
		return objects.Object{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := s.obj.Headers
	if in.Replace {
		h = in.Headers
	}
	return m.keep(in.Bucket, in.Key, h, data, o.ETag, o.Checksum, nil).obj, nil
}

func (m *memory) List(_ context.Context, in objects.List) (objects.Listing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var l objects.Listing
	if in.Max < 1 || in.Max > 1000 {
		return l, coded(errs.Invalid, "InvalidArgument")
	}
	var keys []string
	for k := range m.objects[in.Bucket] {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if !strings.HasPrefix(k, in.Prefix) || k <= in.After {
			continue
		}
		name, common := k, false
		if in.Delimiter != "" {
			if i := strings.Index(k[len(in.Prefix):], in.Delimiter); i >= 0 {
				name, common = k[:len(in.Prefix)+i+len(in.Delimiter)], true
			}
		}
		if common && (name <= in.After || len(l.CommonPrefixes) > 0 && l.CommonPrefixes[len(l.CommonPrefixes)-1] == name) {
			continue
		}
		if len(l.Objects)+len(l.CommonPrefixes) == in.Max {
			l.Truncated = true
			return l, nil
		}
		l.Next = name
		if common {
			l.CommonPrefixes = append(l.CommonPrefixes, name)
		} else {
			l.Objects = append(l.Objects, m.objects[in.Bucket][k].obj)
		}
	}
	l.Next = ""
	return l, nil
}

func (m *memory) CreateUpload(_ context.Context, in objects.CreateUpload) (objects.Upload, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serial++
	u := objects.Upload{Bucket: in.Bucket, Key: in.Key, ID: fmt.Sprintf("upload%04d", m.serial), Initiated: m.now(), Headers: in.Headers,
		ChecksumAlgorithm: in.ChecksumAlgorithm, ChecksumType: in.ChecksumType, KeyID: m.buckets[in.Bucket].KeyID}
	m.uploads[u.ID] = &memUpload{u, map[int]*stored{}}
	return u, nil
}

func (m *memory) upload(bucket, key, id string) (*memUpload, error) {
	u := m.uploads[id]
	if u == nil || u.u.Bucket != bucket || u.u.Key != key {
		return nil, coded(errs.NotFound, "NoSuchUpload")
	}
	return u, nil
}

func (m *memory) Upload(_ context.Context, bucket, key, id string) (objects.Upload, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.upload(bucket, key, id)
	if err != nil {
		return objects.Upload{}, err
	}
	return u.u, nil
}

func (m *memory) PutPart(_ context.Context, in objects.PutPart) (objects.Part, error) {
	data, sums, err := take(in.Body)
	if err != nil {
		return objects.Part{}, err
	}
	return m.part(in.Bucket, in.Key, in.UploadID, in.Number, data, sums)
}

func (m *memory) part(bucket, key, id string, n int, data []byte, sums objects.Sums) (objects.Part, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.upload(bucket, key, id)
	if err != nil {
		return objects.Part{}, err
	}
	u.parts[n] = &stored{obj: objects.Object{ETag: etagOf(data, sums), Size: int64(len(data)), Modified: m.now(), Checksum: sums.Checksum}, data: data}
	return partOf(n, u.parts[n]), nil
}

func partOf(n int, s *stored) objects.Part {
	return objects.Part{Number: n, Size: s.obj.Size, ETag: s.obj.ETag, Modified: s.obj.Modified, Checksum: s.obj.Checksum}
}

func (m *memory) CopyPart(_ context.Context, in objects.CopyPart) (objects.Part, error) {
	_, _, data, err := m.find(in.Source)
	if err != nil {
		return objects.Part{}, err
	}
	return m.part(in.Bucket, in.Key, in.UploadID, in.Number, data, objects.Sums{})
}

func (m *memory) CompleteUpload(_ context.Context, in objects.CompleteUpload) (objects.Object, error) {
	time.Sleep(m.delay)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return objects.Object{}, m.broken
	}
	u, err := m.upload(in.Bucket, in.Key, in.UploadID)
	if err != nil {
		return objects.Object{}, err
	}
	var data []byte
	var parts []objects.Part
	for _, p := range in.Parts {
		s := u.parts[p.Number]
		if s == nil || s.obj.ETag != p.ETag {
			return objects.Object{}, coded(errs.Invalid, "InvalidPart")
		}
		data = append(data, s.data...)
		parts = append(parts, partOf(p.Number, s))
	}
	sum := in.Checksum
	if sum.Algorithm == "" && u.u.ChecksumAlgorithm != "" {
		sum = objects.Checksum{Algorithm: u.u.ChecksumAlgorithm, Value: fmt.Sprintf("AAAAAA==-%d", len(parts)), Type: u.u.ChecksumType}
	}
	delete(m.uploads, in.UploadID)
	h := md5.Sum(data)
	return m.keep(in.Bucket, in.Key, u.u.Headers, data, fmt.Sprintf("%x-%d", h, len(parts)), sum, parts).obj, nil
}

func (m *memory) AbortUpload(_ context.Context, bucket, key, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.upload(bucket, key, id)
	delete(m.uploads, id)
	return err
}

func (m *memory) ListParts(_ context.Context, in objects.ListParts) (objects.PartListing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.upload(in.Bucket, in.Key, in.UploadID)
	if err != nil {
		return objects.PartListing{}, err
	}
	l := objects.PartListing{Upload: u.u}
	for n := in.After + 1; n <= 10000; n++ {
		if s := u.parts[n]; s != nil {
			if len(l.Parts) == in.Max {
				l.Truncated = true
				break
			}
			l.Parts = append(l.Parts, partOf(n, s))
			l.Next = n
		}
	}
	return l, nil
}

func (m *memory) ListUploads(_ context.Context, in objects.ListUploads) (objects.UploadListing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var l objects.UploadListing
	for _, u := range m.uploads {
		if u.u.Bucket == in.Bucket && strings.HasPrefix(u.u.Key, in.Prefix) {
			l.Uploads = append(l.Uploads, u.u)
		}
	}
	slices.SortFunc(l.Uploads, func(a, b objects.Upload) int { return strings.Compare(a.Key+a.ID, b.Key+b.ID) })
	return l, nil
}

func (m *memory) Parts(_ context.Context, bucket, key, _ string, after, limit int) ([]objects.Part, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.objects[bucket][key]
	if s == nil {
		return nil, false, coded(errs.NotFound, "NoSuchKey")
	}
	var out []objects.Part
	for _, p := range s.parts {
		if p.Number > after {
			if len(out) == limit {
				return out, true, nil
			}
			out = append(out, p)
		}
	}
	return out, false, nil
}

// fixedKeys are the credentials of the tests.
type fixedKeys map[string]identity.AccessKey

func (k fixedKeys) AccessKey(_ context.Context, id string) (identity.AccessKey, error) {
	if a, ok := k[id]; ok {
		return a, nil
	}
	return identity.AccessKey{}, errs.New(errs.NotFound, "test", "no such key")
}

// ownProject allows what a project does with its own, but for denied actions.
type ownProject struct{ deny map[string]bool }

func (p ownProject) Decide(_ context.Context, r policy.Request) error {
	if r.Principal.Project == "" || r.Principal.Project != r.Project || p.deny[r.Action] {
		return errs.New(errs.Denied, "test", "not yours")
	}
	return nil
}
