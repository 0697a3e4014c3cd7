package segment

import "slices"

// Seal appends plaintext as a whole sealed stream to dst, for small streams that
// are kept in memory: the same format as a Writer's. dst must not overlap
// plaintext. On error dst is returned as nil.
func Seal(dst []byte, key Key, b Binding, plaintext []byte) ([]byte, error) {
	h := newHeader()
	s, err := newStream("segment.Seal", &key, &b, &h)
	if err != nil {
		return nil, err
	}
	size, err := CipherSize(int64(len(plaintext)))
	if err != nil {
		return nil, err
	}
	dst = append(slices.Grow(dst, int(size)), h[:]...)
	for n := int64(0); ; n++ {
		c := min(len(plaintext), Size)
		last := c == len(plaintext)
		dst = s.seal(dst, plaintext[:c], n, last)
		if plaintext = plaintext[c:]; last {
			return dst, nil
		}
	}
}

// Open appends the plaintext of a whole sealed stream to dst. Nothing is returned
// unless every segment authenticates. box must not overlap dst. Errors are those
// of NewReader and Range.
func Open(dst []byte, key Key, b Binding, box []byte) ([]byte, error) {
	const op = "segment.Open"
	plain, err := PlainSize(int64(len(box)))
	if err != nil {
		return nil, err
	}
	h := header(box[:HeaderSize])
	s, err := newStream(op, &key, &b, &h)
	if err != nil {
		return nil, err
	}
	if err := h.check(op); err != nil {
		return nil, err
	}
	start := len(dst)
	dst = slices.Grow(dst, int(plain))
	box = box[HeaderSize:]
	for n := int64(0); ; n++ {
		c := min(len(box), sealed)
		last := c == len(box)
		out, err := s.open(op, dst, box[:c], n, last)
		if err != nil {
			clear(dst[start:])
			return nil, err
		}
		dst, box = out, box[c:]
		if last {
			return dst, nil
		}
	}
}
