package scheduling

import (
	"slices"

	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// The feature gates that fields of Workloads and groups depend on.
const (
	CompositePodGroupFeature = "CompositePodGroup"
	ResourceClaimsFeature    = "DRAWorkloadResourceClaims"
	PreemptionPolicyFeature  = "PodGroupPreemptionPolicy"
	TopologyFeature          = "TopologyAwareWorkloadScheduling"
)

// Features says of these features whether they are on.
type Features map[string]bool

var (
	specPath   = field.NewPath("spec")
	statusPath = field.NewPath("status")
)

func setPodGroup(g *schedulingv1alpha3.PodGroup) {
	rules.SetPtr(&g.Spec.DisruptionMode, schedulingv1alpha3.DisruptionMode{Single: &schedulingv1alpha3.SingleDisruptionMode{}})
}

func setCompositePodGroup(g *schedulingv1alpha3.CompositePodGroup) {
	rules.SetPtr(&g.Spec.DisruptionMode, schedulingv1alpha3.CompositeDisruptionMode{Single: &schedulingv1alpha3.SingleCompositeDisruptionMode{}})
}

// AddPreemptionDefaults registers the defaults of groups where they have policies of preemption:
// the feature PreemptionPolicyFeature.
func AddPreemptionDefaults(s *runtime.Scheme) {
	rules.Default(s, func(g *schedulingv1alpha3.PodGroup) {
		setPodGroup(g)
		rules.SetPtr(&g.Spec.PreemptionPolicy, schedulingv1alpha3.PreemptLowerPriority)
	})
	rules.Default(s, func(g *schedulingv1alpha3.CompositePodGroup) {
		setCompositePodGroup(g)
		rules.SetPtr(&g.Spec.PreemptionPolicy, schedulingv1alpha3.PreemptLowerPriority)
	})
}

// ValidateWorkload says what is wrong with a new Workload.
func (f Features) ValidateWorkload(w *schedulingv1alpha3.Workload) field.ErrorList {
	errs := append(rules.Namespaced(&w.ObjectMeta, apivalidation.NameIsDNSSubdomain), validateTemplates(&w.Spec)...)
	return append(errs, rules.Declared(schedulingv1alpha3.Validate_Workload, nil, w, nil, f)...)
}

// ValidateWorkloadUpdate says what is wrong with an update of a Workload.
func (f Features) ValidateWorkloadUpdate(w, old *schedulingv1alpha3.Workload) field.ErrorList {
	errs := append(rules.MetaUpdate(&w.ObjectMeta, &old.ObjectMeta), validateTemplates(&w.Spec)...)
	return append(errs, rules.Declared(schedulingv1alpha3.Validate_Workload, nil, w, old, f)...)
}

// validateTemplates says what is wrong with a Workload's tree of templates as a whole.
func validateTemplates(s *schedulingv1alpha3.WorkloadSpec) field.ErrorList {
	var errs field.ErrorList
	names := templateNames{seen: map[string]bool{}}
	names.check(s.PodGroupTemplates, s.CompositePodGroupTemplates, specPath)
	errs = append(errs, names.errs...)
	composites := specPath.Child("compositePodGroupTemplates")
	for i := range s.CompositePodGroupTemplates {
		if c := &s.CompositePodGroupTemplates[i]; depth(c) >= schedulingv1alpha3.WorkloadMaxTreeDepth {
			errs = append(errs, field.Invalid(composites.Index(i), c.CompositePodGroupTemplates, "maximum template hierarchy depth is 4"))
		}
	}
	errs = append(errs, samePriority(s)...)
	return append(errs, childless(s.CompositePodGroupTemplates, composites)...)
}

// templateNames looks for templates of a Workload with the same name. Two in one list are not
// its affair: the rules of the list refuse them.
type templateNames struct {
	seen map[string]bool
	errs field.ErrorList
}

func (t *templateNames) check(groups []schedulingv1alpha3.PodGroupTemplate, composites []schedulingv1alpha3.CompositePodGroupTemplate, p *field.Path) {
	list := func(length int, name func(int) string, p *field.Path) {
		for i := range length {
			if n := name(i); t.seen[n] {
				t.errs = append(t.errs, field.Duplicate(p.Index(i).Child("name"), n))
			}
		}
		for i := range length {
			t.seen[name(i)] = true
		}
	}
	below := p.Child("compositePodGroupTemplates")
	list(len(groups), func(i int) string { return groups[i].Name }, p.Child("podGroupTemplates"))
	list(len(composites), func(i int) string { return composites[i].Name }, below)
	for i, c := range composites {
		t.check(c.PodGroupTemplates, c.CompositePodGroupTemplates, below.Index(i))
	}
}

// depth is how many levels of composite templates there are from c downwards.
func depth(c *schedulingv1alpha3.CompositePodGroupTemplate) int {
	below := 0
	for i := range c.CompositePodGroupTemplates {
		below = max(below, depth(&c.CompositePodGroupTemplates[i]))
	}
	return 1 + below
}

// priority is a class and a number, if one is given.
type priority struct {
	class string
	given bool
	value int32
}

func priorityOf(class string, value *int32) priority {
	if value == nil {
		return priority{class: class}
	}
	return priority{class, true, *value}
}

// samePriority wants all templates to have the same priority.
func samePriority(s *schedulingv1alpha3.WorkloadSpec) field.ErrorList {
	var all []priority
	groups := func(templates []schedulingv1alpha3.PodGroupTemplate) {
		for _, t := range templates {
			all = append(all, priorityOf(t.PriorityClassName, t.Priority))
		}
	}
	differ := func() bool { return slices.ContainsFunc(all, func(p priority) bool { return p != all[0] }) }
	groups(s.PodGroupTemplates)
	if differ() {
		return field.ErrorList{field.Invalid(specPath, nil, "detected multiple priority configurations")}
	}
	var composites func([]schedulingv1alpha3.CompositePodGroupTemplate)
	composites = func(templates []schedulingv1alpha3.CompositePodGroupTemplate) {
		for _, t := range templates {
			all = append(all, priorityOf(t.PriorityClassName, t.Priority))
			composites(t.CompositePodGroupTemplates)
			groups(t.PodGroupTemplates)
		}
	}
	composites(s.CompositePodGroupTemplates)
	if differ() {
		return field.ErrorList{field.Invalid(specPath, nil, "all priority and priorityClassName values must be identical, detected multiple values")}
	}
	return nil
}

// childless refuses composite templates with nothing below them.
func childless(templates []schedulingv1alpha3.CompositePodGroupTemplate, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, t := range templates {
		if len(t.PodGroupTemplates) == 0 && len(t.CompositePodGroupTemplates) == 0 {
			errs = append(errs, field.Invalid(p.Index(i), t.Name, "must have at least one child PodGroupTemplate or CompositePodGroupTemplate"))
		}
		errs = append(errs, childless(t.CompositePodGroupTemplates, p.Index(i).Child("compositePodGroupTemplates"))...)
	}
	return errs
}

// ValidatePodGroup says what is wrong with a new PodGroup.
func (f Features) ValidatePodGroup(g *schedulingv1alpha3.PodGroup) field.ErrorList {
	errs := rules.Namespaced(&g.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	if g.Spec.ParentCompositePodGroupName != nil && g.Spec.WorkloadRef == nil {
		errs = append(errs, field.Required(specPath.Child("workloadRef"), "must be set when parentCompositePodGroupName is set"))
	}
	return append(errs, rules.Declared(schedulingv1alpha3.Validate_PodGroup, nil, g, nil, f)...)
}

// ValidatePodGroupUpdate says what is wrong with an update of a PodGroup.
func (f Features) ValidatePodGroupUpdate(g, old *schedulingv1alpha3.PodGroup) field.ErrorList {
	return append(rules.MetaUpdate(&g.ObjectMeta, &old.ObjectMeta), rules.Declared(schedulingv1alpha3.Validate_PodGroup, nil, g, old, f)...)
}

// ValidatePodGroupStatusUpdate says what is wrong with an update of the status of a PodGroup.
func (f Features) ValidatePodGroupStatusUpdate(g, old *schedulingv1alpha3.PodGroup) field.ErrorList {
	errs := rules.MetaUpdate(&g.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, metavalidation.ValidateConditions(g.Status.Conditions, statusPath.Child("conditions"))...)
	for i, s := range g.Status.ResourceClaimStatuses {
		if !slices.ContainsFunc(g.Spec.ResourceClaims, func(c schedulingv1alpha3.PodGroupResourceClaim) bool { return c.Name == s.Name }) {
			errs = append(errs, field.Invalid(statusPath.Child("resourceClaimStatuses").Index(i).Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
	}
	return append(errs, rules.Declared(schedulingv1alpha3.Validate_PodGroup, nil, g, old, f)...)
}

// ValidateCompositePodGroup says what is wrong with a new CompositePodGroup.
func (f Features) ValidateCompositePodGroup(g *schedulingv1alpha3.CompositePodGroup) field.ErrorList {
	errs := rules.Namespaced(&g.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, rules.Declared(schedulingv1alpha3.Validate_CompositePodGroup, nil, g, nil, f)...)
}

// ValidateCompositePodGroupUpdate says what is wrong with an update of a CompositePodGroup.
func (f Features) ValidateCompositePodGroupUpdate(g, old *schedulingv1alpha3.CompositePodGroup) field.ErrorList {
	return append(rules.MetaUpdate(&g.ObjectMeta, &old.ObjectMeta), rules.Declared(schedulingv1alpha3.Validate_CompositePodGroup, nil, g, old, f)...)
}

// ValidateCompositePodGroupStatusUpdate says what is wrong with an update of the status of a CompositePodGroup.
func (f Features) ValidateCompositePodGroupStatusUpdate(g, old *schedulingv1alpha3.CompositePodGroup) field.ErrorList {
	errs := rules.MetaUpdate(&g.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, metavalidation.ValidateConditions(g.Status.Conditions, statusPath.Child("conditions"))...)
	return append(errs, rules.Declared(schedulingv1alpha3.Validate_CompositePodGroup, nil, g, old, f)...)
}
