package quota

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/utils/clock"

	"github.com/leme-k8s/leme/pkg/api/core"
)

const requestsPrefix = "requests."

func pods(list generic.ListFuncByNamespace, c clock.PassiveClock) quota.Evaluator {
	return &evaluator[*corev1.Pod]{
		resource: corev1.Resource("pods"),
		list:     list,
		handles: func(a admission.Attributes) bool {
			if a.GetSubresource() == "resize" {
				return true
			}
			pod, ok := a.GetObject().(*corev1.Pod)
			old, oldOK := a.GetOldObject().(*corev1.Pod)
			return a.GetSubresource() == "" && ok && oldOK && isTerminating(pod) != isTerminating(old)
		},
		measures:    measuredOfPods,
		inScope:     podInScope,
		usage:       func(pod *corev1.Pod) (corev1.ResourceList, error) { return podUsage(pod, c.Now()), nil },
		constraints: podConstraints,
	}
}

// compute are the resources of pods that quotas name.
var compute = sets.New(
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
	corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
	corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
)

func measuredOfPods(name corev1.ResourceName) bool {
	if name == corev1.ResourcePods || isCompute(name) {
		return true
	}
	extended, ok := strings.CutPrefix(string(name), requestsPrefix)
	return ok && isExtended(corev1.ResourceName(extended))
}

func isCompute(name corev1.ResourceName) bool {
	return compute.Has(name) || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

// isExtended reports whether name is a resource of somebody else's.
func isExtended(name corev1.ResourceName) bool {
	domain, _, ok := strings.Cut(string(name), "/")
	return ok && !strings.HasSuffix(domain, "kubernetes.io") || strings.HasPrefix(string(name), resourcev1.ResourceDeviceClassPrefix)
}

// podConstraints wants every container to say how much it needs of what is limited.
func podConstraints(required []corev1.ResourceName, pod *corev1.Pod) error {
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		return nil
	}
	missing := map[corev1.ResourceName]sets.Set[string]{}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		given := quotaNames(c.Resources.Requests, c.Resources.Limits)
		for _, name := range required {
			if _, ok := given[name]; ok || !isCompute(name) {
				continue
			}
			if missing[name] == nil {
				missing[name] = sets.New[string]()
			}
			missing[name].Insert(c.Name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var all []string
	for _, name := range sets.List(sets.KeySet(missing)) {
		all = append(all, fmt.Sprintf("%s for: %s", name, strings.Join(sets.List(missing[name]), ",")))
	}
	return fmt.Errorf("must specify %s", strings.Join(all, "; "))
}

// quotaNames gives requests and limits the names that quotas have for them.
func quotaNames(requests, limits corev1.ResourceList) corev1.ResourceList {
	used := corev1.ResourceList{}
	for name, quantity := range requests {
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage,
			strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
			used[name] = quantity
			used[requestsPrefix+name] = quantity
		case isExtended(name):
			used[requestsPrefix+name] = quantity
		}
	}
	for name, quantity := range limits {
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			used["limits."+name] = quantity
		}
	}
	return used
}

// podUsage is what a pod uses. One that has ended, or whose node does not say that it
// has, although it should have, uses nothing.
func podUsage(pod *corev1.Pod, now time.Time) corev1.ResourceList {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return corev1.ResourceList{}
	}
	if d, grace := pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds; d != nil && grace != nil && now.After(d.Add(time.Duration(*grace)*time.Second)) {
		return corev1.ResourceList{}
	}
	o := resourcehelper.PodResourcesOptions{UseStatusResources: true}
	used := quotaNames(resourcehelper.PodRequests(pod, o), resourcehelper.PodLimits(pod, o))
	used[corev1.ResourcePods] = number(1)
	return used
}

func isTerminating(pod *corev1.Pod) bool {
	return pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds >= 0
}

func podInScope(s corev1.ScopedResourceSelectorRequirement, pod *corev1.Pod) (bool, error) {
	switch s.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return isTerminating(pod), nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return !isTerminating(pod), nil
	case corev1.ResourceQuotaScopeBestEffort:
		return core.PodQOS(pod) == corev1.PodQOSBestEffort, nil
	case corev1.ResourceQuotaScopeNotBestEffort:
		return core.PodQOS(pod) != corev1.PodQOSBestEffort, nil
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossesNamespaces(pod.Spec.Affinity), nil
	case corev1.ResourceQuotaScopePriorityClass:
		return named(s, pod.Spec.PriorityClassName)
	}
	return false, nil
}

// operators are those of scopes as labels have them.
var operators = map[corev1.ScopeSelectorOperator]selection.Operator{
	corev1.ScopeSelectorOpIn:           selection.In,
	corev1.ScopeSelectorOpNotIn:        selection.NotIn,
	corev1.ScopeSelectorOpExists:       selection.Exists,
	corev1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist,
}

// named reports whether a name, which may be empty, is one of those that the scope selects.
func named(s corev1.ScopedResourceSelectorRequirement, name string) (bool, error) {
	operator, ok := operators[s.Operator]
	if !ok {
		return false, fmt.Errorf("%q is not a valid operator", s.Operator)
	}
	r, err := labels.NewRequirement(string(s.ScopeName), operator, s.Values)
	if err != nil {
		return false, err
	}
	set := labels.Set{}
	if name != "" {
		set[string(s.ScopeName)] = name
	}
	return r.Matches(set), nil
}

// crossesNamespaces reports whether pods of other namespaces matter to where the pod goes.
func crossesNamespaces(a *corev1.Affinity) bool {
	crosses := false
	core.EachPodAffinityTerm(a, nil, func(t *corev1.PodAffinityTerm, _ *int32, _ *field.Path) {
		crosses = crosses || len(t.Namespaces) > 0 || t.NamespaceSelector != nil
	})
	return crosses
}
