package attachdetach

import (
	"context"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/index"
)

// world is nodes, each with a pod for every volume that it is given.
func world(volumes map[string][]string) []client.Object {
	var objects []client.Object
	seen := map[string]bool{}
	for node, names := range volumes {
		objects = append(objects, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, Annotations: map[string]string{managedAnnotation: "true"}}})
		for _, name := range names {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: node + "-" + name}, Spec: corev1.PodSpec{NodeName: node}}
			pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}
			objects = append(objects, pod)
			if seen[name] {
				continue
			}
			seen[name] = true
			objects = append(objects, &corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)},
				Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: name}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
			}, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
				ClaimRef: &corev1.ObjectReference{UID: types.UID(name)}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: name}},
			}})
		}
	}
	return objects
}

// While the API server does not answer for one volume, all others are attached, to this node and to others; but that one is promised.
func TestSlowVolume(t *testing.T) {
	waits, answer := make(chan string, 1), make(chan struct{})
	byNode := index.PodsByNode()
	api := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithIndex(byNode.Object, byNode.Field, byNode.Values).
		WithObjects(world(map[string][]string{"n1": {"slow", "a", "b"}, "n2": {"slow", "c"}})...).
		WithInterceptorFuncs(interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if va, ok := o.(*storagev1.VolumeAttachment); ok && *va.Spec.Source.PersistentVolumeName == "slow" {
				waits <- va.Spec.NodeName
				<-answer
			}
			return c.Create(ctx, o, opts...)
		}}).Build()
	events := record.NewFakeRecorder(10)
	c := New(api, events, true, metrics.NewKubeRegistry())
	look := func(node string) reconcile.Result {
		t.Helper()
		result, err := c.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: node}})
		if err != nil {
			t.Error(err)
		}
		return result
	}
	attached := func() []string {
		var list storagev1.VolumeAttachmentList
		if err := api.List(t.Context(), &list); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, va := range list.Items {
			names = append(names, fmt.Sprintf("%s on %s", *va.Spec.Source.PersistentVolumeName, va.Spec.NodeName))
		}
		slices.Sort(names)
		return names
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		look("n1")
	}()
	if node := <-waits; node != "n1" {
		t.Fatalf("the slow volume goes to %s", node)
	}
	if result := look("n2"); result.RequeueAfter != promisedAgain {
		t.Errorf("what has been promised is looked for again in %v", result.RequeueAfter)
	}
	if len(events.Events) != 1 {
		t.Errorf("%d events, where the pod that waits is told", len(events.Events))
	}
	close(answer)
	<-done
	if got, want := attached(), []string{"a on n1", "b on n1", "c on n2", "slow on n1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	look("n1")
	if result := look("n2"); result.RequeueAfter != 0 {
		t.Errorf("what is attached elsewhere is looked for again in %v", result.RequeueAfter)
	}
	if len(c.promised) != 0 {
		t.Errorf("after all is done, %v is promised", c.promised)
	}
}

// What is not wanted any more before it has been attached is free for others.
func TestPromiseThatIsNotKept(t *testing.T) {
	byNode := index.PodsByNode()
	api := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithIndex(byNode.Object, byNode.Field, byNode.Values).
		WithObjects(world(map[string][]string{"n1": {"a"}, "n2": {"a"}})...).
		WithInterceptorFuncs(interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if va, ok := o.(*storagev1.VolumeAttachment); ok && va.Spec.NodeName == "n1" {
				return fmt.Errorf("not for n1")
			}
			return c.Create(ctx, o, opts...)
		}}).Build()
	c := New(api, record.NewFakeRecorder(10), true, metrics.NewKubeRegistry())
	look := func(node string, fails bool) {
		t.Helper()
		if _, err := c.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: node}}); (err != nil) != fails {
			t.Errorf("%s: %v", node, err)
		}
	}
	there := func() int {
		var list storagev1.VolumeAttachmentList
		if err := api.List(t.Context(), &list); err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	look("n1", true)
	look("n2", false)
	if n := there(); n != 0 {
		t.Errorf("%d attachments of what another node waits for", n)
	}
	if err := api.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "n1-a"}}); err != nil {
		t.Fatal(err)
	}
	look("n1", false)
	look("n2", false)
	if n := there(); n != 1 {
		t.Errorf("%d attachments of what nobody else waits for", n)
	}
}
