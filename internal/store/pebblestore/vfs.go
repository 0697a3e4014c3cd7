package pebblestore

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/store/frame"
)

// cryptFS is the file system that Pebble sees: files.FS with every file's content
// sealed by package frame. Pebble treats a failed write of its MANIFEST as the
// end of the process, and a failed table write by trying again at once; both are
// tamed here (see room).
type cryptFS struct {
	base files.FS
	key  []byte

	// written counts bytes that went to disk, for Stats.
	written atomic.Uint64
	// serving is set while the engine is open: only then may a write wait for room.
	serving atomic.Bool
	// flushErrors counts the failed flushes since the last good one.
	flushErrors atomic.Int32
	// compactErrors counts the failed compactions since the last good one; stuck
	// gets a token when they are many.
	compactErrors atomic.Int32
	stuck         chan struct{}
	// full gets a token when a write found no room.
	full chan struct{}
	// closing is closed when the engine begins to close: no more pauses.
	closing chan struct{}
	// dead is closed with deadErr set when the engine's files may no longer be
	// touched; see kill.
	dead    chan struct{}
	deadErr error
	once    sync.Once

	mu sync.Mutex
	// open are the files and locks in use, to be closed if Pebble is abandoned.
	open map[io.Closer]struct{}
}

func newCryptFS(base files.FS, key []byte) *cryptFS {
	return &cryptFS{base: base, key: key, full: make(chan struct{}, 1), stuck: make(chan struct{}, 1), closing: make(chan struct{}), dead: make(chan struct{}),
		open: map[io.Closer]struct{}{}}
}

// retryPause is how long a write that found no room waits, so that Pebble, which
// tries a failed flush again at once, does not spin.
const retryPause = 50 * time.Millisecond

// kill freezes the engine's files as they are: every later change is refused.
// What is on disk then is a state that recovery can start from.
func (c *cryptFS) kill(err error) {
	c.once.Do(func() {
		c.deadErr = errs.WrapKind(errs.Unavailable, "pebblestore.engine", err)
		close(c.dead)
	})
}

// maxFlushErrors is how many flushes in a row may fail for another reason than
// want of room before the engine counts as broken.
const maxFlushErrors = 3

// flushEnded is told the outcome of every flush. Pebble itself would try for ever,
// and commits would wait for it.
func (c *cryptFS) flushEnded(err error) {
	switch {
	case err == nil:
		c.flushErrors.Store(0)
	case files.IsFull(err):
	case c.flushErrors.Add(1) >= maxFlushErrors:
		c.kill(err)
	}
}

// compactionEnded is told the outcome of every compaction. One that fails is tried
// again at once and for ever by Pebble, before any other.
func (c *cryptFS) compactionEnded(err error) {
	switch {
	case err == nil:
		c.compactErrors.Store(0)
	case errors.Is(err, pebble.ErrCancelledCompaction):
	case c.compactErrors.Add(1) >= maxFlushErrors:
		select {
		case c.stuck <- struct{}{}:
		default:
		}
	}
}

// compactionPause slows down compactions that fail, to about one a second.
func (c *cryptFS) compactionPause() {
	n := c.compactErrors.Load()
	if n == 0 {
		return
	}
	select {
	case <-time.After(retryPause << min(n, 5)):
	case <-c.closing:
	case <-c.dead:
	}
}

// alive returns the reason why the files are frozen, or nil.
func (c *cryptFS) alive() error {
	select {
	case <-c.dead:
		return c.deadErr
	default:
		return nil
	}
}

// room is called after a failed write. It slows the writer down, and tells whether
// to try again: for want of room, while the engine serves, if the file cannot do without.
func (c *cryptFS) room(err error, must bool) bool {
	full := files.IsFull(err)
	if full {
		select {
		case c.full <- struct{}{}:
		default:
		}
	}
	c.pause()
	return full && must && c.serving.Load() && c.alive() == nil
}

func (c *cryptFS) pause() {
	select {
	case <-time.After(retryPause):
	case <-c.closing:
	}
}

// role is what a file is to Pebble, told by its name.
type role struct {
	name  string // what its key is bound to
	table bool
	// marker files are empty: their name is their content.
	marker bool
	// wal files carry nothing: the journal has that part. Pebble makes them anyway.
	wal bool
	// must is set for files whose failed write Pebble does not survive.
	must bool
}

func roleOf(path string) (role, error) {
	base := filepath.Base(path)
	switch {
	case strings.HasSuffix(base, ".sst"), strings.HasSuffix(base, ".blob"):
		return role{name: base, table: true}, nil
	case strings.HasPrefix(base, "MANIFEST-"):
		return role{name: base, must: true}, nil
	case strings.HasPrefix(base, "OPTIONS-"):
		return role{name: base}, nil
	case strings.HasPrefix(base, "temporary.") && strings.HasSuffix(base, ".dbtmp"):
		// Written under this name, then renamed to OPTIONS-N.
		n := strings.TrimSuffix(strings.TrimPrefix(base, "temporary."), ".dbtmp")
		return role{name: "OPTIONS-" + n}, nil
	case strings.HasPrefix(base, "marker."):
		return role{name: base, marker: true, must: true}, nil
	case strings.HasSuffix(base, ".log"):
		return role{name: base, wal: true}, nil
	}
	return role{}, errs.New(errs.Unsupported, "pebblestore.vfs", "no file of the engine has the name %q", base)
}

