package core

import (
	"fmt"
	"net"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	maxAffinitySeconds = 24 * 60 * 60
	loadBalancerOnly   = "may only be used when `type` is 'LoadBalancer'"
)

// ValidateService says what is wrong with a new Service. Which addresses and
// ports it gets is for their allocators to say.
func ValidateService(svc *corev1.Service) field.ErrorList {
	var r report
	r.objectMeta(svc, true, apivalidation.NameIsDNSLabel, metaPath)
	r.service(svc, &corev1.Service{})
	return r.errs
}

// ValidateServiceAddresses says what is wrong with the cluster addresses and families
// that a Service asks for, before it gets any. old is nil on creation.
func ValidateServiceAddresses(svc, old *corev1.Service) field.ErrorList {
	if old == nil {
		old = &corev1.Service{}
	}
	var r report
	r.serviceAddresses(&svc.Spec, &old.Spec)
	return r.errs
}

// ValidateServiceUpdate says what is wrong with an update of a Service.
func ValidateServiceUpdate(svc, old *corev1.Service) field.ErrorList {
	var r report
	r.objectMetaUpdate(svc, old, metaPath)
	r.serviceAddressesUpdate(&svc.Spec, &old.Spec)
	r.service(svc, old)
	return r.errs
}

// service validates a Service. What was allowed once and is stored in old stays
// allowed.
func (r *report) service(svc, old *corev1.Service) {
	spec := &svc.Spec
	r.merge(metavalidation.ValidateLabels(spec.Selector, specPath.Child("selector")))
	oneOf(r, spec.Type, specPath.Child("type"), corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)
	headless := spec.ClusterIP == corev1.ClusterIPNone
	switch spec.Type {
	case corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		r.invalidIf(headless, specPath.Child("clusterIPs").Index(0), corev1.ClusterIPNone, fmt.Sprintf("may not be set to 'None' for %s services", spec.Type))
	case corev1.ServiceTypeExternalName:
		r.forbidIf(len(spec.ClusterIPs) > 0 || spec.ClusterIP != "", specPath.Child("clusterIPs"), "may not be set for ExternalName services")
		r.forbidIf(len(spec.IPFamilies) > 0, specPath.Child("ipFamilies"), "may not be set for ExternalName services")
		r.forbidIf(spec.IPFamilyPolicy != nil, specPath.Child("ipFamilyPolicy"), "may not be set for ExternalName services")
		if name := strings.TrimSuffix(spec.ExternalName, "."); r.required(name, specPath.Child("externalName")) {
			r.invalid(specPath.Child("externalName"), name, validation.IsDNS1123Subdomain(name)...)
		}
	}
	if spec.Type != corev1.ServiceTypeExternalName {
		r.requireIf(len(spec.Ports) == 0 && !headless, specPath.Child("ports"), "")
		r.serviceAddresses(spec, &old.Spec)
	}
	r.servicePorts(spec, specPath.Child("ports"))
	r.sessionAffinity(spec)
	r.loadBalancer(svc, old)
	r.traffic(svc)
	for i, ip := range spec.ExternalIPs {
		at := specPath.Child("externalIPs").Index(i)
		if r.legacyIP(ip, old.Spec.ExternalIPs, at) && !slices.Contains(old.Spec.ExternalIPs, ip) {
			r.merge(rules.NonSpecialIP(ip, at))
		}
	}
}

