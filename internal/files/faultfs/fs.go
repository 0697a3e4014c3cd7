package faultfs

import (
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"chancery/internal/files"
)

// FS returns the file system of the disk. Names are absolute paths; only the root exists at first.
func (d *Disk) FS() files.FS { return memFS{d} }

type memFS struct{ d *Disk }

func sortedNames(m map[string]*node) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// find returns the node of a path, or nil.
func (d *Disk) find(path string) *node {
	n := d.root
	for part := range strings.SplitSeq(filepath.Clean(path), "/") {
		if part == "" || part == "." {
			continue
		}
		if n = n.names[part]; n == nil {
			return nil
		}
	}
	return n
}

// parent returns the directory that a path is in and its last element.
func (d *Disk) parent(path string) (*node, string) {
	n := d.find(filepath.Dir(path))
	if n != nil && !n.dir {
		n = nil
	}
	return n, filepath.Base(path)
}

func (n *node) set(name string, c *node) {
	if c == nil {
		delete(n.names, name)
	} else {
		n.names[name] = c
	}
	n.changes = append(n.changes, change{name: name, node: c})
}

func (m memFS) Create(name string) (files.File, error) {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpCreate, name); err != nil {
		return nil, err
	}
	dir, base := d.parent(name)
	if dir == nil {
		return nil, failed(OpCreate, name, fs.ErrNotExist)
	}
	if dir.names[base] != nil {
		return nil, failed(OpCreate, name, fs.ErrExist)
	}
	if d.room >= 0 && d.used >= d.room {
		return nil, failed(OpCreate, name, syscall.ENOSPC)
	}
	n := &node{modified: time.Now()}
	dir.set(base, n)
	return &handle{d: d, n: n, name: name, epoch: d.epoch, write: true}, nil
}

func (m memFS) Open(name string) (files.File, error) { return m.open(name, false) }

func (m memFS) OpenWrite(name string) (files.File, error) { return m.open(name, true) }

func (m memFS) open(name string, write bool) (files.File, error) {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpOpen, name); err != nil {
		return nil, err
	}
	n := d.find(name)
	if n == nil {
		return nil, failed(OpOpen, name, fs.ErrNotExist)
	}
	if n.dir {
		return nil, failed(OpOpen, name, syscall.EINVAL)
	}
	h := &handle{d: d, n: n, name: name, epoch: d.epoch, write: write}
	if write {
		h.off = int64(len(n.data))
	}
	return h, nil
}

func (m memFS) Rename(oldName, newName string) error {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpRename, newName); err != nil {
		return err
	}
	from, oldBase := d.parent(oldName)
	to, newBase := d.parent(newName)
	if from == nil || to == nil || from.names[oldBase] == nil {
		return failed(OpRename, oldName, fs.ErrNotExist)
	}
	n := from.names[oldBase]
	if old := to.names[newBase]; old != nil && old != n {
		if old.dir {
			return failed(OpRename, newName, fs.ErrExist)
		}
		d.used -= int64(len(old.data))
	}
	to.set(newBase, n)
	if from != to {
		from.set(oldBase, nil)
	} else if oldBase != newBase {
		// One change of the directory: never both names, never none.
		delete(to.names, oldBase)
		to.changes[len(to.changes)-1].gone = oldBase
	}
	return nil
}

func (m memFS) Remove(name string) error {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpRemove, name); err != nil {
		return err
	}
	dir, base := d.parent(name)
	if dir == nil || dir.names[base] == nil {
		return failed(OpRemove, name, fs.ErrNotExist)
	}
	n := dir.names[base]
	if n.dir && len(n.names) > 0 {
		return failed(OpRemove, name, syscall.ENOTEMPTY)
	}
	d.used -= int64(len(n.data))
	dir.set(base, nil)
	return nil
}

func (m memFS) Mkdir(name string) error {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpMkdir, name); err != nil {
		return err
	}
	dir, base := d.parent(name)
	if dir == nil {
		return failed(OpMkdir, name, fs.ErrNotExist)
	}
	if dir.names[base] != nil {
		return failed(OpMkdir, name, fs.ErrExist)
	}
	n := newDir()
	n.modified = time.Now()
	dir.set(base, n)
	return nil
}

func (m memFS) ReadDir(name string) ([]files.Info, error) {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpReadDir, name); err != nil {
		return nil, err
	}
	n := d.find(name)
	if n == nil || !n.dir {
		return nil, failed(OpReadDir, name, fs.ErrNotExist)
	}
	infos := make([]files.Info, 0, len(n.names))
	for _, base := range sortedNames(n.names) {
		infos = append(infos, n.names[base].info(base))
	}
	return infos, nil
}

func (n *node) info(base string) files.Info {
	return files.Info{Name: base, Size: int64(len(n.data)), Modified: n.modified, Dir: n.dir, Regular: !n.dir}
}

func (m memFS) Stat(name string) (files.Info, error) {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpStat, name); err != nil {
		return files.Info{}, err
	}
	n := d.find(name)
	if n == nil {
		return files.Info{}, failed(OpStat, name, fs.ErrNotExist)
	}
	return n.info(filepath.Base(name)), nil
}

