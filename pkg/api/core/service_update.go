package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// SettleService makes a written Service consistent with itself and with what it
// was, before it is validated: the two fields for its cluster addresses say the
// same, what has been allocated is kept unless it is changed, and what its new
// type has no use for is gone. old is nil on creation.
func SettleService(svc, old *corev1.Service) {
	if old == nil {
		settleClusterIPs(&svc.Spec, &corev1.ServiceSpec{})
		return
	}
	keepAllocated(&svc.Spec, &old.Spec)
	settleClusterIPs(&svc.Spec, &old.Spec)
	dropUnused(&svc.Spec, &old.Spec)
}

// settleClusterIPs follows a client that knows the singular field alone.
func settleClusterIPs(spec, old *corev1.ServiceSpec) {
	switch {
	case old.ClusterIP == "" && len(old.ClusterIPs) == 0:
		if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = []string{spec.ClusterIP}
		}
	case spec.ClusterIP == "" && old.ClusterIP != "":
		if slices.Equal(spec.ClusterIPs, old.ClusterIPs) {
			spec.ClusterIPs = nil
		}
	case spec.ClusterIP != old.ClusterIP:
		if slices.Equal(spec.ClusterIPs, old.ClusterIPs) || len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = []string{spec.ClusterIP}
		}
	case len(spec.ClusterIPs) == 0:
		spec.ClusterIPs = slices.Clone(old.ClusterIPs)
	}
}

func hasClusterIP(t corev1.ServiceType) bool { return t != corev1.ServiceTypeExternalName }

func hasNodePorts(t corev1.ServiceType) bool {
	return t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer
}

func hasHealthCheck(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeLoadBalancer && spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// keepAllocated keeps what was allocated and is left out by a client that
// replaces the object with its manifest.
func keepAllocated(spec, old *corev1.ServiceSpec) {
	if hasClusterIP(old.Type) && hasClusterIP(spec.Type) && spec.ClusterIP == "" && len(spec.ClusterIPs) == 0 {
		spec.ClusterIP, spec.ClusterIPs = old.ClusterIP, slices.Clone(old.ClusterIPs)
	}
	if hasNodePorts(old.Type) && hasNodePorts(spec.Type) {
		type port struct {
			protocol corev1.Protocol
			port     int32
		}
		allocated, used := map[port]int32{}, map[int32]bool{}
		for _, p := range old.Ports {
			allocated[port{p.Protocol, p.Port}] = p.NodePort
		}
		for _, p := range spec.Ports {
			used[p.NodePort] = true
		}
		for i := range spec.Ports {
			p := &spec.Ports[i]
			if had := allocated[port{p.Protocol, p.Port}]; p.NodePort == 0 && !used[had] {
				p.NodePort = had
			}
		}
	}
	if hasHealthCheck(old) && hasHealthCheck(spec) && spec.HealthCheckNodePort == 0 {
		spec.HealthCheckNodePort = old.HealthCheckNodePort
	}
}

// dropUnused drops what the type of a Service has no use for, where the client
// changed the type and left the rest as it was.
func dropUnused(spec, old *corev1.ServiceSpec) {
	if hasClusterIP(old.Type) && !hasClusterIP(spec.Type) {
		if spec.ClusterIP == old.ClusterIP && slices.Equal(spec.ClusterIPs, old.ClusterIPs) {
			spec.ClusterIP, spec.ClusterIPs = "", nil
		}
		if slices.Equal(spec.IPFamilies, old.IPFamilies) {
			spec.IPFamilies = nil
		}
		if equalPointers(spec.IPFamilyPolicy, old.IPFamilyPolicy) {
			spec.IPFamilyPolicy = nil
		}
		if equalPointers(spec.InternalTrafficPolicy, old.InternalTrafficPolicy) {
			spec.InternalTrafficPolicy = nil
		}
	}
	if hasNodePorts(old.Type) && !hasNodePorts(spec.Type) && sameNodePorts(spec, old) {
		for i := range spec.Ports {
			spec.Ports[i].NodePort = 0
		}
	}
	if hasHealthCheck(old) && !hasHealthCheck(spec) && spec.HealthCheckNodePort == old.HealthCheckNodePort {
		spec.HealthCheckNodePort = 0
	}
	if old.Type == corev1.ServiceTypeLoadBalancer && spec.Type != corev1.ServiceTypeLoadBalancer {
		if equalPointers(spec.AllocateLoadBalancerNodePorts, old.AllocateLoadBalancerNodePorts) {
			spec.AllocateLoadBalancerNodePorts = nil
		}
		if equalPointers(spec.LoadBalancerClass, old.LoadBalancerClass) {
			spec.LoadBalancerClass = nil
		}
	}
	if externallyReachable(old) && !externallyReachable(spec) && spec.ExternalTrafficPolicy == old.ExternalTrafficPolicy {
		spec.ExternalTrafficPolicy = ""
	}
}

// sameNodePorts says whether all node ports of spec were those of old.
func sameNodePorts(spec, old *corev1.ServiceSpec) bool {
	had := map[int32]bool{}
	for _, p := range old.Ports {
		had[p.NodePort] = true
	}
	for _, p := range spec.Ports {
		if p.NodePort != 0 && !had[p.NodePort] {
			return false
		}
	}
	return true
}