func (r *report) servicePorts(spec *corev1.ServiceSpec, p *field.Path) {
	names := duplicates[string]{}
	type key struct {
		protocol corev1.Protocol
		port     int32
	}
	ports, nodePorts := map[key]bool{}, map[key]bool{}
	for i := range spec.Ports {
		port, at := &spec.Ports[i], p.Index(i)
		if port.Name == "" {
			r.requireIf(len(spec.Ports) > 1, at.Child("name"), "")
		} else if r.invalid(at.Child("name"), port.Name, validation.IsDNS1123Label(port.Name)...) {
			names.check(r, port.Name, at.Child("name"))
		}
		r.portNumber(port.Port, at.Child("port"))
		r.protocol(port.Protocol, at.Child("protocol"))
		r.portNumberOrName(port.TargetPort, at.Child("targetPort"))
		if port.AppProtocol != nil {
			r.invalid(at.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName(*port.AppProtocol)...)
		}
		k := key{port.Protocol, port.Port}
		if ports[k] {
			r.add(field.Duplicate(at, goNames{corev1.ServicePort{Protocol: port.Protocol, Port: port.Port}}))
		}
		ports[k] = true
		if port.NodePort == 0 {
			continue
		}
		r.forbidIf(spec.Type == corev1.ServiceTypeClusterIP, at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'")
		k = key{port.Protocol, port.NodePort}
		if nodePorts[k] {
			r.add(field.Duplicate(at.Child("nodePort"), port.NodePort))
		}
		nodePorts[k] = true
	}
}

func (r *report) sessionAffinity(spec *corev1.ServiceSpec) {
	requiredOneOf(r, spec.SessionAffinity, specPath.Child("sessionAffinity"), corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	at := specPath.Child("sessionAffinityConfig")
	switch c := spec.SessionAffinityConfig; spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		r.forbidIf(c != nil, at, fmt.Sprintf("must not be set when session affinity is %s", corev1.ServiceAffinityNone))
	case corev1.ServiceAffinityClientIP:
		seconds := at.Child("clientIP", "timeoutSeconds")
		if !r.requireIf(c == nil, at, "when session affinity type is ClientIP") ||
			!r.requireIf(c.ClientIP == nil, at.Child("clientIP"), "when session affinity type is ClientIP") ||
			!r.requireIf(c.ClientIP.TimeoutSeconds == nil, seconds, "when session affinity type is ClientIP") {
			return
		}
		s := *c.ClientIP.TimeoutSeconds
		r.invalidIf(s <= 0 || s > maxAffinitySeconds, seconds, s, fmt.Sprintf("must be greater than 0 and less than %d", maxAffinitySeconds))
	}
}

func (r *report) loadBalancer(svc, old *corev1.Service) {
	spec, is := &svc.Spec, svc.Spec.Type == corev1.ServiceTypeLoadBalancer
	ranges := specPath.Child("LoadBalancerSourceRanges")
	if len(spec.LoadBalancerSourceRanges) > 0 {
		r.forbidIf(!is, ranges, loadBalancerOnly)
		for i, cidr := range spec.LoadBalancerSourceRanges {
			r.merge(validation.IsValidCIDRForLegacyField(ranges.Index(i), strings.TrimSpace(cidr), true, old.Spec.LoadBalancerSourceRanges))
		}
	} else if value, ok := svc.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]; ok && len(spec.LoadBalancerSourceRanges) == 0 {
		at := metaPath.Child("annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
		if value = strings.TrimSpace(value); value != "" && r.forbidIf(!is, at, loadBalancerOnly) {
			for _, cidr := range strings.Split(value, ",") {
				for _, e := range validation.IsValidCIDRForLegacyField(at, strings.TrimSpace(cidr), true, nil) {
					e.BadValue = value
					r.add(e)
				}
			}
		}
	}
	r.forbidIf(spec.AllocateLoadBalancerNodePorts != nil && !is, specPath.Child("allocateLoadBalancerNodePorts"), loadBalancerOnly)
	r.requireIf(spec.AllocateLoadBalancerNodePorts == nil && is, specPath.Child("allocateLoadBalancerNodePorts"), "")

	at := specPath.Child("loadBalancerClass")
	if old.Spec.Type == corev1.ServiceTypeLoadBalancer && is && !ptr.Equal(spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
		r.invalid(at, spec.LoadBalancerClass, "may not change once set")
	}
	if c := spec.LoadBalancerClass; c != nil && r.forbidIf(!is, at, loadBalancerOnly) {
		r.invalid(at, *c, validation.IsQualifiedName(*c)...)
	}
	if is && old.Spec.Type == spec.Type && old.Spec.HealthCheckNodePort != 0 && old.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal &&
		spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		r.forbidIf(spec.HealthCheckNodePort != old.Spec.HealthCheckNodePort, specPath.Child("healthCheckNodePort"), "field is immutable")
	}
}

