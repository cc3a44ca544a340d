package apiserver

import (
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/component-base/compatibility"

	"github.com/leme-k8s/leme/pkg/component"
)

// reportedVersion is a version whose /version says what this server implements,
// whatever the build stamped on the binary it is part of.
type reportedVersion struct{ compatibility.EffectiveVersion }

// Info implements compatibility.EffectiveVersion.
func (v reportedVersion) Info() *apiversion.Info {
	info := v.EffectiveVersion.Info()
	info.GitVersion = "v" + component.Version
	if info.GitTreeState == "" {
		info.GitTreeState = "clean"
	}
	return info
}
