package objects

import (
	"io"

	"chancery/internal/errs"
)

// roomEvery is how many bytes of a body are taken between two looks at the disk.
const roomEvery = 1 << 20

// room refuses what would add size bytes (0: a record) when the disk has no room
// for new data. What takes data away, or ends what was begun, never asks: the
// little that it writes has the room that is kept back here. Else a full disk
// could never be emptied, since a deletion too is first written down.
func (e *Engine) room(op string, size int64) error {
	if e.opt.Room == nil {
		return nil
	}
	return errs.Wrap(op, e.opt.Room(max(size, 0)))
}

// roomy is a body that ends with errs.Exhausted once there is no room for the
// rest of it. size is -1 if it is not known.
func (e *Engine) roomy(op string, r io.Reader, size int64) io.Reader {
	if e.opt.Room == nil || r == nil {
		return r
	}
	return &roomReader{e: e, op: op, r: r, left: size}
}

type roomReader struct {
	e    *Engine
	op   string
	r    io.Reader
	left int64 // of the declared size; negative if not known
	free int   // bytes until the next look
}

func (r *roomReader) Read(p []byte) (int, error) {
	if r.free <= 0 {
		if err := r.e.room(r.op, r.left); err != nil {
			return 0, err
		}
		r.free = roomEvery
	}
	n, err := r.r.Read(p)
	r.free -= n
	if r.left >= 0 {
		r.left = max(r.left-int64(n), 0)
	}
	return n, err
}
