// Package podnodeselector keeps the pods of a namespace to the nodes that its annotation
// or the configuration of the plugin names:
//
//	podNodeSelectorPluginConfig:
//	  clusterDefaultNodeSelector: role=worker   # for namespaces without the annotation
//	  team-a: role=worker,disk=ssd              # the only labels that pods of team-a may select
package podnodeselector

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/namespaces"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/pluginconfig"
)

// PluginName is the plugin's name in flags.
const PluginName = "PodNodeSelector"

const (
	// annotation of a namespace: the labels that its pods' nodes must have.
	annotation = "scheduler.alpha.kubernetes.io/node-selector"
	// clusterDefault is the entry of the configuration for namespaces without the annotation.
	clusterDefault = "clusterDefaultNodeSelector"
)

// Plugin merges node selectors.
type Plugin struct {
	namespaces.Handler
	// selectors are by namespace what its pods may select at most.
	selectors map[string]string
}

var (
	_ admission.MutationInterface   = &Plugin{}
	_ admission.ValidationInterface = &Plugin{}
)

// New returns the plugin.
func New(section io.Reader) (*Plugin, error) {
	var config struct {
		Selectors map[string]string `json:"podNodeSelectorPluginConfig"`
	}
	if err := pluginconfig.Read(section, &config); err != nil {
		return nil, err
	}
	return &Plugin{Handler: namespaces.NewHandler(admission.Create), selectors: config.Selectors}, nil
}

// Admit adds the namespace's selector to that of the pod.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod := podOf(a)
	if pod == nil {
		return nil
	}
	selector, err := p.selector(ctx, a, pod)
	if err != nil {
		return err
	}
	pod.Spec.NodeSelector = labels.Merge(selector, pod.Spec.NodeSelector)
	return p.allowed(a, pod)
}

// Validate refuses a pod that a later plugin has made select other nodes.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod := podOf(a)
	if pod == nil {
		return nil
	}
	if _, err := p.selector(ctx, a, pod); err != nil {
		return err
	}
	return p.allowed(a, pod)
}

func podOf(a admission.Attributes) *corev1.Pod {
	if a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetSubresource() != "" {
		return nil
	}
	pod, _ := a.GetObject().(*corev1.Pod)
	return pod
}

// selector returns the labels that the namespace asks for, if the pod does not ask for others.
func (p *Plugin) selector(ctx context.Context, a admission.Attributes, pod *corev1.Pod) (labels.Set, error) {
	namespace, err := p.Of(ctx, a)
	if err != nil {
		return nil, err
	}
	text, ok := namespace.Annotations[annotation]
	if !ok {
		text = p.selectors[clusterDefault]
	}
	selector, err := labels.ConvertSelectorToLabelsMap(text)
	if err != nil {
		return nil, err
	}
	if labels.Conflicts(selector, pod.Spec.NodeSelector) {
		return nil, forbidden(pod, "pod node label selector conflicts with its namespace node label selector")
	}
	return selector, nil
}

// allowed says whether the configuration lets pods of the namespace select what the pod selects.
func (p *Plugin) allowed(a admission.Attributes, pod *corev1.Pod) error {
	whitelist, err := labels.ConvertSelectorToLabelsMap(p.selectors[a.GetNamespace()])
	if err != nil {
		return fmt.Errorf("podNodeSelectorPluginConfig of namespace %s: %w", a.GetNamespace(), err)
	}
	if len(whitelist) == 0 {
		return nil
	}
	for key, value := range pod.Spec.NodeSelector {
		if !whitelist.Has(key) || whitelist.Get(key) != value {
			return forbidden(pod, "pod node label selector labels conflict with its namespace whitelist")
		}
	}
	return nil
}

func forbidden(pod *corev1.Pod, why string) error {
	return apierrors.NewForbidden(corev1.Resource("pods"), pod.Name, errors.New(why))
}