func (m memFS) SyncDir(name string) error {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpSyncDir, name); err != nil {
		return err
	}
	n := d.find(name)
	if n == nil || !n.dir {
		return failed(OpSyncDir, name, fs.ErrNotExist)
	}
	n.changes = nil
	n.durable = map[string]*node{}
	for base, c := range n.names {
		n.durable[base] = c
	}
	return nil
}

func (m memFS) Lock(name string) (io.Closer, error) {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpLock, name); err != nil {
		return nil, err
	}
	dir, base := d.parent(name)
	if dir == nil {
		return nil, failed(OpLock, name, fs.ErrNotExist)
	}
	n := dir.names[base]
	if n == nil {
		n = &node{modified: time.Now()}
		dir.set(base, n)
	}
	if n.locked {
		return nil, failed(OpLock, name, syscall.EWOULDBLOCK)
	}
	n.locked = true
	return &lock{d, n, d.epoch}, nil
}

type lock struct {
	d     *Disk
	n     *node
	epoch int
}

func (l *lock) Close() error {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.epoch == l.d.epoch {
		l.n.locked = false
	}
	return nil
}

// handle is an open file.
type handle struct {
	d      *Disk
	n      *node
	name   string
	off    int64
	epoch  int
	write  bool
	closed bool
}

// begin checks the handle and counts the operation. The caller holds the lock.
func (h *handle) begin(op Op) error {
	if h.closed {
		return failed(op, h.name, fs.ErrClosed)
	}
	if h.epoch != h.d.epoch {
		return failed(op, h.name, syscall.EIO) // from before the power loss
	}
	return h.d.begin(op, h.name)
}

func (h *handle) Name() string { return h.name }

func (h *handle) Read(p []byte) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	n, err := h.readAt(p, h.off)
	h.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.readAt(p, off)
}

func (h *handle) readAt(p []byte, off int64) (int, error) {
	if err := h.begin(OpRead); err != nil {
		return 0, err
	}
	if off >= int64(len(h.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) Write(p []byte) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	n, err := h.writeAt(p, h.off)
	h.off += int64(n)
	return n, err
}

func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.writeAt(p, off)
}

func (h *handle) writeAt(p []byte, off int64) (int, error) {
	err := h.begin(OpWrite)
	if !h.write {
		return 0, failed(OpWrite, h.name, syscall.EBADF)
	}
	d, n := h.d, h.n
	if err != nil {
		// A part may have been written before the failure, the power too.
		if h.epoch == d.epoch && !h.closed && len(p) > 0 {
			p = p[:d.rng.IntN(len(p))]
			n.put(p, off)
			return len(p), err
		}
		return 0, err
	}
	if grow := off + int64(len(p)) - int64(len(n.data)); d.room >= 0 && grow > 0 && d.used+grow > d.room {
		fits := max(int64(len(p))-(d.used+grow-d.room), 0)
		p, err = p[:fits], failed(OpWrite, h.name, syscall.ENOSPC)
	}
	before := int64(len(n.data))
	n.put(p, off)
	d.used += int64(len(n.data)) - before
	return len(p), err
}

func (n *node) put(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	if int64(len(n.data)) < off+int64(len(p)) {
		n.data = resize(n.data, off+int64(len(p)))
	}
	copy(n.data[off:], p)
	n.writes = append(n.writes, write{off: off, data: append([]byte(nil), p...)})
	n.modified = time.Now()
}

func (h *handle) Truncate(size int64) error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := h.begin(OpTruncate); err != nil {
		return err
	}
	if !h.write || size < 0 {
		return failed(OpTruncate, h.name, syscall.EINVAL)
	}
	h.d.used += size - int64(len(h.n.data))
	h.n.data = append([]byte(nil), resize(h.n.data, size)...)
	h.n.writes = append(h.n.writes, write{cut: true, size: size})
	return nil
}

func (h *handle) Allocate(size int64) error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := h.begin(OpAllocate); err != nil {
		return err
	}
	if !h.write || size <= 0 {
		return failed(OpAllocate, h.name, syscall.EINVAL)
	}
	grow := size - int64(len(h.n.data))
	if grow <= 0 {
		return nil
	}
	if h.d.room >= 0 && h.d.used+grow > h.d.room {
		return failed(OpAllocate, h.name, syscall.ENOSPC)
	}
	h.d.used += grow
	h.n.data = append([]byte(nil), resize(h.n.data, size)...)
	h.n.writes = append(h.n.writes, write{cut: true, size: size})
	return nil
}

func (h *handle) Sync() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	err := h.begin(OpSync)
	if h.d.off || h.closed || h.epoch != h.d.epoch {
		return err
	}
	for _, w := range h.n.writes {
		// As Linux does: after a failed sync the dirty pages count as clean. They
		// can still be read, but a later sync does not write them.
		switch {
		case err != nil && h.d.rng.IntN(2) == 0:
		case w.cut:
			h.n.synced = resize(h.n.synced, w.size)
		default:
			h.n.synced = resize(h.n.synced, max(int64(len(h.n.synced)), w.off+int64(len(w.data))))
			copy(h.n.synced[w.off:], w.data)
		}
	}
	h.n.writes = nil
	return err
}

func (h *handle) Size() (int64, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := h.begin(OpStat); err != nil {
		return 0, err
	}
	return int64(len(h.n.data)), nil
}

func (h *handle) Close() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.closed = true
	return nil
}
