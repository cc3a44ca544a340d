package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// HasClusterIP reports whether the type of s has cluster IPs at all; "None" is one.
func HasClusterIP(s *corev1.Service) bool { return s.Spec.Type != corev1.ServiceTypeExternalName }

// Headless reports whether s asks for no cluster IP.
func Headless(s *corev1.Service) bool {
	return s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone
}

// HasNodePorts reports whether the type of s may have node ports.
func HasNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// WantsNodePorts reports whether each port of s is to have a node port.
func WantsNodePorts(s *corev1.Service) bool {
	return HasNodePorts(s) && (s.Spec.Type == corev1.ServiceTypeNodePort || ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true))
}

// HasHealthPort reports whether load balancers ask nodes for the endpoints they have.
func HasHealthPort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// SameClusterIPs reports whether s and old have the same.
func SameClusterIPs(s, old *corev1.Service) bool {
	return s.Spec.ClusterIP == old.Spec.ClusterIP && slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs)
}

// SyncClusterIPs makes clusterIPs follow clusterIP for clients that know the latter alone.
func SyncClusterIPs(s, old *corev1.Service) {
	spec := &s.Spec
	if old == nil {
		if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = []string{spec.ClusterIP}
		}
		return
	}
	if spec.ClusterIP == old.Spec.ClusterIP {
		if len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = old.Spec.ClusterIPs
		}
		return
	}
	if !slices.Equal(spec.ClusterIPs, old.Spec.ClusterIPs) {
		return // the client changed both: validation has the word
	}
	if spec.ClusterIP == "" {
		spec.ClusterIPs = nil
	} else {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
}

// KeepAllocated fills in what the old Service was given and the new one does not
// mention, so that a manifest can be sent twice.
func KeepAllocated(s, old *corev1.Service) {
	if HasClusterIP(s) && HasClusterIP(old) {
		if s.Spec.ClusterIP == "" {
			s.Spec.ClusterIP = old.Spec.ClusterIP
		}
		if len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = old.Spec.ClusterIPs
		}
	}
	if WantsNodePorts(s) && WantsNodePorts(old) {
		taken := map[int32]bool{}
		for _, p := range s.Spec.Ports {
			taken[p.NodePort] = true
		}
		byName := map[string]int32{}
		for _, p := range old.Spec.Ports {
			byName[p.Name] = p.NodePort
		}
		for i := range s.Spec.Ports {
			if p := &s.Spec.Ports[i]; p.NodePort == 0 && !taken[byName[p.Name]] {
				p.NodePort = byName[p.Name]
			}
		}
	}
	if HasHealthPort(s) && HasHealthPort(old) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

// DropMeaningless clears fields that mean nothing to the type. Most of them only if they are as
// before: the client changed the type and left the rest. What it did change is left
// to validation. old is nil on creation.
func DropMeaningless(s, old *corev1.Service) {
	if s.Spec.Type == corev1.ServiceTypeExternalName { // a name outside of the cluster
		s.Spec.InternalTrafficPolicy = nil
	}
	if old == nil {
		return
	}
	spec, was := &s.Spec, &old.Spec
	if HasClusterIP(old) && !HasClusterIP(s) {
		if SameClusterIPs(s, old) {
			spec.ClusterIP, spec.ClusterIPs = "", nil
		}
		if slices.Equal(spec.IPFamilies, was.IPFamilies) {
			spec.IPFamilies = nil
		}
		if ptr.Equal(spec.IPFamilyPolicy, was.IPFamilyPolicy) {
			spec.IPFamilyPolicy = nil
		}
	}
	if HasNodePorts(old) && !HasNodePorts(s) && noNewNodePorts(spec.Ports, was.Ports) {
		for i := range spec.Ports {
			spec.Ports[i].NodePort = 0
		}
	}
	if HasHealthPort(old) && !HasHealthPort(s) && spec.HealthCheckNodePort == was.HealthCheckNodePort {
		spec.HealthCheckNodePort = 0
	}
	if HasNodePorts(old) && !HasNodePorts(s) && len(spec.ExternalIPs) == 0 && spec.ExternalTrafficPolicy == was.ExternalTrafficPolicy {
		spec.ExternalTrafficPolicy = ""
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		return
	}
	if was.Type == corev1.ServiceTypeLoadBalancer {
		if ptr.Equal(spec.AllocateLoadBalancerNodePorts, was.AllocateLoadBalancerNodePorts) {
			spec.AllocateLoadBalancerNodePorts = nil
		}
		if ptr.Equal(spec.LoadBalancerClass, was.LoadBalancerClass) {
			spec.LoadBalancerClass = nil
		}
	}
	s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
}

func noNewNodePorts(ports, old []corev1.ServicePort) bool {
	known := map[int32]bool{0: true}
	for _, p := range old {
		known[p.NodePort] = true
	}
	for _, p := range ports {
		if !known[p.NodePort] {
			return false
		}
	}
	return true
}
