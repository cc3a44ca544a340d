package networking

import (
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

var cidrsPath = specPath.Child("cidrs")

// ValidateServiceCIDR says what is wrong with a new ServiceCIDR.
func ValidateServiceCIDR(s *networkingv1.ServiceCIDR) field.ErrorList {
	errs := rules.ClusterScoped(&s.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, validateCIDRs(&s.Spec)...)
}

func validateCIDRs(spec *networkingv1.ServiceCIDRSpec) field.ErrorList {
	switch n := len(spec.CIDRs); {
	case n == 0:
		return field.ErrorList{field.Required(cidrsPath, "at least one CIDR required")}
	case n > 2:
		return field.ErrorList{field.Invalid(cidrsPath, spec, "may only hold up to 2 values")}
	}
	var errs field.ErrorList
	families := map[netutils.IPFamily]int{}
	for i, cidr := range spec.CIDRs {
		errs = append(errs, validation.IsValidCIDR(cidrsPath.Index(i), cidr)...)
		families[netutils.IPFamilyOfCIDRString(cidr)]++
	}
	if families[netutils.IPv4] > 1 || families[netutils.IPv6] > 1 {
		errs = append(errs, field.Invalid(cidrsPath, spec.CIDRs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"))
	}
	return errs
}

// ValidateServiceCIDRUpdate says what is wrong with an update of a ServiceCIDR: it
// can only gain a range of the other family.
func ValidateServiceCIDRUpdate(s, old *networkingv1.ServiceCIDR) field.ErrorList {
	errs := rules.MetaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	cidrs, was := s.Spec.CIDRs, old.Spec.CIDRs
	if len(cidrs) < len(was) {
		return append(errs, field.Invalid(cidrsPath, cidrs, apivalidation.FieldImmutableErrorMsg))
	}
	for i := range was {
		errs = append(errs, rules.Immutable(cidrs[i], was[i], cidrsPath.Index(i))...)
	}
	if len(cidrs) > len(was) {
		errs = append(errs, validateCIDRs(&s.Spec)...)
	}
	return errs
}

// ValidateServiceCIDRStatusUpdate says what is wrong with an update of the status of a ServiceCIDR.
func ValidateServiceCIDRStatusUpdate(s, old *networkingv1.ServiceCIDR) field.ErrorList {
	return rules.MetaUpdate(&s.ObjectMeta, &old.ObjectMeta)
}

// ipAddressName checks the name of an IPAddress, which is the address.
func ipAddressName(name string, _ bool) []string {
	var messages []string
	for _, err := range validation.IsValidIP(nil, name) {
		messages = append(messages, err.Detail)
	}
	return messages
}

// ValidateIPAddress says what is wrong with a new IPAddress.
func ValidateIPAddress(a *networkingv1.IPAddress) field.ErrorList {
	errs := rules.ClusterScoped(&a.ObjectMeta, ipAddressName)
	p := specPath.Child("parentRef")
	r := a.Spec.ParentRef
	if r == nil {
		return append(errs, field.Required(p, ""))
	}
	if r.Group != "" {
		errs = append(errs, rules.Messages(p.Child("group"), r.Group, validation.IsDNS1123Subdomain(r.Group))...)
	}
	errs = append(errs, validateSegment(r.Resource, true, p.Child("resource"))...)
	errs = append(errs, validateSegment(r.Name, true, p.Child("name"))...)
	return append(errs, validateSegment(r.Namespace, false, p.Child("namespace"))...)
}

// ValidateIPAddressUpdate says what is wrong with an update of an IPAddress.
func ValidateIPAddressUpdate(a, old *networkingv1.IPAddress) field.ErrorList {
	errs := rules.MetaUpdate(&a.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, ValidateIPAddress(a)...)
	return append(errs, rules.Fixed(a.Spec.ParentRef, old.Spec.ParentRef, specPath.Child("parentRef"))...)
}
