package index

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// Every index finds what it is asked for, and nothing else.
func TestIndexes(t *testing.T) {
	pod := func(namespace, name string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		change(p)
		return p
	}
	owners := func(controller bool, uids ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			for _, uid := range uids {
				p.OwnerReferences = append(p.OwnerReferences, metav1.OwnerReference{UID: "other"}, metav1.OwnerReference{UID: types.UID(uid), Controller: &controller})
			}
		}
	}
	claims := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}
		}
	}
	devices := func(claim *string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "d", ResourceClaimName: claim, ResourceClaimTemplateName: ptr.To("t")}}
			if claim != nil {
				p.Spec.ResourceClaims[0].ResourceClaimTemplateName = nil
			}
		}
	}
	b := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(
		pod("a", "controlled", owners(true, "1")), pod("b", "controlled", owners(true, "1")), pod("a", "owned", owners(false, "1")),
		pod("a", "bound", func(p *corev1.Pod) { p.Spec.NodeName = "n" }), pod("a", "claims", claims("c")), pod("b", "claims", claims("c")),
		pod("a", "device", devices(ptr.To("c"))), pod("a", "waits", devices(nil)),
	)
	for _, i := range []Index{ByController(&corev1.Pod{}), PodsByNode(), PodsByClaim(), PodsByResourceClaim()} {
		b.WithIndex(i.Object, i.Field, i.Values)
	}
	c := b.Build()
	controlled := func(namespace, uid string) (*corev1.PodList, error) {
		found, err := Controlled[corev1.Pod](t.Context(), c, namespace, types.UID(uid))
		list := &corev1.PodList{}
		for _, p := range found {
			list.Items = append(list.Items, *p)
		}
		return list, err
	}
	for name, tc := range map[string]struct {
		list func() (*corev1.PodList, error)
		want []string
	}{
		"controlled":          {func() (*corev1.PodList, error) { return controlled("a", "1") }, []string{"a/controlled"}},
		"controlled by none":  {func() (*corev1.PodList, error) { return controlled("a", "") }, []string{"a/bound", "a/claims", "a/device", "a/owned", "a/waits"}},
		"on a node":           {func() (*corev1.PodList, error) { return OnNode(t.Context(), c, "n") }, []string{"a/bound"}},
		"with a claim":        {func() (*corev1.PodList, error) { return WithClaim(t.Context(), c, "a", "c") }, []string{"a/claims"}},
		"with a device":       {func() (*corev1.PodList, error) { return WithResourceClaim(t.Context(), c, "a", "c") }, []string{"a/device"}},
		"that ask for any":    {func() (*corev1.PodList, error) { return WithResourceClaim(t.Context(), c, "", "") }, []string{"a/device", "a/waits"}},
		"with an unused name": {func() (*corev1.PodList, error) { return WithClaim(t.Context(), c, "a", "other") }, nil},
	} {
		list, err := tc.list()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range list.Items {
			got = append(got, client.ObjectKeyFromObject(&list.Items[i]).String())
		}
		if slices.Sort(got); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
