// Package nodedeclaredfeaturevalidator refuses updates of a pod that need a feature which
// the pod's node does not declare to have.
package nodedeclaredfeaturevalidator

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/component-helpers/nodedeclaredfeatures"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/boundpods"
	"github.com/leme-k8s/leme/pkg/component"
)

// PluginName is the plugin's name in flags.
const PluginName = "NodeDeclaredFeatureValidator"

// Plugin lets the published library say what an update needs.
type Plugin struct {
	boundpods.Handler
	features *nodedeclaredfeatures.Framework
	version  *version.Version
}

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin {
	return newPlugin(nodedeclaredfeatures.DefaultFramework, version.MustParseSemantic(component.Version))
}

func newPlugin(features *nodedeclaredfeatures.Framework, v *version.Version) *Plugin {
	return &Plugin{Handler: boundpods.NewHandler(), features: features, version: v}
}

// Validate compares what the update needs with what the node declares.
func (p *Plugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, old, err := boundpods.Update(a, "", "resize")
	if pod == nil {
		return err
	}
	needs, err := p.features.InferForPodUpdate(
		&nodedeclaredfeatures.PodInfo{Spec: &old.Spec, Status: &old.Status},
		&nodedeclaredfeatures.PodInfo{Spec: &pod.Spec, Status: &pod.Status}, p.version)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("failed to infer pod capability requirements: %w", err))
	}
	if needs.IsEmpty() {
		return nil
	}
	node, err := p.Node(a, pod)
	if err != nil {
		return err
	}
	match, err := p.features.MatchNode(needs, node)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("failed to match pod requirements against node %q: %w", node.Name, err))
	}
	if !match.IsMatch {
		return admission.NewForbidden(a, fmt.Errorf("pod update requires features %s which are not available on node %q", strings.Join(match.UnsatisfiedRequirements, ", "), node.Name))
	}
	return nil
}
