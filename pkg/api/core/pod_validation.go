package core

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	maxNameservers      = 3
	maxSearchDomains    = 32
	maxSearchCharacters = 2048
	maxHostnameOverride = 64

	maxEvictionResponders = 10
	// Priorities of responders that are not Kubernetes' own.
	minEvictionPriority, maxEvictionPriority = 1000, 100_000
)

var (
	metaPath = field.NewPath("metadata")
	specPath = field.NewPath("spec")
)

// ValidatePod says what is wrong with a new pod.
func ValidatePod(pod *corev1.Pod) field.ErrorList {
	var r report
	r.pod(pod)
	r.forbidIf(len(pod.Spec.EphemeralContainers) > 0, specPath.Child("ephemeralContainers"), "cannot be set on create")
	r.forbidIf(pod.Spec.NodeName != "" && len(pod.Spec.SchedulingGates) > 0, specPath.Child("nodeName"), "cannot be set until all schedulingGates have been cleared")
	r.appArmorConflicts(pod.Annotations, &pod.Spec, specPath)
	return r.errs
}

// pod validates what is true of a pod all its life.
func (r *report) pod(pod *corev1.Pod) {
	r.objectMeta(pod, true, apivalidation.NameIsDNSSubdomain, metaPath)
	r.podAnnotations(pod.Annotations, &pod.Spec, metaPath.Child("annotations"))
	r.podSpec(&pod.Spec, &pod.ObjectMeta, specPath)
	if pod.Spec.ServiceAccountName == "" {
		for i, v := range pod.Spec.Volumes {
			if v.Projected == nil {
				continue
			}
			for j, s := range v.Projected.Sources {
				r.forbidIf(s.ServiceAccountToken != nil, specPath.Child("volumes").Index(i).Child("projected", "sources").Index(j).Child("serviceAccountToken"),
					"must not be specified when serviceAccountName is not set")
			}
		}
	}
}

