// Package alwayspullimages makes every container pull its image each time it
// starts, so that nobody runs a private image because it happens to lie on a node.
package alwayspullimages

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
)

// PluginName is the plugin's name in flags.
const PluginName = "AlwaysPullImages"

// Plugin sets the pull policy.
type Plugin struct{ *admission.Handler }

var (
	_ admission.MutationInterface   = &Plugin{}
	_ admission.ValidationInterface = &Plugin{}
)

// New returns the plugin.
func New() *Plugin {
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update)}
}

// Admit sets the policy of every container.
func (p *Plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	each(a, func(_ *field.Path, _ string, policy *corev1.PullPolicy) { *policy = corev1.PullAlways })
	return nil
}

// Validate refuses a pod that a later plugin has changed back.
func (p *Plugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	var errs field.ErrorList
	each(a, func(path *field.Path, _ string, policy *corev1.PullPolicy) {
		if *policy != corev1.PullAlways {
			errs = append(errs, field.NotSupported(path.Child("imagePullPolicy"), *policy, []corev1.PullPolicy{corev1.PullAlways}))
		}
	})
	if len(errs) > 0 {
		return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), errs)
	}
	return nil
}

// each visits the containers of a pod. An update that brings no new image is not
// this plugin's business.
func each(a admission.Attributes, visit func(path *field.Path, image string, policy *corev1.PullPolicy)) {
	if a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetSubresource() != "" && a.GetSubresource() != "ephemeralcontainers" {
		return
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return
	}
	before := map[string]bool{}
	if old, ok := a.GetOldObject().(*corev1.Pod); ok && a.GetOperation() == admission.Update {
		visitContainers(old, func(_ *field.Path, image string, _ *corev1.PullPolicy) { before[image] = true })
		fresh := false
		visitContainers(pod, func(_ *field.Path, image string, _ *corev1.PullPolicy) { fresh = fresh || !before[image] })
		if !fresh {
			return
		}
	}
	visitContainers(pod, visit)
}

func visitContainers(pod *corev1.Pod, visit func(path *field.Path, image string, policy *corev1.PullPolicy)) {
	spec := field.NewPath("spec")
	for i := range pod.Spec.InitContainers {
		visit(spec.Child("initContainers").Index(i), pod.Spec.InitContainers[i].Image, &pod.Spec.InitContainers[i].ImagePullPolicy)
	}
	for i := range pod.Spec.Containers {
		visit(spec.Child("containers").Index(i), pod.Spec.Containers[i].Image, &pod.Spec.Containers[i].ImagePullPolicy)
	}
	for i := range pod.Spec.EphemeralContainers {
		visit(spec.Child("ephemeralContainers").Index(i), pod.Spec.EphemeralContainers[i].Image, &pod.Spec.EphemeralContainers[i].ImagePullPolicy)
	}
}
