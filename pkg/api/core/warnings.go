package core

import (
	"crypto/tls"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// warnings collects what the author of an object should know though it is valid.
type warnings []string

func (w *warnings) add(format string, args ...any) { *w = append(*w, fmt.Sprintf(format, args...)) }

// annotation says of a deprecated annotation what to use instead.
func (w *warnings) annotation(annotations map[string]string, key, message string, p *field.Path) {
	if _, ok := annotations[key]; ok {
		w.add("%s: %s", p.Child("annotations").Key(key), message)
	}
}

// WarningsService are what the author of a Service should know.
func WarningsService(svc, _ *corev1.Service) []string {
	var w warnings
	if _, ok := svc.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		w.add("annotation %s is deprecated, please use %s instead", corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode)
	}
	spec := &svc.Spec
	for i, ip := range spec.ClusterIPs {
		if ip != corev1.ClusterIPNone {
			w = append(w, validation.GetWarningsForIP(specPath.Child("clusterIPs").Index(i), ip)...)
		}
	}
	for i, ip := range spec.ExternalIPs {
		w = append(w, validation.GetWarningsForIP(specPath.Child("externalIPs").Index(i), ip)...)
	}
	if netutils.ParseIPSloppy(spec.LoadBalancerIP) != nil { // it may be anything
		w = append(w, validation.GetWarningsForIP(specPath.Child("loadBalancerIP"), spec.LoadBalancerIP)...)
	}
	for i, cidr := range spec.LoadBalancerSourceRanges {
		w = append(w, validation.GetWarningsForCIDR(specPath.Child("loadBalancerSourceRanges").Index(i), cidr)...)
	}
	if spec.Type == corev1.ServiceTypeClusterIP && spec.ClusterIP == corev1.ClusterIPNone {
		const ignored = "%s is ignored for headless services"
		if spec.LoadBalancerIP != "" {
			w.add(ignored, "spec.loadBalancerIP")
		}
		if len(spec.ExternalIPs) > 0 {
			w.add(ignored, "spec.externalIPs")
		}
		if spec.SessionAffinity != corev1.ServiceAffinityNone {
			w.add(ignored, "spec.SessionAffinity")
		}
	} else if len(spec.ExternalIPs) > 0 && spec.Type != corev1.ServiceTypeExternalName {
		w.add("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	}
	switch external := spec.Type == corev1.ServiceTypeExternalName; {
	case external && len(spec.ExternalIPs) > 0:
		w.add("spec.externalIPs is ignored when spec.type is %q", corev1.ServiceTypeExternalName)
	case !external && spec.ExternalName != "":
		w.add("spec.externalName is ignored when spec.type is not %q", corev1.ServiceTypeExternalName)
	}
	if d := spec.TrafficDistribution; d != nil && *d == corev1.ServiceTrafficDistributionPreferClose {
		w.add("spec.trafficDistribution: %q is deprecated; use %q", *d, corev1.ServiceTrafficDistributionPreferSameZone)
	}
	return w
}

// WarningsEndpoints are what the author of an Endpoints should know.
func WarningsEndpoints(_, _ *corev1.Endpoints) []string {
	return []string{"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"}
}

// WarningsSecret are what the author of a Secret should know.
func WarningsSecret(secret, _ *corev1.Secret) []string {
	var w warnings
	if secret.Type == corev1.SecretTypeTLS {
		if _, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]); err != nil {
			w.add("%v", err)
		}
	}
	return w
}

// WarningsServiceAccount are what the author of a ServiceAccount should know.
func WarningsServiceAccount(sa, _ *corev1.ServiceAccount) []string {
	var w warnings
	w.annotation(sa.Annotations, "kubernetes.io/enforce-mountable-secrets",
		"deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets", metaPath)
	return w
}

// WarningsNode are what the author of a Node should know.
func WarningsNode(node, _ *corev1.Node) []string {
	var w warnings
	if node.Spec.DoNotUseExternalID != "" {
		w.add("%s: this field is deprecated, and is unused by Kubernetes", specPath.Child("externalID"))
	}
	for i, cidr := range node.Spec.PodCIDRs {
		w = append(w, validation.GetWarningsForCIDR(specPath.Child("podCIDRs").Index(i), cidr)...)
	}
	return w
}

// WarningsReplicationController are what the author of a ReplicationController
// should know.
func WarningsReplicationController(rc, old *corev1.ReplicationController) []string {
	template := specPath.Child("template")
	if old != nil {
		if rc.Generation == old.Generation {
			return nil
		}
		return WarningsPodTemplateSpec(old.Spec.Template, rc.Spec.Template, template) // of what was, as in the original
	}
	w := warnings(WarningsPodTemplateSpec(rc.Spec.Template, nil, template))
	if errs := validation.IsDNS1123Label(rc.Name); rc.Name != "" && len(errs) > 0 {
		w.add("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", errs)
	}
	return w
}

