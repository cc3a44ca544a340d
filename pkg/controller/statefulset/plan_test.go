package statefulset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/controller/internal/revision"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func set(replicas int32, change ...func(*appsv1.StatefulSetSpec)) *appsv1.StatefulSet {
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns", UID: "set"}}
	s.Spec.Replicas = &replicas
	s.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	s.Spec.Template.Labels = map[string]string{"a": "b"}
	s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{
		Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr.To[int32](0)},
	}
	for _, f := range change {
		f(&s.Spec)
	}
	return s
}

func parallel(s *appsv1.StatefulSetSpec) { s.PodManagementPolicy = appsv1.ParallelPodManagement }
func onDelete(s *appsv1.StatefulSetSpec) {
	s.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
}
func slow(s *appsv1.StatefulSetSpec)  { s.MinReadySeconds = 60 }
func from3(s *appsv1.StatefulSetSpec) { s.Ordinals = &appsv1.StatefulSetOrdinals{Start: 3} }
func partition(n int32) func(*appsv1.StatefulSetSpec) {
	return func(s *appsv1.StatefulSetSpec) { s.UpdateStrategy.RollingUpdate.Partition = &n }
}
func unavailable(n intstr.IntOrString) func(*appsv1.StatefulSetSpec) {
	return func(s *appsv1.StatefulSetSpec) { s.UpdateStrategy.RollingUpdate.MaxUnavailable = &n }
}

// members reads "0 1:old 2:unready,old": ordinals of pods, and in what they are not ready pods
// of the new version.
func members(s *appsv1.StatefulSet, text string) (all []*corev1.Pod) {
	for word := range strings.FieldsSeq(text) {
		number, traits, _ := strings.Cut(word, ":")
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: s.Name + "-" + number, Namespace: s.Namespace, UID: types.UID("pod-" + number)}}
		p.Labels = map[string]string{revision.HashLabel: "new", appsv1.StatefulSetPodNameLabel: p.Name}
		ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}
		p.Status.Phase = corev1.PodRunning
		for trait := range strings.SplitSeq(traits, ",") {
			switch trait {
			case "old":
				p.Labels[revision.HashLabel] = "old"
			case "unready":
				ready.Status = corev1.ConditionFalse
			case "young":
				ready.LastTransitionTime = metav1.NewTime(now.Add(-20 * time.Second))
			case "going":
				p.DeletionTimestamp = ptr.To(metav1.NewTime(now))
			case "failed":
				p.Status.Phase, ready.Status = corev1.PodFailed, corev1.ConditionFalse
			case "nameless":
				delete(p.Labels, appsv1.StatefulSetPodNameLabel)
			}
		}
		p.Status.Conditions = []corev1.PodCondition{ready}
		all = append(all, p)
	}
	return all
}

