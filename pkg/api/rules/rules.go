// Package rules has the rules of validation and defaulting that several API groups
// share.
package rules

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Default makes set the defaulting function of T.
func Default[T any](s *runtime.Scheme, set func(*T)) {
	s.AddTypeDefaultingFunc(any(new(T)).(runtime.Object), func(o any) { set(o.(*T)) })
}

// ClusterFieldLabels lets clients select objects of a kind by the labels, besides by metadata.name. They cannot be selected by their
// namespace, mostly since they are in none.
func ClusterFieldLabels(s *runtime.Scheme, gvk schema.GroupVersionKind, labels ...string) error {
	labels = append(labels, "metadata.name")
	err := s.AddFieldLabelConversionFunc(gvk, func(label, value string) (string, string, error) {
		if !slices.Contains(labels, label) {
			return "", "", fmt.Errorf("field label not supported: %s", label)
		}
		return label, value, nil
	})
	if err != nil {
		return fmt.Errorf("field labels of %s: %w", gvk.Kind, err)
	}
	return nil
}

// SetPtr makes p point to the value if it points to nothing.
func SetPtr[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

var metadata = field.NewPath("metadata")

// Namespaced checks the metadata of a new object that lives in a namespace.
func Namespaced(m *metav1.ObjectMeta, name apivalidation.ValidateNameFunc) field.ErrorList {
	return append(apivalidation.ValidateObjectMeta(m, true, name, metadata), finalizers(m)...)
}

// NamespacedLongName checks the metadata of a new object that lives in a namespace and whose name is a DNS
// subdomain. Of a name that is generated, only what came out is checked.
func NamespacedLongName(m *metav1.ObjectMeta) field.ErrorList {
	name := func(p *field.Path, name string) field.ErrorList {
		return validate.LongName(context.Background(), operation.Operation{}, p, &name, nil)
	}
	errs := append(apivalidation.ValidateObjectMetaWithOpts(m, true, name, metadata), finalizers(m)...)
	if m.Name == "" { // which is required, and no subdomain either
		errs = append(errs, name(metadata.Child("name"), "")...)
	}
	return errs
}

// ClusterScoped checks the metadata of a new object that lives in no namespace.
func ClusterScoped(m *metav1.ObjectMeta, name apivalidation.ValidateNameFunc) field.ErrorList {
	return append(apivalidation.ValidateObjectMeta(m, false, name, metadata), finalizers(m)...)
}

// MetaUpdate checks an update of an object's metadata.
func MetaUpdate(m, old *metav1.ObjectMeta) field.ErrorList {
	return append(apivalidation.ValidateObjectMetaUpdate(m, old, metadata), finalizers(m)...)
}

// finalizers says that a finalizer is one of Kubernetes' own, or has a domain.
func finalizers(m *metav1.ObjectMeta) field.ErrorList {
	var errs field.ErrorList
	for i, name := range m.Finalizers {
		errs = append(errs, Finalizer(name, metadata.Child("finalizers").Index(i))...)
	}
	return errs
}

// Finalizer says that a finalizer is one of Kubernetes' own, or has a domain.
func Finalizer(name string, p *field.Path) field.ErrorList {
	switch name {
	case string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents:
		return nil
	}
	if strings.Contains(name, "/") {
		return nil
	}
	return field.ErrorList{field.Invalid(p, name, "name is neither a standard finalizer name nor is it fully qualified")}
}

// PathSegment checks names that are only asked to fit into a URL path.
func PathSegment(name string, prefix bool) []string {
	if prefix {
		return path.IsValidPathSegmentPrefix(name)
	}
	return path.IsValidPathSegmentName(name)
}

// Integer is what NonNegative takes.
type Integer interface{ ~int32 | ~int64 }

// NonNegative refuses a number below 0.
func NonNegative[T Integer](value T, p *field.Path) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(int64(value), p)
}

// NonNegativePtr refuses a number below 0, if there is one.
func NonNegativePtr[T Integer](value *T, p *field.Path) field.ErrorList {
	if value == nil {
		return nil
	}
	return NonNegative(*value, p)
}

// Messages makes an error of each message about the value.
func Messages(p *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(p, value, m))
	}
	return errs
}

// QualifiedName checks a name such as "example.com/name".
func QualifiedName(value string, p *field.Path) field.ErrorList {
	return metavalidation.ValidateLabelName(value, p)
}

// NotReserved refuses a name whose domain is that of a suffix, such as ".k8s.io", or below it.
func NotReserved(name string, p *field.Path, suffixes ...string) field.ErrorList {
	domain, _, _ := strings.Cut(name, "/")
	domain = "." + strings.TrimRight(strings.TrimSpace(strings.ToLower(domain)), ".")
	if slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(domain, s) }) {
		return field.ErrorList{field.Invalid(p, name, fmt.Sprintf("domain names *%s are reserved", strings.Join(suffixes, ", *")))}
	}
	return nil
}

