package keys

import (
	"encoding/binary"
	"slices"

	"chancery/internal/errs"
)

// A record in the store: format (1), state (1), parent version (4), root
// generation or zero (4), count (2), then count times version (4) and box (60),
// versions ascending. See docs/formats/keys.md.
const (
	recordFormat = 1
	recordHead   = 12
	boxSize      = keySize + 28
	entrySize    = 4 + boxSize
	maxVersions  = 1<<16 - 1
)

const (
	stateLive      = 1
	stateDestroyed = 2
)

// entry is one wrapped key.
type entry struct {
	version uint32
	box     [boxSize]byte
}

// record is what the store holds of one key: of an organization or project its
// one key, of a bucket every version.
type record struct {
	state byte
	// parent is the version (for a project: the epoch) of the key that all boxes
	// are wrapped under; for the organization, the generation of the root.
	parent  uint32
	entries []entry
}

var tombstone = record{state: stateDestroyed}

// current returns the newest entry. Only for live records.
func (r *record) current() *entry { return &r.entries[len(r.entries)-1] }

func (r *record) encode() []byte {
	b := make([]byte, recordHead, recordHead+len(r.entries)*entrySize)
	b[0], b[1] = recordFormat, r.state
	binary.BigEndian.PutUint32(b[2:], r.parent)
	binary.BigEndian.PutUint16(b[10:], uint16(len(r.entries)))
	for _, e := range r.entries {
		b = binary.BigEndian.AppendUint32(b, e.version)
		b = append(b, e.box[:]...)
	}
	return b
}

// parseRecord reads what encode writes, and nothing else; otherwise errs.Corrupt.
func parseRecord(b []byte) (*record, error) {
	bad := func(why string) (*record, error) {
		return nil, errs.New(errs.Corrupt, "keys.parseRecord", "a key record is damaged: %s", why)
	}
	if len(b) < recordHead || b[0] != recordFormat || binary.BigEndian.Uint32(b[6:]) != 0 {
		return bad("unknown format")
	}
	r := &record{state: b[1], parent: binary.BigEndian.Uint32(b[2:])}
	n := int(binary.BigEndian.Uint16(b[10:]))
	if len(b) != recordHead+n*entrySize {
		return bad("length")
	}
	switch {
	case r.state == stateDestroyed && n == 0 && r.parent == 0:
		return r, nil
	case r.state != stateLive || n == 0 || r.parent == 0:
		return bad("state")
	}
	r.entries = make([]entry, n)
	for i := range r.entries {
		e := &r.entries[i]
		p := b[recordHead+i*entrySize:]
		e.version = binary.BigEndian.Uint32(p)
		copy(e.box[:], p[4:])
		if e.version == 0 || i > 0 && e.version <= r.entries[i-1].version {
			return bad("versions")
		}
	}
	return r, nil
}

// Keys in the store.
const (
	prefix      = "k/"
	orgKey      = prefix + "o"
	purgeKey    = prefix + "z"  // present while a purge is due
	orgMembers  = prefix + "go" // changes with every new project
	projectsKey = prefix + "p/"
	bucketsKey  = prefix + "b/"
)

func projectKey(p string) []byte     { return []byte(projectsKey + p) }
func bucketKey(p, b string) []byte   { return []byte(bucketsKey + p + "/" + b) }
func bucketsOf(p string) []byte      { return []byte(bucketsKey + p + "/") }
func projectMembers(p string) []byte { return []byte(prefix + "gp/" + p) } // changes with every new bucket

// MaxID is the longest id of an organization, project or bucket, in bytes.
const MaxID = 128

// checkID refuses ids that could be mistaken for others in a key of the store.
func checkID(op string, ids ...string) error {
	for _, id := range ids {
		if id == "" || len(id) > MaxID || slices.ContainsFunc([]byte(id), func(c byte) bool {
			return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
		}) {
			return errs.New(errs.Invalid, op, "an id has 1 to %d letters, digits, '-', '_' or '.'", MaxID)
		}
	}
	return nil
}
