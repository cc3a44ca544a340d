package pvbinder

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
)

// preResize is on a volume that is larger than its file system is yet; it says how large that is.
const preResize = "volume.alpha.kubernetes.io/pre-resize-capacity"

// occasion is an event to be.
type occasion struct{ kind, reason, message string }

func normal(reason, format string, args ...any) *occasion {
	return &occasion{corev1.EventTypeNormal, reason, fmt.Sprintf(format, args...)}
}

func warning(reason, format string, args ...any) *occasion {
	return &occasion{corev1.EventTypeWarning, reason, fmt.Sprintf(format, args...)}
}

// claimPlan is what there is to do for a claim: one of bind, class and provisioner at most.
type claimPlan struct {
	// bind is the volume that the claim gets, or has.
	bind *corev1.PersistentVolume
	// class is the default class, of which the claim is from now on.
	class string
	// provisioner is who is asked for a volume.
	provisioner string
	// phase, if it is not empty, is what the claim is without a volume.
	phase corev1.PersistentVolumeClaimPhase
	event *occasion
}

// claimFacts are what a claim's plan is made from.
type claimFacts struct {
	volumes []*corev1.PersistentVolume
	// class is the claim's class, if it names one that there is; standard is the default one, if there is one.
	class, standard *storagev1.StorageClass
	// waiting are the pods that use the claim and have no node yet.
	waiting []string
	// provisioning says whether volumes may be asked for.
	provisioning bool
	// migrated returns the CSI driver that has taken the place of a provisioner, or "".
	migrated func(provisioner string) string
}

// planClaim decides about a claim.
func planClaim(claim *corev1.PersistentVolumeClaim, f claimFacts) (claimPlan, error) {
	var named *corev1.PersistentVolume
	if i := slices.IndexFunc(f.volumes, func(v *corev1.PersistentVolume) bool { return v.Name == claim.Spec.VolumeName }); i >= 0 {
		named = f.volumes[i]
	}
	if metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBindCompleted) {
		return planBound(claim, named), nil
	}
	switch pending := (claimPlan{phase: corev1.ClaimPending}); {
	case claim.Spec.VolumeName == "":
		return planUnbound(claim, f)
	case named == nil:
		return pending, nil
	case named.Spec.ClaimRef == nil:
		if err := satisfies(named, claim); err != nil {
			pending.event = warning("VolumeMismatch", "Cannot bind to requested volume %q: %s", named.Name, err)
			return pending, nil
		}
		return claimPlan{bind: named}, nil
	case storagehelpers.IsVolumeBoundToClaim(named, claim):
		return claimPlan{bind: named}, nil
	default:
		pending.event = warning("FailedBinding", "volume %q already bound to a different claim.", named.Name)
		return pending, nil
	}
}

// planBound decides about a claim that once had a volume.
func planBound(claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) claimPlan {
	lost := func(reason, message string) claimPlan {
		p := claimPlan{phase: corev1.ClaimLost}
		if claim.Status.Phase != corev1.ClaimLost {
			p.event = warning(reason, "%s", message)
		}
		return p
	}
	switch {
	case claim.Spec.VolumeName == "":
		return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	case volume == nil:
		return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case volume.Spec.ClaimRef != nil && volume.Spec.ClaimRef.UID != claim.UID:
		return lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
	}
	return claimPlan{bind: volume}
}

