package sandbox

import (
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// The first Landlock ABI versions that know each thing we ask for.
const (
	landlockFiles  = 1
	landlockTCP    = 4
	landlockScopes = 6
)

// applyLandlock leaves the two directories as the only files, allows no TCP port,
// and no abstract socket and no signal outside. It holds behind the private
// root: should that be left, there is still nothing to open.
func applyLandlock(v View) []Measure {
	files := Measure{Name: "Landlock: files", Detail: "only the data and the run directory"}
	tcp := Measure{Name: "Landlock: TCP", Detail: "no bind, no connect"}
	scopes := Measure{Name: "Landlock: abstract sockets and signals", Detail: "none beyond the process"}
	all := []*Measure{&files, &tcp, &scopes}

	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		for _, m := range all {
			m.Detail = fmt.Sprintf("the kernel has no Landlock: %v", err)
		}
		return []Measure{files, tcp, scopes}
	}
	// A rename from one directory to another inside the two needs "refer".
	dirs := landlock.RWDirs(v.DataDir, v.RunDir)
	if abi >= 2 {
		dirs = dirs.WithRefer()
	}
	if err := landlock.V9.BestEffort().Restrict(dirs); err != nil {
		for _, m := range all {
			m.Detail = err.Error()
		}
		return []Measure{files, tcp, scopes}
	}
	for m, since := range map[*Measure]int{&files: landlockFiles, &tcp: landlockTCP, &scopes: landlockScopes} {
		if m.Enforced = abi >= since; m.Enforced {
			m.Detail += fmt.Sprintf(" (ABI %d)", abi)
		} else {
			m.Detail = fmt.Sprintf("needs Landlock ABI %d, the kernel has %d", since, abi)
		}
	}
	return []Measure{files, tcp, scopes}
}
