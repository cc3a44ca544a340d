package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const claimFieldsThatChange = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"

var resizeStatuses = []corev1.ClaimResourceStatus{
	corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
	corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible, corev1.PersistentVolumeClaimNodeResizePending,
}

// SettleClaim makes the two fields for the data that a claim starts from say the same, before it is validated. old, which is nil on
// creation, is settled as well: a client that knows only one of the fields must not seem to change the other.
func SettleClaim(spec, old *corev1.PersistentVolumeClaimSpec) {
	if old == nil || old.DataSourceRef == nil {
		dropForeignSource(spec)
	}
	if old == nil || old.DataSource == nil && old.DataSourceRef == nil {
		dropUnknownSource(spec)
	}
	mirrorSources(spec)
	if old != nil {
		mirrorSources(old)
	}
}

// dropForeignSource drops a source in another namespace, which is a feature that is off.
func dropForeignSource(spec *corev1.PersistentVolumeClaimSpec) {
	if ref := spec.DataSourceRef; ref != nil && ptr.Deref(ref.Namespace, "") != "" {
		spec.DataSourceRef = nil
	}
}

// dropUnknownSource ignores, as the first version did, a data source that is
// neither a claim nor a snapshot. The newer field refuses what it does not know.
func dropUnknownSource(spec *corev1.PersistentVolumeClaimSpec) {
	s := spec.DataSource
	if s == nil || spec.DataSourceRef != nil {
		return
	}
	claim := s.Kind == "PersistentVolumeClaim" && ptr.Deref(s.APIGroup, "") == ""
	snapshot := s.Kind == "VolumeSnapshot" && ptr.Deref(s.APIGroup, "") == "snapshot.storage.k8s.io"
	if !claim && !snapshot {
		spec.DataSource = nil
	}
}

// mirrorSources fills in the data source field that is missing from the other.
func mirrorSources(spec *corev1.PersistentVolumeClaimSpec) {
	switch source, ref := spec.DataSource, spec.DataSourceRef; {
	case source != nil && ref == nil:
		spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: source.APIGroup, Kind: source.Kind, Name: source.Name}
	case source == nil && ref != nil && ptr.Deref(ref.Namespace, "") == "":
		spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ref.APIGroup, Kind: ref.Kind, Name: ref.Name}
	}
}

// ValidatePersistentVolumeClaim says what is wrong with a new PersistentVolumeClaim.
func ValidatePersistentVolumeClaim(pvc *corev1.PersistentVolumeClaim) field.ErrorList {
	return validateClaim(pvc, false)
}

// validateClaim checks a claim. What is called a group of an API may be any text where one is stored already.
func validateClaim(pvc *corev1.PersistentVolumeClaim, anyGroup bool) field.ErrorList {
	var r report
	r.objectMeta(pvc, true, apivalidation.NameIsDNSSubdomain, metaPath)
	r.claimSpec(&pvc.Spec, anyGroup, specPath)
	return r.errs
}

// ValidatePersistentVolumeClaimUpdate says what is wrong with an update of a
// PersistentVolumeClaim. A claim gets its volume and its class once; once it has
// its volume it may ask for more.
func ValidatePersistentVolumeClaimUpdate(pvc, old *corev1.PersistentVolumeClaim) field.ErrorList {
	var r report
	r.objectMetaUpdate(pvc, old, metaPath)
	spec, was := pvc.Spec.DeepCopy(), &old.Spec
	anyGroup := was.DataSource != nil && was.DataSource.APIGroup != nil || was.DataSourceRef != nil && was.DataSourceRef.APIGroup != nil
	r.merge(validateClaim(pvc, anyGroup))

	if was.VolumeName == "" {
		spec.VolumeName = was.VolumeName
	}
	const betaClass = corev1.BetaStorageClassAnnotation
	if was.StorageClassName == nil && old.Annotations[betaClass] == "" ||
		was.StorageClassName == nil && spec.StorageClassName != nil && *spec.StorageClassName == old.Annotations[betaClass] {
		spec.StorageClassName = nil
	}
	const storage = corev1.ResourceStorage
	now, before := pvc.Spec.Resources.Requests[storage], was.Resources.Requests[storage]
	shrunk := now.Cmp(before) < 0 && now.Cmp(old.Status.Capacity[storage]) <= 0
	r.forbidIf(shrunk, specPath.Child("resources", "requests", "storage"), "field can not be less than status.capacity")
	if old.Status.Phase == corev1.ClaimBound {
		if spec.Resources.Requests != nil {
			spec.Resources.Requests[storage] = before
		}
		spec.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	class := pvc.Spec.VolumeAttributesClassName
	if old.Status.CurrentVolumeAttributesClassName != nil && !apiequality.Semantic.DeepEqual(class, was.VolumeAttributesClassName) {
		at := specPath.Child("volumeAttributesClassName")
		r.forbidIf(class == nil, at, "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil")
		r.forbidIf(class != nil && *class == "", at, "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil")
	}
	if !apiequality.Semantic.DeepEqual(spec, was) {
		r.add(field.Forbidden(specPath, claimFieldsThatChange+"\n"+diff.Diff(goNames{was}, goNames{spec})))
	}
	r.immutable(pvc.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))
	return r.errs
}

// ValidatePersistentVolumeClaimStatusUpdate says what is wrong with an update of
// the status of a PersistentVolumeClaim.
func ValidatePersistentVolumeClaimStatusUpdate(pvc, old *corev1.PersistentVolumeClaim) field.ErrorList {
	var r report
	r.objectMetaUpdate(pvc, old, metaPath)
	p, s := field.NewPath("status"), &pvc.Status
	r.requireIf(pvc.ResourceVersion == "", metaPath.Child("resourceVersion"), "")
	r.requireIf(len(pvc.Spec.AccessModes) == 0, specPath.Child("accessModes"), "")
	for n, q := range ordered(s.Capacity) {
		r.validQuantity(q, p.Child("capacity").Key(string(n)))
	}
	known := func(n corev1.ResourceName, at *field.Path) bool {
		if wrong := validation.IsQualifiedName(string(n)); len(wrong) > 0 {
			return r.invalid(at, n, wrong...)
		}
		if n != corev1.ResourceStorage && isNativeResource(n) {
			r.add(field.NotSupported(at, n, []corev1.ResourceName{corev1.ResourceStorage}))
			return false
		}
		return true
	}
	at := p.Child("allocatedResourceStatuses")
	for n, status := range ordered(s.AllocatedResourceStatuses) {
		known(n, at)
		if !slices.Contains(resizeStatuses, status) {
			r.add(field.NotSupported(at, n, resizeStatuses))
		}
	}
	at = p.Child("allocatedResources")
	for n, q := range ordered(s.AllocatedResources) {
		if known(n, at) {
			r.validQuantity(q, at.Key(string(n)))
		}
	}
	return r.errs
}