// planUnbound decides about a claim that takes any volume that fits.
func planUnbound(claim *corev1.PersistentVolumeClaim, f claimFacts) (claimPlan, error) {
	delayed := f.class != nil && ptr.Deref(f.class.VolumeBindingMode, storagev1.VolumeBindingImmediate) == storagev1.VolumeBindingWaitForFirstConsumer
	volume, err := find(claim, f.volumes, delayed)
	if err != nil || volume != nil {
		return claimPlan{bind: volume}, err
	}
	p := claimPlan{phase: corev1.ClaimPending}
	name := storagehelpers.GetPersistentVolumeClaimClass(claim)
	switch {
	case f.standard != nil && !storagehelpers.PersistentVolumeClaimHasClass(claim):
		return claimPlan{class: f.standard.Name}, nil
	case delayed && !storagehelpers.IsDelayBindingProvisioning(claim):
		switch len(f.waiting) {
		case 0:
			p.event = normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding")
		case 1:
			p.event = normal("WaitForPodScheduled", "waiting for pod %s to be scheduled", f.waiting[0])
		default:
			p.event = normal("WaitForPodScheduled", "waiting for pods %s to be scheduled", strings.Join(f.waiting, ","))
		}
	case name == "":
		p.event = normal("FailedBinding", "no persistent volumes available for this claim and no storage class is set")
	case !f.provisioning: // somebody may create a volume
	case f.class == nil:
		p.event = warning("ProvisioningFailed", "storageclass.storage.k8s.io %q not found", name)
	default:
		p.provisioner = f.class.Provisioner
		if driver := f.migrated(p.provisioner); driver != "" {
			p.provisioner = driver
		} else if strings.HasPrefix(p.provisioner, "kubernetes.io/") { // these are part of Kubernetes, or were
			p.event = warning("ProvisioningFailed", "no volume plugin matched name: %s", p.provisioner)
			p.provisioner = ""
			return p, nil
		}
		p.event = normal("ExternalProvisioning", "Waiting for a volume to be created either by the external provisioner '%s' or manually by the system administrator. "+
			"If volume creation is delayed, please verify that the provisioner is running and correctly registered.", p.provisioner)
	}
	return p, nil
}

// find returns the smallest volume that fits a claim, of those that can do the least beyond what it asks for.
func find(claim *corev1.PersistentVolumeClaim, all []*corev1.PersistentVolume, delayed bool) (*corev1.PersistentVolume, error) {
	groups := map[string][]*corev1.PersistentVolume{} // by access modes
	for _, v := range all {
		modes := make([]string, len(v.Spec.AccessModes))
		for i, m := range v.Spec.AccessModes {
			modes[i] = string(m)
		}
		slices.Sort(modes)
		key := strings.Join(slices.Compact(modes), ",")
		groups[key] = append(groups[key], v)
	}
	least := func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(a, ","), strings.Count(b, ",")), cmp.Compare(a, b))
	}
	for _, key := range slices.SortedFunc(maps.Keys(groups), least) {
		if !storagehelpers.CheckAccessModes(claim, groups[key][0]) {
			continue
		}
		if v, err := storagehelpers.FindMatchingVolume(claim, groups[key], nil, nil, delayed, true); err != nil || v != nil {
			return v, err
		}
	}
	return nil, nil
}

// satisfies says what keeps a volume that a claim names from being bound to it.
func satisfies(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	wanted, there := claim.Spec.Resources.Requests[corev1.ResourceStorage], v.Spec.Capacity[corev1.ResourceStorage]
	switch {
	case v.DeletionTimestamp != nil:
		return fmt.Errorf("the volume is marked for deletion %q", v.Name)
	case there.Value() < wanted.Value():
		return fmt.Errorf("requested PV is too small")
	case storagehelpers.GetPersistentVolumeClass(v) != storagehelpers.GetPersistentVolumeClaimClass(claim):
		return fmt.Errorf("storageClassName does not match")
	case ptr.Deref(claim.Spec.VolumeAttributesClassName, "") != ptr.Deref(v.Spec.VolumeAttributesClassName, ""):
		return fmt.Errorf("volumeAttributesClassName does not match")
	case storagehelpers.CheckVolumeModeMismatches(&claim.Spec, &v.Spec):
		return fmt.Errorf("incompatible volumeMode")
	case !storagehelpers.CheckAccessModes(claim, v):
		return fmt.Errorf("incompatible accessMode")
	}
	return nil
}

// statusOf returns the status of a claim in a phase, with a volume or without.
func statusOf(claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase, v *corev1.PersistentVolume) corev1.PersistentVolumeClaimStatus {
	s := *claim.Status.DeepCopy()
	before := s.Phase
	s.Phase = phase
	if v == nil {
		s.AccessModes, s.Capacity, s.CurrentVolumeAttributesClassName = nil, nil, nil
		return s
	}
	s.AccessModes = v.Spec.AccessModes
	if before == phase {
		return s // its size is for who resizes it to say
	}
	s.Capacity = v.Spec.Capacity.DeepCopy()
	if q, err := resource.ParseQuantity(v.Annotations[preResize]); err == nil {
		s.Capacity[corev1.ResourceStorage] = q
	}
	if before == corev1.ClaimPending {
		s.CurrentVolumeAttributesClassName = v.Spec.VolumeAttributesClassName
	}
	return s
}
