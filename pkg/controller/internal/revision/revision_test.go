package revision

import (
	"errors"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// A revision that kube-controller-manager v1.34 wrote has these bytes and this name; another
// result would roll every StatefulSet out anew when one manager takes over from the other.
func TestBytesAndName(t *testing.T) {
	const want = `{"spec":{"template":{"$patch":"replace","metadata":{"annotations":{"test":"value"},"labels":{"app":"foo"}},"spec":{"containers":[{"image":"test","imagePullPolicy":"Always","name":"test","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30}}}}`
	template := &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "foo"}, Annotations: map[string]string{"test": "value"}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "test", Image: "test", ImagePullPolicy: corev1.PullAlways,
				TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			}},
			DNSPolicy: corev1.DNSClusterFirst, RestartPolicy: corev1.RestartPolicyAlways, SchedulerName: "default-scheduler",
			SecurityContext: &corev1.PodSecurityContext{}, TerminationGracePeriodSeconds: ptr.To[int64](30),
		},
	}
	data, err := Patch(template)
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != want {
		t.Errorf("stored as %s", data)
	}
	if got := DataHash(data, 0); got != "776999688b" {
		t.Errorf("hash %s", got)
	}
	back, err := Template(data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Patch(back); err != nil || string(again) != want {
		t.Errorf("read and stored again as %s, %v", again, err)
	}
}

// Revisions of a deleted owner stay behind as orphans, which a cache that lags does not know yet.
func TestNameIsTaken(t *testing.T) {
	owner := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "db", UID: "mine"}}
	kind := appsv1.SchemeGroupVersion.WithKind("StatefulSet")
	by := func(uid types.UID) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "db", UID: uid, Controller: ptr.To(true)}}
	}
	for name, c := range map[string]struct {
		data     string
		owners   []metav1.OwnerReference
		deleting bool // the owner
		err      error
		refused  bool
	}{
		"by its own":                 {data: `{"a":1}`, owners: by("mine")},
		"by an orphan":               {data: `{"a":1}`},
		"by an orphan that is to be": {data: `{"a":1}`, deleting: true, refused: true},
		"by another's":               {data: `{"a":1}`, owners: by("other"), err: ErrCollision},
		"by another version":         {data: `{"a":2}`, owners: by("mine"), err: ErrCollision},
		"by an orphan of another's":  {data: `{"a":2}`, err: ErrCollision},
	} {
		t.Run(name, func(t *testing.T) {
			there := &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "db-h", OwnerReferences: c.owners}, Data: runtime.RawExtension{Raw: []byte(c.data)}}
			live := owner.DeepCopy()
			if c.deleting {
				live.DeletionTimestamp, live.Finalizers = ptr.To(metav1.Now()), []string{metav1.FinalizerOrphanDependents}
			}
			api := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(there, live).Build()
			h := &History{Client: api, Live: api, Owner: owner, Kind: kind, Label: "hash"}
			r, err := h.Current(t.Context(), []byte(`{"a":1}`), "h", nil)
			if c.refused != (err != nil && !errors.Is(err, ErrCollision)) || !errors.Is(err, c.err) && !c.refused {
				t.Fatalf("the error is %v, want %v", err, c.err)
			}
			if err == nil && !metav1.IsControlledBy(r, owner) {
				t.Errorf("its owners are %v", r.OwnerReferences)
			}
		})
	}
}
