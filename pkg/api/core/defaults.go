package core

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// SetDefaultsReplicationController sets the defaults of a ReplicationController,
// whose selector and labels follow those of its template.
func SetDefaultsReplicationController(rc *corev1.ReplicationController) {
	rules.SetPtr(&rc.Spec.Replicas, 1)
	if rc.Spec.Template == nil {
		return
	}
	SetDefaultsPodTemplateSpec(rc.Spec.Template)
	if labels := rc.Spec.Template.Labels; labels != nil {
		if len(rc.Spec.Selector) == 0 {
			rc.Spec.Selector = maps.Clone(labels)
		}
		if len(rc.Labels) == 0 {
			rc.Labels = maps.Clone(labels)
		}
	}
}

// SetDefaultsService sets the defaults of a Service.
func SetDefaultsService(svc *corev1.Service) {
	spec := &svc.Spec
	setZero(&spec.SessionAffinity, corev1.ServiceAffinityNone)
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		rules.SetPtr(&spec.SessionAffinityConfig, corev1.SessionAffinityConfig{})
		rules.SetPtr(&spec.SessionAffinityConfig.ClientIP, corev1.ClientIPConfig{})
		rules.SetPtr(&spec.SessionAffinityConfig.ClientIP.TimeoutSeconds, corev1.DefaultClientIPServiceAffinitySeconds)
	}
	setZero(&spec.Type, corev1.ServiceTypeClusterIP)
	for i := range spec.Ports {
		p := &spec.Ports[i]
		setZero(&p.Protocol, corev1.ProtocolTCP)
		if isUnset(p.TargetPort) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if externallyReachable(spec) {
		setZero(&spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	switch spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		rules.SetPtr(&spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		rules.SetPtr(&spec.AllocateLoadBalancerNodePorts, true)
		for i := range svc.Status.LoadBalancer.Ingress {
			if ingress := &svc.Status.LoadBalancer.Ingress[i]; ingress.IP != "" {
				rules.SetPtr(&ingress.IPMode, corev1.LoadBalancerIPModeVIP)
			}
		}
	}
}

// externallyReachable says whether a Service has addresses or ports meant for
// clients outside the cluster.
func externallyReachable(spec *corev1.ServiceSpec) bool {
	switch spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeClusterIP:
		return len(spec.ExternalIPs) > 0
	}
	return false
}

// SetDefaultsEndpoints sets the defaults of an Endpoints.
func SetDefaultsEndpoints(e *corev1.Endpoints) {
	for _, s := range e.Subsets {
		for i := range s.Ports {
			setZero(&s.Ports[i].Protocol, corev1.ProtocolTCP)
		}
	}
}

// SetDefaultsNode sets the defaults of a Node. Of the two fields for its pod
// ranges the older, singular one is believed if they differ.
func SetDefaultsNode(node *corev1.Node) {
	spec, status := &node.Spec, &node.Status
	if status.Allocatable == nil && status.Capacity != nil {
		status.Allocatable = status.Capacity.DeepCopy()
	}
	roundUp(status.Capacity)
	roundUp(status.Allocatable)
	switch {
	case spec.PodCIDR == "" && len(spec.PodCIDRs) > 0:
		spec.PodCIDR = spec.PodCIDRs[0]
	case spec.PodCIDR != "" && (len(spec.PodCIDRs) == 0 || spec.PodCIDRs[0] != spec.PodCIDR):
		spec.PodCIDRs = []string{spec.PodCIDR}
	}
}

// SetDefaultsNamespace sets the defaults of a Namespace, and the label that
// selectors know it by.
func SetDefaultsNamespace(ns *corev1.Namespace) {
	setZero(&ns.Status.Phase, corev1.NamespaceActive)
	if ns.Name == "" { // generated later; whoever generates it sets the label
		return
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
}

// SetDefaultsSecret sets the defaults of a Secret and moves its write-only
// stringData to where data is kept.
func SetDefaultsSecret(secret *corev1.Secret) {
	setZero(&secret.Type, corev1.SecretTypeOpaque)
	if len(secret.StringData) > 0 && secret.Data == nil {
		secret.Data = make(map[string][]byte, len(secret.StringData))
	}
	for k, v := range secret.StringData {
		secret.Data[k] = []byte(v)
	}
	secret.StringData = nil
}

// SetDefaultsResourceQuota sets the defaults of a ResourceQuota.
func SetDefaultsResourceQuota(quota *corev1.ResourceQuota) {
	for _, list := range []corev1.ResourceList{quota.Spec.Hard, quota.Status.Hard, quota.Status.Used} {
		roundUp(list)
	}
}

// SetDefaultsLimitRange sets the defaults of a LimitRange: the default limit of
// a container is its maximum, its default request the default limit or, without
// one, the minimum.
func SetDefaultsLimitRange(lr *corev1.LimitRange) {
	every := func(corev1.ResourceName) bool { return true }
	for i := range lr.Spec.Limits {
		item := &lr.Spec.Limits[i]
		for _, list := range []corev1.ResourceList{item.Max, item.Min, item.Default, item.DefaultRequest, item.MaxLimitRequestRatio} {
			roundUp(list)
		}
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		if item.Default == nil {
			item.Default = corev1.ResourceList{}
		}
		if item.DefaultRequest == nil {
			item.DefaultRequest = corev1.ResourceList{}
		}
		addMissing(item.Default, item.Max, every)
		addMissing(item.DefaultRequest, item.Default, every)
		addMissing(item.DefaultRequest, item.Min, every)
	}
}
