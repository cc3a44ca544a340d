package statefulset

import (
	"errors"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestEvents(t *testing.T) {
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}}
	m := &member{pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "db-0"}}}
	for want, c := range map[string]struct {
		verb verb
		err  error
	}{
		"Normal SuccessfulCreate Create Pod db-0 in StatefulSet db successful":        {verb: create},
		"Normal SuccessfulUpdate Update Pod db-0 in StatefulSet db successful":        {verb: repair},
		"Normal SuccessfulDelete Delete Pod db-0 in StatefulSet db successful":        {verb: remove},
		"Warning FailedDelete Delete Pod db-0 in StatefulSet db failed error: no, no": {verb: remove, err: errors.New("no, no")},
	} {
		events := record.NewFakeRecorder(1)
		_ = (&Controller{events: events}).tell(set, step{c.verb, m}, c.err)
		if got := <-events.Events; got != want {
			t.Errorf("the event is %q, want %q", got, want)
		}
	}
}

// A change of the retention policy reaches the claims of pods that are there, and is told.
func TestClaimsGetOwners(t *testing.T) {
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "db", UID: types.UID("set")}, Spec: appsv1.StatefulSetSpec{
		Selector: &metav1.LabelSelector{}, Replicas: ptr.To[int32](1),
		PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType},
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
	}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "db-0", UID: types.UID("pod")}}
	identify(pod, 0)
	mount(set, pod, 0)
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data-db-0"}}
	api := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(claim).Build()
	events := record.NewFakeRecorder(5)
	c := &Controller{client: api, events: events}
	in := &input{set: set, claims: map[string]*corev1.PersistentVolumeClaim{claim.Name: claim}}
	if err := c.repair(t.Context(), in, &member{pod: pod}); err != nil {
		t.Fatal(err)
	}
	if len(events.Events) != 1 {
		t.Errorf("there are %d events", len(events.Events))
	}
	if err := api.Get(t.Context(), types.NamespacedName{Namespace: "ns", Name: claim.Name}, claim); err != nil || len(claim.OwnerReferences) != 1 {
		t.Errorf("the claim's owners are %v (%v)", claim.OwnerReferences, err)
	}
}
