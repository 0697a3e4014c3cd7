//go:build goexperiment.runtimesecret

package seal

import "runtime/secret"

// erasing runs f and erases the registers, the stack and (when collected) the
// heap that it used: copies of secrets that libraries make and nobody can reach.
func erasing(f func()) { secret.Do(f) }