func inputOf(s *appsv1.StatefulSet, pods string) *input {
	return newInput(s, version{"old", &corev1.PodTemplateSpec{}}, version{"new", &s.Spec.Template}, members(s, pods), map[string]*corev1.PersistentVolumeClaim{}, now)
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name string
		set  *appsv1.StatefulSet
		pods string
		want string
	}{
		{"the first of three", set(3), "", "create 0 new"},
		{"the next, once one is ready", set(3), "0", "create 1 new"},
		{"not while one is not ready", set(3), "0:unready", ""},
		{"nor before it was ready for long enough", set(3, slow), "0:young", ""},
		{"nor while one goes", set(3), "0:going", ""},
		{"the gap before the end", set(3), "0 2", "create 1 new"},
		{"all at once", set(3, parallel), "1:unready", "create 0 new, create 2 new"},
		{"ordinals that start later", set(2, from3), "", "create 3 new"},
		{"what is below the start goes", set(2, from3), "0 3 4", "delete 0"},
		{"enough", set(2), "0 1", ""},
		{"a failed pod is replaced", set(2), "0 1:failed", "replace 1"},
		{"also when all go at once", set(3, parallel), "0 1:failed", "replace 1, create 2 new"},
		{"its successor waits until it is gone", set(2), "0 1:failed,going", ""},
		{"the last goes first", set(1), "0 1 2", "delete 2"},
		{"one by one", set(1), "0 1 2:going", ""},
		{"none goes while one that stays is sick", set(1), "0:unready 1 2", ""},
		{"a sick one goes", set(1), "0 1 2:unready", "delete 2"},
		{"none goes while one below it is sick", set(1), "0 1:unready 2", "delete 2"},
		{"none goes while two are sick, but the lower", set(1), "0 1:unready 2:unready", ""},
		{"all go at once", set(1, parallel), "0:unready 1 2", "delete 2, delete 1"},
		{"a pod that lost its name", set(2), "0:nameless 1", "update 0"},
		{"one of another set", set(1), "0 01", ""},

		{"an update, from the end", set(3), "0:old 1:old 2:old", "delete 2"},
		{"waits for the new one", set(3), "0:old 1:old 2:unready", ""},
		{"creates the new one", set(3), "0:old 1:old", "create 2 new"},
		{"goes on", set(3), "0:old 1:old 2", "delete 1"},
		{"above the partition", set(3, partition(2)), "0:old 1:old 2", ""},
		{"a pod below the partition comes back as it was", set(3, partition(2)), "0:old 2", "create 1 old"},
		{"a partition above all", set(2, partition(5)), "0:old 1:old", ""},
		{"a partition counts from the first ordinal", set(2, from3, partition(1)), "3:old 4:old", "delete 4"},
		{"on deletion only", set(2, onDelete), "0:old 1:old", ""},
		{"and then as it should be", set(2, onDelete), "0:old", "create 1 new"},
		{"two at a time", set(4, unavailable(intstr.FromInt32(2))), "0:old 1:old 2:old 3:old", "delete 3, delete 2"},
		{"half at a time, rounded down", set(5, parallel, unavailable(intstr.FromString("50%"))), "0:old 1:old 2:old 3:old 4:unready", "delete 3"},
		{"one at least", set(5, parallel, unavailable(intstr.FromString("10%"))), "0:old 1:old 2:old 3:old 4:old", "delete 4"},
		{"a broken version does not count", set(3, parallel), "0:old 1:old 2:old,unready", "delete 2"},
		{"what goes counts", set(5, parallel, unavailable(intstr.FromInt32(3))), "0:old 1:old 2:old 3:old,unready 4:old,going", "delete 3, delete 2"},
		{"with order, a broken version blocks", set(1), "0:old,unready", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := inputOf(c.set, c.pods)
			var got []string
			for _, s := range slices.Concat(in.plan()...) {
				text := fmt.Sprintf("%s %d", s.verb, s.ordinal)
				if s.verb == create {
					text += " " + s.pod.Labels[revision.HashLabel]
				}
				got = append(got, text)
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		name string
		set  *appsv1.StatefulSet
		pods string
		want appsv1.StatefulSetStatus
		next time.Duration
	}{
		{"half way", set(3), "0:old 1:old,unready 2", appsv1.StatefulSetStatus{Replicas: 3, ReadyReplicas: 2, AvailableReplicas: 2, CurrentReplicas: 2, UpdatedReplicas: 1, CurrentRevision: "old"}, 0},
		{"the end of an update", set(2), "0 1", appsv1.StatefulSetStatus{Replicas: 2, ReadyReplicas: 2, AvailableReplicas: 2, CurrentReplicas: 2, UpdatedReplicas: 2, CurrentRevision: "new"}, 0},
		{"not ready", set(2), "0 1:unready", appsv1.StatefulSetStatus{Replicas: 2, ReadyReplicas: 1, AvailableReplicas: 1, UpdatedReplicas: 2, CurrentRevision: "old"}, 0},
		{"one is missing", set(2), "0", appsv1.StatefulSetStatus{Replicas: 1, ReadyReplicas: 1, AvailableReplicas: 1, UpdatedReplicas: 1, CurrentRevision: "old"}, 0},
		{"no rolling update", set(1, onDelete), "0", appsv1.StatefulSetStatus{Replicas: 1, ReadyReplicas: 1, AvailableReplicas: 1, UpdatedReplicas: 1, CurrentRevision: "old"}, 0},
		{"not for long", set(1, onDelete, slow), "0:young", appsv1.StatefulSetStatus{Replicas: 1, ReadyReplicas: 1, UpdatedReplicas: 1, CurrentRevision: "old"}, 40 * time.Second},
		{"on its way out", set(1), "0:old,going", appsv1.StatefulSetStatus{Replicas: 1, ReadyReplicas: 1, AvailableReplicas: 1, CurrentRevision: "old"}, 0},
		{"nothing", set(0), "", appsv1.StatefulSetStatus{CurrentRevision: "new"}, 0},
	} {
		got, next := inputOf(c.set, c.pods).status()
		c.want.UpdateRevision, c.want.CollisionCount = "new", got.CollisionCount
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) || next != c.next || got.CollisionCount == nil {
			t.Errorf("%s: %+v in %v, want %+v in %v", c.name, got, next, c.want, c.next)
		}
	}
}

