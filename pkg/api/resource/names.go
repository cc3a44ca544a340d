package resource

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

func validateLabel(name string, p *field.Path) field.ErrorList {
	return rules.Messages(p, name, validation.IsDNS1123Label(name))
}

func validateLabelValue(value string, p *field.Path) field.ErrorList {
	return rules.Messages(p, value, validation.IsValidLabelValue(value))
}

func validateNodeName(name string, p *field.Path) field.ErrorList {
	return rules.Messages(p, name, validation.IsDNS1123Subdomain(name))
}

// validatePoolName checks the name of a pool: subdomains with slashes between them.
func validatePoolName(name string, p *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(p, "" /*unused*/, resourcev1.PoolNameMaxLength))
	}
	for part := range strings.SplitSeq(name, "/") {
		errs = append(errs, rules.Messages(p, part, validation.IsDNS1123Subdomain(part))...)
	}
	return errs
}

// validateQualifiedName checks the name of an attribute or a capacity: an identifier,
// after the domain and a slash when it is not the driver's own.
func validateQualifiedName(name resourcev1.QualifiedName, p *field.Path) field.ErrorList {
	domain, id, qualified := strings.Cut(string(name), "/")
	switch {
	case !qualified:
		return validateIdentifier(domain, p)
	case strings.Contains(id, "/"): // passes in the original, too
		return nil
	}
	var errs field.ErrorList
	if domain == "" {
		errs = append(errs, field.Invalid(p, "", "the domain must not be empty"))
	} else {
		errs = rules.DriverName(domain, p)
	}
	if id == "" {
		return append(errs, field.Invalid(p, "", "the name must not be empty"))
	}
	return append(errs, validateIdentifier(id, p)...)
}

func validateIdentifier(id string, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(id) > resourcev1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(p, "" /*unused*/, resourcev1.DeviceMaxIDLength))
	}
	return append(errs, rules.Messages(p, id, content.IsCIdentifier(id))...)
}

// validateBindingConditions checks the conditions that bind a device and those that
// refuse it: there are both or neither, and none is both.
func validateBindingConditions(bind, fail []string, p *field.Path) field.ErrorList {
	bindPath, failPath := p.Child("bindingConditions"), p.Child("bindingFailureConditions")
	errs := validateConditionTypes(bind, resourcev1.BindingConditionsMaxSize, bindPath)
	errs = append(errs, validateConditionTypes(fail, resourcev1.BindingFailureConditionsMaxSize, failPath)...)
	for i, condition := range fail {
		if slices.Contains(bind, condition) {
			errs = append(errs, field.Invalid(failPath.Index(i), condition, "bindingFailureConditions must not overlap with bindingConditions"))
		}
	}
	if len(bind) == 0 && len(fail) > 0 {
		errs = append(errs, field.Invalid(bindPath, bind, "bindingConditions are required to use bindingFailureConditions"))
	}
	if len(fail) == 0 && len(bind) > 0 {
		errs = append(errs, field.Invalid(failPath, fail, "bindingFailureConditions are required to use bindingConditions"))
	}
	return errs
}

func validateConditionTypes(types []string, most int, p *field.Path) field.ErrorList {
	errs := each(types, most, p, metavalidation.ValidateLabelName)
	return append(errs, unique(types, p, func(t string) string { return t })...)
}

// each checks the items of a list. Of one with too many, which the declared rules
// refuse, none is looked at.
func each[T any](items []T, most int, p *field.Path, check func(T, *field.Path) field.ErrorList) field.ErrorList {
	if len(items) > most {
		return nil
	}
	var errs field.ErrorList
	for i := range items {
		errs = append(errs, check(items[i], p.Index(i))...)
	}
	return errs
}

// bounded is each for a list whose size no declared rule limits.
func bounded[T any](items []T, most int, p *field.Path, check func(T, *field.Path) field.ErrorList) field.ErrorList {
	if len(items) > most {
		return field.ErrorList{field.TooMany(p, len(items), most).WithOrigin("maxItems")}
	}
	return each(items, most, p, check)
}

// unique refuses items whose key was there before.
func unique[T any, K comparable](items []T, p *field.Path, key func(T) K) field.ErrorList {
	var errs field.ErrorList
	seen := map[K]bool{}
	for i := range items {
		k := key(items[i])
		if seen[k] {
			errs = append(errs, field.Duplicate(p.Index(i), k))
		}
		seen[k] = true
	}
	return errs
}

// ordered are the keys of m in their order.
func ordered[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// key is where the value of a key of a map is. A long key loses its middle.
func key(p *field.Path, name string) *field.Path {
	const most, dots = resourcev1.DeviceMaxDomainLength + 1 + resourcev1.DeviceMaxIDLength, "..."
	if len(name) > most {
		rest := most - len(dots)
		name = name[:(rest+1)/2] + dots + name[len(name)-rest/2:]
	}
	return p.Key(name)
}
