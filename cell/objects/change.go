package objects

import "chancery/internal/errs"

// Topics of the change feed that this package writes.
const (
	TopicObject  = "object"
	TopicBucket  = "bucket"
	TopicProject = "project"
)

// ChangeOp says what a change did.
type ChangeOp uint8

// The operations that changes carry.
const (
	Created ChangeOp = 1 + iota // objects: a put, copy or completed upload, over what was there
	Removed
)

// ObjectChange is the payload of TopicObject.
type ObjectChange struct {
	Op       ChangeOp
	BucketID string
	Key      string
	// Content is the random id of where the bytes that came (Created) or went
	// (Removed) lie: the blob's id, or for inline bytes the content's.
	Content [16]byte
}

// BucketChange is the payload of TopicBucket.
type BucketChange struct {
	Op                        ChangeOp
	BucketID, Name, ProjectID string
}

// ProjectChange is the payload of TopicProject.
type ProjectChange struct {
	Op              ChangeOp
	ProjectID, Name string
}

const changeVersion = 1

func (c ObjectChange) encode() []byte {
	e := encoder{b: make([]byte, 0, 24+len(c.BucketID)+len(c.Key))}
	e.byte(changeVersion)
	e.byte(byte(c.Op))
	e.strings(c.BucketID, c.Key)
	e.raw(c.Content[:])
	return e.b
}

func changeHead(d *decoder) ChangeOp {
	if d.byte() != changeVersion {
		d.fail()
	}
	op := ChangeOp(d.byte())
	if op != Created && op != Removed {
		d.fail()
	}
	return op
}

func changeEnd(d *decoder) error {
	if !d.end() {
		return errs.New(errs.Corrupt, "objects.DecodeChange", "not a change of this version")
	}
	return nil
}

// DecodeObjectChange reads the payload of a change with TopicObject.
func DecodeObjectChange(payload []byte) (ObjectChange, error) {
	d := decoder{b: payload}
	c := ObjectChange{Op: changeHead(&d), BucketID: d.string(), Key: d.string()}
	copy(c.Content[:], d.raw(len(c.Content)))
	return c, changeEnd(&d)
}

func (c BucketChange) encode() []byte {
	var e encoder
	e.byte(changeVersion)
	e.byte(byte(c.Op))
	e.strings(c.BucketID, c.Name, c.ProjectID)
	return e.b
}

// DecodeBucketChange reads the payload of a change with TopicBucket.
func DecodeBucketChange(payload []byte) (BucketChange, error) {
	d := decoder{b: payload}
	c := BucketChange{Op: changeHead(&d), BucketID: d.string(), Name: d.string(), ProjectID: d.string()}
	return c, changeEnd(&d)
}

func (c ProjectChange) encode() []byte {
	var e encoder
	e.byte(changeVersion)
	e.byte(byte(c.Op))
	e.strings(c.ProjectID, c.Name)
	return e.b
}

// DecodeProjectChange reads the payload of a change with TopicProject.
func DecodeProjectChange(payload []byte) (ProjectChange, error) {
	d := decoder{b: payload}
	c := ProjectChange{Op: changeHead(&d), ProjectID: d.string(), Name: d.string()}
	return c, changeEnd(&d)
}
