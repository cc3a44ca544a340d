package config

import (
	"errors"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	nodeaffinityhelper "k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"github.com/leme-k8s/leme/pkg/scheduler/plugins/defaultpreemption"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/dynamicresources"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/interpodaffinity"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/nodeaffinity"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/noderesources"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/podtopologyspread"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/volumebinding"
)

// setArgs gives each plugin that takes arguments those that the profile leaves out.
func setArgs(p *configv1.KubeSchedulerProfile) {
	for _, d := range []struct {
		name string
		make func() runtime.Object
	}{
		{nodeaffinity.Name, func() runtime.Object { return &configv1.NodeAffinityArgs{} }},
		{noderesources.FitName, func() runtime.Object { return &configv1.NodeResourcesFitArgs{} }},
		{noderesources.BalancedName, func() runtime.Object { return &configv1.NodeResourcesBalancedAllocationArgs{} }},
		{defaultpreemption.Name, func() runtime.Object { return &configv1.DefaultPreemptionArgs{} }},
		{interpodaffinity.Name, func() runtime.Object { return &configv1.InterPodAffinityArgs{} }},
		{volumebinding.Name, func() runtime.Object { return &configv1.VolumeBindingArgs{} }},
		{dynamicresources.Name, func() runtime.Object { return &configv1.DynamicResourcesArgs{} }},
		{podtopologyspread.Name, func() runtime.Object { return &configv1.PodTopologySpreadArgs{} }},
	} {
		i := slices.IndexFunc(p.PluginConfig, func(c configv1.PluginConfig) bool { return c.Name == d.name })
		if i < 0 {
			i = len(p.PluginConfig)
			p.PluginConfig = append(p.PluginConfig, configv1.PluginConfig{Name: d.name})
		}
		if p.PluginConfig[i].Args.Object == nil {
			p.PluginConfig[i].Args.Object = d.make()
		}
		switch args := p.PluginConfig[i].Args.Object.(type) {
		case *configv1.NodeResourcesFitArgs:
			if args.ScoringStrategy == nil {
				args.ScoringStrategy = &configv1.ScoringStrategy{Type: configv1.LeastAllocated}
			}
			setResources(&args.ScoringStrategy.Resources)
		case *configv1.NodeResourcesBalancedAllocationArgs:
			setResources(&args.Resources)
		case *configv1.DefaultPreemptionArgs:
			set(&args.MinCandidateNodesPercentage, 10)
			set(&args.MinCandidateNodesAbsolute, 100)
		case *configv1.InterPodAffinityArgs:
			set(&args.HardPodAffinityWeight, 1)
		case *configv1.VolumeBindingArgs:
			set(&args.BindTimeoutSeconds, 600)
			if len(args.Shape) == 0 {
				args.Shape = []configv1.UtilizationShapePoint{{Utilization: 0, Score: 10}, {Utilization: 100, Score: 0}}
			}
		case *configv1.DynamicResourcesArgs:
			set(&args.FilterTimeout, metav1.Duration{Duration: 10 * time.Second})
			set(&args.BindingTimeout, metav1.Duration{Duration: 10 * time.Minute})
		case *configv1.PodTopologySpreadArgs:
			setValue(&args.DefaultingType, configv1.SystemDefaulting)
		}
	}
}

func setResources(list *[]configv1.ResourceSpec) {
	if len(*list) == 0 {
		*list = []configv1.ResourceSpec{{Name: "cpu"}, {Name: "memory"}}
	}
	for i := range *list {
		setValue(&(*list)[i].Weight, 1)
	}
}

