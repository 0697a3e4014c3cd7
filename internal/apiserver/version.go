package apiserver

import (
	"runtime"
	"runtime/debug"
	"strings"

	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/util/compatibility"
	basecompatibility "k8s.io/component-base/compatibility"
)

// effectiveVersion tells clients a Kubernetes version that they can compare.
// kubectl, Helm and Argo CD refuse to work with the v0.0.0 of an unstamped build.
type effectiveVersion struct {
	basecompatibility.EffectiveVersion
	info version.Info
}

func newEffectiveVersion(ours string) effectiveVersion {
	base := compatibility.DefaultBuildEffectiveVersion()
	kube := kubernetesVersion()
	v := effectiveVersion{EffectiveVersion: base, info: version.Info{
		GitVersion: kube, GoVersion: runtime.Version(), Compiler: runtime.Compiler,
		Platform: runtime.GOOS + "/" + runtime.GOARCH, GitTreeState: "clean",
	}}
	if major, rest, ok := strings.Cut(strings.TrimPrefix(kube, "v"), "."); ok {
		v.info.Major, v.info.Minor = major, strings.SplitN(rest, ".", 2)[0]
	}
	if ours = strings.TrimPrefix(ours, "v"); ours != "" {
		v.info.GitVersion += "+chancery." + buildMetadata(ours)
	}
	return v
}

// Info implements compatibility.EffectiveVersion.
func (v effectiveVersion) Info() *version.Info {
	info := v.info
	return &info
}

// kubernetesVersion is that of the libraries we are built with: v0.37.2 of
// k8s.io/apiserver is Kubernetes v1.37.2.
func kubernetesVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "k8s.io/apiserver" && strings.HasPrefix(m.Version, "v0.") {
				return "v1." + strings.TrimPrefix(m.Version, "v0.")
			}
		}
	}
	return "v1.37.2"
}

// buildMetadata keeps what semantic versions allow after a plus sign.
func buildMetadata(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, s)
}
