// Package podresizevalidator refuses to resize a pod beyond what its node has, or on a
// node that cannot resize pods at all.
package podresizevalidator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/boundpods"
)

// PluginName is the plugin's name in flags.
const PluginName = "PodResizeValidator"

// Causes that are told with a refusal.
const (
	nodeCapacity        metav1.CauseType = "NodeCapacity"
	unsupportedPlatform metav1.CauseType = "UnsupportedPlatform"
)

// Plugin checks resizes.
type Plugin struct{ boundpods.Handler }

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin { return &Plugin{boundpods.NewHandler()} }

// Validate compares what the pod would request with what its node has for pods.
func (p *Plugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, _, err := boundpods.Update(a, "resize")
	if pod == nil {
		return err
	}
	node, err := p.Node(a, pod)
	if err != nil {
		return err
	}
	if os, ok := node.Labels[corev1.LabelOSStable]; ok && os != string(corev1.Linux) {
		return refused(a, unsupportedPlatform, fmt.Errorf("pod resize is only supported on linux nodes, node %q is %q", node.Name, os))
	}
	if excess := excess(pod, node.Status.Allocatable); len(excess) > 0 {
		return refused(a, nodeCapacity, fmt.Errorf("node didn't have enough allocatable resources: %s", strings.Join(excess, "; ")))
	}
	return nil
}

// excess says which requests of the pod alone are more than a node has.
func excess(pod *corev1.Pod, allocatable corev1.ResourceList) (all []string) {
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	if want, have := requests.Cpu(), allocatable.Cpu(); want.Cmp(*have) > 0 {
		all = append(all, fmt.Sprintf("cpu, requested: %d, allocatable: %d", want.MilliValue(), have.MilliValue()))
	}
	if want, have := requests.Memory(), allocatable.Memory(); want.Cmp(*have) > 0 {
		all = append(all, fmt.Sprintf("memory, requested: %d, allocatable: %d", want.Value(), have.Value()))
	}
	return all
}

func refused(a admission.Attributes, cause metav1.CauseType, why error) error {
	err := admission.NewForbidden(a, why)
	if status := (*apierrors.StatusError)(nil); errors.As(err, &status) && status.ErrStatus.Details != nil {
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
	}
	return err
}
