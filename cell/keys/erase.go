//go:build !goexperiment.runtimesecret

package keys

// erasing runs f, which handles secrets. Where the runtime can erase registers,
// stack and dropped heap after it (GOEXPERIMENT=runtimesecret), it does so; here
// it cannot, and what is zeroed is what this package zeroes itself.
func erasing(f func()) { f() }
