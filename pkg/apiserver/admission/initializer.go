package admission

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/served"
)

// ownInitializer gives plugins what is the same for every kube-apiserver.
type ownInitializer struct{ d Dependencies }

func (i ownInitializer) Initialize(p admission.Interface) {
	if w, ok := p.(served.Wants); ok {
		w.SetServed(i.d.Serves)
	}
	if w, ok := p.(initializer.WantsExcludedAdmissionResources); ok {
		w.SetExcludedAdmissionResources(excluded())
	}
}

// excluded are the questions to the server about itself, which webhooks and
// policies must not be able to answer or to forbid.
func excluded() []schema.GroupResource {
	return []schema.GroupResource{
		{Group: authenticationv1.GroupName, Resource: "selfsubjectreviews"},
		{Group: authenticationv1.GroupName, Resource: "tokenreviews"},
		{Group: authorizationv1.GroupName, Resource: "localsubjectaccessreviews"},
		{Group: authorizationv1.GroupName, Resource: "selfsubjectaccessreviews"},
		{Group: authorizationv1.GroupName, Resource: "selfsubjectrulesreviews"},
		{Group: authorizationv1.GroupName, Resource: "subjectaccessreviews"},
	}
}
