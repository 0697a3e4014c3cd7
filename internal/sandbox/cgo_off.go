//go:build !cgo

package sandbox

// cgoBuild tells that threads may be made behind the Go runtime's back.
const cgoBuild = false