// traffic validates where a Service's traffic may go.
func (r *report) traffic(svc *corev1.Service) {
	spec := &svc.Spec
	external := specPath.Child("externalTrafficPolicy")
	if externallyReachable(spec) {
		requiredOneOf(r, spec.ExternalTrafficPolicy, external, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)
	} else {
		r.invalidIf(spec.ExternalTrafficPolicy != "", external, spec.ExternalTrafficPolicy, "may only be set for externally-accessible services")
	}
	if at := specPath.Child("healthCheckNodePort"); spec.Type == corev1.ServiceTypeLoadBalancer && spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		if spec.HealthCheckNodePort != 0 {
			r.portNumber(spec.HealthCheckNodePort, at)
		}
	} else {
		r.invalidIf(spec.HealthCheckNodePort != 0, at, spec.HealthCheckNodePort, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")
	}
	internal := specPath.Child("internalTrafficPolicy")
	if spec.InternalTrafficPolicy != nil {
		oneOf(r, *spec.InternalTrafficPolicy, internal, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)
	} else {
		known := spec.Type == corev1.ServiceTypeClusterIP || spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer
		r.requireIf(known, internal, "")
	}
	optionalOneOf(r, spec.TrafficDistribution, specPath.Child("trafficDistribution"),
		corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)
}