func (c *cryptFS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	r, err := roleOf(name)
	if err != nil {
		return nil, err
	}
	var f files.File
	for {
		if err = c.alive(); err != nil {
			c.pause() // a failed flush is tried again at once
			return nil, err
		}
		if err = c.base.Remove(name); err == nil || errs.Is(err, errs.NotFound) {
			f, err = c.base.Create(name)
		}
		if err == nil {
			return newWriteFile(c, f, name, r)
		}
		if !c.room(err, r.must) {
			return nil, err
		}
	}
}

func (c *cryptFS) Open(name string, _ ...vfs.OpenOption) (vfs.File, error) {
	r, err := roleOf(name)
	if err != nil {
		return nil, err
	}
	f, err := c.base.Open(name)
	if err != nil {
		return nil, err
	}
	rf, err := newReadFile(c, f, name, r)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return rf, nil
}

// ReuseForWrite never reuses: old bytes must not come to lie under a new name.
func (c *cryptFS) ReuseForWrite(oldName, newName string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	if err := c.Remove(oldName); err != nil {
		return nil, err
	}
	return c.Create(newName, cat)
}

// Rename serves the one rename that Pebble does: options from temporary to final.
// Any other would leave a file under a name that its key is not bound to.
func (c *cryptFS) Rename(oldName, newName string) error {
	from, err := roleOf(oldName)
	if err != nil {
		return err
	}
	to, err := roleOf(newName)
	if err != nil {
		return err
	}
	if from != to {
		return errs.New(errs.Unsupported, "pebblestore.vfs", "rename of %s to %s", from.name, to.name)
	}
	if err := c.alive(); err != nil {
		return err
	}
	return c.base.Rename(oldName, newName)
}

func (c *cryptFS) Remove(name string) error {
	if err := c.alive(); err != nil {
		return err
	}
	return c.base.Remove(name)
}

func (c *cryptFS) MkdirAll(dir string, _ os.FileMode) error {
	if err := c.alive(); err != nil {
		return err
	}
	return files.MkdirAll(c.base, dir)
}

func (c *cryptFS) Lock(name string) (io.Closer, error) {
	l, err := c.base.Lock(name)
	if err != nil {
		return nil, err
	}
	return c.track(l), nil
}

// tracked closes a file or lock once.
type tracked struct {
	c *cryptFS
	io.Closer
}

// track notes something to be closed.
func (c *cryptFS) track(what io.Closer) *tracked {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &tracked{c, what}
	c.open[t] = struct{}{}
	return t
}

func (t *tracked) Close() error {
	t.c.mu.Lock()
	_, open := t.c.open[t]
	delete(t.c.open, t)
	t.c.mu.Unlock()
	if !open {
		return nil
	}
	return t.Closer.Close()
}

// closeAll closes what Pebble left open.
func (c *cryptFS) closeAll() {
	c.mu.Lock()
	all := make([]io.Closer, 0, len(c.open))
	for t := range c.open {
		all = append(all, t)
	}
	c.mu.Unlock()
	for _, t := range all {
		_ = t.Close()
	}
}

func (c *cryptFS) List(dir string) ([]string, error) {
	infos, err := c.base.ReadDir(dir)
	names := make([]string, len(infos))
	for i, info := range infos {
		names[i] = info.Name
	}
	return names, err
}

func (c *cryptFS) Stat(name string) (vfs.FileInfo, error) {
	info, err := c.base.Stat(name)
	if err != nil {
		return nil, err
	}
	if r, err := roleOf(name); err == nil && r.table {
		// Pebble compares this with the length in its MANIFEST.
		if info.Size, err = frame.TableSize(info.Size, r.name); err != nil {
			return nil, err
		}
	}
	return fileInfo{info}, nil
}

func (c *cryptFS) OpenDir(name string) (vfs.File, error) { return &dirFile{c: c, name: name}, nil }

func (c *cryptFS) unsupported(what string) error {
	return errs.New(errs.Unsupported, "pebblestore.vfs", "%s", what)
}

func (c *cryptFS) Link(_, _ string) error { return c.unsupported("link") }
func (c *cryptFS) RemoveAll(string) error { return c.unsupported("remove all") }
func (c *cryptFS) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, c.unsupported("open for reading and writing")
}
func (c *cryptFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{}, vfs.ErrUnsupported // Pebble then does not look at it
}
func (c *cryptFS) PathBase(path string) string    { return filepath.Base(path) }
func (c *cryptFS) PathJoin(elem ...string) string { return filepath.Join(elem...) }
func (c *cryptFS) PathDir(path string) string     { return filepath.Dir(path) }
func (c *cryptFS) Unwrap() vfs.FS                 { return nil }

// fileInfo shows a files.Info as Pebble wants it.
type fileInfo struct{ info files.Info }

func (i fileInfo) Name() string           { return i.info.Name }
func (i fileInfo) Size() int64            { return i.info.Size }
func (i fileInfo) ModTime() time.Time     { return i.info.Modified }
func (i fileInfo) IsDir() bool            { return i.info.Dir }
func (i fileInfo) Sys() any               { return nil }
func (i fileInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
func (i fileInfo) Mode() os.FileMode {
	if i.info.Dir {
		return os.ModeDir | 0o700
	}
	return 0o600
}
