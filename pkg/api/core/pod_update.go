package core

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubectl/pkg/util/qos"

	"github.com/leme-k8s/leme/pkg/api/equal"
)

// PodQOS is the class of service that a pod's resources give it.
func PodQOS(pod *corev1.Pod) corev1.PodQOSClass { return qos.ComputePodQOS(pod) }

const podFieldsThatChange = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// ValidatePodUpdate says what is wrong with an update of a pod. Of its spec
// little may change; the rest is refused with what differs.
func ValidatePodUpdate(pod, old *corev1.Pod) field.ErrorList {
	var r report
	r.podUpdate(pod, old)
	r.pod(pod)
	const fewer = "pod updates may not add or remove containers"
	if !r.eachPair(&pod.Spec, &old.Spec, fewer, func(now, _ *corev1.Container, p *field.Path) { r.image(now.Image, p.Child("image")) }) {
		return r.errs
	}
	r.activeDeadline(&pod.Spec, &old.Spec, specPath.Child("activeDeadlineSeconds"))
	r.tolerationsUpdate(pod.Spec.Tolerations, old.Spec.Tolerations, specPath.Child("tolerations"))
	before := gateNames(&old.Spec)
	for i, g := range pod.Spec.SchedulingGates {
		r.forbidIf(!slices.Contains(before, g.Name), specPath.Child("schedulingGates").Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name))
	}
	if len(before) > 0 {
		r.gatedScheduling(&pod.Spec, &old.Spec, specPath)
	}

	// What may differ is made the same; what differs then may not.
	spec := pod.Spec.DeepCopy()
	r.eachPair(spec, &old.Spec, fewer, func(now, was *corev1.Container, _ *field.Path) { now.Image = was.Image })
	spec.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	spec.Tolerations = old.Spec.Tolerations
	spec.SchedulingGates = old.Spec.SchedulingGates
	if g := old.Spec.TerminationGracePeriodSeconds; g != nil && *g < 0 && spec.TerminationGracePeriodSeconds != nil && *spec.TerminationGracePeriodSeconds == 1 {
		spec.TerminationGracePeriodSeconds = g
	}
	if len(before) > 0 {
		spec.NodeSelector = old.Spec.NodeSelector
		keepNodeAffinity(spec, &old.Spec)
	}
	r.onlyThose(spec, &old.Spec, podFieldsThatChange)
	r.appArmorConflicts(pod.Annotations, &pod.Spec, specPath)
	return r.errs
}

// eachPair visits the containers of a pod beside what they were. It stops, and says why, where there are more or fewer.
func (r *report) eachPair(spec, old *corev1.PodSpec, fewer string, visit func(now, was *corev1.Container, p *field.Path)) bool {
	kind := func(now, was []corev1.Container, p *field.Path) bool {
		if !r.forbidIf(len(now) != len(was), p, fewer) {
			return false
		}
		for i := range now {
			visit(&now[i], &was[i], p.Index(i))
		}
		return true
	}
	return kind(spec.Containers, old.Containers, specPath.Child("containers")) && kind(spec.InitContainers, old.InitContainers, specPath.Child("initContainers"))
}

// podUpdate validates the metadata of an updated pod.
func (r *report) podUpdate(pod, old *corev1.Pod) {
	r.objectMetaUpdate(pod, old, metaPath)
	annotations := metaPath.Child("annotations")
	r.podAnnotations(pod.Annotations, &pod.Spec, annotations)
	fixed := func(key, what string) {
		now, is := pod.Annotations[key]
		was, had := old.Annotations[key]
		switch {
		case is && !had:
			r.add(field.Forbidden(annotations.Key(key), "may not add "+what))
		case had && !is:
			r.add(field.Forbidden(annotations.Key(key), "may not remove "+what))
		case now != was:
			r.add(field.Forbidden(annotations.Key(key), "may not update "+what))
		}
	}
	fixed(corev1.MirrorPodAnnotationKey, "mirror pod annotation")
	keys := sets.New[string]()
	for _, set := range []map[string]string{pod.Annotations, old.Annotations} {
		for k := range set {
			if strings.HasPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
				keys.Insert(k)
			}
		}
	}
	for _, k := range sets.List(keys) {
		fixed(k, "AppArmor annotations")
	}
}

// onlyThose says that nothing but what the reason names may have changed.
func (r *report) onlyThose(spec, old *corev1.PodSpec, reason string) {
	if !equal.Semantic(spec, old) {
		r.add(field.Forbidden(specPath, reason+"\n"+diff.Diff(goNames{old}, goNames{spec})))
	}
}

// keepNodeAffinity gives spec the affinity to nodes that old has.
func keepNodeAffinity(spec, old *corev1.PodSpec) {
	var was *corev1.NodeAffinity
	if old.Affinity != nil {
		was = old.Affinity.NodeAffinity
	}
	switch {
	case spec.Affinity == nil && was != nil:
		spec.Affinity = &corev1.Affinity{NodeAffinity: was}
	case spec.Affinity != nil:
		spec.Affinity.NodeAffinity = was
		if old.Affinity == nil && *spec.Affinity == (corev1.Affinity{}) {
			spec.Affinity = nil
		}
	}
}

