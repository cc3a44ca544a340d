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
	"beta.kubernetes.io/arch":           `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":             `deprecated since v1.14; use "kubernetes.io/os" instead`,
	corev1.LabelFailureDomainBetaRegion: `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	corev1.LabelFailureDomainBetaZone:   `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	corev1.LabelInstanceType:            `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
}

// FormerNodeLabel tells what to use instead of a label of nodes that has another name
// today, and whether it is one.
func FormerNodeLabel(key string) (message string, former bool) {
	message, former = formerNodeLabels[key]
	return message, former
}

// NodeLabelWarnings are for the key of a label that selects nodes.
func NodeLabelWarnings(key string, p *field.Path) []string {
	if message, former := FormerNodeLabel(key); former {
		return []string{fmt.Sprintf("%s: %s", p, message)}
	}
	return nil
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
