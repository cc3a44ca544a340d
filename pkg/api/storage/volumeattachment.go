package storage

import (
	"context"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	maxAttachmentMetadataSize = 256 << 10
	maxVolumeErrorSize        = 1024
)

var sourcePath = specPath.Child("source")

// ValidateVolumeAttachment says what is wrong with a new VolumeAttachment.
func ValidateVolumeAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	return validateAttachment(a, func(p *field.Path) field.ErrorList {
		return validate.LongNameCaseless(context.Background(), operation.Operation{}, p, &a.Spec.Attacher, nil)
	})
}

// validateAttachment checks a VolumeAttachment, and the form of its attacher's name in a way that a creation and
// an update have different words for.
func validateAttachment(a *storagev1.VolumeAttachment, name func(*field.Path) field.ErrorList) field.ErrorList {
	errs := rules.ClusterScoped(&a.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	p := specPath.Child("attacher")
	if a.Spec.Attacher == "" {
		errs = append(errs, field.Required(p, ""))
	} else {
		if len(a.Spec.Attacher) > rules.MaxDriverName {
			errs = append(errs, field.TooLongCharacters(p, a.Spec.Attacher, rules.MaxDriverName))
		}
		errs = append(errs, name(p)...)
	}
	errs = append(errs, validateAttachmentSource(&a.Spec.Source)...)
	if name := a.Spec.Source.PersistentVolumeName; name != nil {
		errs = append(errs, rules.Messages(sourcePath.Child("persistentVolumeName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
	}
	errs = append(errs, rules.Messages(specPath.Child("nodeName"), a.Spec.NodeName, apivalidation.NameIsDNSSubdomain(a.Spec.NodeName, false))...)
	return append(errs, validateAttachmentStatus(&a.Status)...)
}

// ValidateVolumeAttachmentUpdate says what is wrong with an update of a VolumeAttachment.
func ValidateVolumeAttachmentUpdate(a, old *storagev1.VolumeAttachment) field.ErrorList {
	errs := rules.MetaUpdate(&a.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateAttachment(a, func(p *field.Path) field.ErrorList {
		return rules.Messages(p, a.Spec.Attacher, validation.IsDNS1123Subdomain(strings.ToLower(a.Spec.Attacher)))
	})...)
	return append(errs, rules.Fixed(a.Spec, old.Spec, specPath)...)
}

// ValidateVolumeAttachmentStatusUpdate says what is wrong with an update of the status of a VolumeAttachment.
func ValidateVolumeAttachmentStatusUpdate(a, old *storagev1.VolumeAttachment) field.ErrorList {
	return ValidateVolumeAttachmentUpdate(a, old)
}

func validateAttachmentSource(s *storagev1.VolumeAttachmentSource) field.ErrorList {
	const exactlyOne = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	switch {
	case s.InlineVolumeSpec == nil && s.PersistentVolumeName == nil:
		return field.ErrorList{field.Required(sourcePath, exactlyOne)}
	case s.InlineVolumeSpec != nil && s.PersistentVolumeName != nil:
		return field.ErrorList{field.Forbidden(sourcePath, exactlyOne)}
	case s.InlineVolumeSpec != nil:
		return validateInlineVolume(s.InlineVolumeSpec, sourcePath.Child("inlineVolumeSpec"))
	}
	if *s.PersistentVolumeName == "" {
		return field.ErrorList{field.Required(sourcePath.Child("persistentVolumeName"), "must specify non empty persistentVolumeName")}
	}
	return nil
}

// validateInlineVolume checks a volume that stands in a pod: what an in-tree volume
// was translated to. It is of a CSI driver and knows of no claim.
func validateInlineVolume(spec *corev1.PersistentVolumeSpec, p *field.Path) field.ErrorList {
	const inline = "may not be specified in the context of inline volumes"
	var errs field.ErrorList
	forbid := func(name string, set bool) {
		if set {
			errs = append(errs, field.Forbidden(p.Child(name), inline))
		}
	}
	forbid("claimRef", spec.ClaimRef != nil)
	forbid("capacity", len(spec.Capacity) > 0)
	forbid("nodeAffinity", spec.NodeAffinity != nil)
	forbid("storageClassName", spec.StorageClassName != "")
	if len(spec.AccessModes) == 0 {
		errs = append(errs, field.Required(p.Child("accessModes"), ""))
	}
	for _, mode := range spec.AccessModes {
		errs = append(errs, rules.OneOf(mode, p.Child("accessModes"),
			corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)...)
	}
	if spec.VolumeMode != nil && *spec.VolumeMode != corev1.PersistentVolumeFilesystem {
		errs = append(errs, field.Forbidden(p.Child("volumeMode"), "may not specify volumeMode other than Filesystem in the context of inline volumes"))
	}
	if spec.CSI == nil {
		return append(errs, field.Required(p.Child("csi"), "has to be specified in the context of inline volumes"))
	}
	if source := spec.PersistentVolumeSource; source != (corev1.PersistentVolumeSource{CSI: source.CSI}) {
		return append(errs, field.Forbidden(p.Child("csi"), "may not specify more than 1 volume type"))
	}
	return append(errs, validateCSIVolume(spec.CSI, p.Child("csi"))...)
}

func validateCSIVolume(csi *corev1.CSIPersistentVolumeSource, p *field.Path) field.ErrorList {
	errs := rules.DriverName(csi.Driver, p.Child("driver"))
	if csi.VolumeHandle == "" {
		errs = append(errs, field.Required(p.Child("volumeHandle"), ""))
	}
	for _, secret := range []struct {
		name string
		ref  *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", csi.ControllerPublishSecretRef},
		{"controllerExpandSecretRef", csi.ControllerExpandSecretRef},
		{"nodePublishSecretRef", csi.NodePublishSecretRef},
		{"nodeExpandSecretRef", csi.NodeExpandSecretRef},
	} {
		if secret.ref == nil {
			continue
		}
		if secret.ref.Name == "" {
			errs = append(errs, field.Required(p.Child(secret.name, "name"), ""))
		}
		if secret.ref.Namespace == "" {
			errs = append(errs, field.Required(p.Child(secret.name, "namespace"), ""))
		}
	}
	return errs
}

func validateAttachmentStatus(s *storagev1.VolumeAttachmentStatus) field.ErrorList {
	p := field.NewPath("status")
	var errs field.ErrorList
	size := 0
	for key, value := range s.AttachmentMetadata {
		size += len(key) + len(value)
	}
	if size > maxAttachmentMetadataSize {
		errs = append(errs, field.TooLong(p.Child("attachmentMetadata"), "" /*unused*/, maxAttachmentMetadataSize))
	}
	errs = append(errs, validateVolumeError(s.AttachError, p.Child("attachError"))...)
	return append(errs, validateVolumeError(s.DetachError, p.Child("detachError"))...)
}

func validateVolumeError(e *storagev1.VolumeError, p *field.Path) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > maxVolumeErrorSize {
		errs = append(errs, field.TooLong(p.Child("message"), "" /*unused*/, maxVolumeErrorSize))
	}
	if e.ErrorCode != nil && *e.ErrorCode < 0 {
		errs = append(errs, field.Invalid(p.Child("errorCode"), *e.ErrorCode, validation.InclusiveRangeError(0, math.MaxInt32)))
	}
	return errs
}
