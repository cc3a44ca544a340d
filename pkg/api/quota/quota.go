// Package quota measures what objects use of a ResourceQuota: how many there are of a
// resource, what pods ask for, what claims store, which ports services take, which devices are claimed.
//
//	registry := generic.NewRegistry(quota.Evaluators(listers, devices, clock.RealClock{}))
package quota

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/utils/clock"
)

// ListFunc lists the objects of a resource in a namespace.
type ListFunc func(resource schema.GroupResource, namespace string) ([]runtime.Object, error)

// Evaluators returns those of what is not just counted, or has an older name. Any other resource is counted by
// generic.NewObjectCountEvaluator. Lists are needed by UsageStats alone.
func Evaluators(lists ListFunc, d Devices, c clock.PassiveClock) []quota.Evaluator {
	listOf := func(r schema.GroupResource) generic.ListFuncByNamespace {
		return func(namespace string) ([]runtime.Object, error) { return lists(r, namespace) }
	}
	list := func(resource string) generic.ListFuncByNamespace { return listOf(corev1.Resource(resource)) }
	all := []quota.Evaluator{
		pods(list("pods"), c),
		services(list("services")),
		claims(list("persistentvolumeclaims")),
		resourceClaims(listOf(resourcev1.Resource("resourceclaims")), d),
	}
	// These have a second name, older than "count/…".
	for _, alias := range []corev1.ResourceName{
		corev1.ResourceConfigMaps, corev1.ResourceQuotas, corev1.ResourceReplicationControllers, corev1.ResourceSecrets,
	} {
		all = append(all, generic.NewObjectCountEvaluator(corev1.Resource(string(alias)), list(string(alias)), alias))
	}
	return all
}

// evaluator is what an Evaluator of objects of type T does differently from others.
type evaluator[T runtime.Object] struct {
	resource schema.GroupResource
	list     generic.ListFuncByNamespace
	// handles says which updates change what is used. What is created always uses something.
	handles func(a admission.Attributes) bool
	// measures says which resources it measures.
	measures func(name corev1.ResourceName) bool
	// inScope reports whether an object is in the scope. Nil: no object is in any.
	inScope func(s corev1.ScopedResourceSelectorRequirement, obj T) (bool, error)
	usage   func(obj T) (corev1.ResourceList, error)
	// constraints says what an object must specify so that it can be measured. Nil: nothing.
	constraints func(required []corev1.ResourceName, obj T) error
}

var _ quota.Evaluator = &evaluator[runtime.Object]{}

func (e *evaluator[T]) object(item runtime.Object) (T, error) {
	obj, ok := item.(T)
	if !ok {
		return obj, fmt.Errorf("%T is not one of %s", item, e.resource)
	}
	return obj, nil
}

// GroupResource implements quota.Evaluator.
func (e *evaluator[T]) GroupResource() schema.GroupResource { return e.resource }

// Constraints implements quota.Evaluator.
func (e *evaluator[T]) Constraints(required []corev1.ResourceName, item runtime.Object) error {
	obj, err := e.object(item)
	if err != nil || e.constraints == nil {
		return err
	}
	return e.constraints(required, obj)
}

// Handles implements quota.Evaluator.
func (e *evaluator[T]) Handles(a admission.Attributes) bool {
	switch a.GetOperation() {
	case admission.Create:
		return a.GetSubresource() == ""
	case admission.Update:
		return e.handles(a)
	}
	return false
}

// Matches implements quota.Evaluator.
func (e *evaluator[T]) Matches(q *corev1.ResourceQuota, item runtime.Object) (bool, error) {
	return generic.Matches(q, item, e.MatchingResources, e.matchScope)
}

func (e *evaluator[T]) matchScope(s corev1.ScopedResourceSelectorRequirement, item runtime.Object) (bool, error) {
	obj, err := e.object(item)
	if err != nil || e.inScope == nil {
		return false, err
	}
	return e.inScope(s, obj)
}

// MatchingScopes implements quota.Evaluator.
func (e *evaluator[T]) MatchingScopes(item runtime.Object, scopes []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	matching := []corev1.ScopedResourceSelectorRequirement{}
	for _, s := range scopes {
		ok, err := e.matchScope(s, item)
		if err != nil {
			return nil, fmt.Errorf("scope %s: %w", s.ScopeName, err)
		}
		if ok {
			matching = append(matching, s)
		}
	}
	return matching, nil
}

// UncoveredQuotaScopes implements quota.Evaluator.
func (e *evaluator[T]) UncoveredQuotaScopes(limited, matched []corev1.ScopedResourceSelectorRequirement) ([]corev1.ScopedResourceSelectorRequirement, error) {
	uncovered := []corev1.ScopedResourceSelectorRequirement{}
	for _, l := range limited {
		if !slices.ContainsFunc(matched, func(m corev1.ScopedResourceSelectorRequirement) bool { return m.ScopeName == l.ScopeName }) {
			uncovered = append(uncovered, l)
		}
	}
	return uncovered, nil
}

// MatchingResources implements quota.Evaluator.
func (e *evaluator[T]) MatchingResources(input []corev1.ResourceName) []corev1.ResourceName {
	matching := []corev1.ResourceName{}
	for _, name := range input {
		if name == e.count() || e.measures(name) {
			matching = append(matching, name)
		}
	}
	return matching
}

// count is the resource "count/…".
func (e *evaluator[T]) count() corev1.ResourceName {
	return generic.ObjectCountQuotaResourceNameFor(e.resource)
}

// Usage implements quota.Evaluator.
func (e *evaluator[T]) Usage(item runtime.Object) (corev1.ResourceList, error) {
	obj, err := e.object(item)
	if err != nil {
		return nil, err
	}
	used, err := e.usage(obj)
	if err != nil {
		return nil, err
	}
	used[e.count()] = number(1)
	return used, nil
}

// UsageStats implements quota.Evaluator.
func (e *evaluator[T]) UsageStats(o quota.UsageStatsOptions) (quota.UsageStats, error) {
	return generic.CalculateUsageStats(o, e.list, e.matchScope, e.Usage)
}

func number(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }
