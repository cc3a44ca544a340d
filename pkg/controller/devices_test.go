package controller_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func testDevices(t *testing.T, shared *cluster) {
	c := shared.in(t)
	api := c.cs.ResourceV1()
	_, err := api.ResourceClaimTemplates(c.ns).Create(t.Context(), &resourcev1.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu"},
		Spec: resourcev1.ResourceClaimTemplateSpec{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Name: "one", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu.example.com"}},
		}}}},
	}, metav1.CreateOptions{})
	c.must(err)
	pod := template("x", nil)
	pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: ptr.To("gpu")}}
	pods := c.cs.CoreV1().Pods(c.ns)
	p, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "user"}, Spec: pod.Spec}, metav1.CreateOptions{})
	c.must(err)
	name := ""
	c.eventually("a claim", func(ctx context.Context) (bool, string) {
		p, err = pods.Get(ctx, "user", metav1.GetOptions{})
		c.must(err)
		if len(p.Status.ResourceClaimStatuses) != 1 || p.Status.Phase != corev1.PodRunning {
			return false, fmt.Sprintf("%+v", p.Status)
		}
		name = *p.Status.ResourceClaimStatuses[0].ResourceClaimName
		return true, ""
	})
	claim, err := api.ResourceClaims(c.ns).Get(t.Context(), name, metav1.GetOptions{})
	c.must(err)
	// A scheduler has chosen a device.
	claim.Finalizers = []string{resourcev1.Finalizer}
	claim, err = api.ResourceClaims(c.ns).Update(t.Context(), claim, metav1.UpdateOptions{})
	c.must(err)
	claim.Status = resourcev1.ResourceClaimStatus{
		Allocation: &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
			{Request: "one", Driver: "gpu.example.com", Pool: c.ns, Device: "gpu-0"},
		}}},
		ReservedFor: []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: p.Name, UID: p.UID}},
	}
	_, err = api.ResourceClaims(c.ns).UpdateStatus(t.Context(), claim, metav1.UpdateOptions{})
	c.must(err)
	_, err = api.DeviceTaintRules().Create(t.Context(), &resourcev1.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: c.ns},
		Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{Pool: &c.ns}, Taint: resourcev1.DeviceTaint{Key: "example.com/broken", Effect: resourcev1.DeviceTaintEffectNoExecute},
		},
	}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("the pod and its claim to go", func(ctx context.Context) (bool, string) {
		_, err := pods.Get(ctx, "user", metav1.GetOptions{})
		_, claimErr := api.ResourceClaims(c.ns).Get(ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err) && apierrors.IsNotFound(claimErr), fmt.Sprint(err, claimErr)
	})
	c.eventually("the rule to say so", func(ctx context.Context) (bool, string) {
		r, err := api.DeviceTaintRules().Get(ctx, c.ns, metav1.GetOptions{})
		c.must(err)
		return len(r.Status.Conditions) == 1, fmt.Sprintf("%+v", r.Status)
	})
}
