package objects

import (
	"bytes"
	"testing"

	"chancery/internal/errs"
)

// TestRoom: with no room nothing is added, in the middle of a body either, and
// everything can still be taken away.
func TestRoom(t *testing.T) {
	room := int64(1 << 40)
	e := &Engine{opt: Options{Room: func(size int64) error {
		if size > room {
			return errs.New(errs.Exhausted, "test", "full")
		}
		return nil
	}}}
	read := func(n int, size int64) (int, error) {
		got, buf := 0, make([]byte, 100_000)
		r := e.roomy("t", bytes.NewReader(make([]byte, n)), size)
		for {
			k, err := r.Read(buf)
			if got += k; err != nil {
				return got, err
			}
			if got > 5<<20 {
				room = -1
			}
		}
	}
	if got, err := read(10<<20, -1); !errs.Is(err, errs.Exhausted) || got < 5<<20 || got > 7<<20 {
		t.Errorf("read %d bytes while the disk filled, then %v", got, err)
	}
	room = 1000
	if got, err := read(2000, 2000); !errs.Is(err, errs.Exhausted) || got != 0 {
		t.Errorf("a body that is too large: read %d bytes, then %v", got, err)
	}
	if got, _ := read(1000, 1000); got != 1000 {
		t.Errorf("a body that fits: read %d bytes", got)
	}
	room = -1
	if err := e.room("t", 0); !errs.Is(err, errs.Exhausted) {
		t.Errorf("a record on a full disk: %v", err)
	}
	if err := (&Engine{}).room("t", 1<<50); err != nil {
		t.Errorf("an engine that asks nobody: %v", err)
	}
}
