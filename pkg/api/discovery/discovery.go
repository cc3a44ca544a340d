// Package discovery knows what is true of the kinds of discovery.k8s.io/v1 wherever
// they are handled: their defaults ([AddDefaults]) and what makes them invalid (the
// Validate functions).
package discovery

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// Bounds of one slice.
const (
	maxEndpoints = 1000
	maxAddresses = 100
	maxPorts     = 20_000
	maxTopology  = 16
	maxHints     = 8
)

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, func(slice *discoveryv1.EndpointSlice) {
		for i := range slice.Ports {
			port := &slice.Ports[i]
			rules.SetPtr(&port.Name, "")
			rules.SetPtr(&port.Protocol, corev1.ProtocolTCP)
		}
	})
	return nil
}

// ValidateEndpointSlice says what is wrong with a new EndpointSlice.
func ValidateEndpointSlice(s *discoveryv1.EndpointSlice) field.ErrorList {
	errs := rules.Namespaced(&s.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, validate(s, nil)...)
}

// ValidateEndpointSliceUpdate says what is wrong with an update of an EndpointSlice.
func ValidateEndpointSliceUpdate(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	errs := rules.MetaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, rules.Namespaced(&s.ObjectMeta, apivalidation.NameIsDNSSubdomain)...)
	errs = append(errs, validate(s, old)...)
	return append(errs, rules.Fixed(s.AddressType, old.AddressType, field.NewPath("addressType"))...)
}

func validate(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	var errs field.ErrorList
	p := field.NewPath("addressType")
	errs = append(errs, rules.RequiredOneOf(s.AddressType, p, discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)...)
	errs = append(errs, validateEndpoints(s, old)...)
	return append(errs, validatePorts(s.Ports, field.NewPath("ports"))...)
}

func validateEndpoints(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	p := field.NewPath("endpoints")
	if n := len(s.Endpoints); n > maxEndpoints {
		return field.ErrorList{field.TooMany(p, n, maxEndpoints)}
	}
	if old != nil && equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
		return nil // older versions may have stored what is refused today
	}
	// Addresses in a form that is refused today may be stored already.
	var known []string
	if old != nil {
		for _, e := range old.Endpoints {
			known = append(known, e.Addresses...)
		}
	}
	var errs field.ErrorList
	for i := range s.Endpoints {
		errs = append(errs, validateEndpoint(&s.Endpoints[i], s.AddressType, known, p.Index(i))...)
	}
	return errs
}

func validateEndpoint(e *discoveryv1.Endpoint, kind discoveryv1.AddressType, known []string, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	addresses := p.Child("addresses")
	switch n := len(e.Addresses); {
	case n == 0:
		errs = append(errs, field.Required(addresses, ""))
	case n > maxAddresses:
		errs = append(errs, field.TooMany(addresses, n, maxAddresses))
	}
	for i, address := range e.Addresses {
		errs = append(errs, validateAddress(address, kind, known, addresses, i)...)
	}
	if e.NodeName != nil {
		errs = append(errs, rules.Messages(p.Child("nodeName"), *e.NodeName, apivalidation.NameIsDNSSubdomain(*e.NodeName, false))...)
	}
	topology := p.Child("deprecatedTopology")
	if n := len(e.DeprecatedTopology); n > maxTopology {
		errs = append(errs, field.TooMany(topology, n, maxTopology))
	}
	errs = append(errs, metavalidation.ValidateLabels(e.DeprecatedTopology, topology)...)
	if e.Hostname != nil {
		errs = append(errs, rules.Messages(p.Child("hostname"), *e.Hostname, validation.IsDNS1123Label(*e.Hostname))...)
	}
	if e.Hints != nil {
		errs = append(errs, validateHints(e.Hints, p.Child("hints"))...)
	}
	return errs
}

// validateAddress checks an address. What has the wrong family is reported for the
// list, what else is wrong for the item.
func validateAddress(address string, kind discoveryv1.AddressType, known []string, list *field.Path, i int) field.ErrorList {
	p := list.Index(i)
	switch kind {
	case discoveryv1.AddressTypeFQDN:
		return validation.IsFullyQualifiedDomainName(p, address)
	case discoveryv1.AddressTypeIPv4:
		if errs := validateIP(address, known, p); len(errs) > 0 {
			return errs
		}
		if !netutils.IsIPv4String(address) {
			return field.ErrorList{field.Invalid(list, address, "must be an IPv4 address")}
		}
	case discoveryv1.AddressTypeIPv6:
		if errs := validateIP(address, known, p); len(errs) > 0 {
			return errs
		}
		if !netutils.IsIPv6String(address) {
			return field.ErrorList{field.Invalid(list, address, "must be an IPv6 address")}
		}
	default:
		return nil
	}
	return rules.NonSpecialIP(address, p)
}

func validateIP(address string, known []string, p *field.Path) field.ErrorList {
	if slices.Contains(known, address) {
		return nil
	}
	return validation.IsValidIP(p, address)
}

func validateHints(h *discoveryv1.EndpointHints, p *field.Path) field.ErrorList {
	var zones, nodes []string
	for _, z := range h.ForZones {
		zones = append(zones, z.Name)
	}
	for _, n := range h.ForNodes {
		nodes = append(nodes, n.Name)
	}
	errs := validateHintNames(zones, p.Child("forZones"), validation.IsValidLabelValue)
	return append(errs, validateHintNames(nodes, p.Child("forNodes"), func(name string) []string {
		return apivalidation.NameIsDNSSubdomain(name, false)
	})...)
}

func validateHintNames(names []string, p *field.Path, check func(string) []string) field.ErrorList {
	if n := len(names); n > maxHints {
		return field.ErrorList{field.TooMany(p, n, maxHints)}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, name := range names {
		if seen[name] {
			errs = append(errs, field.Duplicate(p.Index(i).Child("name"), name))
			continue
		}
		seen[name] = true
		errs = append(errs, rules.Messages(p.Index(i).Child("name"), name, check(name))...)
	}
	return errs
}

func validatePorts(ports []discoveryv1.EndpointPort, p *field.Path) field.ErrorList {
	if n := len(ports); n > maxPorts {
		return field.ErrorList{field.TooMany(p, n, maxPorts)}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, port := range ports {
		p := p.Index(i)
		name := ptr.Deref(port.Name, "")
		if name != "" {
			errs = append(errs, rules.Messages(p.Child("name"), name, validation.IsDNS1123Label(name))...)
		}
		if seen[name] {
			errs = append(errs, field.Duplicate(p.Child("name"), name))
		}
		seen[name] = true
		if port.Protocol == nil {
			errs = append(errs, field.Required(p.Child("protocol"), ""))
		} else {
			errs = append(errs, rules.OneOf(*port.Protocol, p.Child("protocol"), corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		}
		if port.AppProtocol != nil {
			errs = append(errs, rules.QualifiedName(*port.AppProtocol, p.Child("appProtocol"))...)
		}
	}
	return errs
}

// WarningsEndpointSlice are what the author of an EndpointSlice should know. old is nil on creation.
func WarningsEndpointSlice(s, _ *discoveryv1.EndpointSlice) []string {
	if s.AddressType == discoveryv1.AddressTypeFQDN {
		return []string{"spec.addressType: FQDN endpoints are deprecated"}
	}
	return nil
}
