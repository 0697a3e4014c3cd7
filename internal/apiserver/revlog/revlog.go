// Package revlog gives a store.Store what a Kubernetes-style API server expects
// of its storage: keys with revisions, optimistic writes, lists at one revision,
// and a watch that can be resumed from any revision that is still kept.
//
// It knows nothing of API objects: values are opaque bytes. It must never hold
// more than a bounded piece of the history in memory, answer a write before it
// is durable, or show a reader a write that may yet be lost.
//
// # Layout in the store, all below Options.Prefix
//
//	'r'            → revision of the newest write, 8 bytes big-endian
//	'k'            → compacted revision: history up to and including it is gone
//	'c' key        → record: the value that holds now
//	'v' key 0 rev  → record: a value that once held, from rev until record.until
//	'l' rev        → flags(1) previous(8) key: what happened at rev
//	't' unix key   → rev: the value written at rev expires at unix seconds
//
// A record is format(1) created(8) modified(8) until(8) value. Compaction to C
// walks the log up to C: the entry at revision n names the record that n
// superseded, and that record is deleted with the entry. Nothing is searched.
package revlog

import (
	"context"
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chancery/internal/errs"
	"chancery/internal/store"
)

// Codes of errors that callers tell apart with errs.CodeOf.
const (
	// CodeCompacted: the revision asked for is no longer kept.
	CodeCompacted = "Compacted"
	// CodeFuture: the revision asked for has not happened yet.
	CodeFuture = "FutureRevision"
	// CodeTooLarge: the value does not fit into one store entry.
	CodeTooLarge = "TooLarge"
)

// MaxValue is the longest value, in bytes.
const MaxValue = store.MaxValue - recordHeader