func validateArgs(list []configv1.PluginConfig, path *field.Path, known sets.Set[string]) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i := range list {
		c, at := &list[i], path.Index(i)
		if !known.Has(c.Name) {
			errs = append(errs, field.NotSupported(at.Child("name"), c.Name, sets.List(known)))
		}
		if seen.Has(c.Name) {
			errs = append(errs, field.Duplicate(at, c.Name))
		}
		seen.Insert(c.Name)
		switch args := c.Args.Object.(type) {
		case *configv1.NodeResourcesFitArgs:
			errs = append(errs, validateFit(args, at.Child("args"))...)
		case *configv1.NodeResourcesBalancedAllocationArgs:
			errs = append(errs, validateBalanced(args.Resources, at.Child("args", "resources"))...)
		case *configv1.NodeAffinityArgs:
			errs = append(errs, validateAddedAffinity(args.AddedAffinity, at.Child("args", "addedAffinity"))...)
		case *configv1.DefaultPreemptionArgs:
			errs = append(errs, validatePreemption(args, at.Child("args"))...)
		case *configv1.InterPodAffinityArgs:
			if w := *args.HardPodAffinityWeight; w < 0 || w > 100 {
				errs = append(errs, field.Invalid(at.Child("args", "hardPodAffinityWeight"), w, "not in valid range [0-100]"))
			}
		case *configv1.VolumeBindingArgs:
			if t := *args.BindTimeoutSeconds; t < 0 {
				errs = append(errs, field.Invalid(at.Child("args", "bindTimeoutSeconds"), t, "should not be a negative value"))
			}
			errs = append(errs, validateShape(args.Shape, at.Child("args", "shape"))...)
		case *configv1.DynamicResourcesArgs:
			if args.FilterTimeout.Duration < 0 {
				errs = append(errs, field.Invalid(at.Child("args", "filterTimeout"), args.FilterTimeout.Duration.String(), "must be zero or positive"))
			}
			if args.BindingTimeout.Duration < time.Second {
				errs = append(errs, field.Invalid(at.Child("args", "bindingTimeout"), args.BindingTimeout.Duration.String(), "must be at least 1 second"))
			}
		case *configv1.PodTopologySpreadArgs:
			errs = append(errs, validateSpread(args, at.Child("args"))...)
		}
	}
	return errs
}

func validateFit(args *configv1.NodeResourcesFitArgs, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range args.IgnoredResources {
		errs = append(errs, metav1validation.ValidateLabelName(name, path.Child("ignoredResources").Index(i))...)
	}
	for i, group := range args.IgnoredResourceGroups {
		at := path.Child("ignoredResourceGroups").Index(i)
		if strings.Contains(group, "/") {
			errs = append(errs, field.Invalid(at, group, "resource group name can't contain '/'"))
		}
		errs = append(errs, metav1validation.ValidateLabelName(group, at)...)
	}
	return append(errs, validateStrategy(args.ScoringStrategy, path.Child("scoringStrategy"))...)
}

func validateBalanced(list []configv1.ResourceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, r := range list {
		if seen.Has(r.Name) {
			errs = append(errs, field.Duplicate(path.Index(i).Child("name"), r.Name))
		}
		seen.Insert(r.Name)
		if r.Weight != 1 {
			errs = append(errs, field.Invalid(path.Index(i).Child("weight"), r.Weight, "must be 1"))
		}
	}
	return errs
}

func validateAddedAffinity(a *corev1.NodeAffinity, path *field.Path) field.ErrorList {
	if a == nil {
		return nil
	}
	var errs field.ErrorList
	if r := a.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		at := path.Child("requiredDuringSchedulingIgnoredDuringExecution")
		if _, err := nodeaffinityhelper.NewNodeSelector(r, field.WithPath(at)); err != nil {
			errs = append(errs, fieldErrors(err, at)...)
		}
	}
	if r := a.PreferredDuringSchedulingIgnoredDuringExecution; len(r) > 0 {
		at := path.Child("preferredDuringSchedulingIgnoredDuringExecution")
		if _, err := nodeaffinityhelper.NewPreferredSchedulingTerms(r, field.WithPath(at)); err != nil {
			errs = append(errs, fieldErrors(err, at)...)
		}
	}
	return errs
}

// fieldErrors finds the errors about fields in an error of the published helpers.
func fieldErrors(err error, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	all := []error{err}
	var several utilerrors.Aggregate
	if errors.As(err, &several) {
		all = utilerrors.Flatten(several).Errors()
	}
	for _, err := range all {
		var one *field.Error
		if !errors.As(err, &one) {
			one = field.Invalid(path, nil, err.Error())
		}
		errs = append(errs, one)
	}
	return errs
}

func validatePreemption(args *configv1.DefaultPreemptionArgs, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	percentage, absolute := *args.MinCandidateNodesPercentage, *args.MinCandidateNodesAbsolute
	if percentage < 0 || percentage > 100 {
		errs = append(errs, field.Invalid(path.Child("minCandidateNodesPercentage"), percentage, "not in valid range [0, 100]"))
	}
	if absolute < 0 {
		errs = append(errs, field.Invalid(path.Child("minCandidateNodesAbsolute"), absolute, "not in valid range [0, inf)"))
	}
	if percentage == 0 && absolute == 0 {
		errs = append(errs, field.Invalid(path.Child("minCandidateNodesPercentage"), percentage, "cannot be zero at the same time as minCandidateNodesAbsolute"))
	}
	return errs
}

