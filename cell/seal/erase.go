//go:build !goexperiment.runtimesecret

package seal

// erasing runs f. Built with GOEXPERIMENT=runtimesecret, registers, stack and
// heap that f used are erased after it; without it they are left to be reused.
func erasing(f func()) { f() }
