// Package faultfs is a disk in memory for tests: a files.FS that fails at a chosen
// operation, has little room, or loses its power, and then keeps only what was
// synced and a part, chosen by a seed, of what was not.
//
// It is for tests alone and holds everything in memory.
package faultfs

import (
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"chancery/internal/errs"
	"chancery/internal/files"
)

// Op names a kind of operation, to aim a fault at.
type Op string

// The operations that are counted. Reads count too; Close does not, it cannot fail here.
const (
	OpCreate   Op = "create"
	OpOpen     Op = "open"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpSync     Op = "sync"
	OpTruncate Op = "truncate"
	OpAllocate Op = "allocate"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpMkdir    Op = "mkdir"
	OpReadDir  Op = "readdir"
	OpStat     Op = "stat"
	OpSyncDir  Op = "syncdir"
	OpLock     Op = "lock"
)

// Disk is the disk. FS gives the file system on it. Safe for concurrent use.
type Disk struct {
	mu      sync.Mutex
	rng     *rand.Rand
	root    *node
	epoch   int  // grows with every power loss: older handles are dead
	off     bool // the power is off
	ops     int  // operations begun
	crash   int  // power loss at this operation, if > 0
	inject  func(n int, op Op, name string) error
	room    int64 // bytes that files may have in all; < 0: no bound
	used    int64
	trace   []string
	tracing bool
}

// node is a file or a directory.
type node struct {
	dir      bool
	modified time.Time
	locked   bool

	// A file: data now, what was last synced, and the writes since.
	data, synced []byte
	writes       []write

	// A directory: names now, the names that are durable, and the changes since.
	names, durable map[string]*node
	changes        []change
}

type write struct {
	off  int64
	data []byte
	size int64 // of the file, if it is a truncation
	cut  bool
}

type change struct {
	name string
	node *node // nil: the name was removed
	// gone is a name that vanishes with the same change: a rename in one directory.
	gone string
}

func newDir() *node {
	return &node{dir: true, names: map[string]*node{}, durable: map[string]*node{}}
}

// New returns an empty disk. The seed decides what survives a power loss.
func New(seed uint64) *Disk {
	return &Disk{rng: rand.New(rand.NewPCG(seed, 0)), root: newDir(), room: -1}
}

// CrashAt turns the power off when operation n (from 1, counted since New)
// begins, before it has any effect; 0 is never.
func (d *Disk) CrashAt(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crash = n
}

// Inject sets a function that is asked at each operation, with its number, and
// fails it by an error other than nil. A failed write may have written a part.
func (d *Disk) Inject(f func(n int, op Op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inject = f
}

// FailAt makes operation n (from 1, counted since New) fail once with err, such
// as syscall.EIO or syscall.ENOSPC.
func (d *Disk) FailAt(n int, err error) {
	d.Inject(func(i int, _ Op, _ string) error {
		if i == n {
			return err
		}
		return nil
	})
}

// Room bounds the bytes that all files may have together from now on, measured
// beyond what they have; less than 0 takes the bound away. Beyond it writes fail with ENOSPC.
func (d *Disk) Room(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room = bytes; bytes >= 0 {
		d.room += d.used
	}
}

// Ops returns how many operations were begun.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Off reports whether the power is off.
func (d *Disk) Off() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

// PowerLoss turns the power off now.
func (d *Disk) PowerLoss() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
}

// Restart turns the power on again after a loss (which it brings about first if
// there was none). Of what was not synced a part survives: of names a prefix of
// the changes to each directory, as on a file system with a metadata journal; of
// content any of the sectors written, the others are zero or as before. Old
// handles and locks are dead. Faults are disarmed.
func (d *Disk) Restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root.settle(d.rng, map[*node]bool{})
	d.off, d.crash, d.inject, d.room = false, 0, nil, -1
	d.epoch++
	d.used = d.root.usage(map[*node]bool{})
}

const sector = 512

func (n *node) settle(rng *rand.Rand, seen map[*node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	n.locked = false
	if !n.dir {
		n.settleData(rng)
		return
	}
	// Map order must not reach the random numbers: walk names in order.
	for _, c := range n.changes[:rng.IntN(len(n.changes)+1)] {
		delete(n.durable, c.gone)
		if c.node == nil {
			delete(n.durable, c.name)
		} else {
			n.durable[c.name] = c.node
		}
	}
	n.changes = nil
	n.names = map[string]*node{}
	for _, name := range sortedNames(n.durable) {
		n.names[name] = n.durable[name]
		n.durable[name].settle(rng, seen)
	}
}

// settleData keeps the synced content and some of the sectors written since. Half
// the time nothing of them, or all, survives: the cases that occur most.
func (n *node) settleData(rng *rand.Rand) {
	out := append([]byte(nil), n.synced...)
	mode := rng.IntN(4)
	for _, w := range n.writes {
		if w.cut {
			if mode == 1 || mode > 1 && rng.IntN(2) == 0 {
				out = resize(out, w.size)
			}
			continue
		}
		for p := int64(0); p < int64(len(w.data)); {
			end := min((w.off+p)/sector*sector+sector-w.off, int64(len(w.data)))
			if mode == 1 || mode > 1 && rng.IntN(2) == 0 {
				if int64(len(out)) < w.off+end {
					out = resize(out, w.off+end)
				}
				copy(out[w.off+p:], w.data[p:end])
			}
			p = end
		}
	}
	n.data, n.synced, n.writes = out, append([]byte(nil), out...), nil
}

func resize(b []byte, size int64) []byte {
	if int64(len(b)) >= size {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func (n *node) usage(seen map[*node]bool) int64 {
	if seen[n] {
		return 0
	}
	seen[n] = true
	sum := int64(len(n.data))
	for _, c := range n.names {
		sum += c.usage(seen)
	}
	return sum
}

// Trace makes the disk note every operation; Traced returns the notes.
func (d *Disk) Trace() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tracing = true
}

// Traced returns "op name" for each operation since Trace.
func (d *Disk) Traced() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.trace...)
}

// begin counts an operation and decides its fate. The caller holds the lock.
func (d *Disk) begin(op Op, name string) error {
	if d.off {
		return failed(op, name, syscall.EIO)
	}
	d.ops++
	if d.tracing {
		d.trace = append(d.trace, string(op)+" "+filepath.Base(name))
	}
	if d.ops == d.crash {
		d.off = true
		return failed(op, name, syscall.EIO)
	}
	if d.inject != nil {
		if err := d.inject(d.ops, op, name); err != nil {
			return failed(op, name, err)
		}
	}
	return nil
}

// failed makes an error as package files does.
func failed(op Op, name string, err error) error {
	kind := errs.Internal
	switch {
	case err == fs.ErrNotExist:
		kind = errs.NotFound
	case err == fs.ErrExist:
		kind = errs.Exists
	case files.IsFull(err):
		kind = errs.Exhausted
	case err == syscall.EWOULDBLOCK:
		kind = errs.Unavailable
	}
	return errs.WrapKind(kind, "files."+string(op), &fs.PathError{Op: string(op), Path: name, Err: err})
}
