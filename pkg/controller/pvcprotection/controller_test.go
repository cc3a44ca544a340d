package pvcprotection

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestUse(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "p-v"}}
	direct := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "p-v"}}}
	own := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}
	for name, tc := range map[string]struct {
		volume          corev1.Volume
		node            string
		phase           corev1.PodPhase
		stopped, owned  bool
		holds, refersTo bool
	}{
		"no node yet":               {volume: direct, refersTo: true},
		"running":                   {volume: direct, node: "n", phase: corev1.PodRunning, holds: true, refersTo: true},
		"ended":                     {volume: direct, node: "n", phase: corev1.PodSucceeded, holds: true},
		"stopped":                   {volume: direct, node: "n", stopped: true, holds: true, refersTo: true},
		"made for it":               {volume: own, owned: true, node: "n", holds: true, refersTo: true},
		"made for it, stopped":      {volume: own, owned: true, node: "n", stopped: true, refersTo: true},
		"made for another, so what": {volume: own, node: "n"},
		"another volume":            {volume: corev1.Volume{Name: "v"}, node: "n"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Spec: corev1.PodSpec{NodeName: tc.node, Volumes: []corev1.Volume{tc.volume}}, Status: corev1.PodStatus{Phase: tc.phase}}
		if tc.stopped {
			pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = ptr.To(metav1.Now()), ptr.To[int64](0)
		}
		c := claim.DeepCopy()
		if tc.owned {
			c.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))}
		}
		if got := holds(pod, c); got != tc.holds {
			t.Errorf("%s: holds: %t", name, got)
		}
		if got := refersTo(pod, c); got != tc.refersTo {
			t.Errorf("%s: refers to: %t", name, got)
		}
	}
}

func TestNoteUse(t *testing.T) {
	claim, at := &corev1.PersistentVolumeClaim{}, metav1.NewTime(time.Unix(1, 0))
	for i, step := range []struct {
		used, changes bool
		status        corev1.ConditionStatus
	}{{false, true, "True"}, {false, false, "True"}, {true, true, "False"}, {true, false, "False"}} {
		if got := noteUse(claim, step.used, at); got != step.changes || len(claim.Status.Conditions) != 1 || claim.Status.Conditions[0].Status != step.status {
			t.Errorf("step %d: %t, %+v", i, got, claim.Status.Conditions)
		}
	}
}
