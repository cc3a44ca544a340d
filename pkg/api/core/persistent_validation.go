package core

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var accessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod}

func (r *report) accessModes(modes []corev1.PersistentVolumeAccessMode, p *field.Path) {
	single := false
	for _, m := range modes {
		oneOf(r, m, p, accessModes...)
		single = single || m == corev1.ReadWriteOncePod
	}
	r.forbidIf(single && len(modes) > 1, p, "may not use ReadWriteOncePod with other access modes")
}

func (r *report) storageClass(name string, p *field.Path) {
	if name != "" {
		r.invalid(p, name, apivalidation.NameIsDNSSubdomain(name, false)...)
	}
}

// ValidatePersistentVolumeClaimSpec says what is wrong with the spec of a claim
// for storage.
func ValidatePersistentVolumeClaimSpec(spec *corev1.PersistentVolumeClaimSpec, p *field.Path) field.ErrorList {
	var r report
	r.claimSpec(spec, false, p)
	return r.errs
}

func (r *report) claimSpec(spec *corev1.PersistentVolumeClaimSpec, anyGroup bool, p *field.Path) {
	r.labelSelector(spec.Selector, p.Child("selector"))
	r.requireIf(len(spec.AccessModes) == 0, p.Child("accessModes"), "at least 1 access mode is required")
	r.accessModes(spec.AccessModes, p.Child("accessModes"))
	at := p.Child("resources").Key(string(corev1.ResourceStorage))
	if size, ok := spec.Resources.Requests[corev1.ResourceStorage]; !ok {
		r.add(field.Required(at, ""))
	} else {
		r.invalidIf(size.Sign() <= 0, at, size.String(), "must be greater than zero")
	}
	if spec.StorageClassName != nil {
		r.storageClass(*spec.StorageClassName, p.Child("storageClassName"))
	}
	if spec.VolumeAttributesClassName != nil {
		r.storageClass(*spec.VolumeAttributesClassName, p.Child("volumeAttributesClassName"))
	}
	optionalOneOf(r, spec.VolumeMode, p.Child("volumeMode"), corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	if s := spec.DataSource; s != nil {
		r.dataSource(s.Name, s.Kind, s.APIGroup, anyGroup, p.Child("dataSource"))
	}
	if s := spec.DataSourceRef; s != nil {
		if s.Namespace != nil && *s.Namespace != "" {
			r.invalid(p.Child("dataSourceRef", "namespace"), *s.Namespace, apivalidation.ValidateNamespaceName(*s.Namespace, false)...)
		}
		r.dataSource(s.Name, s.Kind, s.APIGroup, anyGroup, p.Child("dataSourceRef"))
	}
	switch a, b := spec.DataSource, spec.DataSourceRef; {
	case a == nil || b == nil:
	case b.Namespace != nil && *b.Namespace != "":
		r.invalid(p, struct{}{}, "may not be specified when dataSourceRef.namespace is specified")
	default:
		same := a.Kind == b.Kind && a.Name == b.Name && (a.APIGroup == nil) == (b.APIGroup == nil) && (a.APIGroup == nil || *a.APIGroup == *b.APIGroup)
		r.invalidIf(!same, p, struct{}{}, "must match dataSourceRef")
	}
}

func (r *report) dataSource(name, kind string, group *string, anyGroup bool, p *field.Path) {
	r.required(name, p.Child("name"))
	r.required(kind, p.Child("kind"))
	own := group == nil || *group == ""
	r.invalidIf(own && kind != "PersistentVolumeClaim", p, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
	if !own && !anyGroup {
		r.invalid(p.Child("apiGroup"), *group, apivalidation.NameIsDNSSubdomain(*group, false)...)
	}
}

// secretRef validates a reference to a Secret of some namespace.
func (r *report) secretRef(ref *corev1.SecretReference, p *field.Path) {
	if ref != nil {
		r.required(ref.Name, p.Child("name"))
		r.required(ref.Namespace, p.Child("namespace"))
	}
}
