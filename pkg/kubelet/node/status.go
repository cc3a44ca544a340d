package node

import (
	"context"
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// status is the node's status now, and whether the node is ready.
func (m *Manager) status(ctx context.Context, node *v1.Node, now time.Time) (v1.NodeStatus, bool) {
	s := v1.NodeStatus{}
	if node != nil {
		s = *node.Status.DeepCopy()
	}
	capacity, allocatable := m.Machine.Capacity(), m.Machine.Allocatable()
	keepExtended(capacity, s.Capacity)
	keepExtended(allocatable, capacity)
	s.Capacity, s.Allocatable = capacity, allocatable
	if !m.External || len(s.Addresses) == 0 {
		s.Addresses = m.Addresses()
	}
	s.VolumesInUse = nil
	if m.VolumesInUse != nil {
		s.VolumesInUse = m.VolumesInUse()
	}
	s.DaemonEndpoints.KubeletEndpoint.Port = m.Port
	s.NodeInfo = m.Machine.Info()
	s.NodeInfo.OperatingSystem, s.NodeInfo.Architecture = goruntime.GOOS, goruntime.GOARCH
	s.NodeInfo.KubeletVersion = "v" + m.Version
	s.NodeInfo.KubeProxyVersion = ""

	trouble := m.runtimeStatus(ctx, &s)
	images, err := m.Images.NodeImages(ctx)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Cannot list images", "err", err)
	} else {
		s.Images = images
	}
	conditions := m.Pressure.Conditions()
	ready := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
	if len(trouble) > 0 {
		ready.Status, ready.Reason, ready.Message = v1.ConditionFalse, "KubeletNotReady", strings.Join(trouble, ", ")
	}
	for _, c := range append(slices.Clone(conditions), ready) {
		setCondition(&s, c, now)
	}
	return s, len(trouble) == 0
}

// keepExtended adds the extended resources that somebody else has given the node. What the node has of them is all
// allocatable: nobody reserves any.
func keepExtended(own, was v1.ResourceList) {
	for name, q := range was {
		if _, ok := own[name]; !ok && strings.Contains(string(name), "/") {
			own[name] = q
		}
	}
}

// runtimeStatus fills in what the runtime says of itself, and returns what keeps the node from being ready.
func (m *Manager) runtimeStatus(ctx context.Context, s *v1.NodeStatus) []string {
	version, err := m.CRI.Version(ctx, "")
	if err != nil {
		return []string{fmt.Sprintf("container runtime is down: %v", err)}
	}
	s.NodeInfo.ContainerRuntimeVersion = version.RuntimeName + "://" + version.RuntimeVersion
	st, err := m.CRI.Status(ctx, false)
	if err != nil {
		return []string{fmt.Sprintf("container runtime status check may not have completed yet: %v", err)}
	}
	s.RuntimeHandlers = nil
	handlers := map[string]*runtimeapi.RuntimeHandlerFeatures{}
	for _, h := range st.RuntimeHandlers {
		handlers[h.Name] = h.Features
		f := &v1.NodeRuntimeHandlerFeatures{}
		rro, userns := h.Features.GetRecursiveReadOnlyMounts(), h.Features.GetUserNamespaces()
		f.RecursiveReadOnlyMounts, f.UserNamespaces = &rro, &userns
		s.RuntimeHandlers = append(s.RuntimeHandlers, v1.NodeRuntimeHandler{Name: h.Name, Features: f})
	}
	slices.SortFunc(s.RuntimeHandlers, func(a, b v1.NodeRuntimeHandler) int { return strings.Compare(a.Name, b.Name) })
	if f := st.Features; f != nil {
		policy := f.SupplementalGroupsPolicy
		s.Features = &v1.NodeFeatures{SupplementalGroupsPolicy: &policy}
	}
	m.mu.Lock()
	m.handlers = handlers
	m.mu.Unlock()
	var trouble []string
	for _, want := range []struct{ kind, what string }{
		{runtimeapi.RuntimeReady, "container runtime not ready"},
		{runtimeapi.NetworkReady, "container runtime network not ready"},
	} {
		i := slices.IndexFunc(st.Status.GetConditions(), func(c *runtimeapi.RuntimeCondition) bool { return c.Type == want.kind })
		if i < 0 {
			trouble = append(trouble, fmt.Sprintf("%s: the runtime does not report %s", want.what, want.kind))
		} else if c := st.Status.Conditions[i]; !c.Status {
			trouble = append(trouble, fmt.Sprintf("%s: %s=false reason:%s message:%s", want.what, c.Type, c.Reason, c.Message))
		}
	}
	return trouble
}

func setCondition(s *v1.NodeStatus, c v1.NodeCondition, now time.Time) {
	c.LastHeartbeatTime = metav1.NewTime(now).Rfc3339Copy()
	i := slices.IndexFunc(s.Conditions, func(o v1.NodeCondition) bool { return o.Type == c.Type })
	if i < 0 {
		c.LastTransitionTime = c.LastHeartbeatTime
		s.Conditions = append(s.Conditions, c)
		return
	}
	if c.LastTransitionTime = s.Conditions[i].LastTransitionTime; s.Conditions[i].Status != c.Status {
		c.LastTransitionTime = c.LastHeartbeatTime
	}
	s.Conditions[i] = c
}

// Addresses are the node's, as far as it knows itself.
func (m *Manager) Addresses() []v1.NodeAddress {
	var out []v1.NodeAddress
	for _, ip := range m.IPs {
		out = append(out, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip.String()})
	}
	return append(out, v1.NodeAddress{Type: v1.NodeHostName, Address: m.Hostname})
}
