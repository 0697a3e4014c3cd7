package cells

import (
	"bytes"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"chancery/internal/errs"
)

// Bounds of a cell's log, in bytes. There are at most two files of maxLog.
const (
	maxLog  = 4 << 20
	maxLine = 1 << 10 // of the last line that is shown in a status
)

// logFile keeps what a cell writes to standard output and error, in two files of
// bounded size. A full disk loses log lines, never the cell.
type logFile struct {
	path string
	mu   sync.Mutex
	f    *os.File
	size int64
	tail []byte
	// closed: nothing is written any more.
	closed bool
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	if err := l.open(); err != nil {
		return nil, errs.WrapKind(errs.Unavailable, "cells.openLog", err)
	}
	return l, nil
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, st.Size()
	return nil
}

// Write never fails: an error would break the pipe, and end the cell.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if over := len(l.tail) - 4*maxLine; over > 0 {
		l.tail = append(l.tail[:0], l.tail[over:]...)
	}
	if !l.closed && l.size+int64(len(p)) > maxLog {
		l.rotate()
	}
	if l.f != nil {
		n, _ := l.f.Write(p)
		l.size += int64(n)
	}
	return len(p), nil
}

func (l *logFile) rotate() {
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
	if os.Rename(l.path, l.path+".1") == nil {
		_ = l.open() // an error leaves no file: the next Write tries again
	}
	l.size = 0
	if l.f == nil {
		l.size = maxLog
	}
}

// last returns the last line, shortened, in printable characters.
func (l *logFile) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := bytes.TrimRight(l.tail, "\n")
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	b = b[:min(len(b), maxLine)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, string(b))
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
