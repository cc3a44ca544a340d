package quota

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Devices finds what a claim of devices alone does not say: what pods call the devices of its classes, and what the pod that it was made for
// has asked for already.
type Devices struct {
	Class  func(name string) (*resourcev1.DeviceClass, error)
	Pod    func(namespace, name string) (*corev1.Pod, error)
	Claims func(namespace string) ([]resourcev1.ResourceClaim, error)
}

func resourceClaims(list generic.ListFuncByNamespace, d Devices) quota.Evaluator {
	return &evaluator[*resourcev1.ResourceClaim]{
		resource: resourcev1.Resource("resourceclaims"),
		list:     list,
		handles:  allUpdates,
		measures: func(name corev1.ResourceName) bool {
			requested, ok := strings.CutPrefix(string(name), requestsPrefix)
			return strings.HasSuffix(string(name), corev1.ResourceClaimsPerClass) || ok && isExtended(corev1.ResourceName(requested))
		},
		usage: d.usage,
	}
}

// usage counts the devices that a claim may get, by class and under both names that pods can ask for them by. What stands for the
// extended resources of a pod is not counted twice.
func (d Devices) usage(c *resourcev1.ResourceClaim) (corev1.ResourceList, error) {
	used, requests := corev1.ResourceList{}, corev1.ResourceList{}
	for class, n := range devicesOf(c) {
		used[corev1.ResourceName(class+corev1.ResourceClaimsPerClass)] = number(int(n))
		requests[corev1.ResourceName(requestsPrefix+resourcev1.ResourceDeviceClassPrefix+class)] = number(int(n))
		described, err := d.Class(class)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("getting DeviceClass %s: %w", class, err)
		}
		if err == nil && described.Spec.ExtendedResourceName != nil {
			name := corev1.ResourceName(requestsPrefix + *described.Spec.ExtendedResourceName)
			requests = quota.Add(requests, corev1.ResourceList{name: number(int(n))})
		}
	}
	pod, err := d.asker(c)
	if err != nil {
		return nil, err
	}
	if pod != nil {
		counted := quotaNames(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{UseStatusResources: true}), nil)
		requests = quota.SubtractWithNonNegativeResult(requests, quota.Mask(counted, quota.ResourceNames(requests)))
	}
	return quota.Add(used, quota.RemoveZeros(requests)), nil
}

// asker returns the pod whose extended resources a claim stands for, or nil.
func (d Devices) asker(c *resourcev1.ResourceClaim) (*corev1.Pod, error) {
	owner := metav1.GetControllerOfNoCopy(c)
	if c.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" || owner == nil || owner.Kind != "Pod" {
		return nil, nil
	}
	pod, err := d.Pod(c.Namespace, owner.Name)
	if apierrors.IsNotFound(err) || err == nil && pod.UID != owner.UID {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("getting pod %s: %w", owner.Name, err)
	}
	if status := pod.Status.ExtendedResourceClaimStatus; status != nil {
		if status.ResourceClaimName != c.Name {
			return nil, nil
		}
		return pod, nil
	}
	// Nobody has noted yet which claim it is: if there are several, it may be another.
	all, err := d.Claims(c.Namespace)
	if err != nil {
		return nil, fmt.Errorf("listing ResourceClaims: %w", err)
	}
	if slices.ContainsFunc(all, func(other resourcev1.ResourceClaim) bool {
		return other.Name != c.Name && metav1.IsControlledBy(&other, pod)
	}) {
		return nil, nil
	}
	return pod, nil
}

// devicesOf counts the devices of each class that a claim may get: of alternatives, the one with the most.
func devicesOf(c *resourcev1.ResourceClaim) map[string]int64 {
	most := map[string]int64{}
	for _, r := range c.Spec.Devices.Requests {
		ofRequest := map[string]int64{}
		if r.Exactly != nil {
			ofRequest[r.Exactly.DeviceClassName] = devices(r.Exactly.AllocationMode, r.Exactly.Count)
		}
		for _, sub := range r.FirstAvailable {
			ofRequest[sub.DeviceClassName] = max(ofRequest[sub.DeviceClassName], devices(sub.AllocationMode, sub.Count))
		}
		for class, n := range ofRequest {
			most[class] += n
		}
	}
	return most
}

// devices is how many devices are asked for. "All" may turn out to be as many as a claim can have.
func devices(mode resourcev1.DeviceAllocationMode, count int64) int64 {
	switch mode {
	case resourcev1.DeviceAllocationModeExactCount:
		return count
	case resourcev1.DeviceAllocationModeAll:
		return resourcev1.AllocationResultsMaxSize
	}
	return 0
}
