// Package validatingadmissionpolicy serves admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy.
package validatingadmissionpolicy

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/admissionregistration"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/admissionregistration/params"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

type policy = admissionregistrationv1.ValidatingAdmissionPolicy

// Storage returns the storage of validatingadmissionpolicies and validatingadmissionpolicies/status. Who
// writes a policy must be allowed to read its parameters.
func Storage(o generic.Options, guard *params.Guard) (generic.Storage, error) {
	return generic.NewStorage(params.Policy(guard, resource, func(p *policy) *admissionregistrationv1.ParamKind { return p.Spec.ParamKind }), o)
}

var resource = generic.Resource[*policy]{
	GroupVersion:  admissionregistrationv1.SchemeGroupVersion,
	Name:          "validatingadmissionpolicies",
	Categories:    []string{"api-extensions"},
	ClusterScoped: true,

	Status: &generic.Update[*policy]{
		KeepsMetadata: true,
		Validate:      generic.CheckUpdate(admissionregistration.ValidateValidatingAdmissionPolicyStatusUpdate),
	},

	Generation:             generic.SpecChanged[*policy],
	RequireResourceVersion: true,
	Validate:               generic.Check(admissionregistration.ValidateValidatingAdmissionPolicy),
	ValidateUpdate:         generic.CheckUpdate(admissionregistration.ValidateValidatingAdmissionPolicyUpdate),

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
