package core

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podresources "k8s.io/component-helpers/resource"
)

const limitRequired = "Limit must be set for non overcommitable resources"

var (
	// computeResources are what a container may ask for by a plain name.
	computeResources = sets.New(corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage)

	// countedResources are numbers of objects.
	countedResources = sets.New(
		corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
	)

	// quotaResources are amounts that a quota limits.
	quotaResources = sets.New(
		corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsStorage, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
	).Union(countedResources)

	// plainResources are all names that need no domain.
	plainResources = quotaResources.Union(sets.New(corev1.ResourceStorage))
)

func isPlainResource(n corev1.ResourceName) bool {
	return plainResources.Has(n) || isHugePages(n) || strings.HasPrefix(string(n), corev1.ResourceRequestsHugePagesPrefix)
}

func isComputeResource(n corev1.ResourceName) bool { return computeResources.Has(n) || isHugePages(n) }

// isNativeResource says whether a resource belongs to Kubernetes.
func isNativeResource(n corev1.ResourceName) bool {
	return !strings.Contains(string(n), "/") || strings.Contains(string(n), corev1.ResourceDefaultNamespacePrefix)
}

// IsExtendedResource says whether a resource is somebody else's, and could be
// limited by a quota on requests.
func IsExtendedResource(n corev1.ResourceName) bool {
	return !isNativeResource(n) && !strings.HasPrefix(string(n), corev1.DefaultResourceRequestsPrefix) &&
		len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(n))) == 0
}

func canOvercommit(n corev1.ResourceName) bool { return isNativeResource(n) && !isHugePages(n) }

// resourceName validates the name of any resource.
func (r *report) resourceName(n corev1.ResourceName, p *field.Path) bool {
	if !r.invalid(p, n, validation.IsQualifiedName(string(n))...) {
		return false
	}
	return r.invalidIf(!strings.Contains(string(n), "/") && !isPlainResource(n), p, n, "must be a standard resource type or fully qualified")
}

// containerResourceName validates the name of a resource that a container asks for.
func (r *report) containerResourceName(n corev1.ResourceName, p *field.Path) {
	r.resourceName(n, p)
	switch {
	case !strings.Contains(string(n), "/"):
		r.invalidIf(!isComputeResource(n), p, n, "must be a standard resource for containers")
	case !isNativeResource(n):
		r.invalidIf(!IsExtendedResource(n), p, n, "doesn't follow extended resource name standard")
	}
}

// podResourceName validates the name of a resource that a pod asks for as a whole.
func (r *report) podResourceName(n corev1.ResourceName, p *field.Path) {
	if r.resourceName(n, p) && !podresources.IsSupportedPodLevelResource(n) {
		supported := append(sets.List(sets.New(corev1.ResourceCPU, corev1.ResourceMemory)), corev1.ResourceHugePagesPrefix)
		slices.Sort(supported)
		r.add(field.NotSupported(p, n, supported))
	}
}

// quantity validates an amount of a resource.
func (r *report) quantity(n corev1.ResourceName, q resource.Quantity, p *field.Path) {
	r.nonNegativeQuantity(q, p)
	if (countedResources.Has(n) || IsExtendedResource(n)) && q.MilliValue()%1000 != 0 {
		r.invalid(p, q.String(), "must be an integer")
	}
}

func (r *report) nonNegativeQuantity(q resource.Quantity, p *field.Path) bool {
	return r.invalidIf(q.Sign() < 0, p, q.String(), apivalidation.IsNegativeErrorMsg)
}

// hugePages says that an amount of huge pages must be whole pages.
func (r *report) hugePages(n corev1.ResourceName, q resource.Quantity, p *field.Path) {
	if !isHugePages(n) {
		return
	}
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(n), corev1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() <= 0 || q.Value()%size.Value() != 0 {
		r.invalid(p, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), n))
	}
}

// ValidateResourceRequirements says what is wrong with the resources that a
// container asks for. claims are the resource claims of its pod.
func ValidateResourceRequirements(requirements *corev1.ResourceRequirements, claims []corev1.PodResourceClaim, p *field.Path) field.ErrorList {
	var r report
	r.resources(requirements, claims, p, (*report).containerResourceName)
	return r.errs
}

// ValidateContainerResourceName says what is wrong with the name of something that a
// container can ask for.
func ValidateContainerResourceName(name corev1.ResourceName, p *field.Path) field.ErrorList {
	var r report
	r.containerResourceName(name, p)
	return r.errs
}

