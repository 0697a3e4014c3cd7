//go:build goexperiment.runtimesecret

package keys

import runtimesecret "runtime/secret"

// erasing runs f, which handles secrets; the runtime erases registers, stack and
// dropped heap after it.
func erasing(f func()) { runtimesecret.Do(f) }
