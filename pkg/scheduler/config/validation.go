package config

import (
	"fmt"
	"math"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

// Validate reports every field of c that is wrong. known are the plugins that exist.
func Validate(c *configv1.KubeSchedulerConfiguration, known sets.Set[string]) field.ErrorList {
	var errs field.ErrorList
	positive := func(v int64, path string) {
		if v <= 0 {
			errs = append(errs, field.Invalid(field.NewPath(path), v, "must be greater than 0"))
		}
	}
	percentage := func(v *int32, path *field.Path) {
		if v != nil && (*v < 0 || *v > 100) {
			errs = append(errs, field.Invalid(path, *v, "not in valid range [0-100]"))
		}
	}
	positive(int64(*c.Parallelism), "parallelism")
	positive(*c.PodInitialBackoffSeconds, "podInitialBackoffSeconds")
	if *c.PodMaxBackoffSeconds < *c.PodInitialBackoffSeconds {
		errs = append(errs, field.Invalid(field.NewPath("podMaxBackoffSeconds"), *c.PodMaxBackoffSeconds, "must be greater than or equal to PodInitialBackoffSeconds"))
	}
	percentage(c.PercentageOfNodesToScore, field.NewPath("percentageOfNodesToScore"))
	if len(c.Extenders) > 0 {
		errs = append(errs, field.Forbidden(field.NewPath("extenders"), "this scheduler calls no extenders; use a plugin"))
	}
	names := sets.New[string]()
	for i := range c.Profiles {
		p, path := &c.Profiles[i], field.NewPath("profiles").Index(i)
		percentage(p.PercentageOfNodesToScore, path.Child("percentageOfNodesToScore"))
		switch {
		case p.SchedulerName == nil || *p.SchedulerName == "":
			errs = append(errs, field.Required(path.Child("schedulerName"), ""))
		case names.Has(*p.SchedulerName):
			errs = append(errs, field.Duplicate(path.Child("schedulerName"), *p.SchedulerName))
		default:
			names.Insert(*p.SchedulerName)
		}
		errs = append(errs, validatePlugins(p.Plugins, path.Child("plugins"), known)...)
		errs = append(errs, validateArgs(p.PluginConfig, path.Child("pluginConfig"), known)...)
	}
	return errs
}

func validatePlugins(p *configv1.Plugins, path *field.Path, known sets.Set[string]) field.ErrorList {
	var errs field.ErrorList
	all := points(p)
	all["multiPoint"] = p.MultiPoint
	for name, set := range all {
		seen := sets.New[string]()
		for i, plugin := range set.Enabled {
			at := path.Child(name, "enabled").Index(i)
			if !known.Has(plugin.Name) {
				errs = append(errs, field.NotSupported(at.Child("name"), plugin.Name, sets.List(known)))
			}
			if seen.Has(plugin.Name) {
				errs = append(errs, field.Duplicate(at.Child("name"), plugin.Name))
			}
			seen.Insert(plugin.Name)
			if w := plugin.Weight; w != nil && (*w < 0 || int64(*w) > math.MaxInt32/fwk.MaxNodeScore) {
				errs = append(errs, field.Invalid(at.Child("weight"), *w, fmt.Sprintf("must be between 0 and %d", math.MaxInt32/fwk.MaxNodeScore)))
			}
		}
	}
	for name, set := range map[string]configv1.PluginSet{"placementGenerate": p.PlacementGenerate, "placementScore": p.PlacementScore, "podGroupPostFilter": p.PodGroupPostFilter} {
		if len(set.Enabled) > 0 {
			errs = append(errs, field.Forbidden(path.Child(name), "needs the GenericWorkload feature gate, which is off"))
		}
	}
	return errs
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
			errs = append(errs, validateStrategy(args.ScoringStrategy, at.Child("args", "scoringStrategy"))...)
		case *configv1.NodeResourcesBalancedAllocationArgs:
			errs = append(errs, validateResources(args.Resources, at.Child("args", "resources"))...)
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
	if s.RequestedToCapacityRatio == nil || len(s.RequestedToCapacityRatio.Shape) == 0 {
		return append(errs, field.Required(shape, "at least one point must be specified"))
	}
	last := int32(-1)
	for i, p := range s.RequestedToCapacityRatio.Shape {
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
