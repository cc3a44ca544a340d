package pods

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	corev1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// Rejection says why the node does not take a pod.
type Rejection struct{ Reason, Message string }

// admit decides whether the node takes a pod. What has run here before is not asked again:
// a restarted kubelet ends nothing.
func (m *Manager) admit(ctx context.Context, pod *v1.Pod) *Rejection {
	if pod.Status.Phase == v1.PodRunning || len(pod.Status.ContainerStatuses) > 0 {
		return nil
	}
	node, err := m.Node(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot admit a pod without knowing the node", "pod", klog.KObj(pod))
		return &Rejection{"InvalidNodeInfo", "Kubelet cannot get node info."}
	}
	if m.Pressure != nil {
		if err := m.Pressure(pod); err != nil {
			r := &Rejection{"Evicted", err.Error()}
			var reasoned Reasoned
			if errors.As(err, &reasoned) {
				r.Reason = reasoned.Reason()
			}
			return r
		}
	}
	var others []*v1.Pod
	for _, w := range m.all() {
		if w.ended() == nil {
			w.mu.Lock()
			others = append(others, m.allocated(w.pod))
			w.mu.Unlock()
		}
	}
	return Admit(pod, node, others, m.UnsafeSysctls)
}

// Admit decides whether a node takes a pod beside the others that it runs; nil if it does.
func Admit(pod *v1.Pod, node *v1.Node, others []*v1.Pod, unsafeSysctls []string) *Rejection {
	if pod.Spec.OS != nil && pod.Spec.OS.Name != v1.Linux {
		return &Rejection{"PodOSNotSupported", fmt.Sprintf("Failed to admit pod as the OS field doesn't match node OS (%s)", v1.Linux)}
	}
	if want := pod.Spec.NodeSelector[v1.LabelOSStable]; want != "" && want != node.Labels[v1.LabelOSStable] {
		return &Rejection{"PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"}
	}
	if name := forbiddenSysctl(pod, unsafeSysctls); name != "" {
		return &Rejection{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowlisted", name)}
	}
	if r := fits(pod, node, others); r != nil {
		return r
	}
	if pod.Spec.NodeName != node.Name {
		return &Rejection{"NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name"}
	}
	if match, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !match {
		return &Rejection{"NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
	}
	for _, other := range others {
		if portsClash(pod, other) {
			return &Rejection{"NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
		}
	}
	if !runtime.IsStatic(pod) {
		if taint, bad := corev1helper.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations,
			func(t *v1.Taint) bool { return t.Effect == v1.TaintEffectNoExecute }, true); bad {
			return &Rejection{"TaintToleration", fmt.Sprintf("Predicate TaintToleration failed: node(s) had untolerated taint {%s: %s}", taint.Key, taint.Value)}
		}
	}
	return nil
}

// fits tells whether the node has room for the pod.
func fits(pod *v1.Pod, node *v1.Node, others []*v1.Pod) *Rejection {
	if most, ok := node.Status.Allocatable[v1.ResourcePods]; ok && int64(len(others)+1) > most.Value() {
		return &Rejection{"OutOfpods", fmt.Sprintf("Node didn't have enough resource: pods, requested: 1, used: %d, capacity: %d", len(others), most.Value())}
	}
	request := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	used := v1.ResourceList{}
	for _, o := range others {
		for name, q := range resourcehelper.PodRequests(o, resourcehelper.PodResourcesOptions{}) {
			if runtime.FromClaim(o, name) {
				continue
			}
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
	}
	for _, name := range sortedResources(request) {
		want := request[name]
		if want.IsZero() || runtime.FromClaim(pod, name) {
			continue
		}
		have, known := node.Status.Allocatable[name]
		if !known && name != v1.ResourceCPU && name != v1.ResourceMemory && name != v1.ResourceEphemeralStorage && runtime.IsStatic(pod) {
			continue // extended resources are the API's affair
		}
		taken := used[name]
		sum := taken.DeepCopy()
		sum.Add(want)
		if sum.Cmp(have) > 0 {
			return &Rejection{"OutOf" + string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
				name, amount(name, want), amount(name, taken), amount(name, have))}
		}
	}
	return nil
}

func sortedResources(l v1.ResourceList) []v1.ResourceName {
	names := make([]v1.ResourceName, 0, len(l))
	for name := range l {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func amount(name v1.ResourceName, q resource.Quantity) int64 {
	if name == v1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func portsClash(a, b *v1.Pod) bool {
	for _, p := range hostPorts(a) {
		for _, o := range hostPorts(b) {
			if p.HostPort == o.HostPort && p.Protocol == o.Protocol && (p.HostIP == o.HostIP || p.HostIP == "0.0.0.0" || o.HostIP == "0.0.0.0") {
				return true
			}
		}
	}
	return false
}

func hostPorts(pod *v1.Pod) []v1.ContainerPort {
	var out []v1.ContainerPort
	runtime.EachContainer(pod, func(c *v1.Container, kind runtime.Kind) {
		if kind != runtime.Regular && kind != runtime.Sidecar {
			return
		}
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			if p.HostIP == "" {
				p.HostIP = "0.0.0.0"
			}
			if p.Protocol == "" {
				p.Protocol = v1.ProtocolTCP
			}
			out = append(out, p)
		}
	})
	return out
}

// safeSysctls reach no farther than the pod's own namespaces and cost the node nothing.
var safeSysctls = []string{
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}

func forbiddenSysctl(pod *v1.Pod, allowed []string) string {
	if pod.Spec.SecurityContext == nil {
		return ""
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := strings.ReplaceAll(s.Name, "/", ".")
		matches := func(pattern string) bool {
			prefix, wild := strings.CutSuffix(strings.ReplaceAll(pattern, "/", "."), "*")
			return name == pattern || wild && strings.HasPrefix(name, prefix)
		}
		if !slices.Contains(safeSysctls, name) && !slices.ContainsFunc(allowed, matches) {
			return s.Name
		}
		// What has no namespace of its own here would be the node's.
		if pod.Spec.HostNetwork && strings.HasPrefix(name, "net.") || pod.Spec.HostIPC && strings.HasPrefix(name, "kernel.shm") {
			return s.Name
		}
	}
	return ""
}
