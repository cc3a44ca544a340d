package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

func setDefaultsVolume(v *corev1.Volume) {
	s := &v.VolumeSource
	setZero(s, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	if s.HostPath != nil {
		rules.SetPtr(&s.HostPath.Type, corev1.HostPathUnset)
	}
	if s.Secret != nil {
		rules.SetPtr(&s.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	}
	if s.ConfigMap != nil {
		rules.SetPtr(&s.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	}
	if s.DownwardAPI != nil {
		rules.SetPtr(&s.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		setDefaultsDownwardAPI(s.DownwardAPI.Items)
	}
	if s.Projected != nil {
		setDefaultsProjected(s.Projected)
	}
	if s.Image != nil {
		setPullPolicy(&s.Image.PullPolicy, s.Image.Reference)
	}
	if s.Ephemeral != nil && s.Ephemeral.VolumeClaimTemplate != nil {
		setDefaultsClaimSpec(&s.Ephemeral.VolumeClaimTemplate.Spec)
	}
	if s.ISCSI != nil {
		setZero(&s.ISCSI.ISCSIInterface, "default")
	}
	if s.RBD != nil {
		setDefaultsRBD(&s.RBD.RBDPool, &s.RBD.RadosUser, &s.RBD.Keyring)
	}
	if s.ScaleIO != nil {
		setDefaultsScaleIO(&s.ScaleIO.StorageMode, &s.ScaleIO.FSType)
	}
	if s.AzureDisk != nil {
		setDefaultsAzureDisk(s.AzureDisk)
	}
}

func setDefaultsDownwardAPI(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		setDefaultsFieldRef(items[i].FieldRef)
	}
}

func setDefaultsProjected(p *corev1.ProjectedVolumeSource) {
	rules.SetPtr(&p.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
	for i := range p.Sources {
		s := &p.Sources[i]
		if s.DownwardAPI != nil {
			setDefaultsDownwardAPI(s.DownwardAPI.Items)
		}
		if s.ServiceAccountToken != nil {
			rules.SetPtr(&s.ServiceAccountToken.ExpirationSeconds, 60*60)
		}
	}
}

// SetDefaultsPersistentVolume sets the defaults of a PersistentVolume.
func SetDefaultsPersistentVolume(pv *corev1.PersistentVolume) {
	setZero(&pv.Status.Phase, corev1.VolumePending)
	setZero(&pv.Spec.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimRetain)
	rules.SetPtr(&pv.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
	roundUp(pv.Spec.Capacity)
	s := &pv.Spec.PersistentVolumeSource
	if s.HostPath != nil {
		rules.SetPtr(&s.HostPath.Type, corev1.HostPathUnset)
	}
	if s.ISCSI != nil {
		setZero(&s.ISCSI.ISCSIInterface, "default")
	}
	if s.RBD != nil {
		setDefaultsRBD(&s.RBD.RBDPool, &s.RBD.RadosUser, &s.RBD.Keyring)
	}
	if s.ScaleIO != nil {
		setDefaultsScaleIO(&s.ScaleIO.StorageMode, &s.ScaleIO.FSType)
	}
	if s.AzureDisk != nil {
		setDefaultsAzureDisk(s.AzureDisk)
	}
}

// SetDefaultsPersistentVolumeClaim sets the defaults of a PersistentVolumeClaim.
func SetDefaultsPersistentVolumeClaim(pvc *corev1.PersistentVolumeClaim) {
	setZero(&pvc.Status.Phase, corev1.ClaimPending)
	setDefaultsClaimSpec(&pvc.Spec)
	roundUp(pvc.Status.Capacity)
	roundUp(pvc.Status.AllocatedResources)
}

func setDefaultsClaimSpec(spec *corev1.PersistentVolumeClaimSpec) {
	rules.SetPtr(&spec.VolumeMode, corev1.PersistentVolumeFilesystem)
	roundUp(spec.Resources.Limits)
	roundUp(spec.Resources.Requests)
}

func setDefaultsRBD(pool, user, keyring *string) {
	setZero(pool, "rbd")
	setZero(user, "admin")
	setZero(keyring, "/etc/ceph/keyring")
}

func setDefaultsScaleIO(mode, fsType *string) {
	setZero(mode, "ThinProvisioned")
	setZero(fsType, "xfs")
}

func setDefaultsAzureDisk(d *corev1.AzureDiskVolumeSource) {
	rules.SetPtr(&d.CachingMode, corev1.AzureDataDiskCachingReadWrite)
	rules.SetPtr(&d.Kind, corev1.AzureSharedBlobDisk)
	rules.SetPtr(&d.FSType, "ext4")
	rules.SetPtr(&d.ReadOnly, false)
}
