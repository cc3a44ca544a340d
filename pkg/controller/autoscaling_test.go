package controller_test

import (
	"context"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func testAutoscaling(t *testing.T, shared *cluster) {
	c := shared.in(t)
	labels := map[string]string{"app": "scaled"}
	deployments := c.cs.AppsV1().Deployments(c.ns)
	_, err := deployments.Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       appsv1.DeploymentSpec{Replicas: ptr.To[int32](5), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template("v1", labels)},
	}, metav1.CreateOptions{})
	c.must(err)
	hpas := c.cs.AutoscalingV2().HorizontalPodAutoscalers(c.ns)
	_, err = hpas.Create(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			MinReplicas:    ptr.To[int32](2), MaxReplicas: 3,
		},
	}, metav1.CreateOptions{})
	c.must(err)
	is := func(what string, t autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason string) {
		c.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			h, err := hpas.Get(ctx, "web", metav1.GetOptions{})
			c.must(err)
			for _, cond := range h.Status.Conditions {
				if cond.Type == t && cond.Status == status && cond.Reason == reason {
					return true, ""
				}
			}
			return false, fmt.Sprintf("%+v", h.Status)
		})
	}
	c.eventually("the maximum", func(ctx context.Context) (bool, string) {
		d, err := deployments.Get(ctx, "web", metav1.GetOptions{})
		c.must(err)
		return *d.Spec.Replicas == 3, fmt.Sprint(*d.Spec.Replicas)
	})
	// Nothing serves metrics here.
	is("what is missing", autoscalingv2.ScalingActive, corev1.ConditionFalse, "FailedGetResourceMetric")
	c.must(deployments.Delete(t.Context(), "web", metav1.DeleteOptions{}))
	is("a target that is missing", autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale")
}
