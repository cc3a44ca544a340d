package config

import (
	"fmt"
	"math"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// Validate reports every field of c that is wrong. known are the plugins that exist.
func Validate(c *configv1.KubeSchedulerConfiguration, known sets.Set[string], gates framework.Gates) field.ErrorList {
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
	errs = append(errs, validateExtenders(c.Extenders)...)
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
		errs = append(errs, validatePlugins(p.Plugins, path.Child("plugins"), known, gates)...)
		errs = append(errs, validateArgs(p.PluginConfig, path.Child("pluginConfig"), known)...)
	}
	return errs
}

func validatePlugins(p *configv1.Plugins, path *field.Path, known sets.Set[string], gates framework.Gates) field.ErrorList {
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
		if len(set.Enabled) > 0 && !gates.GenericWorkload {
			errs = append(errs, field.Forbidden(path.Child(name), "needs the GenericWorkload feature gate, which is off"))
		}
	}
	return errs
}

func validateExtenders(list []configv1.Extender) field.ErrorList {
	var errs field.ErrorList
	binders := 0
	managed := sets.New[string]()
	for i, e := range list {
		path := field.NewPath("extenders").Index(i)
		if e.URLPrefix == "" {
			errs = append(errs, field.Required(path.Child("urlPrefix"), ""))
		}
		if e.PrioritizeVerb != "" && (e.Weight <= 0 || e.Weight > math.MaxInt32/fwk.MaxNodeScore) {
			errs = append(errs, field.Invalid(path.Child("weight"), e.Weight, "must have a positive weight applied to it"))
		}
		if e.BindVerb != "" {
			if binders++; binders > 1 {
				errs = append(errs, field.Invalid(path.Child("bindVerb"), e.BindVerb, "only one extender can implement bind"))
			}
		}
		for j, r := range e.ManagedResources {
			at := path.Child("managedResources").Index(j).Child("name")
			if !strings.Contains(r.Name, "/") || strings.HasPrefix(r.Name, "requests.") {
				errs = append(errs, field.Invalid(at, r.Name, "must be an extended resource name"))
			}
			for _, msg := range utilvalidation.IsQualifiedName(r.Name) {
				errs = append(errs, field.Invalid(at, r.Name, msg))
			}
			if managed.Has(r.Name) {
				errs = append(errs, field.Duplicate(at, r.Name))
			}
			managed.Insert(r.Name)
		}
	}
	return errs
}
