package core

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateMeta(o metaObject, namespaced bool) field.ErrorList {
	var r report
	r.objectMeta(o, namespaced, apivalidation.NameIsDNSSubdomain, metaPath)
	return r.errs
}

func validateMetaUpdate(o, old metaObject) field.ErrorList {
	var r report
	r.objectMetaUpdate(o, old, metaPath)
	return r.errs
}

// WarningsPod are what the author of a Pod should know. old is nil on creation.
func WarningsPod(o, old *corev1.Pod) []string { return nil }

// ValidateNode says what is wrong with a new Node.
func ValidateNode(o *corev1.Node) field.ErrorList { return validateMeta(o, false) }

// ValidateNodeUpdate says what is wrong with an update of a Node.
func ValidateNodeUpdate(o, old *corev1.Node) field.ErrorList { return validateMetaUpdate(o, old) }

// ValidateNodeStatusUpdate says what is wrong with an update of the status of a Node.
func ValidateNodeStatusUpdate(o, old *corev1.Node) field.ErrorList { return validateMetaUpdate(o, old) }

// WarningsNode are what the author of a Node should know. old is nil on creation.
func WarningsNode(o, old *corev1.Node) []string { return nil }

// ValidateNamespace says what is wrong with a new Namespace.
func ValidateNamespace(o *corev1.Namespace) field.ErrorList { return validateMeta(o, false) }

// ValidateNamespaceUpdate says what is wrong with an update of a Namespace.
func ValidateNamespaceUpdate(o, old *corev1.Namespace) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// ValidateNamespaceStatusUpdate says what is wrong with an update of the status of a Namespace.
func ValidateNamespaceStatusUpdate(o, old *corev1.Namespace) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsNamespace are what the author of a Namespace should know. old is nil on creation.
func WarningsNamespace(o, old *corev1.Namespace) []string { return nil }

// ValidateService says what is wrong with a new Service.
func ValidateService(o *corev1.Service) field.ErrorList { return validateMeta(o, true) }

// ValidateServiceUpdate says what is wrong with an update of a Service.
func ValidateServiceUpdate(o, old *corev1.Service) field.ErrorList { return validateMetaUpdate(o, old) }

// ValidateServiceStatusUpdate says what is wrong with an update of the status of a Service.
func ValidateServiceStatusUpdate(o, old *corev1.Service) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsService are what the author of a Service should know. old is nil on creation.
func WarningsService(o, old *corev1.Service) []string { return nil }

// ValidateEndpoints says what is wrong with a new Endpoints.
func ValidateEndpoints(o *corev1.Endpoints) field.ErrorList { return validateMeta(o, true) }

// ValidateEndpointsUpdate says what is wrong with an update of a Endpoints.
func ValidateEndpointsUpdate(o, old *corev1.Endpoints) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsEndpoints are what the author of a Endpoints should know. old is nil on creation.
func WarningsEndpoints(o, old *corev1.Endpoints) []string { return nil }

// ValidateConfigMap says what is wrong with a new ConfigMap.
func ValidateConfigMap(o *corev1.ConfigMap) field.ErrorList { return validateMeta(o, true) }

// ValidateConfigMapUpdate says what is wrong with an update of a ConfigMap.
func ValidateConfigMapUpdate(o, old *corev1.ConfigMap) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsConfigMap are what the author of a ConfigMap should know. old is nil on creation.
func WarningsConfigMap(o, old *corev1.ConfigMap) []string { return nil }

// ValidateSecret says what is wrong with a new Secret.
func ValidateSecret(o *corev1.Secret) field.ErrorList { return validateMeta(o, true) }

// ValidateSecretUpdate says what is wrong with an update of a Secret.
func ValidateSecretUpdate(o, old *corev1.Secret) field.ErrorList { return validateMetaUpdate(o, old) }

// WarningsSecret are what the author of a Secret should know. old is nil on creation.
func WarningsSecret(o, old *corev1.Secret) []string { return nil }

// ValidateServiceAccount says what is wrong with a new ServiceAccount.
func ValidateServiceAccount(o *corev1.ServiceAccount) field.ErrorList { return validateMeta(o, true) }

// ValidateServiceAccountUpdate says what is wrong with an update of a ServiceAccount.
func ValidateServiceAccountUpdate(o, old *corev1.ServiceAccount) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsServiceAccount are what the author of a ServiceAccount should know. old is nil on creation.
func WarningsServiceAccount(o, old *corev1.ServiceAccount) []string { return nil }

// ValidateEvent says what is wrong with a new Event.
func ValidateEvent(o *corev1.Event) field.ErrorList { return validateMeta(o, true) }