func (r *report) activeDeadline(spec, old *corev1.PodSpec, p *field.Path) {
	now, was := spec.ActiveDeadlineSeconds, old.ActiveDeadlineSeconds
	switch {
	case now != nil && (*now < 0 || *now > math.MaxInt32):
		r.invalid(p, *now, validation.InclusiveRangeError(0, math.MaxInt32))
	case now != nil && was != nil && *now > *was:
		r.invalid(p, *now, "must be less than or equal to previous value")
	case now == nil && was != nil:
		r.invalid(p, now, "must not update from a positive integer to nil value")
	}
}

// ValidatePodEphemeralContainersUpdate says what is wrong with an update of the
// ephemeral containers of a pod. They may only be added.
func ValidatePodEphemeralContainersUpdate(pod, old *corev1.Pod) field.ErrorList {
	var r report
	p := specPath.Child("ephemeralContainers")
	r.pod(pod)
	r.podUpdate(pod, old)
	for _, was := range old.Spec.EphemeralContainers {
		i := slices.IndexFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == was.Name })
		switch {
		case i < 0:
			r.add(field.Forbidden(p, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name)))
		case !apiequality.Semantic.DeepEqual(pod.Spec.EphemeralContainers[i], was):
			r.add(field.Forbidden(p, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%s", was.Name,
				diff.Diff(goNames{was}, goNames{pod.Spec.EphemeralContainers[i]}))))
		}
	}
	return r.errs
}

// ValidatePodResize says what is wrong with an update of the resources of a
// running pod: cpu and memory may change, and neither appear nor vanish.
func ValidatePodResize(pod, old *corev1.Pod) field.ErrorList {
	var r report
	r.pod(pod)
	r.podUpdate(pod, old)
	whole := field.NewPath("")
	if !r.forbidIf(old.Annotations[corev1.MirrorPodAnnotationKey] != "", whole, "static pods cannot be resized") ||
		!r.forbidIf(old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows, whole, "windows pods cannot be resized") {
		return r.errs
	}
	r.invalidIf(PodQOS(pod) != qos.GetPodQOS(old), specPath, string(pod.Status.QOSClass), "Pod QOS Class may not change as a result of resizing")
	const fewer = "containers may not be added or removed on resize"
	if !r.eachPair(&pod.Spec, &old.Spec, fewer, func(now, was *corev1.Container, p *field.Path) {
		r.resize(&now.Resources, &was.Resources, p.Child("resources"))
	}) {
		return r.errs
	}
	if pod.Spec.Resources != nil && old.Spec.Resources != nil {
		r.resize(pod.Spec.Resources, old.Spec.Resources, specPath.Child("resources"))
	}

	spec := pod.Spec.DeepCopy()
	r.eachPair(spec, &old.Spec, fewer, func(now, was *corev1.Container, _ *field.Path) { keepFixedResources(&now.Resources, &was.Resources) })
	if old.Spec.Resources != nil || spec.Resources != nil {
		if spec.Resources == nil {
			spec.Resources = &corev1.ResourceRequirements{}
		}
		was := old.Spec.Resources
		if was == nil {
			was = &corev1.ResourceRequirements{}
		}
		keepFixedResources(spec.Resources, was)
		if old.Spec.Resources == nil && apiequality.Semantic.DeepEqual(*spec.Resources, corev1.ResourceRequirements{}) {
			spec.Resources = nil
		}
	}
	r.forbidIf(!apiequality.Semantic.DeepEqual(*spec, old.Spec), specPath, "only cpu and memory resources are mutable")
	return r.errs
}

// resize says that what was asked for may become more or less, not nothing.
func (r *report) resize(now, was *corev1.ResourceRequirements, p *field.Path) {
	gone := func(now, was corev1.ResourceList) bool {
		for n := range was {
			if _, ok := now[n]; !ok {
				return true
			}
		}
		return false
	}
	r.forbidIf(gone(now.Requests, was.Requests), p.Child("requests"), "resource requests cannot be removed")
	r.forbidIf(gone(now.Limits, was.Limits), p.Child("limits"), "resource limits cannot be removed")
}

// keepFixedResources makes cpu and memory in now what they were.
func keepFixedResources(now, was *corev1.ResourceRequirements) {
	keep := func(now, was corev1.ResourceList) corev1.ResourceList {
		list := now.DeepCopy()
		for _, n := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			delete(list, n)
			if q, ok := was[n]; ok {
				if list == nil {
					list = corev1.ResourceList{}
				}
				list[n] = q
			}
		}
		return list
	}
	now.Limits, now.Requests = keep(now.Limits, was.Limits), keep(now.Requests, was.Requests)
}