func validateSpread(args *configv1.PodTopologySpreadArgs, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	types := []configv1.PodTopologySpreadConstraintsDefaulting{configv1.SystemDefaulting, configv1.ListDefaulting}
	if !slices.Contains(types, args.DefaultingType) {
		errs = append(errs, field.NotSupported(path.Child("defaultingType"), args.DefaultingType, types))
	} else if args.DefaultingType == configv1.SystemDefaulting && len(args.DefaultConstraints) > 0 {
		errs = append(errs, field.Invalid(path.Child("defaultingType"), args.DefaultingType, "when .defaultConstraints are not empty"))
	}
	for i, c := range args.DefaultConstraints {
		at := path.Child("defaultConstraints").Index(i)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(at.Child("maxSkew"), c.MaxSkew, "not in valid range (0, inf)"))
		}
		if c.TopologyKey == "" {
			errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
		} else {
			errs = append(errs, metav1validation.ValidateLabelName(c.TopologyKey, at.Child("topologyKey"))...)
		}
		actions := []corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}
		if c.WhenUnsatisfiable == "" {
			errs = append(errs, field.Required(at.Child("whenUnsatisfiable"), "can not be empty"))
		} else if !slices.Contains(actions, c.WhenUnsatisfiable) {
			errs = append(errs, field.NotSupported(at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, actions))
		}
		if c.LabelSelector != nil {
			errs = append(errs, field.Forbidden(at.Child("labelSelector"), "constraint must not define a selector, as they deduced for each pod"))
		}
		if slices.ContainsFunc(args.DefaultConstraints[:i], func(other corev1.TopologySpreadConstraint) bool {
			return other.TopologyKey == c.TopologyKey && other.WhenUnsatisfiable == c.WhenUnsatisfiable
		}) {
			errs = append(errs, field.Duplicate(at, "{"+c.TopologyKey+", "+string(c.WhenUnsatisfiable)+"}"))
		}
	}
	return errs
}

func validateResources(list []configv1.ResourceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, r := range list {
		if r.Name == "" {
			errs = append(errs, field.Required(path.Index(i).Child("name"), ""))
		}
		if r.Weight < 1 || r.Weight > 100 {
			errs = append(errs, field.Invalid(path.Index(i).Child("weight"), r.Weight, "resource weight not in valid range [1, 100]"))
		}
	}
	return errs
}

func validateStrategy(s *configv1.ScoringStrategy, path *field.Path) field.ErrorList {
	errs := validateResources(s.Resources, path.Child("resources"))
	switch s.Type {
	case configv1.LeastAllocated, configv1.MostAllocated:
		return errs
	case configv1.RequestedToCapacityRatio:
	default:
		return append(errs, field.NotSupported(path.Child("type"), s.Type,
			[]configv1.ScoringStrategyType{configv1.LeastAllocated, configv1.MostAllocated, configv1.RequestedToCapacityRatio}))
	}
	shape := path.Child("requestedToCapacityRatio", "shape")
	if s.RequestedToCapacityRatio == nil {
		return append(errs, field.Required(shape, "at least one point must be specified"))
	}
	return append(errs, validateShape(s.RequestedToCapacityRatio.Shape, shape)...)
}

func validateShape(points []configv1.UtilizationShapePoint, shape *field.Path) field.ErrorList {
	if len(points) == 0 {
		return field.ErrorList{field.Required(shape, "at least one point must be specified")}
	}
	var errs field.ErrorList
	last := int32(-1)
	for i, p := range points {
		if p.Utilization < 0 || p.Utilization > 100 {
			errs = append(errs, field.Invalid(shape.Index(i).Child("utilization"), p.Utilization, "not in valid range [0-100]"))
		} else if p.Utilization <= last {
			errs = append(errs, field.Invalid(shape.Index(i).Child("utilization"), p.Utilization, "utilization values must be sorted in increasing order"))
		}
		last = p.Utilization
		if p.Score < 0 || p.Score > 10 {
			errs = append(errs, field.Invalid(shape.Index(i).Child("score"), p.Score, "not in valid range [0-10]"))
		}
	}
	return errs
}
