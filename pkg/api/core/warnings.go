package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// WarningsPod are what the author of a Pod should know. old is nil on creation.
func WarningsPod(o, old *corev1.Pod) []string { return nil }

// WarningsNode are what the author of a Node should know. old is nil on creation.
func WarningsNode(o, old *corev1.Node) []string { return nil }

// WarningsNamespace are what the author of a Namespace should know. old is nil on creation.
func WarningsNamespace(o, old *corev1.Namespace) []string { return nil }

// WarningsService are what the author of a Service should know. old is nil on creation.
func WarningsService(o, old *corev1.Service) []string { return nil }

// WarningsEndpoints are what the author of a Endpoints should know. old is nil on creation.
func WarningsEndpoints(o, old *corev1.Endpoints) []string { return nil }

// WarningsConfigMap are what the author of a ConfigMap should know. old is nil on creation.
func WarningsConfigMap(o, old *corev1.ConfigMap) []string { return nil }

// WarningsSecret are what the author of a Secret should know. old is nil on creation.
func WarningsSecret(o, old *corev1.Secret) []string { return nil }

// WarningsServiceAccount are what the author of a ServiceAccount should know. old is nil on creation.
func WarningsServiceAccount(o, old *corev1.ServiceAccount) []string { return nil }

// WarningsEvent are what the author of a Event should know. old is nil on creation.
func WarningsEvent(o, old *corev1.Event) []string { return nil }

// WarningsReplicationController are what the author of a ReplicationController should know. old is nil on creation.
func WarningsReplicationController(o, old *corev1.ReplicationController) []string { return nil }

// WarningsResourceQuota are what the author of a ResourceQuota should know. old is nil on creation.
func WarningsResourceQuota(o, old *corev1.ResourceQuota) []string { return nil }

// WarningsLimitRange are what the author of a LimitRange should know. old is nil on creation.
func WarningsLimitRange(o, old *corev1.LimitRange) []string { return nil }

// WarningsPodTemplate are what the author of a PodTemplate should know. old is nil on creation.
func WarningsPodTemplate(o, old *corev1.PodTemplate) []string { return nil }

// WarningsPersistentVolume are what the author of a PersistentVolume should know. old is nil on creation.
func WarningsPersistentVolume(o, old *corev1.PersistentVolume) []string { return nil }

// WarningsPersistentVolumeClaim are what the author of a PersistentVolumeClaim should know. old is nil on creation.
func WarningsPersistentVolumeClaim(o, old *corev1.PersistentVolumeClaim) []string { return nil }

// WarningsPodTemplateSpec are what the author of a template for pods should know.
func WarningsPodTemplateSpec(template, old *corev1.PodTemplateSpec, p *field.Path) []string {
	return nil
}
