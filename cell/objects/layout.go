package objects

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
)

// Keys of this package in the store. All begin with "o/". Bucket ids have one
// length (bucketIDSize), so that "BUCKETID/" needs no escaping and the bytes
// after it sort as S3 sorts: by UTF-8.
//
//	o/p/NAME                      project record
//	o/i/PROJECTID                 state, then the project's name
//	o/b/NAME                      bucket record
//	o/q/PROJECTID/NAME            (one byte, 01) index of a project's buckets
//	o/s/BUCKETID                  state, then the bucket's name: every write names it as a precondition
//	o/o/BUCKETID/KEY              object record of the current version
//	o/d/BUCKETID/CONTENT          sealed stream of an inline content
//	o/m/BUCKETID/CONTENT CHUNK    part table of a multipart content, partsPerChunk parts a chunk
//	o/r/BLOB                      reference: this blob is in use (value: bucket id)
//	o/u/BUCKETID/ESC(KEY) 0 1 ID  upload record
//	o/t/BUCKETID/UPLOAD NUMBER    part record
//	o/f/BUCKETID/UPLOAD           what a finished upload answered
//	o/x/BUCKETID, o/y/PROJECTID   key still to be destroyed
//	o/z/...                       intents: the key of a state entry that is marked as ending
//	o/v/BUCKETID/ESC(KEY) 0 1 ... reserved for versions that are not current, newest first
//
// ESC replaces the byte 0 by 0 255, so that the ending 0 1 keeps the order of keys.
const (
	pProject   = "o/p/"
	pProjectID = "o/i/"
	pBucket    = "o/b/"
	pOwned     = "o/q/"
	pState     = "o/s/"
	pObject    = "o/o/"
	pInline    = "o/d/"
	pTable     = "o/m/"
	pRef       = "o/r/"
	pUpload    = "o/u/"
	pPart      = "o/t/"
	pDone      = "o/f/"
	pDoomedB   = "o/x/"
	pDoomedP   = "o/y/"
	pIntent    = "o/z/"
	pIntentB   = "o/z/b/"
	pIntentP   = "o/z/p/"
	pIntentU   = "o/z/u/"
)

// bucketIDSize is the length of every bucket id: 128 random bits in base32.
const bucketIDSize = 26

// States in o/s/ and o/i/ and at the front of upload records.
const (
	stateOpen byte = 1
	// stateEnding: a delete (or a complete) is looking; writers wait for its verdict.
	stateEnding byte = 2
)

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return idEncoding.EncodeToString(b[:])
}

// contentID names one content: an object version's bytes, a part's, a part table, or a blob.
type contentID [16]byte

func key2(prefix, a string) []byte {
	return append(append(make([]byte, 0, len(prefix)+len(a)), prefix...), a...)
}

// inBucket builds prefix + bucket id + "/" + rest.
func inBucket(prefix, bucketID, rest string) []byte {
	k := make([]byte, 0, len(prefix)+len(bucketID)+1+len(rest))
	k = append(k, prefix...)
	k = append(k, bucketID...)
	k = append(k, '/')
	return append(k, rest...)
}

func projectKey(name string) []byte         { return key2(pProject, name) }
func projectIDKey(id string) []byte         { return key2(pProjectID, id) }
func bucketKey(name string) []byte          { return key2(pBucket, name) }
func ownedKey(project, name string) []byte  { return key2(pOwned, project+"/"+name) }
func stateKey(bucketID string) []byte       { return key2(pState, bucketID) }
func objectKey(bucketID, key string) []byte { return inBucket(pObject, bucketID, key) }
func refKey(id contentID) []byte            { return key2(pRef, string(id[:])) }
func inlineKey(bucketID string, id contentID) []byte {
	return inBucket(pInline, bucketID, string(id[:]))
}
func tableKey(bucketID string, id contentID, chunk int) []byte {
	return binary.BigEndian.AppendUint16(inBucket(pTable, bucketID, string(id[:])), uint16(chunk))
}

// uploadID is 8 bytes of start time (Unix milliseconds) and 16 random bytes, so
// that uploads of one key sort by their start.
type uploadID [24]byte

// String is the id as clients see it.
func (u uploadID) String() string { return base64.RawURLEncoding.EncodeToString(u[:]) }

func parseUploadID(s string) (u uploadID, ok bool) {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(u)) {
		return u, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(u[:], []byte(s))
	return u, err == nil && n == len(u)
}

func newUploadID(ms int64) (u uploadID) {
	binary.BigEndian.PutUint64(u[:8], uint64(ms))
	rand.Read(u[8:])
	return u
}

// escape appends ESC(s) to dst.
func escape(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		dst = append(dst, s[i])
		if s[i] == 0 {
			dst = append(dst, 0xff)
		}
	}
	return dst
}

// unescape reverses escape up to the ending 0 1 and returns what follows it.
func unescape(b []byte) (key string, rest []byte, ok bool) {
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] != 0 {
			out = append(out, b[i])
			continue
		}
		i++
		if i >= len(b) {
			return "", nil, false
		}
		switch b[i] {
		case 0xff:
			out = append(out, 0)
		case 1:
			return string(out), b[i+1:], true
		default:
			return "", nil, false
		}
	}
	return "", nil, false
}

func uploadKey(bucketID, key string, id uploadID) []byte {
	k := escape(inBucket(pUpload, bucketID, ""), key)
	k = append(k, 0, 1)
	return append(k, id[:]...)
}
func partPrefix(bucketID string, id uploadID) []byte { return inBucket(pPart, bucketID, string(id[:])) }
func partKey(bucketID string, id uploadID, number int) []byte {
	return binary.BigEndian.AppendUint16(partPrefix(bucketID, id), uint16(number))
}
func doneKey(bucketID string, id uploadID) []byte { return inBucket(pDone, bucketID, string(id[:])) }
