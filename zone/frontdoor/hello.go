package frontdoor

import (
	"net"
	"strings"

	"chancery/internal/errs"
)

// Bounds of a ClientHello, in bytes.
const (
	// maxHello bounds all that is read before the name is known, record headers included.
	maxHello = 16 << 10
	// maxRecord is the longest record of RFC 8446 section 5.1.
	maxRecord = 1 << 14
	// maxName is the longest DNS name.
	maxName = 253
)

// hello reads a TLS ClientHello as it arrives, to learn the server name. It ends
// no TLS: the same bytes go to the cell. The work is linear in what arrives,
// however it is cut. The zero hello is ready.
type hello struct {
	header    []byte // of the record, until it has 5 bytes
	remaining int    // bytes of the record still to come
	message   []byte // the handshake message so far
	seen      int    // bytes fed in all
}

func malformed(format string, args ...any) error {
	return errs.New(errs.Invalid, "frontdoor.hello", format, args...)
}

// feed takes more bytes. It returns true and the server name (lower case, empty
// if there is none) once the ClientHello is complete. An error is final.
func (h *hello) feed(p []byte) (name string, done bool, err error) {
	if h.seen += len(p); h.seen > maxHello {
		return "", false, malformed("a ClientHello of over %d bytes", maxHello)
	}
	for len(p) > 0 {
		if h.remaining == 0 {
			n := min(5-len(h.header), len(p))
			h.header = append(h.header, p[:n]...)
			p = p[n:]
			if err := h.checkHeader(); err != nil {
				return "", false, err
			}
			continue
		}
		n := min(h.remaining, len(p))
		h.message = append(h.message, p[:n]...)
		p, h.remaining = p[n:], h.remaining-n
		if len(h.message) > 0 && h.message[0] != 1 {
			return "", false, malformed("the first handshake message is not a ClientHello")
		}
		if len(h.message) < 4 {
			continue
		}
		length := int(h.message[1])<<16 | int(h.message[2])<<8 | int(h.message[3])
		if length > maxHello {
			return "", false, malformed("a ClientHello of over %d bytes", maxHello)
		}
		if len(h.message) >= 4+length {
			name, err := serverName(h.message[4 : 4+length])
			return name, err == nil, err
		}
	}
	return "", false, nil
}

// checkHeader looks at a record header (RFC 8446 section 5.1) as far as it is there.
func (h *hello) checkHeader() error {
	if len(h.header) > 0 && h.header[0] != 22 {
		return malformed("not a TLS handshake")
	}
	if len(h.header) > 1 && h.header[1] != 3 {
		return malformed("not TLS")
	}
	if len(h.header) < 5 {
		return nil
	}
	h.remaining = int(h.header[3])<<8 | int(h.header[4])
	h.header = h.header[:0]
	if h.remaining == 0 || h.remaining > maxRecord {
		return malformed("a handshake record of %d bytes", h.remaining)
	}
	return nil
}

// reader cuts length-prefixed vectors (RFC 8446 section 3.4) off its front.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) number(bytes int) int {
	n := 0
	for _, b := range r.take(bytes) {
		n = n<<8 | int(b)
	}
	return n
}

// vector takes a vector whose length has the given number of bytes.
func (r *reader) vector(bytes int) []byte { return r.take(r.number(bytes)) }

// serverName parses the body of a ClientHello (RFC 8446 section 4.1.2).
func serverName(body []byte) (string, error) {
	r := reader{b: body}
	r.take(2 + 32) // legacy_version, random
	if len(r.vector(1)) > 32 {
		return "", malformed("a session id of over 32 bytes")
	}
	r.vector(2) // cipher_suites
	r.vector(1) // legacy_compression_methods
	if r.bad {
		return "", malformed("a ClientHello that is cut short")
	}
	if len(r.b) == 0 {
		return "", nil // no extensions: TLS 1.2 allows it
	}
	extensions := reader{b: r.vector(2)}
	if r.bad || len(r.b) > 0 {
		return "", malformed("extensions whose length is wrong")
	}
	name, found := "", false
	for len(extensions.b) > 0 {
		kind, data := extensions.number(2), extensions.vector(2)
		if extensions.bad {
			return "", malformed("an extension that is cut short")
		}
		if kind != 0 {
			continue
		}
		if found {
			return "", malformed("two server_name extensions")
		}
		found = true
		var err error
		if name, err = hostName(data); err != nil {
			return "", err
		}
	}
	return name, nil
}

// hostName parses the server_name extension (RFC 6066 section 3).
func hostName(data []byte) (string, error) {
	r := reader{b: data}
	list := reader{b: r.vector(2)}
	if r.bad || len(r.b) > 0 || len(list.b) == 0 {
		return "", malformed("a server_name list whose length is wrong")
	}
	name, found := "", false
	for len(list.b) > 0 {
		kind, value := list.number(1), list.vector(2)
		if list.bad {
			return "", malformed("a server name that is cut short")
		}
		if kind != 0 {
			continue
		}
		if found {
			return "", malformed("two host names")
		}
		found = true
		if len(value) == 0 || len(value) > maxName {
			return "", malformed("a host name of %d bytes", len(value))
		}
		for _, c := range value {
			ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == ':'
			if !ok {
				return "", malformed("a host name with a byte that no host name has")
			}
		}
		// RFC 6066 forbids the trailing dot; some clients send it.
		name = strings.TrimSuffix(strings.ToLower(string(value)), ".")
	}
	// RFC 6066 forbids IP addresses here: whoever sends one means no name.
	if net.ParseIP(name) != nil {
		name = ""
	}
	return name, nil
}