func TestIdentity(t *testing.T) {
	s := set(3, from3, func(s *appsv1.StatefulSetSpec) {
		s.ServiceName = "svc"
		s.Template.Spec.Volumes = []corev1.Volume{{Name: "data"}, {Name: "tmp"}}
		claim := corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data", Labels: map[string]string{"x": "y"}}}
		s.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{claim}
	})
	p := newPod(s, version{"new", &s.Spec.Template}, 4)
	if p.Name != "s-4" || p.Spec.Hostname != "s-4" || p.Spec.Subdomain != "svc" || p.Labels[appsv1.PodIndexLabel] != "4" ||
		p.Labels[appsv1.StatefulSetPodNameLabel] != "s-4" || p.Labels[revision.HashLabel] != "new" || p.Labels["a"] != "b" {
		t.Errorf("%+v", p)
	}
	if v := p.Spec.Volumes; len(v) != 2 || v[0].PersistentVolumeClaim.ClaimName != "data-s-4" || v[1].Name != "tmp" {
		t.Errorf("volumes %+v", v)
	}
	if !mounted(s, p, 4) || mounted(s, p, 3) {
		t.Error("claims are not told apart")
	}
	if c := newClaims(s, 4); len(c) != 1 || c[0].Name != "data-s-4" || c[0].Namespace != "ns" || c[0].Labels["a"] != "b" || c[0].Labels["x"] != "y" {
		t.Errorf("claims %+v", c)
	}
	for name, want := range map[string]int{"s-0": 0, "s-12": 12, "s-01": -1, "s-": -1, "s--1": -1, "t-1": -1, "s-1-2": -1, "s-99999999999": -1} {
		n, ok := ordinalOf(s, name)
		if ok != (want >= 0) || ok && n != want {
			t.Errorf("%s: %d, %v", name, n, ok)
		}
	}
	for name, want := range map[string]bool{"data-s-4": true, "data-t-4": false, "tmp-s-4": false, "data": false} {
		if isClaimOf(s, name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

func TestRetain(t *testing.T) {
	const keep, drop = appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	ref := func(apiVersion, kind, name, uid string, controls bool) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: types.UID(uid), Controller: &controls}
	}
	bySet, byPod := ref("apps/v1", "StatefulSet", "s", "set", true), ref("v1", "Pod", "s-1", "pod-1", true)
	stale, foreign := ref("v1", "Pod", "s-1", "gone", true), ref("x/v1", "Other", "o", "o", true)
	friend, weak := ref("x/v1", "Other", "o", "o", false), ref("apps/v1", "StatefulSet", "s", "set", false)
	type refs = []metav1.OwnerReference
	for _, c := range []struct {
		name            string
		deleted, scaled appsv1.PersistentVolumeClaimRetentionPolicyType
		replicas        int32
		have, want      refs
	}{
		{"kept", keep, keep, 2, nil, nil},
		{"kept from now on", keep, keep, 2, refs{bySet}, nil},
		{"goes with the set", drop, keep, 2, nil, refs{bySet}},
		{"goes with the set, others stay", drop, keep, 2, refs{friend}, refs{friend, bySet}},
		{"goes with the set still", drop, keep, 1, refs{bySet}, refs{bySet}},
		{"goes with a surplus pod", keep, drop, 1, nil, refs{byPod}},
		{"stays with a pod that stays", keep, drop, 2, refs{byPod}, nil},
		{"goes with the pod, not the set", drop, drop, 1, refs{bySet}, refs{byPod}},
		{"goes with the set again", drop, drop, 2, refs{byPod}, refs{bySet}},
		{"a reference that does not control", drop, keep, 2, refs{weak}, refs{bySet}},
		{"someone else's", drop, drop, 1, refs{foreign}, refs{foreign}},
		{"not ours any more", drop, drop, 1, refs{byPod, foreign}, refs{foreign}},
		{"an earlier pod's", drop, drop, 1, refs{stale}, refs{stale}},
	} {
		s := set(c.replicas)
		s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: c.deleted, WhenScaled: c.scaled}
		pod := members(s, "1")[0]
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{OwnerReferences: c.have}}
		got, changed := retain(s, pod, 1, claim)
		names := func(r refs) (s string) {
			for _, ref := range r {
				s += fmt.Sprintf(" %s %v", ref.UID, *ref.Controller)
			}
			return s
		}
		if names(got) != names(c.want) || changed != (names(c.have) != names(c.want)) {
			t.Errorf("%s: %s, changed %v, want %s", c.name, names(got), changed, names(c.want))
		}
	}
}
