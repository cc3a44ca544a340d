// Package storagemigration knows what is true of the kinds of storagemigration.k8s.io/v1
// wherever they are handled: what makes them invalid (the Validate functions). They
// have no defaults.
package storagemigration

import (
	"strings"

	migrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

var (
	metaPath = field.NewPath("metadata")
	specPath = field.NewPath("spec")
)

// ValidateStorageVersionMigration says what is wrong with a new StorageVersionMigration.
func ValidateStorageVersionMigration(m *migrationv1.StorageVersionMigration) field.ErrorList {
	errs := core.ValidateObjectMeta(&m.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, metaPath)
	p, r := specPath.Child("resource"), m.Spec.Resource
	if r.Resource == "" {
		errs = append(errs, field.Required(p.Child("resource"), "resource is required to be set"))
	} else if messages := validation.IsDNS1035Label(r.Resource); len(messages) > 0 {
		errs = append(errs, field.Invalid(p.Child("resource"), r.Resource, strings.Join(messages, ",")))
	}
	if messages := validation.IsDNS1123Subdomain(r.Group); r.Group != "" && len(messages) > 0 {
		errs = append(errs, field.Invalid(p.Child("group"), r.Group, strings.Join(messages, ",")))
	}
	return errs
}

// ValidateStorageVersionMigrationUpdate says what is wrong with an update of a
// StorageVersionMigration: what is migrated stays.
func ValidateStorageVersionMigrationUpdate(m, old *migrationv1.StorageVersionMigration) field.ErrorList {
	errs := ValidateStorageVersionMigration(m)
	errs = append(errs, core.ValidateObjectMetaUpdate(&m.ObjectMeta, &old.ObjectMeta, metaPath)...)
	return append(errs, rules.Immutable(m.Spec, old.Spec, specPath)...)
}

// ValidateStorageVersionMigrationStatusUpdate says what is wrong with an update of the
// status of a StorageVersionMigration: where it began, and how it ended, stay.
func ValidateStorageVersionMigrationStatusUpdate(m, old *migrationv1.StorageVersionMigration) field.ErrorList {
	errs := core.ValidateObjectMetaUpdate(&m.ObjectMeta, &old.ObjectMeta, metaPath)
	p, conditions := field.NewPath("status"), m.Status.Conditions
	refuse := func(name string, value any, bad bool, detail string) {
		if bad {
			errs = append(errs, field.Invalid(p.Child(name), value, detail))
		}
	}
	version, before := m.Status.ResourceVersion, old.Status.ResourceVersion
	if version != "" {
		if _, err := resourceversion.CompareResourceVersion(version, version); err != nil {
			refuse("resourceVersion", version, true, err.Error())
		}
	}
	errs = append(errs, metavalidation.ValidateConditions(conditions, p.Child("conditions"))...)
	refuse("resourceVersion", version, before != "" && version != before, "field is immutable")
	succeeded, failed := has(conditions, migrationv1.MigrationSucceeded), has(conditions, migrationv1.MigrationFailed)
	refuse("conditions", conditions, succeeded && failed, "Both success and failed conditions cannot be true at the same time")
	refuse("conditions", conditions, has(old.Status.Conditions, migrationv1.MigrationSucceeded) && !succeeded, "Success condition cannot be set to false once it is true")
	refuse("conditions", conditions, has(old.Status.Conditions, migrationv1.MigrationFailed) && !failed, "Failed condition cannot be set to false once it is true")
	return errs
}

func has(conditions []metav1.Condition, t migrationv1.MigrationConditionType) bool {
	return meta.IsStatusConditionTrue(conditions, string(t))
}
