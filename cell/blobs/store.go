package blobs

import (
	"context"
	"io"
	"sync"
	"time"

	"chancery/internal/errs"
	"chancery/internal/segment"
)

// Store encrypts on the way into an engine and verifies on the way out. Safe for
// concurrent use. Memory per call in work is bounded: about 340 KiB, pooled.
// The zero Store refuses.
type Store struct {
	engine Engine
	opened time.Time // with its monotonic reading: see now

	mu     sync.Mutex
	active map[ID]struct{} // being written: never an orphan
}

// New returns a Store on an engine.
func New(engine Engine) *Store {
	return &Store{engine: engine, opened: time.Now(), active: map[ID]struct{}{}}
}

func (s *Store) ready(op string) error {
	if s == nil || s.engine == nil {
		return errs.New(errs.Invalid, op, "the zero store")
	}
	return nil
}

// Write seals all of r as a new blob and returns its id and plaintext size, in
// bytes, once it is durable. See WriteAs.
func (s *Store) Write(ctx context.Context, key segment.Key, b segment.Binding, r io.Reader) (ID, int64, error) {
	id := NewID()
	size, err := s.WriteAs(ctx, id, key, b, r)
	if err != nil {
		return ID{}, 0, err
	}
	return id, size, nil
}

// WriteAs seals all of r as the blob id, which the caller has drawn at random
// (NewID), and returns its plaintext size, in bytes, once it is durable. The key
// must be of this content alone. On any error nothing is kept, or at worst an
// orphan that Sweep removes. If r is Sized the engine makes room early. Errors: those of r unchanged; errs.Invalid (zero id,
// key or binding); errs.Exists; errs.Exhausted (no room); errs.Unavailable (the
// engine failed, or the context ended, which is then the cause).
func (s *Store) WriteAs(ctx context.Context, id ID, key segment.Key, b segment.Binding, r io.Reader) (int64, error) {
	const op = "blobs.Write"
	if err := s.ready(op); err != nil {
		return 0, err
	}
	if id == (ID{}) {
		return 0, errs.New(errs.Invalid, op, "the zero id")
	}
	var out later
	sw, err := segment.NewWriter(&out, key, b) // refuses before anything is made
	if err != nil {
		return 0, errs.Wrap(op, err)
	}
	defer sw.Discard()
	s.enter(id)
	defer s.leave(id)
	if out.Writer, err = s.engine.Create(ctx, id); err != nil {
		return 0, errs.Wrap(op, err)
	}
	defer out.Writer.Abort() // after Commit it does nothing; it runs on a panic of r too
	if s, ok := r.(Sized); ok {
		if size, err := segment.CipherSize(s.Size()); err == nil { // unknown is negative
			out.Writer.Expect(size)
		}
	}
	if _, err := sw.ReadFrom(source{ctx, r}); err != nil {
		return 0, err
	}
	size := sw.Size()
	if err := sw.Close(); err != nil {
		return 0, errs.Wrap(op, err)
	}
	if err := ended(ctx, op); err != nil {
		return 0, err
	}
	if err := out.Writer.Commit(); err != nil {
		return 0, errs.Wrap(op, err)
	}
	return size, nil
}

// Sized is a reader that knows how many bytes it has in all; negative is unknown.
type Sized interface{ Size() int64 }

// later is a writer that is known only after the key was checked.
type later struct{ Writer Writer }

func (l *later) Write(p []byte) (int, error) { return l.Writer.Write(p) }

// content is a range of a blob being read. It is an io.WriterTo: io.Copy from it
// makes one large write per segment and no copy of its own.
type content struct {
	*segment.Range
	blob Reader
}

// Close ends reading and frees memory. More than once is fine.
func (c *content) Close() error {
	if c.blob == nil {
		return nil
	}
	c.Range.Close()
	blob := c.blob
	c.blob = nil
	return errs.Wrap("blobs.Close", blob.Close())
}

// Read opens length bytes from offset of the blob's plaintext, which has
// plainSize bytes in all. Only verified bytes come out. What is returned is also an
// io.WriterTo, which io.Copy uses. The reader ends with an
// error when ctx ends. Errors, here or from the reader: errs.NotFound;
// errs.Invalid (a range outside, zero key or binding); errs.Corrupt with a class
// of package segment as Code (a blob that has not the size that plainSize calls
// for is caught here); errs.Unavailable.
func (s *Store) Read(ctx context.Context, id ID, plainSize int64, key segment.Key, b segment.Binding, offset, length int64) (io.ReadCloser, error) {
	const op = "blobs.Read"
	if err := s.ready(op); err != nil {
		return nil, err
	}
	want, err := segment.CipherSize(plainSize)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	blob, err := s.engine.Open(ctx, id)
	if err != nil {
		return nil, errs.Wrap(op, err)
	}
	rng, err := open(ctx, blob, want, key, b, offset, length)
	if err != nil {
		blob.Close()
		return nil, errs.Wrap(op, err)
	}
	return &content{rng, blob}, nil
}

func open(ctx context.Context, blob Reader, want int64, key segment.Key, b segment.Binding, offset, length int64) (*segment.Range, error) {
	const op = "blobs.Read"
	if size := blob.Size(); size < want {
		return nil, errs.Coded(errs.Corrupt, op, segment.Truncated, "the blob has %d bytes, should have %d", size, want)
	} else if size > want {
		return nil, errs.Coded(errs.Corrupt, op, segment.Extended, "the blob has %d bytes, should have %d", size, want)
	}
	r, err := segment.NewReader(sourceAt{ctx, blob}, want, key, b)
	if err != nil {
		return nil, err
	}
	return r.Range(offset, length)
}

// Remove deletes a blob. A missing one is no error.
func (s *Store) Remove(ctx context.Context, id ID) error {
	const op = "blobs.Remove"
	if err := s.ready(op); err != nil {
		return err
	}
	return errs.Wrap(op, s.engine.Remove(ctx, id))
}

func (s *Store) enter(id ID) {
	s.mu.Lock()
	s.active[id] = struct{}{}
	s.mu.Unlock()
}

func (s *Store) leave(id ID) {
	s.mu.Lock()
	delete(s.active, id)
	s.mu.Unlock()
}

func (s *Store) writing(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.active[id]
	return ok
}

// source and sourceAt end reading when the context ends.
type source struct {
	ctx context.Context
	r   io.Reader
}

func (s source) Read(p []byte) (int, error) {
	if err := ended(s.ctx, "blobs.Write"); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

type sourceAt struct {
	ctx context.Context
	r   io.ReaderAt
}

func (s sourceAt) ReadAt(p []byte, off int64) (int, error) {
	if err := ended(s.ctx, "blobs.Read"); err != nil {
		return 0, err
	}
	return s.r.ReadAt(p, off)
}

func ended(ctx context.Context, op string) error {
	if ctx.Err() == nil {
		return nil
	}
	return errs.WrapKind(errs.Unavailable, op, context.Cause(ctx))
}
