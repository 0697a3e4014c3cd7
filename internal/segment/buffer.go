package segment

import "sync"

// batch is how many sealed segments are read or written at once: large enough
// that system calls cost little, small enough to stay in the processor's cache.
const batch = 4

// block is the size, in bytes, that all writes but the last are a multiple of: a
// file is written in whole pages, which is cheaper by a fifth.
const block = 4 << 10

// slack is how much more than a segment is read ahead, to know whether a full
// segment is the last.
const slack = 16 << 10

// buffers are the memory of one Writer or range in work: about 340 KiB, pooled.
type buffers struct {
	plain  [Size + slack]byte
	used   int // of plain, from its start, since the last release
	cipher [HeaderSize + batch*sealed + block]byte
}

var pool = sync.Pool{New: func() any { return new(buffers) }}

// use notes that the first n bytes of plain have held plaintext.
func (b *buffers) use(n int) { b.used = max(b.used, n) }

// release clears the plaintext and gives the memory back.
func (b *buffers) release() {
	clear(b.plain[:b.used])
	b.used = 0
	pool.Put(b)
}
