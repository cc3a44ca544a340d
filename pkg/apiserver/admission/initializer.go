package admission

import (
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/reviews"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/served"
)

// ownInitializer gives plugins what is the same for every kube-apiserver.
type ownInitializer struct{ d Dependencies }

func (i ownInitializer) Initialize(p admission.Interface) {
	if w, ok := p.(served.Wants); ok {
		w.SetServed(i.d.Serves)
	}
	if w, ok := p.(initializer.WantsExcludedAdmissionResources); ok {
		w.SetExcludedAdmissionResources(reviews.Resources())
	}
	if w, ok := p.(initializer.WantsManifestLoaders); ok {
		w.SetManifestLoaders(manifestLoaders(i.d.Scheme))
	}
}
