// Package sharing keeps in memory once what the pods of one owner have in common: labels, owner references, and parts of their containers. It is a
// third of what a pod takes.
package sharing

import (
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/lru"
)

// remembered is of how many owners a pod is looked at.
const remembered = 1024

// Pods returns a transformation of a cache's pods after another one. A pod then refers to what another of its owner has too, which is
// allowed since nobody changes what a cache holds.
func Pods(first toolscache.TransformFunc) toolscache.TransformFunc {
	latest := lru.New(remembered) // by the owner's UID
	return func(o any) (any, error) {
		o, err := first(o)
		pod, ok := o.(*corev1.Pod)
		if err != nil || !ok {
			return o, err
		}
		owner := metav1.GetControllerOfNoCopy(pod)
		if owner == nil {
			return pod, nil
		}
		if sibling, found := latest.Get(owner.UID); found {
			share(pod, sibling.(*corev1.Pod))
		}
		latest.Add(owner.UID, pod)
		return pod, nil
	}
}

// share lets a pod refer to what it has in common with another.
func share(pod, other *corev1.Pod) {
	if maps.Equal(pod.Labels, other.Labels) {
		pod.Labels = other.Labels
	}
	if reflect.DeepEqual(pod.OwnerReferences, other.OwnerReferences) {
		pod.OwnerReferences = other.OwnerReferences
	}
	if reflect.DeepEqual(pod.Spec.Tolerations, other.Spec.Tolerations) {
		pod.Spec.Tolerations = other.Spec.Tolerations
	}
	for i := range min(len(pod.Spec.Containers), len(other.Spec.Containers)) {
		shareContainer(&pod.Spec.Containers[i], &other.Spec.Containers[i])
	}
}

func shareContainer(c, other *corev1.Container) {
	if c.Image == other.Image {
		c.Image = other.Image
	}
	if slices.Equal(c.Ports, other.Ports) {
		c.Ports = other.Ports
	}
	if reflect.DeepEqual(c.Env, other.Env) {
		c.Env = other.Env
	}
	if maps.Equal(c.Resources.Requests, other.Resources.Requests) {
		c.Resources.Requests = other.Resources.Requests
	}
	if maps.Equal(c.Resources.Limits, other.Resources.Limits) {
		c.Resources.Limits = other.Resources.Limits
	}
}
