package pvbinder

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

// volumePlan is what there is to do for a volume.
type volumePlan struct {
	// phase, if it is not empty, is what the volume is.
	phase corev1.PersistentVolumePhase
	event *occasion
	// message says in the status why.
	message string
	// unbind takes the volume's claim from it.
	unbind bool
	// remove is a directory of this machine that is removed, and the volume with it.
	remove string
}

// removable is where directories are that are removed with their volumes: those of clusters on one machine, for tests.
const removable = "/tmp/"

// planVolume decides about a volume. The claim is the one that it names, if that is there.
func planVolume(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) volumePlan {
	ref := v.Spec.ClaimRef
	switch {
	case ref == nil || ref.UID == "":
		return volumePlan{phase: corev1.VolumeAvailable}
	case claim == nil || claim.UID != ref.UID:
		return released(v)
	case claim.Spec.VolumeName == "":
		if storagehelpers.CheckVolumeModeMismatches(&claim.Spec, &v.Spec) {
			return volumePlan{event: warning("VolumeMismatch", "Cannot bind PersistentVolume to requested PersistentVolumeClaim %q due to incompatible volumeMode.", claim.Name)}
		}
		return volumePlan{} // the claim is looked at as well, and then bound
	case claim.Spec.VolumeName == v.Name:
		return volumePlan{phase: corev1.VolumeBound}
	case metav1.HasAnnotation(v.ObjectMeta, storagehelpers.AnnDynamicallyProvisioned) && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		return released(v) // it was made for the claim, which has got another
	}
	return volumePlan{phase: corev1.VolumeAvailable, unbind: true}
}

// released decides about a volume that has lost its claim. Deleting it is for whoever has made it, who waits for
// this phase.
func released(v *corev1.PersistentVolume) volumePlan {
	p := volumePlan{phase: corev1.VolumeReleased}
	if v.Status.Phase == corev1.VolumeFailed {
		p.phase = ""
	}
	failed := func(reason, format string, args ...any) volumePlan {
		if v.Status.Phase == corev1.VolumeFailed {
			return volumePlan{}
		}
		return volumePlan{phase: corev1.VolumeFailed, event: warning(reason, format, args...)}
	}
	if v.Annotations[storagehelpers.AnnMigratedTo] != "" {
		return p
	}
	switch v.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRetain:
		return p
	case corev1.PersistentVolumeReclaimDelete:
		by := v.Annotations[storagehelpers.AnnDynamicallyProvisioned]
		if v.Spec.CSI != nil || by != "" && !strings.HasPrefix(by, "kubernetes.io/") {
			return p
		}
		if h := v.Spec.HostPath; h != nil {
			if v.Status.Phase != corev1.VolumeFailed && strings.HasPrefix(h.Path, removable) && h.Path != removable {
				p.remove = h.Path
				return p
			}
			p = failed("VolumeFailedDelete", "host_path deleter only supports %s.+ but received provided %s", removable, h.Path)
			if p.event != nil {
				p.message = p.event.message
			}
			return p
		}
		return failed("VolumeFailedDelete", "error getting deleter volume plugin for volume %q: no deletable volume plugin matched", v.Name)
	case corev1.PersistentVolumeReclaimRecycle:
		return failed("VolumeFailedRecycle", "No recycler plugin found for the volume!")
	}
	return failed("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy")
}

// unbound returns a volume without its claim. One that somebody meant for a claim of that name stays meant for it.
func unbound(v *corev1.PersistentVolume) *corev1.PersistentVolume {
	v = v.DeepCopy()
	if metav1.HasAnnotation(v.ObjectMeta, storagehelpers.AnnBoundByController) {
		v.Spec.ClaimRef = nil
		delete(v.Annotations, storagehelpers.AnnBoundByController)
	} else {
		v.Spec.ClaimRef.UID = ""
	}
	return v
}
