package core

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// ValidateNode says what is wrong with a new Node.
func ValidateNode(node *corev1.Node) field.ErrorList {
	var r report
	r.objectMeta(node, false, apivalidation.NameIsDNSSubdomain, metaPath)
	r.node(node, nil)
	r.nodeResources(&node.Status)
	r.declaredFeatures(node.Status.DeclaredFeatures, field.NewPath("status"))
	return r.errs
}

// ValidateNodeUpdate says what is wrong with an update of a Node. What identifies
// a node to the cloud and to the network is given to it once.
func ValidateNodeUpdate(node, old *corev1.Node) field.ErrorList {
	var r report
	r.objectMetaUpdate(node, old, metaPath)
	r.node(node, old)
	r.nodeResources(&node.Status)
	r.nodeStatus(node)
	spec, was := &node.Spec, &old.Spec
	r.forbidIf(len(was.PodCIDRs) > 0 && !slices.Equal(spec.PodCIDRs, was.PodCIDRs), specPath.Child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid")
	if was.ProviderID != "" && spec.ProviderID == "" {
		r.invalid(specPath.Child("providerID"), nil, "field cannot be cleared once set")
	} else {
		r.invalidIf(was.ProviderID != "" && spec.ProviderID != was.ProviderID, specPath.Child("providerID"), nil, "field cannot be modified once set")
	}
	r.forbidIf(spec.DoNotUseExternalID != was.DoNotUseExternalID, specPath.Child("externalID"), "may not be updated")
	return r.errs
}

// ValidateNodeStatusUpdate says what is wrong with an update of the status of a Node.
func ValidateNodeStatusUpdate(node, old *corev1.Node) field.ErrorList {
	return ValidateNodeUpdate(node, old)
}

func (r *report) node(node, old *corev1.Node) {
	annotations := metaPath.Child("annotations")
	r.preferAvoidPods(node.Annotations, annotations)
	const formerTaints = "scheduler.alpha.kubernetes.io/taints"
	if value := node.Annotations[formerTaints]; value != "" {
		var taints []corev1.Taint
		if err := json.Unmarshal([]byte(value), &taints); err != nil {
			r.invalid(annotations, formerTaints, err.Error())
		}
		r.taints(taints, annotations.Child(formerTaints))
	}
	r.taints(node.Spec.Taints, metaPath.Child("taints"))

	var stored []string
	if old != nil {
		stored = old.Spec.PodCIDRs
	}
	at := specPath.Child("podCIDRs")
	for i, cidr := range node.Spec.PodCIDRs {
		r.merge(validation.IsValidCIDRForLegacyField(at.Index(i), cidr, true, stored))
	}
	if len(node.Spec.PodCIDRs) > 1 {
		dual, err := netutils.IsDualStackCIDRStrings(node.Spec.PodCIDRs)
		if err != nil {
			r.add(field.InternalError(at, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%w", err)))
		}
		r.invalidIf(!dual || len(node.Spec.PodCIDRs) > 2, at, node.Spec.PodCIDRs, "may specify no more than one CIDR for each IP family")
	}
}

func (r *report) preferAvoidPods(annotations map[string]string, p *field.Path) {
	value := annotations[corev1.PreferAvoidPodsAnnotationKey]
	if value == "" {
		return
	}
	var avoid corev1.AvoidPods
	if err := json.Unmarshal([]byte(value), &avoid); err != nil {
		r.invalid(p.Child("AvoidPods"), corev1.PreferAvoidPodsAnnotationKey, err.Error())
		return
	}
	for i, entry := range avoid.PreferAvoidPods {
		at := p.Child(corev1.PreferAvoidPodsAnnotationKey).Index(i).Child("podSignature")
		if r.requireIf(entry.PodSignature.PodController == nil, at, "") {
			r.invalidIf(entry.PodSignature.PodController.Controller == nil || !*entry.PodSignature.PodController.Controller, at.Child("PodController"),
				entry.PodSignature.PodController.Controller, "must point to a controller")
		}
	}
}

func (r *report) nodeResources(status *corev1.NodeStatus) {
	p := field.NewPath("status")
	for n, q := range ordered(status.Capacity) {
		r.quantity(n, q, p.Child("capacity", string(n)))
	}
	for n, q := range ordered(status.Allocatable) {
		r.quantity(n, q, p.Child("allocatable", string(n)))
	}
}

var featureName = regexp.MustCompile(`^[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*$`)

func (r *report) nodeStatus(node *corev1.Node) {
	p := field.NewPath("status")
	var seen []corev1.NodeAddress
	for i, a := range node.Status.Addresses {
		if slices.Contains(seen, a) {
			r.add(field.Duplicate(p.Child("addresses").Index(i), goNames{a}))
		}
		seen = append(seen, a)
	}
	r.declaredFeatures(node.Status.DeclaredFeatures, p)
}

func (r *report) declaredFeatures(features []string, p *field.Path) {
	for i, f := range features {
		at := p.Child("declaredFeatures").Index(i)
		if i > 0 && f == features[i-1] {
			r.add(field.Duplicate(at, f))
		}
		r.invalidIf(i > 0 && f < features[i-1], at, f, "list must be sorted alphabetically")
		r.invalidIf(!featureName.MatchString(f), at, f, fmt.Sprintf("invalid feature name %q: must start with an UpperCamelCase segment, with subsequent segments "+
			"separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes", f))
	}
}

// ValidateNamespace says what is wrong with a new Namespace.
func ValidateNamespace(ns *corev1.Namespace) field.ErrorList {
	var r report
	r.objectMeta(ns, false, apivalidation.ValidateNamespaceName, metaPath)
	for _, f := range ns.Spec.Finalizers {
		r.namespaceFinalizer(f, specPath.Child("finalizers"))
	}
	return r.errs
}

// ValidateNamespaceUpdate says what is wrong with an update of a Namespace.
func ValidateNamespaceUpdate(ns, old *corev1.Namespace) field.ErrorList {
	var r report
	r.objectMetaUpdate(ns, old, metaPath)
	return r.errs
}

// ValidateNamespaceStatusUpdate says what is wrong with an update of the status
// of a Namespace: it is terminating exactly while it is being deleted.
func ValidateNamespaceStatusUpdate(ns, old *corev1.Namespace) field.ErrorList {
	var r report
	r.objectMetaUpdate(ns, old, metaPath)
	at := field.NewPath("status", "Phase")
	if ns.DeletionTimestamp.IsZero() {
		r.invalidIf(ns.Status.Phase != corev1.NamespaceActive, at, ns.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")
	} else {
		r.invalidIf(ns.Status.Phase != corev1.NamespaceTerminating, at, ns.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")
	}
	return r.errs
}

// ValidateNamespaceFinalizeUpdate says what is wrong with an update of the
// finalizers of a Namespace.
func ValidateNamespaceFinalizeUpdate(ns, old *corev1.Namespace) field.ErrorList {
	var r report
	r.objectMetaUpdate(ns, old, metaPath)
	for i, f := range ns.Spec.Finalizers {
		r.namespaceFinalizer(f, specPath.Child("finalizers").Index(i))
	}
	return r.errs
}

func (r *report) namespaceFinalizer(name corev1.FinalizerName, p *field.Path) {
	r.merge(apivalidation.ValidateFinalizerName(string(name), p))
	r.finalizer(string(name), p)
}

// ValidateEndpoints says what is wrong with a new Endpoints.
func ValidateEndpoints(e *corev1.Endpoints) field.ErrorList {
	var r report
	r.objectMeta(e, true, apivalidation.NameIsDNSSubdomain, metaPath)
	r.subsets(e.Subsets, nil)
	return r.errs
}

// ValidateEndpointsUpdate says what is wrong with an update of an Endpoints.
func ValidateEndpointsUpdate(e, old *corev1.Endpoints) field.ErrorList {
	var r report
	r.objectMetaUpdate(e, old, metaPath)
	if !apiequality.Semantic.DeepEqual(e.Subsets, old.Subsets) {
		r.subsets(e.Subsets, old.Subsets)
	}
	return r.errs
}

func (r *report) subsets(subsets, old []corev1.EndpointSubset) {
	var stored []string
	for _, s := range old {
		for _, a := range append(slices.Clone(s.Addresses), s.NotReadyAddresses...) {
			stored = append(stored, a.IP)
		}
	}
	for i, s := range subsets {
		p := field.NewPath("subsets").Index(i)
		r.requireIf(len(s.Addresses)+len(s.NotReadyAddresses) == 0, p, "must specify `addresses` or `notReadyAddresses`")
		for j := range s.Addresses {
			r.endpointAddress(&s.Addresses[j], stored, p.Child("addresses").Index(j))
		}
		for j := range s.NotReadyAddresses {
			r.endpointAddress(&s.NotReadyAddresses[j], stored, p.Child("notReadyAddresses").Index(j))
		}
		for j, port := range s.Ports {
			at := p.Child("ports").Index(j)
			if port.Name == "" {
				r.requireIf(len(s.Ports) > 1, at.Child("name"), "")
			} else {
				r.invalid(at.Child("name"), port.Name, validation.IsDNS1123Label(port.Name)...)
			}
			r.portNumber(port.Port, at.Child("port"))
			r.protocol(port.Protocol, at.Child("protocol"))
			if port.AppProtocol != nil {
				r.invalid(at.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName(*port.AppProtocol)...)
			}
		}
	}
}

func (r *report) endpointAddress(a *corev1.EndpointAddress, stored []string, p *field.Path) {
	r.legacyIP(a.IP, stored, p.Child("ip"))
	r.merge(rules.NonSpecialIP(a.IP, p.Child("ip")))
	if a.Hostname != "" {
		r.invalid(p.Child("hostname"), a.Hostname, validation.IsDNS1123Label(a.Hostname)...)
	}
	if a.NodeName != nil {
		r.invalid(p.Child("nodeName"), *a.NodeName, apivalidation.NameIsDNSSubdomain(*a.NodeName, false)...)
	}
}

// controllerName is the rule for names of ReplicationControllers. What one is generated
// from need not be a name.
func controllerName(name string, prefix bool) []string {
	if prefix {
		return path.IsValidPathSegmentPrefix(name)
	}
	return apivalidation.NameIsDNSSubdomain(name, false)
}

// ValidateReplicationController says what is wrong with a new ReplicationController.
func ValidateReplicationController(rc *corev1.ReplicationController) field.ErrorList {
	var r report
	r.objectMeta(rc, true, controllerName, metaPath)
	r.controllerSpec(&rc.Spec)
	return r.errs
}

// ValidateReplicationControllerUpdate says what is wrong with an update of a
// ReplicationController.
func ValidateReplicationControllerUpdate(rc, old *corev1.ReplicationController) field.ErrorList {
	var r report
	r.objectMetaUpdate(rc, old, metaPath)
	r.controllerSpec(&rc.Spec)
	return r.errs
}

func (r *report) controllerSpec(spec *corev1.ReplicationControllerSpec) {
	r.nonNegative(int64(spec.MinReadySeconds), specPath.Child("minReadySeconds"))
	if r.requireIf(spec.Replicas == nil, specPath.Child("replicas"), "") {
		r.nonNegative(int64(*spec.Replicas), specPath.Child("replicas"))
	}
	r.requireIf(len(spec.Selector) == 0, specPath.Child("selector"), "")
	p, template := specPath.Child("template"), spec.Template
	if !r.requireIf(template == nil, p, "") {
		return
	}
	for k, v := range spec.Selector {
		if label, ok := template.Labels[k]; !ok || label != v {
			r.invalid(p.Child("metadata", "labels"), template.Labels, "`selector` does not match template `labels`")
			break
		}
	}
	r.merge(ValidatePodTemplateSpec(template, p))
	if template.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		r.add(field.NotSupported(p.Child("spec", "restartPolicy"), template.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	r.forbidIf(template.Spec.ActiveDeadlineSeconds != nil, p.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicationController is not Supported")
}

// ValidateReplicationControllerStatusUpdate says what is wrong with an update of
// the status of a ReplicationController.
func ValidateReplicationControllerStatusUpdate(rc, old *corev1.ReplicationController) field.ErrorList {
	var r report
	r.objectMetaUpdate(rc, old, metaPath)
	p, s := field.NewPath("status"), &rc.Status
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"replicas", int64(s.Replicas)}, {"fullyLabeledReplicas", int64(s.FullyLabeledReplicas)}, {"readyReplicas", int64(s.ReadyReplicas)},
		{"availableReplicas", int64(s.AvailableReplicas)}, {"observedGeneration", s.ObservedGeneration},
	} {
		r.nonNegative(n.value, p.Child(n.name))
	}
	r.invalidIf(s.FullyLabeledReplicas > s.Replicas, p.Child("fullyLabeledReplicas"), s.FullyLabeledReplicas, "cannot be greater than status.replicas")
	r.invalidIf(s.ReadyReplicas > s.Replicas, p.Child("readyReplicas"), s.ReadyReplicas, "cannot be greater than status.replicas")
	r.invalidIf(s.AvailableReplicas > s.Replicas, p.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than status.replicas")
	r.invalidIf(s.AvailableReplicas > s.ReadyReplicas, p.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas")
	return r.errs
}
