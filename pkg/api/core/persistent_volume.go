package core

import (
	"path"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidatePersistentVolume says what is wrong with a new PersistentVolume.
func ValidatePersistentVolume(pv *corev1.PersistentVolume) field.ErrorList {
	var r report
	r.objectMeta(pv, false, apivalidation.NameIsDNSSubdomain, metaPath)
	r.volumeSpec(&pv.Spec)
	if _, ok := pv.Annotations[corev1.MountOptionAnnotation]; ok {
		r.forbidIf(!takesMountOptions(&pv.Spec.PersistentVolumeSource), metaPath.Child("annotations", corev1.MountOptionAnnotation), "may not specify mount options for this volume type")
	}
	return r.errs
}

// takesMountOptions says whether a volume can be mounted with the options of the
// annotation that preceded spec.mountOptions.
func takesMountOptions(v *corev1.PersistentVolumeSource) bool {
	return v.GCEPersistentDisk != nil || v.AWSElasticBlockStore != nil || v.AzureDisk != nil || v.AzureFile != nil || v.CephFS != nil ||
		v.Cinder != nil || v.Glusterfs != nil || v.ISCSI != nil || v.NFS != nil || v.PhotonPersistentDisk != nil || v.Quobyte != nil ||
		v.RBD != nil || v.VsphereVolume != nil
}

func (r *report) volumeSpec(spec *corev1.PersistentVolumeSpec) {
	p := specPath
	r.requireIf(len(spec.AccessModes) == 0, p.Child("accessModes"), "")
	r.accessModes(spec.AccessModes, p.Child("accessModes"))

	capacity := p.Child("capacity")
	r.requireIf(len(spec.Capacity) == 0, capacity, "")
	if _, ok := spec.Capacity[corev1.ResourceStorage]; !ok || len(spec.Capacity) > 1 {
		r.add(field.NotSupported(capacity, spec.Capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for n, q := range ordered(spec.Capacity) {
		r.validQuantity(q, capacity.Key(string(n)))
		r.invalidIf(q.Sign() <= 0, capacity.Key(string(n)), q.String(), "must be greater than zero")
	}

	if spec.PersistentVolumeReclaimPolicy != "" {
		oneOf(r, spec.PersistentVolumeReclaimPolicy, p.Child("persistentVolumeReclaimPolicy"),
			corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)
	}
	if !r.oneSource(r.persistentVolumeSources(spec), persistentSourceOrder, p) {
		r.add(field.Required(p, "must specify a volume type"))
	}
	r.forbidIf(spec.HostPath != nil && path.Clean(spec.HostPath.Path) == "/" && spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle,
		p.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'")
	r.storageClass(spec.StorageClassName, p.Child("storageClassName"))
	optionalOneOf(r, spec.VolumeMode, p.Child("volumeMode"), corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	if c := spec.VolumeAttributesClassName; c != nil {
		if r.requireIf(*c == "", p.Child("volumeAttributesClassName"), "an empty string is disallowed") {
			r.storageClass(*c, p.Child("volumeAttributesClassName"))
		}
		r.requireIf(spec.CSI == nil, p.Child("csi"), "has to be specified when using volumeAttributesClassName")
	}

	affinity := p.Child("nodeAffinity")
	switch {
	case spec.NodeAffinity != nil && spec.NodeAffinity.Required != nil:
		r.nodeSelector(spec.NodeAffinity.Required, affinity.Child("required"))
	case spec.NodeAffinity != nil:
		r.add(field.Required(affinity.Child("required"), "must specify required node constraints"))
	}
}

// validQuantity says that an amount of storage may not be negative.
func (r *report) validQuantity(q resource.Quantity, p *field.Path) {
	r.invalidIf(q.Sign() < 0, p, q.Value(), "must be a valid resource quantity")
}

func (r *report) persistentVolumeSources(spec *corev1.PersistentVolumeSpec) []volumeSource {
	v := &spec.PersistentVolumeSource
	shared := &corev1.VolumeSource{
		HostPath: v.HostPath, GCEPersistentDisk: v.GCEPersistentDisk, AWSElasticBlockStore: v.AWSElasticBlockStore, NFS: v.NFS, FC: v.FC,
		Flocker: v.Flocker, VsphereVolume: v.VsphereVolume, Quobyte: v.Quobyte, AzureDisk: v.AzureDisk,
		PhotonPersistentDisk: v.PhotonPersistentDisk, PortworxVolume: v.PortworxVolume,
	}
	return append(r.commonSources(shared), []volumeSource{
		{name: "glusterfs", set: v.Glusterfs != nil, check: func(p *field.Path) {
			r.required(v.Glusterfs.EndpointsName, p.Child("endpoints"))
			r.required(v.Glusterfs.Path, p.Child("path"))
			if ns := v.Glusterfs.EndpointsNamespace; ns != nil {
				at := p.Child("endpointsNamespace")
				if r.invalidIf(*ns == "", at, *ns, "if the endpointnamespace is set, it must be a valid namespace name") {
					r.invalid(at, *ns, apivalidation.ValidateNamespaceName(*ns, false)...)
				}
			}
		}},
		{name: "rbd", set: v.RBD != nil, check: func(p *field.Path) {
			r.requireIf(len(v.RBD.CephMonitors) == 0, p.Child("monitors"), "")
			r.required(v.RBD.RBDImage, p.Child("image"))
		}},
		{name: "iscsi", set: v.ISCSI != nil, check: func(p *field.Path) {
			i := v.ISCSI
			r.iscsi(&corev1.ISCSIVolumeSource{TargetPortal: i.TargetPortal, IQN: i.IQN, Lun: i.Lun, DiscoveryCHAPAuth: i.DiscoveryCHAPAuth,
				SessionCHAPAuth: i.SessionCHAPAuth, InitiatorName: i.InitiatorName}, "", i.SecretRef != nil, p)
			if i.SecretRef != nil {
				r.required(i.SecretRef.Name, p.Child("secretRef", "name"))
			}
		}},
		{name: "cinder", set: v.Cinder != nil, check: func(p *field.Path) {
			r.required(v.Cinder.VolumeID, p.Child("volumeID"))
			r.secretRef(v.Cinder.SecretRef, p.Child("secretRef"))
		}},
		{name: "cephFS", at: "cephfs", set: v.CephFS != nil, check: func(p *field.Path) { r.requireIf(len(v.CephFS.Monitors) == 0, p.Child("monitors"), "") }},
		{name: "azureFile", set: v.AzureFile != nil, check: func(p *field.Path) {
			r.required(v.AzureFile.SecretName, p.Child("secretName"))
			r.required(v.AzureFile.ShareName, p.Child("shareName"))
			if ns := v.AzureFile.SecretNamespace; ns != nil {
				r.required(*ns, p.Child("secretNamespace"))
			}
		}},
		{name: "scaleIO", set: v.ScaleIO != nil, check: func(p *field.Path) { r.scaleIO(v.ScaleIO.Gateway, v.ScaleIO.System, v.ScaleIO.VolumeName, p) }},
		{name: "storageos", set: v.StorageOS != nil, check: func(p *field.Path) {
			r.storageOS(v.StorageOS.VolumeName, v.StorageOS.VolumeNamespace, p)
			if s := v.StorageOS.SecretRef; s != nil {
				r.secretRef(&corev1.SecretReference{Name: s.Name, Namespace: s.Namespace}, p.Child("secretRef"))
			}
		}},
		{name: "flexVolume", besides: true, set: v.FlexVolume != nil, check: func(p *field.Path) { r.flexVolume(v.FlexVolume.Driver, v.FlexVolume.Options, p) }},
		{name: "local", set: v.Local != nil, check: func(p *field.Path) {
			if r.required(v.Local.Path, p.Child("path")) {
				r.noBacksteps(v.Local.Path, p.Child("path"))
			}
			r.requireIf(spec.NodeAffinity == nil, specPath.Child("nodeAffinity"), "Local volume requires node affinity")
		}},
		{name: "csi", set: v.CSI != nil, check: func(p *field.Path) {
			r.csiDriver(v.CSI.Driver, p.Child("driver"))
			r.required(v.CSI.VolumeHandle, p.Child("volumeHandle"))
			r.secretRef(v.CSI.ControllerPublishSecretRef, p.Child("controllerPublishSecretRef"))
			r.secretRef(v.CSI.ControllerExpandSecretRef, p.Child("controllerExpandSecretRef"))
			r.secretRef(v.CSI.NodePublishSecretRef, p.Child("nodePublishSecretRef"))
			r.secretRef(v.CSI.NodeExpandSecretRef, p.Child("nodeExpandSecretRef"))
		}},
	}...)
}

// ValidatePersistentVolumeUpdate says what is wrong with an update of a
// PersistentVolume, which stays the storage that it is.
func ValidatePersistentVolumeUpdate(pv, old *corev1.PersistentVolume) field.ErrorList {
	var r report
	r.objectMetaUpdate(pv, old, metaPath)
	r.merge(ValidatePersistentVolume(pv))
	source, was := pv.Spec.PersistentVolumeSource.DeepCopy(), &old.Spec.PersistentVolumeSource
	if source.CSI != nil && was.CSI != nil { // what was not needed before may be named later
		if was.CSI.ControllerExpandSecretRef == nil {
			source.CSI.ControllerExpandSecretRef = nil
		}
		if was.CSI.NodeExpandSecretRef == nil {
			source.CSI.NodeExpandSecretRef = nil
		}
	}
	if !apiequality.Semantic.DeepEqual(source, was) {
		r.add(field.Forbidden(specPath.Child("persistentvolumesource"), "spec.persistentvolumesource is immutable after creation\n"+
			diff.Diff(goNames{was}, goNames{pv.Spec.PersistentVolumeSource})))
	}
	r.immutable(pv.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))
	if old.Spec.NodeAffinity != nil && !apiequality.Semantic.DeepEqual(pv.Spec.NodeAffinity, old.Spec.NodeAffinity) {
		r.invalid(field.NewPath("nodeAffinity"), goNames{pv.Spec.NodeAffinity}, "field is immutable, except for updating from beta label to GA")
	}
	return r.errs
}

// ValidatePersistentVolumeStatusUpdate says what is wrong with an update of the
// status of a PersistentVolume.
func ValidatePersistentVolumeStatusUpdate(pv, old *corev1.PersistentVolume) field.ErrorList {
	var r report
	r.objectMetaUpdate(pv, old, metaPath)
	r.requireIf(pv.ResourceVersion == "", metaPath.Child("resourceVersion"), "")
	return r.errs
}
