package s3

import (
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// xmlNamespace is that of every answer of S3.
const xmlNamespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// xmlBuf writes XML by hand: answers are lists of short strings, and
// encoding/xml's reflection would cost more than the listing itself.
type xmlBuf struct{ b []byte }

var xmlPool = sync.Pool{New: func() any { return &xmlBuf{b: make([]byte, 0, 4096)} }}

func newXML() *xmlBuf {
	x, _ := xmlPool.Get().(*xmlBuf)
	x.b = x.b[:0]
	return x
}

// free returns the buffer, unless a large page made it too big to keep.
func (x *xmlBuf) free() {
	if cap(x.b) <= 1<<20 {
		xmlPool.Put(x)
	}
}

const xmlDeclaration = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

func (x *xmlBuf) document() { x.b = append(x.b, xmlDeclaration...) }

// root opens the outermost element, in S3's namespace.
func (x *xmlBuf) root(name string) {
	x.document()
	x.b = append(append(append(append(x.b, '<'), name...), ` xmlns="`+xmlNamespace+`"`...), '>')
}

func (x *xmlBuf) open(name string)  { x.b = append(append(append(x.b, '<'), name...), '>') }
func (x *xmlBuf) close(name string) { x.b = append(append(append(x.b, '<', '/'), name...), '>') }

func (x *xmlBuf) text(name, value string) {
	x.open(name)
	x.b = appendEscaped(x.b, value)
	x.close(name)
}

// optional writes an element only if it has a value.
func (x *xmlBuf) optional(name, value string) {
	if value != "" {
		x.text(name, value)
	}
}

func (x *xmlBuf) integer(name string, n int64) {
	x.open(name)
	x.b = strconv.AppendInt(x.b, n, 10)
	x.close(name)
}

func (x *xmlBuf) boolean(name string, v bool) {
	x.open(name)
	x.b = strconv.AppendBool(x.b, v)
	x.close(name)
}

func (x *xmlBuf) time(name string, t time.Time) {
	x.open(name)
	x.b = t.UTC().AppendFormat(x.b, "2006-01-02T15:04:05.000Z")
	x.close(name)
}

// etag writes an entity tag in its quotes.
func (x *xmlBuf) etag(value string) {
	x.b = append(x.b, "<ETag>&quot;"...)
	x.b = appendEscaped(x.b, value)
	x.b = append(x.b, "&quot;</ETag>"...)
}

const hexLower = "0123456789abcdef"

// appendEscaped escapes character data. Characters that XML 1.0 cannot carry at
// all go out as the references that S3 sends (&#x1;): a client that lists such
// keys asks for encoding-type=url. Bytes that are not UTF-8 become U+FFFD.
func appendEscaped(dst []byte, s string) []byte {
	last := 0
	for i := 0; i < len(s); {
		c := s[i]
		var esc string
		switch {
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				esc = "\uFFFD"
			case r == 0xFFFE:
				esc = "&#xfffe;"
			case r == 0xFFFF:
				esc = "&#xffff;"
			default:
				i += n
				continue
			}
			dst = append(append(dst, s[last:i]...), esc...)
			i += n
			last = i
			continue
		case c == '&':
			esc = "&amp;"
		case c == '<':
			esc = "&lt;"
		case c == '>':
			esc = "&gt;"
		case c == '"':
			esc = "&quot;"
		case c == '\r':
			esc = "&#13;"
		case c < 0x20 && c != '\n' && c != '\t':
			dst = append(dst, s[last:i]...)
			dst = append(dst, '&', '#', 'x')
			if c >= 0x10 {
				dst = append(dst, '1')
			}
			dst = append(dst, hexLower[c&15], ';')
			i++
			last = i
			continue
		default:
			i++
			continue
		}
		dst = append(append(dst, s[last:i]...), esc...)
		i++
		last = i
	}
	return append(dst, s[last:]...)
}

// sendXML answers with the buffer, and frees it.
func (q *request) sendXML(x *xmlBuf) error {
	defer x.free()
	hd := q.w.Header()
	hd.Set("Content-Type", "application/xml")
	hd.Set("Content-Length", strconv.Itoa(len(x.b)))
	q.ctl.SetWriteDeadline(time.Now().Add(q.h.idle)) //nolint:errcheck // not every writer has deadlines
	q.start(http.StatusOK)
	if _, err := q.w.Write(x.b); err != nil {
		return errAborted(err)
	}
	return nil
}

// sendEmpty answers with a status alone.
func (q *request) sendEmpty(status int) error {
	if status != http.StatusNoContent {
		q.w.Header().Set("Content-Length", "0")
	}
	q.start(status)
	return nil
}
