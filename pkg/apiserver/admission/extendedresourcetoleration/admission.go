// Package extendedresourcetoleration lets pods that ask for an extended resource tolerate
// the taint of that name, so that nodes with special hardware can be kept for them.
package extendedresourcetoleration

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"

	"github.com/leme-k8s/leme/pkg/api/core"
)

// PluginName is the plugin's name in flags.
const PluginName = "ExtendedResourceToleration"

// Plugin adds tolerations.
type Plugin struct{ *admission.Handler }

var _ admission.MutationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin {
	return &Plugin{admission.NewHandler(admission.Create, admission.Update)}
}

// Admit adds a toleration for each extended resource that a container requests.
func (p *Plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetSubresource() != "" {
		return nil
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("expected *v1.Pod but got %T", a.GetObject()))
	}
	resources := map[corev1.ResourceName]bool{}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		for name := range c.Resources.Requests {
			if core.IsExtendedResource(name) {
				resources[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		want := corev1.Toleration{Key: string(name), Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
		if i := slices.IndexFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.MatchToleration(&want) }); i >= 0 {
			pod.Spec.Tolerations[i] = want
		} else {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, want)
		}
	}
	return nil
}
