package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/internal/store"
	"chancery/internal/store/frame"
)

// The journal is what makes a commit durable: one frame for each group of
// commits, synced before anyone is told. It stands in for Pebble's own log, which
// shows a commit to readers before it is durable, and ends the process when the
// disk is full. A journal file is needed until the engine has flushed what it
// holds; its first frame holds the Seq that it follows on, and its last one, if
// there is a next journal, says so: none can be taken away unnoticed.

const (
	journalPrefix = "journal-"
	recordHeader  = 16 // first and last Seq
)

// journal is the file being written.
type journal struct {
	num uint64
	f   files.File
	w   *frame.LogWriter
}

func journalName(num uint64) string { return fmt.Sprintf("%s%08d", journalPrefix, num) }

// journalNum parses a name; ok is false if it is not a journal's.
func journalNum(name string) (num uint64, ok bool) {
	digits, found := strings.CutPrefix(name, journalPrefix)
	if !found {
		return 0, false
	}
	num, err := strconv.ParseUint(digits, 10, 64)
	return num, err == nil && journalName(num) == name
}

// createJournal makes journal num, which follows on base. named tells whether the
// new name may exist after an error: then nothing may go into an older journal.
func createJournal(fsys files.FS, dir string, key []byte, num uint64, base store.Seq) (j *journal, named bool, err error) {
	const op = "pebblestore.createJournal"
	name := journalName(num)
	path := filepath.Join(dir, name)
	tmp := path + files.TempSuffix
	if err := fsys.Remove(tmp); err != nil && !errs.Is(err, errs.NotFound) {
		return nil, false, errs.Wrap(op, err)
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return nil, false, errs.Wrap(op, err)
	}
	w, err := frame.NewLogWriter(f, key, name)
	if err == nil {
		err = w.Append(binary.BigEndian.AppendUint64(nil, uint64(base)))
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		_ = f.Close()
		_ = fsys.Remove(tmp) // best effort; Open removes what is left
		return nil, false, errs.Wrap(op, err)
	}
	if err = fsys.Rename(tmp, path); err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		_ = f.Close()
		return nil, true, errs.Wrap(op, err)
	}
	return &journal{num: num, f: f, w: w}, true, nil
}

// append writes a group and makes it durable. known tells whether, after an
// error, it is certain that the group is not in the journal.
func (j *journal) append(first, last store.Seq, repr []byte) (known bool, err error) {
	const op = "pebblestore.journal"
	before := j.w.Size()
	var head [recordHeader]byte
	binary.BigEndian.PutUint64(head[:8], uint64(first))
	binary.BigEndian.PutUint64(head[8:], uint64(last))
	if err = j.w.Append(head[:], repr); err == nil {
		if err = j.f.Sync(); err == nil {
			return true, nil
		}
		// A failed sync for any reason but room says nothing about the disk.
		if !files.IsFull(err) {
			return false, errs.Wrap(op, err)
		}
	}
	if undo := j.w.Undo(before); undo != nil {
		return false, errs.Wrap(op, errors.Join(err, undo))
	}
	return true, errs.Wrap(op, err)
}

// finish says that the next journal carries on, and closes the file. It is called
// when that journal is durable and before anything is in it.
func (j *journal) finish() error {
	err := j.w.Append(make([]byte, recordHeader))
	if err == nil {
		err = j.f.Sync()
	}
	if cerr := j.f.Close(); err == nil {
		err = cerr
	}
	return errs.Wrap("pebblestore.journal", err)
}

// journalReader reads one journal.
type journalReader struct {
	num  uint64
	base store.Seq
	f    files.File
	r    *frame.LogReader
	// continued is set when the end was read and names a next journal.
	continued bool
}

