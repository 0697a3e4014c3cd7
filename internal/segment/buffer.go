package segment

import "sync"

// batch is how many sealed segments are read or written at once: large enough
// that system calls cost little, small enough to stay in the processor's cache.
const batch = 4

// slack is how much more than a segment is read ahead, to know whether a full
// segment is the last.
const slack = 16 << 10

// buffers are the memory of one Writer or range in work: about 340 KiB, pooled.
type buffers struct {
	plain  [Size + slack]byte
	cipher [HeaderSize + batch*sealed]byte
}

var pool = sync.Pool{New: func() any { return new(buffers) }}

// release clears the plaintext and gives the memory back.
func (b *buffers) release() {
	clear(b.plain[:])
	pool.Put(b)
}
