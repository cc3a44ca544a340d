package core

import (
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-helpers/resource"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// SetDefaultsPod sets the defaults of a pod: those of its spec, and those that a
// pod has and a pod template has not.
func SetDefaultsPod(pod *corev1.Pod) {
	spec := &pod.Spec
	SetDefaultsPodSpec(spec)
	rules.SetPtr(&spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	if *spec.TerminationGracePeriodSeconds < 0 {
		spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			requestLimits(&containers[i].Resources)
			if spec.HostNetwork {
				publishPorts(containers[i].Ports)
			}
		}
	}
	setDefaultsPodLevelResources(pod)
	setDefaultsPodStatus(&pod.Status)
}

// SetDefaultsPodTemplateSpec sets the defaults of a template for pods.
func SetDefaultsPodTemplateSpec(template *corev1.PodTemplateSpec) {
	SetDefaultsPodSpec(&template.Spec)
}

// SetDefaultsPodTemplate sets the defaults of a PodTemplate.
func SetDefaultsPodTemplate(template *corev1.PodTemplate) {
	SetDefaultsPodTemplateSpec(&template.Template)
}

// SetDefaultsPodSpec sets the defaults that the spec of a pod and of a pod
// template have in common.
func SetDefaultsPodSpec(spec *corev1.PodSpec) {
	rules.SetPtr(&spec.TerminationGracePeriodSeconds, int64(corev1.DefaultTerminationGracePeriodSeconds))
	rules.SetPtr(&spec.SecurityContext, corev1.PodSecurityContext{})
	setZero(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	setZero(&spec.DNSPolicy, corev1.DNSClusterFirst)
	setZero(&spec.SchedulerName, corev1.DefaultSchedulerName)
	// Two names for one field; the newer one wins.
	setZero(&spec.ServiceAccountName, spec.DeprecatedServiceAccount)
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	roundUp(spec.Overhead)
	if spec.Resources != nil {
		setDefaultsResources(spec.Resources)
	}
	for i := range spec.Volumes {
		setDefaultsVolume(&spec.Volumes[i])
	}
	for i := range spec.InitContainers {
		setDefaultsContainer(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		setDefaultsContainer(&spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		setDefaultsContainer((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

func setDefaultsContainer(c *corev1.Container) {
	setPullPolicy(&c.ImagePullPolicy, c.Image)
	setZero(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	setZero(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	setDefaultsResources(&c.Resources)
	for i := range c.Ports {
		setZero(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			setDefaultsFieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				rules.SetPtr(&from.FileKeyRef.Optional, false)
			}
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p != nil {
			setDefaultsProbe(p)
		}
	}
	if l := c.Lifecycle; l != nil {
		for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
			if h != nil {
				setDefaultsHTTPGet(h.HTTPGet)
			}
		}
	}
}

func setDefaultsProbe(p *corev1.Probe) {
	setZero(&p.TimeoutSeconds, 1)
	setZero(&p.PeriodSeconds, 10)
	setZero(&p.SuccessThreshold, 1)
	setZero(&p.FailureThreshold, 3)
	setDefaultsHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		rules.SetPtr(&p.GRPC.Service, "")
	}
}

func setDefaultsHTTPGet(g *corev1.HTTPGetAction) {
	if g != nil {
		setZero(&g.Path, "/")
		setZero(&g.Scheme, corev1.URISchemeHTTP)
	}
}

func setDefaultsFieldRef(f *corev1.ObjectFieldSelector) {
	if f != nil {
		setZero(&f.APIVersion, "v1")
	}
}

// setPullPolicy says what an image is pulled by if nothing is said: a tag that moves
// is looked up each time.
func setPullPolicy(policy *corev1.PullPolicy, image string) {
	if *policy != "" {
		return
	}
	*policy = corev1.PullIfNotPresent
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return
	}
	if tagged, ok := reference.TagNameOnly(named).(reference.Tagged); ok && tagged.Tag() == "latest" {
		*policy = corev1.PullAlways
	}
}

// publishPorts makes ports on the host's network what they are.
func publishPorts(ports []corev1.ContainerPort) {
	for i := range ports {
		setZero(&ports[i].HostPort, ports[i].ContainerPort)
	}
}

func setDefaultsResources(r *corev1.ResourceRequirements) {
	roundUp(r.Limits)
	roundUp(r.Requests)
}

// roundUp rounds amounts to thousandths, the finest that Kubernetes counts.
func roundUp(list corev1.ResourceList) {
	for name, q := range list {
		q.RoundUp(-3)
		list[name] = q
	}
}

// requestLimits requests what is limited and not requested.
func requestLimits(r *corev1.ResourceRequirements) {
	if r.Limits == nil {
		return
	}
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	addMissing(r.Requests, r.Limits, func(corev1.ResourceName) bool { return true })
}

// addMissing copies the wanted entries of from that to lacks.
func addMissing(to, from corev1.ResourceList, want func(corev1.ResourceName) bool) {
	for name, q := range from {
		if _, ok := to[name]; !ok && want(name) {
			to[name] = q.DeepCopy()
		}
	}
}

// setDefaultsPodLevelResources completes resources that were set for the pod as
// a whole: with what its containers ask for, and then with its own limits. Huge
// pages cannot be overcommitted, so their limits come first and their requests
// follow the limits.
func setDefaultsPodLevelResources(pod *corev1.Pod) {
	r := pod.Spec.Resources
	if r == nil || len(r.Limits)+len(r.Requests) == 0 {
		return
	}
	containersOnly := resource.PodResourcesOptions{}
	limits, requests := resource.AggregateContainerLimits(pod, containersOnly), resource.AggregateContainerRequests(pod, containersOnly)
	if r.Limits == nil {
		r.Limits = corev1.ResourceList{}
	}
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	addMissing(r.Limits, limits, isHugePages)
	addMissing(r.Requests, requests, func(n corev1.ResourceName) bool {
		return resource.IsSupportedPodLevelResource(n) && !isHugePages(n)
	})
	addMissing(r.Requests, r.Limits, resource.IsSupportedPodLevelResource)
	if len(r.Limits) == 0 {
		r.Limits = nil
	}
}

// setDefaultsPodStatus keeps the older singular address and the plural list of
// addresses in step. A writer that knows the singular alone is believed.
func setDefaultsPodStatus(status *corev1.PodStatus) {
	switch {
	case status.PodIP == "" && len(status.PodIPs) > 0:
		status.PodIP = status.PodIPs[0].IP
	case status.PodIP != "" && (len(status.PodIPs) == 0 || status.PodIPs[0].IP != status.PodIP):
		status.PodIPs = []corev1.PodIP{{IP: status.PodIP}}
	}
}

// setZero sets *v to def if it is the zero value.
func setZero[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// isUnset says whether a port was given neither as a number nor by name.
func isUnset(p intstr.IntOrString) bool {
	return p == intstr.FromInt32(0) || p == intstr.FromString("")
}

func isHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}