// Options of Open. Zero fields take the defaults named.
type Options struct {
	// Prefix sets the log apart from everything else in the store. Required.
	Prefix []byte
	// Keep is how long history is kept at least, for resumed watches and paged
	// lists; default 5 minutes. It is kept for at most twice as long.
	Keep time.Duration
	// KeepRevisions bounds history by count, whatever Keep says; default 20,000.
	KeepRevisions int64
	// RingEvents and RingBytes bound the newest events held in memory; defaults 1,024 and 4 MiB.
	RingEvents, RingBytes int
	// Now is the clock; default time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Keep == 0 {
		o.Keep = 5 * time.Minute
	}
	if o.KeepRevisions == 0 {
		o.KeepRevisions = 20_000
	}
	if o.RingEvents == 0 {
		o.RingEvents = 1024
	}
	if o.RingBytes == 0 {
		o.RingBytes = 4 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Log is the revisioned view of one prefix of a store. One Log at a time may be
// open on a prefix: a second one that writes makes the first refuse all writes.
type Log struct {
	st   store.Store
	opts Options
	keys keyspace

	// ctx ends when the log is closed; its goroutines are counted by wg.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	requests  chan *request
	expirySet chan struct{}
	compactMu sync.Mutex
	compacted atomic.Int64
	hub       *hub
}

// KV is a key with the value that it holds or held.
type KV struct {
	Key   string
	Value []byte
	// Created is the revision that made the key, Modified the one that wrote this value.
	Created, Modified int64
}

// Open reads where the log stands and starts its writer. A new log starts at
// revision 1, since 0 means "any" to API servers.
func Open(ctx context.Context, st store.Store, opts Options) (*Log, error) {
	const op = "revlog.Open"
	if st == nil || len(opts.Prefix) == 0 {
		return nil, errs.New(errs.Invalid, op, "a store and a prefix are required")
	}
	opts = opts.withDefaults()
	l := &Log{
		st: st, opts: opts, keys: keyspace(opts.Prefix),
		requests: make(chan *request, 256), expirySet: make(chan struct{}, 1),
	}
	current, err := readCounter(ctx, st, l.keys.revision())
	if errs.Is(err, errs.NotFound) {
		var b store.Batch
		b.IfAbsent(l.keys.revision())
		b.Put(l.keys.revision(), be64(1))
		b.Put(l.keys.compacted(), be64(0))
		if _, err = st.Commit(ctx, &b); err == nil {
			current = 1
		}
	}
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	compacted, err := readCounter(ctx, st, l.keys.compacted())
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	l.compacted.Store(compacted)
	l.hub = newHub(current, opts.RingEvents, opts.RingBytes)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	for _, run := range []func(){l.write, l.expire, l.compactForEver} {
		l.wg.Go(run)
	}
	return l, nil
}

// Close stops the writer, wakes every watcher, and waits for both. Writes that
// were not answered yet fail with errs.Unavailable. The store stays open: it is the caller's.
func (l *Log) Close() {
	l.cancel()
	l.hub.close()
	l.wg.Wait()
}

// Current is the revision of the newest durable write.
func (l *Log) Current() int64 { return l.hub.revision() }

// Compacted is the revision up to which history is gone.
func (l *Log) Compacted() int64 { return l.compacted.Load() }

// Progress wakes every watcher, also those that have nothing to tell, so that
// they report the revision that they have reached.
func (l *Log) Progress() { l.hub.progress() }

// keyspace builds the store's keys.
type keyspace []byte

func (k keyspace) with(kind byte, parts ...[]byte) []byte {
	n := len(k) + 1
	for _, p := range parts {
		n += len(p)
	}
	out := append(make([]byte, 0, n), k...)
	out = append(out, kind)
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func (k keyspace) revision() []byte           { return k.with('r') }
func (k keyspace) compacted() []byte          { return k.with('k') }
func (k keyspace) current(key string) []byte  { return k.with('c', []byte(key)) }
func (k keyspace) entry(rev int64) []byte     { return k.with('l', be64(rev)) }
func (k keyspace) versions(key string) []byte { return k.with('v', []byte(key)) }
func (k keyspace) version(key string, rev int64) []byte {
	return k.with('v', []byte(key), []byte{0}, be64(rev))
}
func (k keyspace) expiry(unix int64, key string) []byte {
	return k.with('t', be64(unix), []byte(key))
}

func be64(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func readCounter(ctx context.Context, r store.Reader, key []byte) (int64, error) {
	raw, err := r.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	if len(raw) != 8 {
		return 0, errs.New(errs.Corrupt, "revlog.readCounter", "a counter is %d bytes long, want 8", len(raw))
	}
	return int64(binary.BigEndian.Uint64(raw)), nil
}

const (
	recordFormat = 1
	recordHeader = 1 + 3*8
)

// encodeRecord writes a record; until is 0 while the value holds.
func encodeRecord(kv *KV, until int64) []byte {
	out := make([]byte, 0, recordHeader+len(kv.Value))
	out = append(out, recordFormat)
	out = binary.BigEndian.AppendUint64(out, uint64(kv.Created))
	out = binary.BigEndian.AppendUint64(out, uint64(kv.Modified))
	out = binary.BigEndian.AppendUint64(out, uint64(until))
	return append(out, kv.Value...)
}

// decodeRecord reads a record. The value aliases raw.
func decodeRecord(key string, raw []byte) (kv *KV, until int64, err error) {
	if len(raw) < recordHeader || raw[0] != recordFormat {
		return nil, 0, errs.New(errs.Corrupt, "revlog.decodeRecord", "a record has an unknown format")
	}
	return &KV{
		Key:      key,
		Created:  int64(binary.BigEndian.Uint64(raw[1:])),
		Modified: int64(binary.BigEndian.Uint64(raw[9:])),
		Value:    raw[recordHeader:],
	}, int64(binary.BigEndian.Uint64(raw[17:])), nil
}

const (
	flagCreated = 1 << iota
	flagDeleted
)

// entry is one line of the log.
type entry struct {
	flags    byte
	previous int64
	key      string
}

func (e entry) encode() []byte {
	return append(append([]byte{e.flags}, be64(e.previous)...), e.key...)
}

func decodeEntry(raw []byte) (entry, error) {
	if len(raw) < 10 || raw[0]&^(flagCreated|flagDeleted) != 0 {
		return entry{}, errs.New(errs.Corrupt, "revlog.decodeEntry", "a log entry has an unknown format")
	}
	return entry{flags: raw[0], previous: int64(binary.BigEndian.Uint64(raw[1:])), key: string(raw[9:])}, nil
}

// checkKey refuses keys that could not be kept apart or do not fit.
func (l *Log) checkKey(op, key string) error {
	if key == "" || strings.IndexByte(key, 0) >= 0 || len(l.keys)+len(key)+16 > store.MaxKey {
		return errs.New(errs.Invalid, op, "a key must be 1 to %d bytes without NUL", store.MaxKey-len(l.keys)-16)
	}
	return nil
}