func (r *report) resources(o *corev1.ResourceRequirements, claims []corev1.PodResourceClaim, p *field.Path, name func(*report, corev1.ResourceName, *field.Path)) {
	limits, requests := p.Child("limits"), p.Child("requests")
	huge, base := false, false
	note := func(n corev1.ResourceName) {
		huge = huge || isHugePages(n)
		base = base || n == corev1.ResourceCPU || n == corev1.ResourceMemory
	}
	for n, q := range ordered(o.Limits) {
		at := limits.Key(string(n))
		name(r, n, at)
		r.quantity(n, q, at)
		r.hugePages(n, q, at)
		note(n)
	}
	for n, q := range ordered(o.Requests) {
		at := requests.Key(string(n))
		name(r, n, at)
		r.quantity(n, q, at)
		r.hugePages(n, q, at)
		note(n)
		switch limit, ok := o.Limits[n]; {
		case !ok:
			r.requireIf(!canOvercommit(n), limits, limitRequired)
		case !canOvercommit(n):
			r.invalidIf(q.Cmp(limit) != 0, requests, q.String(), fmt.Sprintf("must be equal to %s limit of %s", n, limit.String()))
		default:
			r.invalidIf(q.Cmp(limit) > 0, requests, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", n, limit.String()))
		}
	}
	r.forbidIf(huge && !base, p, "HugePages require cpu or memory")
	r.claims(o.Claims, claims, p.Child("claims"))
}

// claims validates which of the pod's resource claims are used.
func (r *report) claims(used []corev1.ResourceClaim, claims []corev1.PodResourceClaim, p *field.Path) {
	names := sets.New[string]()
	for _, c := range claims {
		names.Insert(c.Name)
	}
	seen := sets.New[string]()
	for i, c := range used {
		at := p.Index(i)
		if c.Name == "" {
			r.add(field.Required(at, ""))
			continue
		}
		key := c.Name
		if c.Request != "" {
			key += "/" + c.Request
		}
		// A claim that is used as a whole leaves no part of it to be used.
		if seen.Has(key) || seen.Has(c.Name) {
			r.add(field.Duplicate(at, c.Name))
		} else {
			seen.Insert(key)
			if c.Request != "" {
				r.invalid(at.Child("request"), c.Request, validation.IsDNS1123Label(c.Request)...)
			}
		}
		if !names.Has(c.Name) {
			known := "must be one of the names in pod.spec.resourceClaims"
			if len(names) == 0 {
				known += " which is empty"
			} else {
				known += ": " + strings.Join(sets.List(names), ", ")
			}
			missing := field.NotFound(at, c.Name)
			missing.Detail = known
			r.add(missing)
		}
	}
}

// podLevelResources validates what a pod asks for as a whole, and that its
// containers fit into it.
func (r *report) podLevelResources(spec *corev1.PodSpec, p *field.Path) {
	o := spec.Resources
	if o == nil || spec.OS != nil && spec.OS.Name == corev1.Windows { // which has none
		return
	}
	r.forbidIf(o.Claims != nil, p.Child("claims"), "claims may not be set for Resources at pod-level")
	r.resources(o, spec.ResourceClaims, p, (*report).podResourceName)

	pod := &corev1.Pod{Spec: *spec}
	for n, sum := range ordered(podresources.AggregateContainerRequests(pod, podresources.PodResourcesOptions{})) {
		if q, ok := o.Requests[n]; ok && sum.Cmp(q) > 0 {
			r.invalid(p.Child("requests").Key(string(n)), q.String(), "must be greater than or equal to aggregate container requests of "+sum.String())
		}
	}
	for i, c := range spec.Containers {
		for n, q := range ordered(c.Resources.Limits) {
			if limit, ok := o.Limits[n]; ok && podresources.IsSupportedPodLevelResource(n) && q.Cmp(limit) > 0 {
				r.invalid(p.Child("containers").Index(i).Key(string(n)).Child("limits"), q.String(), "must be less than or equal to pod limits of "+limit.String())
			}
		}
	}
}

// overhead validates what the runtime of a pod needs for itself.
func (r *report) overhead(list corev1.ResourceList, p *field.Path) {
	r.resources(&corev1.ResourceRequirements{Limits: list}, nil, p, (*report).containerResourceName)
}

// ordered walks through a map in the order of its keys, so that answers do not
// vary.
func ordered[M ~map[K]V, K cmp.Ordered, V any](m M) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}
