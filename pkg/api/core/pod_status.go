package core

import (
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// ValidatePodStatusUpdate says what is wrong with an update of the status of a pod.
func ValidatePodStatusUpdate(pod, old *corev1.Pod) field.ErrorList {
	var r report
	p := field.NewPath("status")
	r.objectMetaUpdate(pod, old, metaPath)
	r.podAnnotations(pod.Annotations, &pod.Spec, metaPath.Child("annotations"))
	r.forbidIf(pod.Spec.NodeName != old.Spec.NodeName, p.Child("nodeName"), "may not be changed directly")
	if n := pod.Status.NominatedNodeName; n != "" {
		r.invalid(p.Child("nominatedNodeName"), n, apivalidation.NameIsDNSSubdomain(n, false)...)
	}
	r.invalidIf(pod.Status.ObservedGeneration < 0, p.Child("observedGeneration"), pod.Status.ObservedGeneration, "must be a non-negative integer")
	for i, c := range pod.Status.Conditions {
		at := p.Child("conditions").Index(i)
		r.invalid(at.Child("Type"), string(c.Type), validation.IsQualifiedName(string(c.Type))...)
		r.invalidIf(c.ObservedGeneration < 0, at.Child("observedGeneration"), c.ObservedGeneration, "must be a non-negative integer")
	}
	r.addressesOfPod(&pod.Status, &old.Status, p)
	if pod.Status.QOSClass != "" { // empty is kept as it was
		r.immutable(pod.Status.QOSClass, old.Status.QOSClass, p.Child("qosClass"))
	}
	r.containerTransitions(pod, old, p)
	r.claimStatuses(pod, p.Child("resourceClaimStatuses"))
	r.extendedClaimStatus(pod, p.Child("extendedResourceClaimStatus"))
	containers := containersByName(&pod.Spec)
	for _, of := range []struct {
		field     string
		list      []corev1.ContainerStatus
		allocated bool // they may say what resources are allocated
	}{
		{"containerStatuses", pod.Status.ContainerStatuses, true},
		{"initContainerStatuses", pod.Status.InitContainerStatuses, true},
		{"ephemeralContainerStatuses", pod.Status.EphemeralContainerStatuses, false},
	} {
		at := p.Child(of.field)
		r.containerUsers(pod, of.list, at)
		if of.allocated {
			r.allocatedResources(of.list, containers, at)
			continue
		}
		for i, s := range of.list {
			r.forbidIf(len(s.AllocatedResourcesStatus) > 0, at.Index(i).Child("allocatedResourcesStatus"), "must not be specified in container status")
		}
	}
	return r.errs
}

func (r *report) addressesOfPod(status, old *corev1.PodStatus, p *field.Path) {
	check := func(ips, was []string, shown any, at *field.Path) {
		valid := true
		for i, ip := range ips {
			valid = r.legacyIP(ip, was, at.Index(i)) && valid
		}
		if valid && len(ips) > 1 {
			dual, err := netutils.IsDualStackIPStrings(ips)
			r.invalidIf(err != nil || !dual || len(ips) > 2, at, shown, "may specify no more than one IP for each IP family")
		}
	}
	podIPs := func(list []corev1.PodIP) (ips []string) {
		for _, ip := range list {
			ips = append(ips, ip.IP)
		}
		return ips
	}
	hostIPs := func(list []corev1.HostIP) (ips []string) {
		for _, ip := range list {
			ips = append(ips, ip.IP)
		}
		return ips
	}
	check(podIPs(status.PodIPs), podIPs(old.PodIPs), goNames{status.PodIPs}, p.Child("podIPs"))
	if len(status.HostIPs) > 0 {
		at := p.Child("hostIPs")
		r.invalidIf(status.HostIPs[0].IP != status.HostIP, at.Index(0).Child("ip"), status.HostIPs[0].IP, "must be equal to `hostIP`")
		check(hostIPs(status.HostIPs), hostIPs(old.HostIPs), goNames{status.HostIPs}, at)
	}
}

// containerTransitions says that a container that has ended and may not start
// again stays ended.
func (r *report) containerTransitions(pod, old *corev1.Pod, p *field.Path) {
	policies := containersByName(&old.Spec)
	check := func(now, was []corev1.ContainerStatus, at *field.Path, mayRestart func(c *corev1.Container, failed bool) bool) {
		for _, before := range was {
			terminated := before.State.Terminated
			if terminated == nil || mayRestart(policies[before.Name], terminated.ExitCode != 0) {
				continue
			}
			for i, after := range now {
				if after.Name == before.Name && after.State.Terminated == nil {
					r.add(field.Forbidden(at.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
				}
			}
		}
	}
	mayRestart := func(c *corev1.Container, failed bool) bool {
		policy := string(old.Spec.RestartPolicy)
		if c != nil && c.RestartPolicy != nil {
			if len(c.RestartPolicyRules) > 0 {
				return true
			}
			policy = string(*c.RestartPolicy)
		}
		return policy == string(corev1.RestartPolicyAlways) || policy == string(corev1.RestartPolicyOnFailure) && failed
	}
	check(pod.Status.ContainerStatuses, old.Status.ContainerStatuses, p.Child("containerStatuses"), mayRestart)
	check(pod.Status.InitContainerStatuses, old.Status.InitContainerStatuses, p.Child("initContainerStatuses"), func(c *corev1.Container, failed bool) bool {
		return mayRestart(c, failed) && (c != nil || old.Spec.RestartPolicy == corev1.RestartPolicyAlways)
	})
}

func (r *report) claimStatuses(pod *corev1.Pod, p *field.Path) {
	claims := sets.New[string]()
	for _, c := range pod.Spec.ResourceClaims {
		claims.Insert(c.Name)
	}
	seen := duplicates[string]{}
	for i, s := range pod.Status.ResourceClaimStatuses {
		at := p.Index(i)
		r.invalidIf(!claims.Has(s.Name), at.Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`")
		seen.check(r, s.Name, at.Child("name"))
		if n := s.ResourceClaimName; n != nil {
			r.invalid(at.Child("resourceClaimName"), *n, apivalidation.NameIsDNSSubdomain(*n, false)...)
		}
	}
}

// extendedClaimStatus validates which containers got which devices for resources
// that they asked for by name.
func (r *report) extendedClaimStatus(pod *corev1.Pod, p *field.Path) {
	s := pod.Status.ExtendedResourceClaimStatus
	if s == nil {
		return
	}
	if r.required(s.ResourceClaimName, p.Child("resourceClaimName")) {
		r.invalid(p.Child("resourceClaimName"), s.ResourceClaimName, apivalidation.NameIsDNSSubdomain(s.ResourceClaimName, false)...)
	}
	r.requireIf(len(s.RequestMappings) == 0, p.Child("requestMappings"), "at least one request mapping is required")
	containers := containersByName(&pod.Spec)
	type key struct{ container, resource, request string }
	seen := sets.New[key]()
	for i, m := range s.RequestMappings {
		at := p.Child("requestMappings").Index(i)
		if c := containers[m.ContainerName]; r.invalidIf(c == nil, at.Child("containerName"), m.ContainerName,
			"must match the name of an entry in spec.initContainers.name or spec.containers.name") {
			_, asked := c.Resources.Requests[corev1.ResourceName(m.ResourceName)]
			r.invalidIf(!asked, at.Child("resourceName"), m.ResourceName,
				"must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests")
		}
		r.invalid(p.Child("requestName"), m.RequestName, validation.IsDNS1123Label(m.RequestName)...)
		k := key{m.ContainerName, m.ResourceName, m.RequestName}
		if seen.Has(k) {
			r.add(field.Duplicate(at.Child("containerName"), k.container), field.Duplicate(at.Child("resourceName"), k.resource), field.Duplicate(at.Child("requestName"), k.request))
		}
		seen.Insert(k)
	}
}

// containerUsers validates whom the kubelet says that containers run as.
func (r *report) containerUsers(pod *corev1.Pod, list []corev1.ContainerStatus, p *field.Path) {
	windows := pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows
	for i, s := range list {
		at := p.Index(i)
		if s.User != nil && s.User.Linux != nil {
			u, user := s.User.Linux, at.Child("user", "linux")
			if r.forbidIf(windows, user, "cannot be set for a windows pod") {
				r.invalidIf(u.UID < 0 || u.UID > math.MaxUint32, user.Child("uid"), u.UID, validation.InclusiveRangeError(0, math.MaxUint32))
				r.groupID(&u.GID, user.Child("gid"))
				for j := range u.SupplementalGroups {
					r.groupID(&u.SupplementalGroups[j], user.Child("supplementalGroups").Index(j))
				}
			}
		}
	}
}

// allocatedResources validates what the kubelet says that containers have been given.
func (r *report) allocatedResources(list []corev1.ContainerStatus, containers map[string]*corev1.Container, p *field.Path) {
	for i, s := range list {
		at, c := p.Index(i), containers[s.Name]
		for j, allocated := range s.AllocatedResourcesStatus {
			status := at.Child("allocatedResourcesStatus").Index(j)
			if c != nil {
				r.allocatedResource(c, allocated.Name, status.Child("name"))
			}
			seen := duplicates[corev1.ResourceID]{}
			for k, health := range allocated.Resources {
				one := status.Child("resources").Index(k)
				seen.check(r, health.ResourceID, one.Child("resourceID"))
				oneOf(r, health.Health, one.Child("health"), corev1.ResourceHealthStatusHealthy, corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)
			}
		}
	}
}

// allocatedResource says that a container can only have been given what it asked for.
func (r *report) allocatedResource(c *corev1.Container, name corev1.ResourceName, p *field.Path) {
	claim, isClaim := strings.CutPrefix(string(name), "claim:")
	if !isClaim {
		_, asked := c.Resources.Requests[name]
		r.invalidIf(!asked, p, name, "must match one of the container's resource requests")
		return
	}
	for _, used := range c.Resources.Claims {
		if claim == used.Name && used.Request == "" || claim == used.Name+"/"+used.Request {
			return
		}
	}
	r.invalid(p, name, "must match one of the container's resource claims as 'claim:<claimName>/<requestName>' when container.resources.claims[*].request is set "+
		"or 'claim:<claimName>' when it is empty")
}

func containersByName(spec *corev1.PodSpec) map[string]*corev1.Container {
	containers := map[string]*corev1.Container{}
	eachContainer(spec, nil, func(c *corev1.Container, _ *field.Path) { containers[c.Name] = c })
	return containers
}
