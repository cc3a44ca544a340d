package apps

import (
	"encoding/json"

	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// ValidateControllerRevision says what is wrong with a new ControllerRevision.
func ValidateControllerRevision(r *appsv1.ControllerRevision) field.ErrorList {
	errs := rules.Namespaced(&r.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	if len(r.Data.Raw) == 0 && r.Data.Object == nil {
		errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
	}
	var object map[string]any
	if len(r.Data.Raw) > 0 && json.Unmarshal(r.Data.Raw, &object) != nil {
		errs = append(errs, field.Required(field.NewPath("data"), "data must be a valid JSON object"))
	}
	return append(errs, rules.NonNegative(r.Revision, field.NewPath("revision"))...)
}

// ValidateControllerRevisionUpdate says what is wrong with an update of a ControllerRevision.
func ValidateControllerRevisionUpdate(r, old *appsv1.ControllerRevision) field.ErrorList {
	errs := rules.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, rules.Namespaced(&r.ObjectMeta, apivalidation.NameIsDNSSubdomain)...)
	errs = append(errs, rules.NonNegative(r.Revision, field.NewPath("revision"))...)
	return append(errs, rules.Immutable(r.Data, old.Data, field.NewPath("data"))...)
}
