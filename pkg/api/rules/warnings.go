package rules

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// HostNameWarnings are for the name of an object whose pods are named after it.
func HostNameWarnings(name string) []string {
	if messages := validation.IsDNS1123Label(name); name != "" && len(messages) > 0 {
		return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", messages)}
	}
	return nil
}

// formerNodeLabels are labels of nodes that have another name today.
var formerNodeLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
	corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	corev1.LabelInstanceType:            corev1.LabelInstanceTypeStable,
	"beta.kubernetes.io/arch":           corev1.LabelArchStable,
	"beta.kubernetes.io/os":             corev1.LabelOSStable,
}

// NodeLabelWarnings are for the key of a label that selects nodes.
func NodeLabelWarnings(key string, p *field.Path) []string {
	now, ok := formerNodeLabels[key]
	if !ok {
		return nil
	}
	since := "v1.14"
	if key != "beta.kubernetes.io/arch" && key != "beta.kubernetes.io/os" {
		since = "v1.17"
	}
	return []string{fmt.Sprintf("%s: deprecated since %s; use %q instead", p, since, now)}
}

// NodeSelectorWarnings are for a selector of nodes.
func NodeSelectorWarnings(s *metav1.LabelSelector, p *field.Path) []string {
	if s == nil {
		return nil
	}
	var warnings []string
	for key := range s.MatchLabels {
		warnings = append(warnings, NodeLabelWarnings(key, p.Child("matchLabels").Child(key))...)
	}
	for i, e := range s.MatchExpressions {
		warnings = append(warnings, NodeLabelWarnings(e.Key, p.Child("matchExpressions").Index(i).Child("key"))...)
	}
	return warnings
}
