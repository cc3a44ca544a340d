package limitranger

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

const annotation = "kubernetes.io/limit-ranger"

// addDefaults gives each container what it does not say itself, and notes it in an annotation.
func addDefaults(pod *corev1.Pod, r *corev1.LimitRange) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for _, item := range r.Spec.Limits {
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		for name, q := range item.DefaultRequest {
			requests[name] = q
		}
		for name, q := range item.Default {
			limits[name] = q
		}
	}
	var notes []string
	merge := func(kind string, containers []corev1.Container) {
		for i := range containers {
			c := &containers[i]
			for _, part := range []struct {
				name     string
				list     *corev1.ResourceList
				defaults corev1.ResourceList
			}{{"request", &c.Resources.Requests, requests}, {"limit", &c.Resources.Limits, limits}} {
				if added := addMissing(part.list, part.defaults); len(added) > 0 {
					notes = append(notes, fmt.Sprintf("%s %s for %s %s", strings.Join(added, ", "), part.name, kind, c.Name))
				}
			}
		}
	}
	merge("container", pod.Spec.Containers)
	merge("init container", pod.Spec.InitContainers)
	if len(notes) > 0 {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, annotation, "LimitRanger plugin set: "+strings.Join(notes, "; "))
	}
}

func addMissing(list *corev1.ResourceList, defaults corev1.ResourceList) (added []string) {
	for name, q := range defaults {
		if _, ok := (*list)[name]; ok {
			continue
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = q.DeepCopy()
		added = append(added, string(name))
	}
	slices.Sort(added)
	return added
}

func checkPod(pod *corev1.Pod, item *corev1.LimitRangeItem) (errs []error) {
	switch item.Type {
	case corev1.LimitTypeContainer:
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			errs = append(errs, check(item, c.Resources.Requests, c.Resources.Limits)...)
		}
	case corev1.LimitTypePod:
		o := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
		errs = check(item, resourcehelper.PodRequests(pod, o), resourcehelper.PodLimits(pod, o))
	}
	return errs
}

func check(item *corev1.LimitRangeItem, requests, limits corev1.ResourceList) (errs []error) {
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, name := range sorted(item.Min) {
		bound := item.Min[name]
		what := fmt.Sprintf("minimum %s usage per %s is %s", name, item.Type, bound.String())
		request, hasRequest := requests[name]
		limit, hasLimit := limits[name]
		switch {
		case !hasRequest:
			refuse("%s.  No request is specified", what)
		case request.Cmp(bound) < 0:
			refuse("%s, but request is %s", what, request.String())
		case hasLimit && limit.Cmp(bound) < 0:
			refuse("%s, but limit is %s", what, limit.String())
		}
	}
	for _, name := range sorted(item.Max) {
		bound := item.Max[name]
		what := fmt.Sprintf("maximum %s usage per %s is %s", name, item.Type, bound.String())
		request, hasRequest := requests[name]
		limit, hasLimit := limits[name]
		switch {
		case !hasLimit:
			refuse("%s.  No limit is specified", what)
		case limit.Cmp(bound) > 0:
			refuse("%s, but limit is %s", what, limit.String())
		case hasRequest && request.Cmp(bound) > 0:
			refuse("%s, but request is %s", what, request.String())
		}
	}
	for _, name := range sorted(item.MaxLimitRequestRatio) {
		bound := item.MaxLimitRequestRatio[name]
		what := fmt.Sprintf("%s max limit to request ratio per %s is %s", name, item.Type, bound.String())
		request, limit := requests[name], limits[name]
		switch {
		case request.IsZero():
			refuse("%s, but no request is specified or request is 0", what)
		case limit.IsZero():
			refuse("%s, but no limit is specified or limit is 0", what)
		default:
			if ratio := limit.AsApproximateFloat64() / request.AsApproximateFloat64(); ratio > bound.AsApproximateFloat64() {
				refuse("%s, but provided ratio is %f", what, ratio)
			}
		}
	}
	return errs
}

func checkClaim(claim *corev1.PersistentVolumeClaim, item *corev1.LimitRangeItem) (errs []error) {
	if item.Type != corev1.LimitTypePersistentVolumeClaim {
		return nil
	}
	for _, side := range []struct {
		word    string
		list    corev1.ResourceList
		outside func(request, bound resource.Quantity) bool
	}{
		{"minimum", item.Min, func(request, bound resource.Quantity) bool { return request.Cmp(bound) < 0 }},
		{"maximum", item.Max, func(request, bound resource.Quantity) bool { return request.Cmp(bound) > 0 }},
	} {
		for _, name := range sorted(side.list) {
			bound := side.list[name]
			what := fmt.Sprintf("%s %s usage per %s is %s", side.word, name, item.Type, bound.String())
			request, ok := claim.Spec.Resources.Requests[name]
			if !ok {
				errs = append(errs, fmt.Errorf("%s.  No request is specified", what))
			} else if side.outside(request, bound) {
				errs = append(errs, fmt.Errorf("%s, but request is %s", what, request.String()))
			}
		}
	}
	return errs
}

// sorted makes the order of several errors the same each time.
func sorted(list corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
