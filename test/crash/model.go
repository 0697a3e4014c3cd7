// Package crash kills a real zone at random moments while clients write, and
// checks that what was acknowledged is there bit for bit, that nothing is half
// there, and that nothing deleted comes back.
package crash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// content is the bytes of one write: random, but known from seed and size, so
// that the model of gigabytes is a few words.
type content struct {
	seed uint64
	size int64
}

// absent is the content of a key that is not there.
var absent = content{size: -1}

func (c content) String() string {
	if c == absent {
		return "absent"
	}
	return fmt.Sprintf("content %x of %d bytes", c.seed, c.size)
}

func (c content) reader() io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], c.seed)
	return io.LimitReader(rand.NewChaCha8(key), c.size)
}

func (c content) bytes() []byte {
	b, _ := io.ReadAll(c.reader()) // a ChaCha8 never fails
	return b
}

// state is what a key may hold. After an acknowledged write there is one
// candidate; while a write is unanswered (its connection broke) there are two.
type state struct {
	candidates []content
}

func known(c content) state { return state{[]content{c}} }

// orElse adds what an unanswered write may have left.
func (s state) orElse(c content) state {
	return state{append(append([]content(nil), s.candidates...), c)}
}

// match finds the candidate that was read; got is nil for an absent key.
func (s state) match(got []byte, found bool) (content, bool) {
	for _, c := range s.candidates {
		switch {
		case c == absent:
			if !found {
				return c, true
			}
		case found && int64(len(got)) == c.size && bytes.Equal(got, c.bytes()):
			return c, true
		}
	}
	return content{}, false
}