// WarningsPodTemplate are what the author of a PodTemplate should know.
func WarningsPodTemplate(template, old *corev1.PodTemplate) []string {
	var was *corev1.PodTemplateSpec
	if old != nil {
		was = &old.Template
	}
	return WarningsPodTemplateSpec(&template.Template, was, field.NewPath("template"))
}

const betaClassMessage = `deprecated since v1.8; use "storageClassName" attribute instead`

// WarningsPersistentVolumeClaim are what the author of a claim should know.
func WarningsPersistentVolumeClaim(pvc, _ *corev1.PersistentVolumeClaim) []string {
	var w warnings
	w.annotation(pvc.Annotations, corev1.BetaStorageClassAnnotation, betaClassMessage, metaPath)
	w.claimSpec(&pvc.Spec, specPath)
	return w
}

// WarningsClaimTemplate are what the author of a template for PersistentVolumeClaims, at
// p, should know.
func WarningsClaimTemplate(template *corev1.PersistentVolumeClaim, p *field.Path) []string {
	var w warnings
	w.claimSpec(&template.Spec, p)
	return w
}

func (w *warnings) claimSpec(spec *corev1.PersistentVolumeClaimSpec, p *field.Path) {
	w.fractions(spec.Resources.Requests, p.Child("resources", "requests"), corev1.ResourceStorage)
	w.fractions(spec.Resources.Limits, p.Child("resources", "limits"), corev1.ResourceStorage)
}

// fractions warns of parts of bytes.
func (w *warnings) fractions(list corev1.ResourceList, p *field.Path, names ...corev1.ResourceName) {
	for _, n := range names {
		if q, ok := list[n]; ok && q.MilliValue()%1000 != 0 {
			w.add("%s: fractional byte value %q is invalid, must be an integer", p.Key(string(n)), q.String())
		}
	}
}

// WarningsPersistentVolume are what the author of a PersistentVolume should know.
func WarningsPersistentVolume(pv, _ *corev1.PersistentVolume) []string {
	var w warnings
	w.annotation(pv.Annotations, corev1.BetaStorageClassAnnotation, betaClassMessage, metaPath)
	w.annotation(pv.Annotations, corev1.MountOptionAnnotation, `deprecated since v1.31; use "mountOptions" attribute instead`, metaPath)
	spec := &pv.Spec
	if spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		w.add("%s: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.", specPath.Child("persistentVolumeReclaimPolicy"))
	}
	if a := spec.NodeAffinity; a != nil && a.Required != nil {
		for i := range a.Required.NodeSelectorTerms {
			w.nodeSelectorTerm(&a.Required.NodeSelectorTerms[i], specPath.Child("nodeAffinity", "required", "nodeSelectorTerms").Index(i))
		}
	}
	w.oldVolumes(specPath, []oldVolume{
		{"cephfs", "deprecated in v1.28, non-functional in v1.31+", spec.CephFS != nil},
		{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+", spec.PhotonPersistentDisk != nil},
		{"rbd", "deprecated in v1.28, non-functional in v1.31+", spec.RBD != nil},
		{"scaleIO", "deprecated in v1.16, non-functional in v1.22+", spec.ScaleIO != nil},
		{"storageOS", "deprecated in v1.22, non-functional in v1.25+", spec.StorageOS != nil},
		{"glusterfs", "deprecated in v1.25, non-functional in v1.26+", spec.Glusterfs != nil},
	})
	return w
}

// An oldVolume is a source of volumes that is no longer supported.
type oldVolume struct {
	name, message string
	set           bool
}

func (w *warnings) oldVolumes(p *field.Path, list []oldVolume) {
	for _, v := range list {
		if v.set {
			w.add("%s: %s", p.Child(v.name), v.message)
		}
	}
}

func (w *warnings) label(key string, p *field.Path) {
	if message, former := rules.FormerNodeLabel(key); former {
		w.add("%s: %s is %s", p, key, message)
	}
}

func (w *warnings) nodeSelectorTerm(term *corev1.NodeSelectorTerm, p *field.Path) {
	for i, e := range term.MatchExpressions {
		at := p.Child("matchExpressions").Index(i)
		w.label(e.Key, at.Child("key"))
		if e.Operator == corev1.NodeSelectorOpIn || e.Operator == corev1.NodeSelectorOpNotIn {
			for j, v := range e.Values {
				if errs := validation.IsValidLabelValue(v); len(errs) > 0 {
					w.add("%s: %s is invalid, %s", at.Child("values").Index(j), v, strings.Join(errs, "; "))
				}
			}
		}
	}
}