// ValidateEventUpdate says what is wrong with an update of a Event.
func ValidateEventUpdate(o, old *corev1.Event) field.ErrorList { return validateMetaUpdate(o, old) }

// WarningsEvent are what the author of a Event should know. old is nil on creation.
func WarningsEvent(o, old *corev1.Event) []string { return nil }

// ValidateReplicationController says what is wrong with a new ReplicationController.
func ValidateReplicationController(o *corev1.ReplicationController) field.ErrorList {
	return validateMeta(o, true)
}

// ValidateReplicationControllerUpdate says what is wrong with an update of a ReplicationController.
func ValidateReplicationControllerUpdate(o, old *corev1.ReplicationController) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// ValidateReplicationControllerStatusUpdate says what is wrong with an update of the status of a ReplicationController.
func ValidateReplicationControllerStatusUpdate(o, old *corev1.ReplicationController) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsReplicationController are what the author of a ReplicationController should know. old is nil on creation.
func WarningsReplicationController(o, old *corev1.ReplicationController) []string { return nil }

// ValidateResourceQuota says what is wrong with a new ResourceQuota.
func ValidateResourceQuota(o *corev1.ResourceQuota) field.ErrorList { return validateMeta(o, true) }

// ValidateResourceQuotaUpdate says what is wrong with an update of a ResourceQuota.
func ValidateResourceQuotaUpdate(o, old *corev1.ResourceQuota) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// ValidateResourceQuotaStatusUpdate says what is wrong with an update of the status of a ResourceQuota.
func ValidateResourceQuotaStatusUpdate(o, old *corev1.ResourceQuota) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsResourceQuota are what the author of a ResourceQuota should know. old is nil on creation.
func WarningsResourceQuota(o, old *corev1.ResourceQuota) []string { return nil }

// ValidateLimitRange says what is wrong with a new LimitRange.
func ValidateLimitRange(o *corev1.LimitRange) field.ErrorList { return validateMeta(o, true) }

// ValidateLimitRangeUpdate says what is wrong with an update of a LimitRange.
func ValidateLimitRangeUpdate(o, old *corev1.LimitRange) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsLimitRange are what the author of a LimitRange should know. old is nil on creation.
func WarningsLimitRange(o, old *corev1.LimitRange) []string { return nil }

// WarningsPodTemplate are what the author of a PodTemplate should know. old is nil on creation.
func WarningsPodTemplate(o, old *corev1.PodTemplate) []string { return nil }

// ValidatePersistentVolume says what is wrong with a new PersistentVolume.
func ValidatePersistentVolume(o *corev1.PersistentVolume) field.ErrorList {
	return validateMeta(o, false)
}

// ValidatePersistentVolumeUpdate says what is wrong with an update of a PersistentVolume.
func ValidatePersistentVolumeUpdate(o, old *corev1.PersistentVolume) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// ValidatePersistentVolumeStatusUpdate says what is wrong with an update of the status of a PersistentVolume.
func ValidatePersistentVolumeStatusUpdate(o, old *corev1.PersistentVolume) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsPersistentVolume are what the author of a PersistentVolume should know. old is nil on creation.
func WarningsPersistentVolume(o, old *corev1.PersistentVolume) []string { return nil }

// ValidatePersistentVolumeClaim says what is wrong with a new PersistentVolumeClaim.
func ValidatePersistentVolumeClaim(o *corev1.PersistentVolumeClaim) field.ErrorList {
	return validateMeta(o, true)
}

// ValidatePersistentVolumeClaimUpdate says what is wrong with an update of a PersistentVolumeClaim.
func ValidatePersistentVolumeClaimUpdate(o, old *corev1.PersistentVolumeClaim) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// ValidatePersistentVolumeClaimStatusUpdate says what is wrong with an update of the status of a PersistentVolumeClaim.
func ValidatePersistentVolumeClaimStatusUpdate(o, old *corev1.PersistentVolumeClaim) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsPersistentVolumeClaim are what the author of a PersistentVolumeClaim should know. old is nil on creation.
func WarningsPersistentVolumeClaim(o, old *corev1.PersistentVolumeClaim) []string { return nil }

// ValidateNamespaceFinalizeUpdate says what is wrong with an update of the finalizers of a Namespace.
func ValidateNamespaceFinalizeUpdate(o, old *corev1.Namespace) field.ErrorList {
	return validateMetaUpdate(o, old)
}

// WarningsPodTemplateSpec are what the author of a template for pods should know.
func WarningsPodTemplateSpec(template, old *corev1.PodTemplateSpec, p *field.Path) []string {
	return nil
}
