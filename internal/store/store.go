// Package store is the ordered, transactional, encrypted key-value store that
// everything durable but bulk bytes lives in, with its change feed. Keys and
// values are ciphertext at rest. It knows nothing of either side of the wall.
//
// An engine is a constructor that returns a Store; every engine passes the
// exported contract suite in store/storetest.
package store

import "context"

// MaxKey and MaxValue bound one entry, in bytes. Larger input is refused with
// errs.Invalid before anything is written.
const (
	MaxKey   = 4 << 10
	MaxValue = 4 << 20
)

// Seq numbers commits, from 1, without gaps of meaning: a later commit has a
// larger Seq. 0 is "before everything".
type Seq uint64

// Reader reads one consistent state.
type Reader interface {
	// Get returns a copy of the value, or an errs.NotFound error.
	Get(ctx context.Context, key []byte) ([]byte, error)
	// Scan calls fn for each entry of the range in order until fn returns
	// false or the range ends. key and value are valid only during the call.
	Scan(ctx context.Context, r Range, fn func(key, value []byte) (more bool, err error)) error
}

// Range is the half-open interval [Start, End) of keys in byte order. A nil
// Start is the lowest key, a nil End is past the highest.
type Range struct {
	Start, End []byte
	// Reverse scans from the highest key down.
	Reverse bool
}

// Prefix returns the range of all keys that begin with p.
func Prefix(p []byte) Range { return Range{Start: p, End: After(p)} }

// After returns the lowest key that is above every key with prefix p; nil if there is none.
func After(p []byte) []byte {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xff {
			end := append([]byte(nil), p[:i+1]...)
			end[i]++
			return end
		}
	}
	return nil
}

// Snapshot is a Reader of the state at one Seq. Close it, or space is never reclaimed.
type Snapshot interface {
	Reader
	Seq() Seq
	Close() error
}

// Store is an ordered transactional key-value store. All methods are safe for
// concurrent use. Reader methods on the Store itself read the newest committed state.
type Store interface {
	Reader
	// Snapshot fixes the newest committed state.
	Snapshot(ctx context.Context) (Snapshot, error)
	// Commit applies the batch at once or not at all, and returns only after it
	// is durable (survives kill -9 and power loss). Concurrent commits share
	// one fsync. If a precondition does not hold the error is errs.Conflict (a
	// *PreconditionError is in its chain) and nothing is changed. A batch is used once.
	//
	// After an I/O error of which it is unknown whether the batch is durable,
	// the error is errs.Unavailable and the store refuses further commits.
	// A full disk is errs.Exhausted, and the store works again once there is room.
	Commit(ctx context.Context, b *Batch) (Seq, error)
	// Feed is the change feed of this store.
	Feed() Feed
	// Purge makes the values of deleted and replaced entries of the range
	// unrecoverable from the engine's live files: it rewrites what may still hold
	// them, after it has waited for the snapshots that were open before it. Slow;
	// for key destruction.
	Purge(ctx context.Context, r Range) error
	// Stats tells what the engine does, for status pages and benches.
	Stats() Stats
	// Close waits for running commits and releases everything.
	Close() error
}

// Stats are counters since Open, and sizes now.
type Stats struct {
	Commits, Syncs, BytesWritten, DiskBytes uint64
}

// Change is one entry of the change feed.
type Change struct {
	// Seq of the commit that wrote it; Index orders changes inside one commit.
	Seq   Seq
	Index uint32
	// Topic is a short lower-case word that readers filter by ("object", "bucket").
	Topic string
	// Payload is the topic's own encoding.
	Payload []byte
}

// Feed is the ordered list of changes that commits appended. There is no second
// way to learn of a change.
type Feed interface {
	// Read returns up to limit changes with Seq > after, whole commits only
	// (at least one commit even if it holds more than limit). If changes after
	// after were trimmed the error is errs.Conflict with CodeTrimmed: what was
	// missed can only be learned by reading the state.
	Read(ctx context.Context, after Seq, limit int) ([]Change, error)
	// Wait blocks until there is a change with Seq > after, or ctx ends.
	Wait(ctx context.Context, after Seq) error
	// Cursor returns the durable position of a named reader; 0 if it is new.
	// A cursor is set with Batch.SetCursor, so that the reader's own effects
	// and its position are one commit.
	Cursor(ctx context.Context, name string) (Seq, error)
	// Trim deletes changes that every registered cursor has passed, and returns
	// the highest Seq that was trimmed. With no cursor nothing is trimmed.
	Trim(ctx context.Context) (Seq, error)
}

// CodeTrimmed is the code of the error of Feed.Read when changes were trimmed
// that the reader has not seen.
const CodeTrimmed = "FeedTrimmed"

// PreconditionError names the key whose precondition did not hold.
type PreconditionError struct{ Key []byte }

func (e *PreconditionError) Error() string { return "precondition on a key did not hold" }

// Op is one step of a batch; exported for engines only.
type Op struct {
	Kind       OpKind
	Key, Value []byte
}

// OpKind tells the ops apart; exported for engines only.
type OpKind uint8

const (
	OpPut OpKind = iota + 1
	OpDelete
	OpDeleteRange // Key is start, Value is end
	OpIfAbsent
	OpIfPresent
	OpIfEquals
	OpSetCursor // Key is the name, Value is 8 bytes big-endian Seq
)

// Batch collects what one commit does. The zero Batch is empty and ready. Key
// and value slices are kept, not copied: do not change them before Commit returns.
// Preconditions are all checked against the state before the batch.
type Batch struct {
	Ops     []Op
	Changes []Change // Seq and Index are set by the engine
}

// Put sets key to value.
func (b *Batch) Put(key, value []byte) { b.Ops = append(b.Ops, Op{OpPut, key, value}) }

// Delete removes key; a missing key is no error.
func (b *Batch) Delete(key []byte) { b.Ops = append(b.Ops, Op{OpDelete, key, nil}) }

// DeleteRange removes every key in [start, end), as of the state that the ops before it leave.
func (b *Batch) DeleteRange(start, end []byte) {
	b.Ops = append(b.Ops, Op{OpDeleteRange, start, end})
}

// IfAbsent makes the commit fail with errs.Conflict if key exists.
func (b *Batch) IfAbsent(key []byte) { b.Ops = append(b.Ops, Op{OpIfAbsent, key, nil}) }

// IfPresent makes the commit fail with errs.Conflict if key does not exist.
func (b *Batch) IfPresent(key []byte) { b.Ops = append(b.Ops, Op{OpIfPresent, key, nil}) }

// IfEquals makes the commit fail with errs.Conflict unless key holds exactly value.
func (b *Batch) IfEquals(key, value []byte) { b.Ops = append(b.Ops, Op{OpIfEquals, key, value}) }

// Change appends an entry to the change feed.
func (b *Batch) Change(topic string, payload []byte) {
	b.Changes = append(b.Changes, Change{Topic: topic, Payload: payload})
}

// SetCursor moves the durable cursor of a named feed reader, registering it if new.
func (b *Batch) SetCursor(name string, at Seq) {
	b.Ops = append(b.Ops, Op{OpSetCursor, []byte(name), binaryBE(uint64(at))})
}

func binaryBE(v uint64) []byte {
	return []byte{byte(v >> 56), byte(v >> 48), byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}
