// Package scheduling knows what is true of the kinds of scheduling.k8s.io
// wherever they are handled: their defaults ([AddDefaults]), what makes them
// invalid (the Validate functions), which fields belong to features that are
// off, and the classes that every cluster has.
package scheduling

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	// HighestUserPriority is the greatest value that a class of a user can have.
	HighestUserPriority int32 = 1_000_000_000
	// SystemPriority is the value from which on a class belongs to the system.
	SystemPriority = 2 * HighestUserPriority

	// SystemClusterCritical and SystemNodeCritical name the classes of the system.
	SystemClusterCritical = "system-cluster-critical"
	SystemNodeCritical    = "system-node-critical"

	systemPrefix = "system-"
)

// SystemPriorityClasses returns the classes that every cluster has.
func SystemPriorityClasses() []*schedulingv1.PriorityClass {
	class := func(name string, value int32, description string) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{
			ObjectMeta:       metav1.ObjectMeta{Name: name},
			Value:            value,
			Description:      description,
			PreemptionPolicy: ptr.To(corev1.PreemptLowerPriority),
		}
	}
	return []*schedulingv1.PriorityClass{
		class(SystemNodeCritical, SystemPriority+1000, "Used for system critical pods that must not be moved from their current node."),
		class(SystemClusterCritical, SystemPriority, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
	}
}

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, func(c *schedulingv1.PriorityClass) {
		rules.SetPtr(&c.PreemptionPolicy, corev1.PreemptLowerPriority)
	})
	rules.Default(s, setPodGroup)
	rules.Default(s, setCompositePodGroup)
	return nil
}

// ValidatePriorityClass says what is wrong with a new PriorityClass.
func ValidatePriorityClass(c *schedulingv1.PriorityClass) field.ErrorList {
	errs := rules.ClusterScoped(&c.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	switch {
	case strings.HasPrefix(c.Name, systemPrefix):
		if err := checkSystem(c); err != nil {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"),
				"priority class names with '"+systemPrefix+"' prefix are reserved for system use only. error: "+err.Error()))
		}
	case c.Value > HighestUserPriority:
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", HighestUserPriority)))
	}
	switch {
	case c.PreemptionPolicy == nil:
	case *c.PreemptionPolicy == "":
		errs = append(errs, field.Required(field.NewPath("preemptionPolicy"), ""))
	default:
		errs = append(errs, rules.OneOf(*c.PreemptionPolicy, field.NewPath("preemptionPolicy"), corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	return errs
}

// checkSystem reports how c differs from the class of the system with its name.
func checkSystem(c *schedulingv1.PriorityClass) error {
	for _, known := range SystemPriorityClasses() {
		switch {
		case known.Name != c.Name:
			continue
		case known.Value != c.Value:
			return fmt.Errorf("value of %v PriorityClass must be %v", known.Name, known.Value)
		case known.GlobalDefault != c.GlobalDefault:
			return fmt.Errorf("globalDefault of %v PriorityClass must be %v", known.Name, known.GlobalDefault)
		}
		return nil
	}
	return fmt.Errorf("%v is not a known system priority class", c.Name)
}

// ValidatePriorityClassUpdate says what is wrong with an update of a PriorityClass.
func ValidatePriorityClassUpdate(c, old *schedulingv1.PriorityClass) field.ErrorList {
	errs := rules.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	if c.Value != old.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	return append(errs, rules.Immutable(c.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}
