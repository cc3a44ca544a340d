// Package podgroupprotection keeps a PodGroup until no pod belongs to it any more, by a
// finalizer. There are PodGroups where the feature GenericWorkload is on.
package podgroupprotection

import (
	"context"
	"slices"

	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apiserver/pkg/admission"
)

// PluginName is the plugin's name in flags.
const PluginName = "PodGroupProtection"

// finalizer is removed by a controller when the last pod is gone.
const finalizer = schedulingv1.GroupName + "/podgroup-protection"

// Plugin adds the finalizer.
type Plugin struct{ *admission.Handler }

var _ admission.MutationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin { return &Plugin{admission.NewHandler(admission.Create)} }

// Admit adds the finalizer to a new PodGroup.
func (p *Plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != schedulingv1.Resource("podgroups") || a.GetSubresource() != "" {
		return nil
	}
	group, err := meta.Accessor(a.GetObject())
	if err != nil {
		return err
	}
	if f := group.GetFinalizers(); !slices.Contains(f, finalizer) {
		group.SetFinalizers(append(f, finalizer))
	}
	return nil
}
