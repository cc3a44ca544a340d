// Package admissiontest has what tests of admission plugins share.
package admissiontest

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

// Start gives the plugin a client and informers of a server with the objects, and waits
// until they are in sync.
func Start(t *testing.T, p admission.Interface, objects ...runtime.Object) *fake.Clientset {
	t.Helper()
	client := fake.NewSimpleClientset(objects...) // NewClientset is slow: it knows managed fields
	f := informers.NewSharedInformerFactory(client, 0)
	if w, ok := p.(initializer.WantsExternalKubeClientSet); ok {
		w.SetExternalKubeClientSet(client)
	}
	if w, ok := p.(initializer.WantsExternalKubeInformerFactory); ok {
		w.SetExternalKubeInformerFactory(f)
	}
	if err := admission.ValidateInitialization(p); err != nil {
		t.Fatal(err)
	}
	f.Start(t.Context().Done())
	f.WaitForCacheSync(t.Context().Done())
	return client
}

// Request is a request for an object of version v1.
type Request struct {
	// Resource is group/resource/subresource.
	Resource string
	Kind     string
	// Object is created, or, when Old is there, written in its place.
	Object, Old runtime.Object
	DryRun      bool
	User        string
}

// Attributes of the request.
func (r Request) Attributes(t *testing.T) admission.Attributes {
	t.Helper()
	f := strings.Split(r.Resource+"//", "/")
	op := admission.Create
	if r.Old != nil {
		op = admission.Update
	}
	m, err := meta.Accessor(r.Object)
	if err != nil {
		t.Fatal(err)
	}
	gv := schema.GroupVersion{Group: f[0], Version: "v1"}
	return admission.NewAttributesRecord(r.Object, r.Old, gv.WithKind(r.Kind), m.GetNamespace(), m.GetName(), gv.WithResource(f[1]), f[2], op, nil, r.DryRun, &user.DefaultInfo{Name: r.User})
}

// Run returns what the plugin says to the request, first as it changes objects and then as it checks them.
func Run(t *testing.T, p admission.Interface, a admission.Attributes) error {
	t.Helper()
	if !p.Handles(a.GetOperation()) {
		return nil
	}
	if m, ok := p.(admission.MutationInterface); ok {
		if err := m.Admit(t.Context(), a, nil); err != nil {
			return err
		}
	}
	if v, ok := p.(admission.ValidationInterface); ok {
		return v.Validate(t.Context(), a, nil)
	}
	return nil
}

// Check compares an error with a part of what it should say; "" wants none.
func Check(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Error(err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("error %v, want %q", err, want)
	}
}
