package statefulset

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/revision"
)

// ordinalOf returns the number of a pod of set, and whether its name is one that the set gives.
func ordinalOf(set *appsv1.StatefulSet, pod string) (int, bool) {
	number, ok := strings.CutPrefix(pod, set.Name+"-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(number, 10, 32)
	return int(n), err == nil && n >= 0 && strconv.FormatInt(n, 10) == number
}

func podName(set *appsv1.StatefulSet, ordinal int) string {
	return fmt.Sprintf("%s-%d", set.Name, ordinal)
}

// first and end bound the ordinals that a set's pods are to have: end is one too many.
func first(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals == nil {
		return 0
	}
	return int(set.Spec.Ordinals.Start)
}

func end(set *appsv1.StatefulSet) int { return first(set) + int(*set.Spec.Replicas) }

// wanted reports whether there is to be a pod with an ordinal.
func wanted(set *appsv1.StatefulSet, ordinal int) bool {
	return ordinal >= first(set) && ordinal < end(set)
}

// version is one template of a set, and the name of the revision that stores it.
type version struct {
	name     string
	template *corev1.PodTemplateSpec
}

// newPod returns the pod of set with an ordinal.
func newPod(set *appsv1.StatefulSet, v version, ordinal int) *corev1.Pod {
	p := pods.FromTemplate(v.template, set, kind)
	p.Name = podName(set, ordinal)
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, set.Spec.ServiceName
	identify(p, ordinal)
	mount(set, p, ordinal)
	metav1.SetMetaDataLabel(&p.ObjectMeta, revision.HashLabel, v.name)
	return p
}

// identify tells a pod who it is.
func identify(p *corev1.Pod, ordinal int) {
	metav1.SetMetaDataLabel(&p.ObjectMeta, appsv1.StatefulSetPodNameLabel, p.Name)
	metav1.SetMetaDataLabel(&p.ObjectMeta, appsv1.PodIndexLabel, strconv.Itoa(ordinal))
}

// identified reports whether a pod carries its name. The index came later than the name: pods
// of before are not written to for it.
func identified(p *corev1.Pod) bool { return p.Labels[appsv1.StatefulSetPodNameLabel] == p.Name }

// mount gives a pod its own claims, in place of volumes of the same names.
func mount(set *appsv1.StatefulSet, p *corev1.Pod, ordinal int) {
	var volumes []corev1.Volume
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		volumes = append(volumes, corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, t.Name, ordinal)},
		}})
	}
	for _, v := range p.Spec.Volumes {
		if !slices.ContainsFunc(volumes, func(w corev1.Volume) bool { return w.Name == v.Name }) {
			volumes = append(volumes, v)
		}
	}
	p.Spec.Volumes = volumes
}

// mounted reports whether a pod uses its own claims.
func mounted(set *appsv1.StatefulSet, p *corev1.Pod, ordinal int) bool {
	for i := range set.Spec.VolumeClaimTemplates {
		name := set.Spec.VolumeClaimTemplates[i].Name
		if !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.Name == name && v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claimName(set, name, ordinal)
		}) {
			return false
		}
	}
	return true
}

func claimName(set *appsv1.StatefulSet, template string, ordinal int) string {
	return fmt.Sprintf("%s-%s-%d", template, set.Name, ordinal)
}

// newClaims returns the claims of the pod with an ordinal.
func newClaims(set *appsv1.StatefulSet, ordinal int) []*corev1.PersistentVolumeClaim {
	var claims []*corev1.PersistentVolumeClaim
	for i := range set.Spec.VolumeClaimTemplates {
		c := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		c.Name, c.Namespace = claimName(set, c.Name, ordinal), set.Namespace
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		maps.Copy(c.Labels, set.Spec.Selector.MatchLabels)
		claims = append(claims, c)
	}
	return claims
}

var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

// owners returns who should own a claim, so that it goes when they go: the set, if claims are to be
// deleted with it, or the pod, if they are to be deleted with pods that are too many and this is one.
func owners(set *appsv1.StatefulSet, ordinal int) (bySet, byPod bool) {
	policy := set.Spec.PersistentVolumeClaimRetentionPolicy
	if policy == nil {
		return false, false
	}
	byPod = policy.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType && !wanted(set, ordinal)
	bySet = policy.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType && !byPod
	return bySet, byPod
}

// retain returns the owner references that a claim should have by the retention policy, and whether
// they differ from those that it has. A claim that someone else controls, or that waits for the
// deletion that an owner of before has brought about, is not the set's to decide on.
func retain(set *appsv1.StatefulSet, pod *corev1.Pod, ordinal int, claim *corev1.PersistentVolumeClaim) ([]metav1.OwnerReference, bool) {
	toSet, toPod := metav1.NewControllerRef(set, kind), metav1.NewControllerRef(pod, podKind)
	bySet, byPod := owners(set, ordinal)
	var others []metav1.OwnerReference
	hasSet, hasPod, weak := false, false, false
	for _, ref := range claim.OwnerReferences {
		controls := ref.Controller != nil && *ref.Controller
		switch own := ref.UID == set.UID || ref.UID == pod.UID; {
		case own && !controls:
			weak = true
		case own:
			hasSet, hasPod = hasSet || ref.UID == set.UID, hasPod || ref.UID == pod.UID
		case controls || names(ref, toSet) || names(ref, toPod):
			bySet, byPod = false, false
		}
		if !names(ref, toSet) && !names(ref, toPod) {
			others = append(others, ref)
		}
	}
	if bySet == hasSet && byPod == hasPod && !weak {
		return claim.OwnerReferences, false
	}
	if bySet {
		others = append(others, *toSet)
	}
	if byPod {
		others = append(others, *toPod)
	}
	return others, true
}

// names reports whether two references name the same object, be it the same one or one
// of before.
func names(a metav1.OwnerReference, b *metav1.OwnerReference) bool {
	return a.APIVersion == b.APIVersion && a.Kind == b.Kind && a.Name == b.Name
}

// doomed reports whether a claim belongs to an earlier pod of the same name and so is about to
// be deleted.
func doomed(claim *corev1.PersistentVolumeClaim, pod *corev1.Pod) bool {
	ref := metav1.NewControllerRef(pod, podKind)
	return slices.ContainsFunc(claim.OwnerReferences, func(r metav1.OwnerReference) bool { return names(r, ref) && r.UID != pod.UID })
}