func openJournal(fsys files.FS, dir string, key []byte, num uint64) (*journalReader, error) {
	const op = "pebblestore.openJournal"
	name := journalName(num)
	f, err := fsys.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	j := &journalReader{num: num, f: f}
	err = func() error {
		size, err := f.Size()
		if err != nil {
			return err
		}
		if j.r, err = frame.NewLogReader(f, size, key, name); err != nil {
			return err
		}
		p, err := j.r.Next()
		if err != nil {
			return err
		}
		if len(p) != 8 {
			return errs.New(errs.Corrupt, op, "%s begins wrongly", name)
		}
		j.base = store.Seq(binary.BigEndian.Uint64(p))
		return nil
	}()
	// A journal gets its name when its first frame is durable: less is damage.
	if err == io.EOF || errors.Is(err, frame.ErrTorn) {
		err = errs.New(errs.Corrupt, op, "%s has lost its beginning", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, errs.Wrap(op, err)
	}
	return j, nil
}

// next returns the next group; io.EOF or frame.ErrTorn at the end.
func (j *journalReader) next() (first, last store.Seq, repr []byte, err error) {
	p, err := j.r.Next()
	if err != nil {
		return 0, 0, nil, err
	}
	if len(p) < recordHeader {
		return 0, 0, nil, errs.New(errs.Corrupt, "pebblestore.journal", "%s holds a short record", journalName(j.num))
	}
	first = store.Seq(binary.BigEndian.Uint64(p))
	last = store.Seq(binary.BigEndian.Uint64(p[8:]))
	if first == 0 && last == 0 && len(p) == recordHeader {
		j.continued = true
		return 0, 0, nil, io.EOF
	}
	if first == 0 || last < first {
		return 0, 0, nil, errs.New(errs.Corrupt, "pebblestore.journal", "%s holds a record without order", journalName(j.num))
	}
	return first, last, p[recordHeader:], nil
}

// replay hands every group after applied to apply, oldest first, and returns the
// last Seq. It refuses (errs.Corrupt) a gap, and an engine that is ahead of the
// journals: commits are journaled before they are applied, so some journal
// would be missing or shortened.
func replay(fsys files.FS, dir string, key []byte, nums []uint64, applied store.Seq, apply func(last store.Seq, repr []byte) error) (store.Seq, error) {
	const op = "pebblestore.replay"
	readers := make([]*journalReader, 0, len(nums))
	defer func() {
		for _, j := range readers {
			_ = j.f.Close()
		}
	}()
	for _, num := range nums {
		j, err := openJournal(fsys, dir, key, num)
		if err != nil {
			return 0, err
		}
		readers = append(readers, j)
	}
	known := store.Seq(0) // the highest Seq that the journals tell of
	for i, j := range readers {
		if i > 0 && j.num != readers[i-1].num+1 && j.base > applied {
			return 0, errs.New(errs.Corrupt, op, "a journal before %s is missing", journalName(j.num))
		}
		if i+1 < len(readers) && readers[i+1].base <= applied {
			continue // the engine has flushed all of it
		}
		if j.base > applied {
			return 0, errs.New(errs.Corrupt, op, "commits between %d and %d are missing", applied, j.base)
		}
		known = max(known, j.base)
		for {
			first, last, repr, err := j.next()
			if err == io.EOF || errors.Is(err, frame.ErrTorn) {
				break // the base of the next journal tells whether that was too early
			}
			if err != nil {
				return 0, errs.Wrap(op, err)
			}
			known = max(known, last)
			if last <= applied {
				continue
			}
			if first != applied+1 {
				return 0, errs.New(errs.Corrupt, op, "commit %d follows on %d", first, applied)
			}
			if err := apply(last, repr); err != nil {
				return 0, errs.Wrap(op, err)
			}
			applied = last
		}
		if j.continued && i+1 == len(readers) {
			return 0, errs.New(errs.Corrupt, op, "the journal after %s is missing", journalName(j.num))
		}
	}
	if known < applied {
		return 0, errs.New(errs.Corrupt, op, "the journal ends at commit %d, before %d", known, applied)
	}
	return applied, nil
}
