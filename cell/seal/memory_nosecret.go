//go:build !(linux && (amd64 || arm64 || riscv64))

package seal

import "golang.org/x/sys/unix"

// memfdSecret: these machines have no memfd_secret.
func memfdSecret() (int, error) { return -1, unix.ENOSYS }
