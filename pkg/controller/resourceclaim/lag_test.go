package resourceclaim

import (
	"fmt"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/controller/internal/controllertest"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
)

// While the cache shows neither the claim that has been made nor the pod's status that names it, other events make
// the controller look at the pod again. It must not make another claim.
func TestCacheThatLags(t *testing.T) {
	api := controllertest.StartLaggingAPI(t, map[string]string{
		"pods": "v1/Pod", "resourceclaims": "resource.k8s.io/v1/ResourceClaim", "resourceclaimtemplates": "resource.k8s.io/v1/ResourceClaimTemplate",
	})
	kinds := []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Pod"), resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"), resourcev1.SchemeGroupVersion.WithKind("ResourceClaimTemplate"),
	}
	c := controllertest.Start(t, api.Config(), kinds, []index.Index{index.PodsByResourceClaim()}, func(cached, live client.Client) controllertest.Registrar {
		return New(cached, live, &record.FakeRecorder{}, metrics.NewKubeRegistry(), Gates{})
	})
	ctx := t.Context()
	if err := c.Create(ctx, &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "t"}}); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: corev1.PodSpec{ResourceClaims: []corev1.PodResourceClaim{{Name: "x", ResourceClaimTemplateName: ptr.To("t")}}}}
	made := func() {
		t.Helper()
		componenttest.EventuallyTold(t, "one claim", func() (bool, string) {
			n := api.Writes("resourceclaims", http.MethodPost)
			return n == 1, fmt.Sprint(n)
		})
	}
	api.Hold("resourceclaims")
	if err := c.Create(ctx, pod); err != nil {
		t.Fatal(err)
	}
	made()
	for i := range 5 {
		componenttest.EventuallyTold(t, "a change", func() (bool, string) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				t.Fatal(err)
			}
			pod.Annotations = map[string]string{"round": fmt.Sprint(i)}
			err := c.Update(ctx, pod)
			return err == nil, fmt.Sprint(err)
		})
	}
	api.Release("resourceclaims")
	componenttest.EventuallyTold(t, "the pod to name its claim", func() (bool, string) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			t.Fatal(err)
		}
		return len(pod.Status.ResourceClaimStatuses) == 1, fmt.Sprintf("%+v", pod.Status)
	})
	made()
}
