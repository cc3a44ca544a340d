// Package mutatingadmissionpolicybinding serves admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding.
package mutatingadmissionpolicybinding

import (
	"context"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/leme-k8s/leme/pkg/api/admissionregistration"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/admissionregistration/params"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

type binding = admissionregistrationv1.MutatingAdmissionPolicyBinding

// Storage returns the storage of mutatingadmissionpolicybindings. Who binds a
// policy must be allowed to read the parameters that it names.
func Storage(o generic.Options, guard *params.Guard) (generic.Storage, error) {
	named := func(b *binding) (string, *admissionregistrationv1.ParamRef) {
		return b.Spec.PolicyName, b.Spec.ParamRef
	}
	kind := func(ctx context.Context, policies params.Policies, name string) (*admissionregistrationv1.ParamKind, error) {
		p, err := policies.MutatingAdmissionPolicy(ctx, name)
		if err != nil {
			return nil, err
		}
		return p.Spec.ParamKind, nil
	}
	return generic.NewStorage(params.Binding(guard, resource, named, kind), o)
}

var resource = generic.Resource[*binding]{
	GroupVersion:  admissionregistrationv1.SchemeGroupVersion,
	Name:          "mutatingadmissionpolicybindings",
	Categories:    []string{"api-extensions"},
	ClusterScoped: true,

	Generation:             generic.SpecChanged[*binding],
	RequireResourceVersion: true,
	Validate:               generic.Check(admissionregistration.ValidateMutatingAdmissionPolicyBinding),
	ValidateUpdate:         generic.CheckUpdate(admissionregistration.ValidateMutatingAdmissionPolicyBindingUpdate),

	Columns: params.BindingColumns,
	Cells: func(b *binding) []any {
		return []any{b.Name, b.Spec.PolicyName, params.PrintRef(b.Spec.ParamRef), generic.Age(b.CreationTimestamp)}
	},
}