// LowerQualifiedName checks the name of a driver or provisioner: a qualified name
// in whatever case, but not none.
func LowerQualifiedName(value string, p *field.Path) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	lower := strings.ToLower(value)
	return Messages(p, lower, validation.IsQualifiedName(lower))
}

// maxSignerName is that of a domain, a slash, a namespace, a dot and a name.
const maxSignerName = 253 + 1 + 63 + 1 + 253

// SignerName checks the name of a signer of certificates, such as "example.com/signer".
func SignerName(name string, p *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	domain, path, found := strings.Cut(name, "/")
	if !found || strings.Contains(path, "/") {
		return field.ErrorList{field.Invalid(p, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs field.ErrorList
	if limit := validation.DNS1123SubdomainMaxLength; len(domain) > limit {
		errs = append(errs, field.TooLong(p, "" /*unused*/, limit))
	}
	errs = append(errs, firstBadLabel(domain, validation.IsDNS1123Label, p)...)
	if !strings.Contains(domain, ".") {
		errs = append(errs, field.Invalid(p, domain, "should be a domain with at least two segments separated by dots"))
	}
	errs = append(errs, firstBadLabel(path, validation.IsDNS1123Subdomain, p)...)
	if len(name) > maxSignerName {
		errs = append(errs, field.TooLong(p, "" /*unused*/, maxSignerName))
	}
	return errs
}

// firstBadLabel says what is wrong with the first part of a dotted name with which anything is.
func firstBadLabel(name string, check func(string) []string, p *field.Path) field.ErrorList {
	for _, label := range strings.Split(name, ".") {
		var errs field.ErrorList
		for _, detail := range check(label) {
			errs = append(errs, field.Invalid(p, name, fmt.Sprintf("validating label %q: %s", label, detail)))
		}
		if len(errs) > 0 {
			return errs
		}
	}
	return nil
}

// OneOf refuses a value that is not among the supported ones.
func OneOf[T ~string](value T, p *field.Path, supported ...T) field.ErrorList {
	if slices.Contains(supported, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(p, value, supported)}
}

// RequiredOneOf refuses a value that is missing, or not among the supported ones.
func RequiredOneOf[T ~string](value T, p *field.Path, supported ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	return OneOf(value, p, supported...)
}

// Each checks the items of a list.
func Each[T any](items []T, p *field.Path, check func(item *T, p *field.Path) field.ErrorList) field.ErrorList {
	var errs field.ErrorList
	for i := range items {
		errs = append(errs, check(&items[i], p.Index(i))...)
	}
	return errs
}

// CountOrPercent refuses what is neither a number of at least 0 nor a percentage.
func CountOrPercent(v intstr.IntOrString, p *field.Path) field.ErrorList {
	if v.Type == intstr.Int {
		return NonNegative(v.IntVal, p)
	}
	return Messages(p, v, validation.IsValidPercent(v.StrVal))
}

// AtMost100Percent refuses a percentage above 100.
func AtMost100Percent(v intstr.IntOrString, p *field.Path) field.ErrorList {
	if percent, ok := percentage(v); ok && percent > 100 {
		return field.ErrorList{field.Invalid(p, v, "must not be greater than 100%")}
	}
	return nil
}

// IsZero reports whether v comes to nothing: 0, 0%, or what is not a percentage at all.
func IsZero(v *intstr.IntOrString) bool {
	if v == nil {
		return true
	}
	if v.Type == intstr.Int {
		return v.IntVal == 0
	}
	percent, ok := percentage(*v)
	return !ok || percent == 0
}

func percentage(v intstr.IntOrString) (int, bool) {
	if v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return 0, false
	}
	percent, err := intstr.GetScaledValueFromIntOrPercent(&v, 100, true)
	return percent, err == nil
}

// Immutable refuses a changed value and shows the new one.
func Immutable(value, old any, p *field.Path) field.ErrorList {
	return apivalidation.ValidateImmutableField(value, old, p)
}

// Fixed refuses a changed value and does not show it.
func Fixed(value, old any, p *field.Path) field.ErrorList {
	if equality.Semantic.DeepEqual(value, old) {
		return nil
	}
	return field.ErrorList{field.Invalid(p, nil, apivalidation.FieldImmutableErrorMsg)}
}

// LabelSelector checks a selector that is written new.
func LabelSelector(s *metav1.LabelSelector, p *field.Path) field.ErrorList {
	return metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, p)
}

// LabelSelectorUpdate checks a selector that may have been written when values were
// not checked.
func LabelSelectorUpdate(s, old *metav1.LabelSelector, p *field.Path) field.ErrorList {
	return metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{
		AllowInvalidLabelValueInSelector: metavalidation.LabelSelectorHasInvalidLabelValue(old),
	}, p)
}

// MaxDriverName bounds the names of drivers, of volumes and of devices.
const MaxDriverName = 63

// DriverName checks the name of a driver, in whatever case.
func DriverName(name string, p *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	var errs field.ErrorList
	if len(name) > MaxDriverName {
		errs = append(errs, field.TooLong(p, "" /*unused*/, MaxDriverName))
	}
	return append(errs, Messages(p, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}
