// Package validatingadmissionpolicy serves admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy.
package validatingadmissionpolicy

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

type policy = admissionregistrationv1.ValidatingAdmissionPolicy

// Storage returns the storage of validatingadmissionpolicies and validatingadmissionpolicies/status. Who
// writes a policy must be allowed to read its parameters.
func Storage(o generic.Options, guard *params.Guard) (generic.Storage, error) {
	r := resource
	r.Validate = func(ctx context.Context, p *policy) field.ErrorList {
		errs := admissionregistration.ValidateValidatingAdmissionPolicy(p)
		if len(errs) > 0 {
			return errs
		}
		return guard.Kind(ctx, p.Spec.ParamKind)
	}
	r.ValidateUpdate = func(ctx context.Context, p, old *policy) field.ErrorList {
		errs := admissionregistration.ValidateValidatingAdmissionPolicyUpdate(p, old)
		if len(errs) > 0 || equality.Semantic.DeepEqual(p.Spec.ParamKind, old.Spec.ParamKind) {
			return errs
		}
		return guard.Kind(ctx, p.Spec.ParamKind)
	}
	s, err := generic.NewStore(r, o)
	if err != nil {
		return nil, err
	}
	return generic.Storage{
		r.Name: s,
		r.Name + "/status": s.Status(generic.Update[*policy]{
			Prepare: func(_ context.Context, p, old *policy) {
				metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
			},
			ResetFields: []string{"metadata"},
			Validate:    generic.CheckUpdate(admissionregistration.ValidateValidatingAdmissionPolicyStatusUpdate),
		}),
	}, nil
}

var resource = generic.Resource[*policy]{
	GroupVersion:  admissionregistrationv1.SchemeGroupVersion,
	Name:          "validatingadmissionpolicies",
	Singular:      "validatingadmissionpolicy",
	Categories:    []string{"api-extensions"},
	ClusterScoped: true,
	New:           func() *policy { return &policy{} },
	NewList:       func() runtime.Object { return &admissionregistrationv1.ValidatingAdmissionPolicyList{} },

	HasStatus:              true,
	Generation:             generic.SpecChanged[*policy],
	RequireResourceVersion: true,

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Validations", "integer", "Validations indicates the number of validation rules defined in this configuration"),
		generic.Column("ParamKind", "string", "ParamKind specifies the kind of resources used to parameterize this policy"),
		generic.AgeColumn,
	},
	Cells: func(p *policy) []any {
		return []any{p.Name, int64(len(p.Spec.Validations)), params.PrintKind(p.Spec.ParamKind), generic.Age(p.CreationTimestamp)}
	},
}