// ValidatePodTemplateSpec says what is wrong with a template for pods.
func ValidatePodTemplateSpec(template *corev1.PodTemplateSpec, p *field.Path) field.ErrorList {
	var r report
	r.labels(template.Labels, p.Child("labels"))
	r.merge(apivalidation.ValidateAnnotations(template.Annotations, p.Child("annotations")))
	r.podAnnotations(template.Annotations, &template.Spec, p.Child("annotations"))
	r.podSpec(&template.Spec, nil, p.Child("spec"))
	r.forbidIf(len(template.Spec.EphemeralContainers) > 0, p.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template")
	r.appArmorConflicts(template.Annotations, &template.Spec, p.Child("spec"))
	return r.errs
}

// ValidatePodTemplate says what is wrong with a new PodTemplate.
func ValidatePodTemplate(template *corev1.PodTemplate) field.ErrorList {
	var r report
	r.objectMeta(template, true, apivalidation.NameIsDNSSubdomain, metaPath)
	r.merge(ValidatePodTemplateSpec(&template.Template, field.NewPath("template")))
	return r.errs
}

// ValidatePodTemplateUpdate says what is wrong with an update of a PodTemplate.
func ValidatePodTemplateUpdate(template, old *corev1.PodTemplate) field.ErrorList {
	var r report
	r.objectMetaUpdate(template, old, metaPath)
	r.merge(ValidatePodTemplateSpec(&template.Template, field.NewPath("template")))
	return r.errs
}

func (r *report) podSpec(spec *corev1.PodSpec, meta *metav1.ObjectMeta, p *field.Path) {
	podName := ""
	if meta != nil {
		podName = meta.Name
	}
	volumes := r.volumes(spec.Volumes, podName, p.Child("volumes"))
	scope := &podScope{spec: spec, volumes: volumes, names: duplicates[string]{}}
	r.containers(spec.Containers, scope, p.Child("containers"))
	r.hostNetworkPorts(spec, meta != nil, p.Child("containers"))
	r.initContainers(spec.InitContainers, scope, p.Child("initContainers"))
	r.ephemeralContainers(spec.EphemeralContainers, scope, p.Child("ephemeralContainers"))
	r.podLevelResources(spec, p.Child("resources"))
	r.overhead(spec.Overhead, p.Child("overhead"))
	r.resourceClaims(spec.ResourceClaims, p.Child("resourceClaims"))

	requiredOneOf(r, spec.RestartPolicy, p.Child("restartPolicy"), corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	// A negative period is no error: pods are given one second instead.
	r.requireIf(spec.TerminationGracePeriodSeconds == nil, p.Child("terminationGracePeriodSeconds"), "")
	if d := spec.ActiveDeadlineSeconds; d != nil {
		r.invalidIf(*d < 1 || *d > math.MaxInt32, p.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, math.MaxInt32))
	}

	r.dns(spec, p)
	r.hostNames(spec, p)
	r.hostNamespaces(spec, p)
	r.podSecurityContext(spec, p)
	r.os(spec, p)
	r.hostProcess(spec, p)

	r.labels(spec.NodeSelector, p.Child("nodeSelector"))
	r.affinity(spec.Affinity, p.Child("affinity"))
	r.tolerations(spec.Tolerations, p.Child("tolerations"))
	r.spreadConstraints(spec.TopologySpreadConstraints, p.Child("topologySpreadConstraints"))
	gates := duplicates[string]{}
	for i, g := range spec.SchedulingGates {
		at := p.Child("schedulingGates").Index(i)
		r.invalid(at, g.Name, validation.IsQualifiedName(g.Name)...)
		gates.check(r, g.Name, at)
	}
	for i, g := range spec.ReadinessGates {
		r.invalid(p.Child("readinessGates").Index(i).Child("conditionType"), string(g.ConditionType), validation.IsQualifiedName(string(g.ConditionType))...)
	}

	for _, n := range []struct{ field, value string }{
		{"serviceAccountName", spec.ServiceAccountName}, {"nodeName", spec.NodeName}, {"priorityClassName", spec.PriorityClassName},
	} {
		if n.value != "" {
			r.invalid(p.Child(n.field), n.value, apivalidation.NameIsDNSSubdomain(n.value, false)...)
		}
	}
	if n := spec.RuntimeClassName; n != nil {
		r.invalid(p.Child("runtimeClassName"), *n, apivalidation.NameIsDNSSubdomain(*n, false)...)
	}
	if spec.PreemptionPolicy != nil {
		requiredOneOf(r, *spec.PreemptionPolicy, p.Child("preemptionPolicy"), corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	r.schedulingGroup(spec, p.Child("schedulingGroup"))
	r.evictionResponders(spec.EvictionResponders, p.Child("evictionResponders"))
}

func (r *report) schedulingGroup(spec *corev1.PodSpec, p *field.Path) {
	group := spec.SchedulingGroup
	if group == nil {
		return
	}
	if name, at := group.PodGroupName, p.Child("podGroupName"); name == nil {
		r.invalid(at, name, "must specify one of: `podGroupName`")
	} else {
		r.invalid(at, *name, apivalidation.NameIsDNSSubdomain(*name, false)...)
	}
	r.forbidIf(len(spec.EvictionResponders) > 0, p, "may not be set when evictionResponders is set")
}

// ValidateEvictionResponders says what is wrong with those who help when pods are evicted. Their rules are declared with
// the type, and checked wherever a pod's spec is, even where nothing else of it is.
func ValidateEvictionResponders(spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	var r report
	r.evictionResponders(spec.EvictionResponders, p.Child("evictionResponders"))
	return r.errs
}

// evictionResponders checks who helps when a pod is evicted. Kubernetes' own responders, which have the
// lower priorities and the reserved domains, are not named in pods.
func (r *report) evictionResponders(responders []corev1.EvictionResponder, p *field.Path) {
	if len(responders) > maxEvictionResponders {
		r.add(field.TooMany(p, len(responders), maxEvictionResponders).WithOrigin("maxItems").MarkCoveredByDeclarative())
		return
	}
	names := map[string]bool{}
	for i, responder := range responders {
		at := p.Index(i)
		if names[responder.Name] {
			r.add(field.Duplicate(at, responder))
		}
		names[responder.Name] = true
		if name := at.Child("name"); r.required(responder.Name, name) {
			r.merge(validate.PrefixedLabelKey(context.Background(), operation.Operation{}, name, &responder.Name, nil))
			r.merge(rules.NotReserved(responder.Name, name, ".k8s.io", ".kubernetes.io"))
		}
		priority := at.Child("priority")
		if !r.requireIf(responder.Priority == nil, priority, "") {
			continue
		}
		switch n := *responder.Priority; {
		case n < 0:
			r.merge(validate.Minimum(context.Background(), operation.Operation{}, priority, &n, nil, 0))
		case n > maxEvictionPriority:
			r.merge(validate.Maximum(context.Background(), operation.Operation{}, priority, &n, nil, maxEvictionPriority))
		case n < minEvictionPriority:
			r.invalid(priority, n, "priorities 0-999 are reserved for responders with *.k8s.io suffix")
		}
	}
}

func (r *report) dns(spec *corev1.PodSpec, p *field.Path) {
	requiredOneOf(r, spec.DNSPolicy, p.Child("dnsPolicy"), corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	config, at := spec.DNSConfig, p.Child("dnsConfig")
	if spec.DNSPolicy == corev1.DNSNone {
		if !r.requireIf(config == nil, at, "must provide `dnsConfig` when `dnsPolicy` is None") {
			return
		}
		r.requireIf(len(config.Nameservers) == 0, at.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None")
	}
	if config == nil {
		return
	}
	servers, searches := at.Child("nameservers"), at.Child("searches")
	r.invalidIf(len(config.Nameservers) > maxNameservers, servers, config.Nameservers, "must not have more than 3 nameservers")
	for i, s := range config.Nameservers {
		r.legacyIP(s, nil, servers.Index(i))
	}
	r.invalidIf(len(config.Searches) > maxSearchDomains, searches, config.Searches, "must not have more than 32 search paths")
	r.invalidIf(len(strings.Join(config.Searches, " ")) > maxSearchCharacters, searches, config.Searches, "must not have more than 2048 characters (including spaces) in the search list")
	for i, s := range config.Searches {
		if s != "." {
			s = strings.TrimSuffix(s, ".")
			r.invalid(searches.Index(i), s, validation.IsDNS1123SubdomainWithUnderscore(s)...)
		}
	}
	for i, o := range config.Options {
		r.requireIf(o.Name == "", at.Child("options").Index(i), "must not be empty")
	}
}

// legacyIP validates an address in a field that once took more ways to write one.
// Those in old, which are stored already, are kept.
func (r *report) legacyIP(s string, old []string, p *field.Path) bool {
	return r.merge(validation.IsValidIPForLegacyField(p, s, true, old))
}

func (r *report) hostNames(spec *corev1.PodSpec, p *field.Path) {
	if spec.Hostname != "" {
		r.invalid(p.Child("hostname"), spec.Hostname, validation.IsDNS1123Label(spec.Hostname)...)
	}
	if spec.Subdomain != "" {
		r.invalid(p.Child("subdomain"), spec.Subdomain, validation.IsDNS1123Label(spec.Subdomain)...)
	}
	if override, at := spec.HostnameOverride, p.Child("hostnameOverride"); override != nil {
		r.forbidIf(isTrue(spec.SetHostnameAsFQDN), at, "may not be specified when setHostnameAsFQDN is true")
		r.forbidIf(spec.HostNetwork, at, "may not be specified when hostNetwork is true")
		if len(*override) > maxHostnameOverride {
			r.add(field.TooLong(at, *override, maxHostnameOverride))
		}
		r.invalid(at, *override, validation.IsDNS1123Subdomain(*override)...)
	}
	for i, alias := range spec.HostAliases {
		at := p.Child("hostAliases").Index(i)
		r.legacyIP(alias.IP, nil, at.Child("ip"))
		for j, name := range alias.Hostnames {
			r.invalid(at.Child("hostnames").Index(j), name, validation.IsDNS1123Subdomain(name)...)
		}
	}
}

// hostNamespaces says which namespaces of the host cannot be had together.
func (r *report) hostNamespaces(spec *corev1.PodSpec, p *field.Path) {
	r.invalidIf(spec.HostPID && isTrue(spec.ShareProcessNamespace), p.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled")
	if isFalse(spec.HostUsers) {
		const reason = "when `hostUsers` is false"
		r.forbidIf(spec.HostNetwork, p.Child("hostNetwork"), reason)
		r.forbidIf(spec.HostPID, p.Child("HostPID"), reason)
		r.forbidIf(spec.HostIPC, p.Child("HostIPC"), reason)
		eachContainer(spec, p, func(c *corev1.Container, at *field.Path) {
			r.forbidIf(len(c.VolumeDevices) > 0, at.Child("volumeDevices"), reason)
		})
	}
}

func (r *report) resourceClaims(claims []corev1.PodResourceClaim, p *field.Path) {
	names := duplicates[string]{}
	for i, c := range claims {
		at := p.Index(i)
		if r.required(c.Name, at.Child("name")) && r.invalid(at.Child("name"), c.Name, validation.IsDNS1123Label(c.Name)...) {
			names.check(r, c.Name, at.Child("name"))
		}
		r.invalidIf(c.ResourceClaimName != nil && c.ResourceClaimTemplateName != nil, at, goNames{c}, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
		r.invalidIf(c.ResourceClaimName == nil && c.ResourceClaimTemplateName == nil, at, goNames{c}, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
		if n := c.ResourceClaimName; n != nil {
			r.invalid(at.Child("resourceClaimName"), *n, apivalidation.NameIsDNSSubdomain(*n, false)...)
		}
		if n := c.ResourceClaimTemplateName; n != nil {
			r.invalid(at.Child("resourceClaimTemplateName"), *n, apivalidation.NameIsDNSSubdomain(*n, false)...)
		}
	}
}

// podAnnotations validates annotations that mean something to Kubernetes.
func (r *report) podAnnotations(annotations map[string]string, spec *corev1.PodSpec, p *field.Path) {
	r.profileAnnotations(annotations, spec, p)
	if value, ok := annotations[corev1.MirrorPodAnnotationKey]; ok {
		r.invalidIf(spec.NodeName == "", p.Key(corev1.MirrorPodAnnotationKey), value, "must set spec.nodeName if mirror pod annotation is set")
	}
	if value, ok := annotations[corev1.TolerationsAnnotationKey]; ok && value != "" {
		var tolerations []corev1.Toleration
		if err := json.Unmarshal([]byte(value), &tolerations); err != nil {
			r.invalid(p, corev1.TolerationsAnnotationKey, err.Error())
		}
		r.tolerations(tolerations, p.Child(corev1.TolerationsAnnotationKey))
	}
	if value, ok := annotations[corev1.PodDeletionCost]; ok {
		cost, err := strconv.ParseInt(value, 10, 32)
		r.invalidIf(err != nil || strconv.FormatInt(cost, 10) != value, p.Key(corev1.PodDeletionCost), value, "must be a 32bit integer")
	}
}

// ValidatePodBinding says what is wrong with binding a pod to a node.
func ValidatePodBinding(binding *corev1.Binding) field.ErrorList {
	var r report
	at := field.NewPath("target")
	if binding.Target.Kind != "" && binding.Target.Kind != "Node" {
		r.add(field.NotSupported(at.Child("kind"), binding.Target.Kind, []string{"Node", "<empty>"}))
	}
	if name := binding.Target.Name; r.required(name, at.Child("name")) && len(r.errs) == 0 {
		r.invalid(at.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false)...)
	}
	return r.errs
}

// gateNames are the names of scheduling gates.
func gateNames(spec *corev1.PodSpec) []string {
	names := make([]string, 0, len(spec.SchedulingGates))
	for _, g := range spec.SchedulingGates {
		names = append(names, g.Name)
	}
	slices.Sort(names)
	return names
}
