package pod

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// status is what kubelets write.
var status = generic.Update[*corev1.Pod]{
	Prepare: func(_ context.Context, obj, old *corev1.Pod) {
		obj.DeletionTimestamp = nil
		obj.OwnerReferences = old.OwnerReferences
		keepStatus(&obj.Status, &old.Status)
		core.DropDisabledPodStatusFields(&obj.Status, &old.Status)
	},
	Validate:    generic.CheckUpdate(core.ValidatePodStatusUpdate),
	ResetFields: []string{"metadata.deletionTimestamp", "metadata.ownerReferences"},
}

// keepStatus keeps what an older client leaves out because it does not know it.
func keepStatus(s, old *corev1.PodStatus) {
	if s.QOSClass == "" {
		s.QOSClass = old.QOSClass
	}
	if s.ResourceClaimStatuses == nil {
		s.ResourceClaimStatuses = old.ResourceClaimStatuses
	}
	if s.ExtendedResourceClaimStatus == nil {
		s.ExtendedResourceClaimStatus = old.ExtendedResourceClaimStatus
	}
	if s.ObservedGeneration == 0 {
		s.ObservedGeneration = old.ObservedGeneration
	}
	generations := map[corev1.PodConditionType]int64{}
	for _, c := range old.Conditions {
		generations[c.Type] = c.ObservedGeneration
	}
	for i := range s.Conditions {
		if c := &s.Conditions[i]; c.ObservedGeneration == 0 {
			c.ObservedGeneration = generations[c.Type]
		}
	}
}

// ephemeralContainers adds containers for debugging.
var ephemeralContainers = generic.Update[*corev1.Pod]{
	Prepare: func(_ context.Context, obj, old *corev1.Pod) {
		containers := obj.Spec.EphemeralContainers
		keepAll(obj, old)
		obj.Spec.EphemeralContainers = containers
		countGeneration(obj, old)
	},
	Validate: generic.CheckUpdate(core.ValidatePodEphemeralContainersUpdate),
}

// resize changes the resources of containers while they run.
var resize = generic.Update[*corev1.Pod]{
	Prepare: func(_ context.Context, obj, old *corev1.Pod) {
		containers, sameContainers := resized(obj.Spec.Containers, old.Spec.Containers)
		initContainers, sameInit := resized(obj.Spec.InitContainers, old.Spec.InitContainers)
		if sameContainers && sameInit { // else it is left to validation to say no
			resources := obj.Spec.Resources
			keepAll(obj, old)
			obj.Spec.Containers, obj.Spec.InitContainers, obj.Spec.Resources = containers, initContainers, resources
		}
		keepPodResources(obj, old)
		countGeneration(obj, old)
	},
	Validate: generic.CheckUpdate(core.ValidatePodResize),
}

// keepAll makes obj what old is, but for what identifies the request.
func keepAll(obj, old *corev1.Pod) {
	obj.Spec = *old.Spec.DeepCopy()
	obj.Status = old.Status
	metav1.ResetObjectMetaForStatus(&obj.ObjectMeta, &old.ObjectMeta)
}

func countGeneration(obj, old *corev1.Pod) {
	obj.Generation = old.Generation
	if generic.SpecChanged(obj, old) {
		obj.Generation++
	}
}

// resized returns the old containers with the new resources, and whether they are
// the same containers in the same order.
func resized(containers, old []corev1.Container) ([]corev1.Container, bool) {
	if len(containers) != len(old) {
		return nil, false
	}
	result := append([]corev1.Container(nil), old...)
	for i := range containers {
		if containers[i].Name != old[i].Name {
			return nil, false
		}
		result[i].Resources, result[i].ResizePolicy = containers[i].Resources, containers[i].ResizePolicy
	}
	return result, true
}
