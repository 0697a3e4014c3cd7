package s3

import (
	"net/http"
	"time"

	"chancery/internal/errs"
)

// slowly runs an operation that may take long, such as a copy. If it is quick the
// answer is an ordinary one. Else, as S3 does, 200 is sent and white space keeps
// the connection alive; a failure then stands in the body as <Error>.
//
// work gives what writes the result. It must not touch the answer itself.
func (q *request) slowly(work func() (func(*xmlBuf), error)) error {
	type result struct {
		write func(*xmlBuf)
		err   error
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: errs.New(errs.Internal, "s3", "a defect stopped the request")}
		defer func() {
			if recover() != nil {
				r.write = nil
			}
			done <- r
		}()
		r.write, r.err = work()
	}()
	t := time.NewTimer(q.h.keepAlive)
	defer t.Stop()
	var res result
	select {
	case res = <-done:
		if res.err != nil {
			return res.err
		}
		x := newXML()
		res.write(x)
		return q.sendXML(x)
	case <-t.C:
	}

	q.setEncryption("")
	q.w.Header().Set("Content-Type", "application/xml")
	q.start(http.StatusOK)
	alive := q.write([]byte(xmlDeclaration))
	for waiting := true; waiting; {
		t.Reset(q.h.keepAlive)
		select {
		case res = <-done:
			waiting = false
		case <-t.C:
			alive = alive && q.write([]byte(" "))
		}
	}
	x := newXML()
	defer x.free()
	if res.err != nil {
		q.h.failed(q.id, res.err)
		q.errorXML(x, q.toAPI(res.err))
	} else {
		res.write(x)
		x.b = x.b[len(xmlDeclaration):] // sent already
	}
	if !alive || !q.write(x.b) {
		return errAborted(q.ctx.Err())
	}
	return nil
}

// write sends bytes at once and tells whether the client still takes them.
func (q *request) write(b []byte) bool {
	q.ctl.SetWriteDeadline(time.Now().Add(q.h.idle)) //nolint:errcheck // not every writer has deadlines
	if _, err := q.w.Write(b); err != nil {
		return false
	}
	return q.ctl.Flush() == nil
}
