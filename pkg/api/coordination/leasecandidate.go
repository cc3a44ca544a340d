package coordination

import (
	"slices"
	"strings"

	"github.com/blang/semver/v4"

	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

var (
	metaPath = field.NewPath("metadata")
	specPath = field.NewPath("spec")
)

// ValidateLeaseCandidate says what is wrong with a new LeaseCandidate.
func ValidateLeaseCandidate(c *coordinationv1beta1.LeaseCandidate) field.ErrorList {
	name := func(name string, _ bool) []string { return validation.IsConfigMapKey(name) }
	errs := apivalidation.ValidateObjectMeta(&c.ObjectMeta, true, name, metaPath) // any finalizer
	return append(errs, validateCandidateSpec(&c.Spec)...)
}

// ValidateLeaseCandidateUpdate says what is wrong with an update of a LeaseCandidate: it
// stays one for its lease.
func ValidateLeaseCandidateUpdate(c, old *coordinationv1beta1.LeaseCandidate) field.ErrorList {
	errs := apivalidation.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, metaPath)
	errs = append(errs, validateCandidateSpec(&c.Spec)...)
	return append(errs, rules.Immutable(c.Spec.LeaseName, old.Spec.LeaseName, specPath.Child("leaseName"))...)
}

func validateCandidateSpec(spec *coordinationv1beta1.LeaseCandidateSpec) field.ErrorList {
	var errs field.ErrorList
	required := func(name, value, detail string) {
		if value == "" {
			errs = append(errs, field.Required(specPath.Child(name), detail))
		}
	}
	version := func(name, value string) (v semver.Version) {
		if value == "" {
			return v
		}
		v, err := semver.Parse(value)
		if err != nil {
			errs = append(errs, field.Invalid(specPath.Child(name), value, "must be a valid semantic version"))
		}
		return v
	}
	required("leaseName", spec.LeaseName, "")
	emulated := version("emulationVersion", spec.EmulationVersion)
	required("binaryVersion", spec.BinaryVersion, "")
	binary := version("binaryVersion", spec.BinaryVersion)
	if spec.BinaryVersion != "" && spec.EmulationVersion != "" && binary.LT(emulated) {
		errs = append(errs, field.Invalid(specPath.Child("binaryVersion"), spec.BinaryVersion, "must be greater than or equal to `emulationVersion`"))
	}
	required("strategy", string(spec.Strategy), "")
	if spec.Strategy == coordinationv1.OldestEmulationVersion && emulated.EQ(semver.Version{}) {
		errs = append(errs, field.Required(specPath.Child("emulationVersion"), "must be specified when `strategy` is 'OldestEmulationVersion'"))
	}
	return append(errs, validateStrategy(spec.Strategy)...)
}

// validateStrategy checks one of Kubernetes' own strategies, or one with a domain.
func validateStrategy(strategy coordinationv1.CoordinatedLeaseStrategy) field.ErrorList {
	// The original says the name of the field twice.
	p, own := specPath.Child("strategy", "strategy"), []coordinationv1.CoordinatedLeaseStrategy{coordinationv1.OldestEmulationVersion}
	switch {
	case strategy == "" || slices.Contains(own, strategy):
		return nil
	case !strings.Contains(string(strategy), "/"):
		return field.ErrorList{field.NotSupported(p, strategy, own)}
	}
	return rules.Messages(p, strategy, validation.IsQualifiedName(string(strategy)))
}
