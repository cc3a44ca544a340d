// Package defaultbinder binds a pod to its node through the API server.
package defaultbinder

import (
	"context"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// Name of the plugin.
const Name = "DefaultBinder"

// Plugin implements bind.
type Plugin struct{ handle fwk.Handle }

var _ fwk.BindPlugin = &Plugin{}

// New makes the plugin.
func New(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	return &Plugin{handle: h}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// Bind posts the binding. The UID in it keeps it from a pod of the same name that came since.
func (p *Plugin) Bind(ctx context.Context, _ fwk.CycleState, pod *v1.Pod, node string) *fwk.Status {
	klog.FromContext(ctx).V(3).Info("Binding", "pod", klog.KObj(pod), "node", node)
	binding := &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: node},
	}
	return fwk.AsStatus(p.handle.ClientSet().CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{}))
}

// EventsToRegister returns nothing: the plugin never rejects a pod.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return nil, nil
}
