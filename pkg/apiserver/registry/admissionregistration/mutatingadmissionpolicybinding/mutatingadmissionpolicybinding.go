// Package mutatingadmissionpolicybinding serves admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding.
package mutatingadmissionpolicybinding

import (
	"context"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/admissionregistration"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/admissionregistration/params"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

type binding = admissionregistrationv1.MutatingAdmissionPolicyBinding

// Storage returns the storage of mutatingadmissionpolicybindings. Who binds a
// policy must be allowed to read the parameters that it names.
func Storage(o generic.Options, guard *params.Guard) (generic.Storage, error) {
	authorize := func(ctx context.Context, b *binding) field.ErrorList {
		return guard.Ref(ctx, b.Spec.PolicyName, b.Spec.ParamRef, func(ctx context.Context) (*admissionregistrationv1.ParamKind, error) {
			p, err := guard.Policies.MutatingAdmissionPolicy(ctx, b.Spec.PolicyName)
			if err != nil {
				return nil, err
			}
			return p.Spec.ParamKind, nil
		})
	}
	r := resource
	r.Validate = func(ctx context.Context, b *binding) field.ErrorList {
		errs := admissionregistration.ValidateMutatingAdmissionPolicyBinding(b)
		if len(errs) > 0 {
			return errs
		}
		return authorize(ctx, b)
	}
	r.ValidateUpdate = func(ctx context.Context, b, old *binding) field.ErrorList {
		errs := admissionregistration.ValidateMutatingAdmissionPolicyBindingUpdate(b, old)
		same := b.Spec.PolicyName == old.Spec.PolicyName && equality.Semantic.DeepEqual(b.Spec.ParamRef, old.Spec.ParamRef)
		if len(errs) > 0 || same {
			return errs
		}
		return authorize(ctx, b)
	}
	return generic.NewStorage(r, o)
}

var resource = generic.Resource[*binding]{
	GroupVersion:  admissionregistrationv1.SchemeGroupVersion,
	Name:          "mutatingadmissionpolicybindings",
	Singular:      "mutatingadmissionpolicybinding",
	Categories:    []string{"api-extensions"},
	ClusterScoped: true,
	New:           func() *binding { return &binding{} },
	NewList:       func() runtime.Object { return &admissionregistrationv1.MutatingAdmissionPolicyBindingList{} },

	Generation:             generic.SpecChanged[*binding],
	RequireResourceVersion: true,

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("PolicyName", "string", "PolicyName indicates the policy definition which the policy binding binded to"),
		generic.Column("ParamRef", "string", "ParamRef indicates the param resource which sets the configuration param"),
		generic.AgeColumn,
	},
	Cells: func(b *binding) []any {
		return []any{b.Name, b.Spec.PolicyName, params.PrintRef(b.Spec.ParamRef), generic.Age(b.CreationTimestamp)}
	},
}
