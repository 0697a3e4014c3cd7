package seal

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"chancery/internal/errs"
)

// secretMemory is a few bytes outside of the Go heap, in pages of their own.
type secretMemory struct {
	data    []byte // the bytes asked for; a part of mapping
	mapping []byte
	kind    string
}

// newSecretMemory maps pages with memfd_secret(2): the kernel takes them out of
// its own map, so that neither /proc/PID/mem, ptrace nor a core dump can read
// them, even for the superuser. Where the kernel has no memfd_secret, an
// anonymous mapping serves that is locked (not swapped), left out of core dumps
// and not inherited; its kind then says so.
func newSecretMemory(n int) (*secretMemory, error) {
	size := (n + os.Getpagesize() - 1) / os.Getpagesize() * os.Getpagesize()
	m, why := mapMemfdSecret(size)
	if m != nil {
		return &secretMemory{data: m[:n:n], mapping: m, kind: "memfd_secret"}, nil
	}
	return mapAnonymous(n, size, why)
}

func mapMemfdSecret(size int) ([]byte, error) {
	fd, err := memfdSecret()
	if err != nil {
		return nil, err
	}
	// The mapping keeps the memory; an open descriptor would only be one more way in.
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	return unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func mapAnonymous(n, size int, why error) (*secretMemory, error) {
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, errs.WrapKind(errs.Exhausted, "seal.newSecretMemory", err)
	}
	kind := "anonymous memory"
	if unix.Mlock(m) == nil {
		kind += ", locked"
	} else {
		kind += ", NOT locked (may be swapped)"
	}
	if unix.Madvise(m, unix.MADV_DONTDUMP) == nil {
		kind += ", not dumped"
	}
	if unix.Madvise(m, unix.MADV_WIPEONFORK) == nil {
		kind += ", wiped on fork"
	}
	return &secretMemory{data: m[:n:n], mapping: m, kind: fmt.Sprintf("%s (memfd_secret: %v)", kind, why)}, nil
}

func (m *secretMemory) destroy() {
	clear(m.mapping)
	// An error leaves a zeroed mapping behind: a leak of a page, not of a key.
	_ = unix.Munmap(m.mapping)
	m.data, m.mapping = nil, nil
}