// serviceAddresses validates the cluster addresses of a Service and their families.
func (r *report) serviceAddresses(spec, old *corev1.ServiceSpec) {
	families, policy, ips := specPath.Child("ipFamilies"), specPath.Child("ipFamilyPolicy"), specPath.Child("clusterIPs")
	supported := []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	seen := duplicates[corev1.IPFamily]{}
	for i, f := range spec.IPFamilies {
		oneOf(r, f, families.Index(i), supported...)
		seen.check(r, f, families.Index(i))
	}
	if spec.IPFamilyPolicy != nil && oneOf(r, *spec.IPFamilyPolicy, policy, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack) &&
		*spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack && len(seen) > 1 {
		r.invalid(policy, *spec.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified")
	}
	if len(spec.ClusterIPs) == 0 {
		r.requireIf(spec.ClusterIP != "", ips, "")
		return
	}
	if spec.ClusterIP == "" {
		r.invalid(ips, spec.ClusterIPs, "must be empty when `clusterIP` is not specified")
	} else {
		r.invalidIf(spec.ClusterIP != spec.ClusterIPs[0], ips, spec.ClusterIPs, "first value must match `clusterIP`")
	}
	headless, valid := spec.ClusterIPs[0] == corev1.ClusterIPNone, true
	for i, ip := range spec.ClusterIPs {
		if i == 0 && headless {
			valid = r.invalidIf(len(spec.ClusterIPs) > 1, ips, spec.ClusterIPs, "'None' must be the first and only value")
			continue
		}
		valid = r.legacyIP(ip, old.ClusterIPs, ips.Index(i)) && valid
	}
	r.invalidIf(len(spec.ClusterIPs) > 2, ips, spec.ClusterIPs, "may only hold up to 2 values")
	if !valid || headless {
		return
	}
	if len(spec.ClusterIPs) > 1 {
		dual, err := netutils.IsDualStackIPStrings(spec.ClusterIPs)
		r.invalidIf(err != nil || !dual, ips, spec.ClusterIPs, "may specify no more than one IP for each IP family")
	}
	for i, ip := range spec.ClusterIPs {
		if i < len(spec.IPFamilies) {
			is6, want := netutils.IsIPv6String(ip), spec.IPFamilies[i]
			r.invalidIf(want == corev1.IPv6Protocol && !is6 || want == corev1.IPv4Protocol && is6, ips.Index(i), ip,
				fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", want, i))
		}
	}
}

// serviceAddressesUpdate says that a Service keeps its addresses while it has any.
func (r *report) serviceAddressesUpdate(spec, old *corev1.ServiceSpec) {
	if spec.Type == corev1.ServiceTypeExternalName || old.Type == corev1.ServiceTypeExternalName || len(spec.ClusterIPs) > 0 && spec.ClusterIPs[0] != spec.ClusterIP {
		return
	}
	ips, families := specPath.Child("clusterIPs"), specPath.Child("ipFamilies")
	for i := range min(2, max(len(spec.ClusterIPs), len(old.ClusterIPs))) {
		switch {
		case i >= len(old.ClusterIPs): // one more
		case i >= len(spec.ClusterIPs):
			r.invalidIf(i == 0, ips.Index(i), spec.ClusterIPs, "primary clusterIP can not be unset")
		case old.ClusterIPs[i] != "":
			r.invalidIf(spec.ClusterIPs[i] != old.ClusterIPs[i], ips.Index(i), spec.ClusterIPs, "may not change once set")
		}
	}
	for i := range min(2, max(len(spec.IPFamilies), len(old.IPFamilies))) {
		switch {
		case i >= len(old.IPFamilies):
		case i >= len(spec.IPFamilies):
			r.invalidIf(i == 0, families.Index(i), spec.IPFamilies, "primary ipFamily can not be unset")
		default:
			r.invalidIf(spec.IPFamilies[i] != old.IPFamilies[i], families.Index(i), spec.IPFamilies, "may not change once set")
		}
	}
}

// ValidateServiceStatusUpdate says what is wrong with an update of the status of
// a Service.
func ValidateServiceStatusUpdate(svc, old *corev1.Service) field.ErrorList {
	var r report
	r.objectMetaUpdate(svc, old, metaPath)
	was := make([]string, 0, len(old.Status.LoadBalancer.Ingress))
	for _, i := range old.Status.LoadBalancer.Ingress {
		was = append(was, i.IP)
	}
	at := field.NewPath("status", "loadBalancer", "ingress")
	if !r.forbidIf(svc.Spec.Type != corev1.ServiceTypeLoadBalancer && len(svc.Status.LoadBalancer.Ingress) > 0, at, "may only be used when `spec.type` is 'LoadBalancer'") {
		return r.errs
	}
	r.merge(ValidateLoadBalancerStatus(&svc.Status.LoadBalancer, was, field.NewPath("status", "loadBalancer")))
	return r.errs
}

// ValidateLoadBalancerStatus says what is wrong with the addresses of a load
// balancer. Addresses in old are stored already.
func ValidateLoadBalancerStatus(status *corev1.LoadBalancerStatus, old []string, p *field.Path) field.ErrorList {
	var r report
	for i, ingress := range status.Ingress {
		at := p.Child("ingress").Index(i)
		if ingress.IP != "" {
			r.legacyIP(ingress.IP, old, at.Child("ip"))
		}
		if ingress.IPMode == nil {
			r.requireIf(ingress.IP != "", at.Child("ipMode"), "must be specified when `ip` is set")
		} else if r.forbidIf(ingress.IP == "", at.Child("ipMode"), "may not be specified when `ip` is not set") {
			oneOf(&r, *ingress.IPMode, at.Child("ipMode"), corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)
		}
		if h := ingress.Hostname; h != "" && r.invalidIf(net.ParseIP(h) != nil, at.Child("hostname"), h, "must be a DNS name, not an IP address") {
			r.invalid(at.Child("hostname"), h, validation.IsDNS1123Subdomain(h)...)
		}
	}
	return r.errs
}
