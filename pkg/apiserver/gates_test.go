package apiserver_test

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestGenericWorkload uses what the feature of that name lets in. Without it, nothing of it is served and pods lose
// the name of their group.
func TestGenericWorkload(t *testing.T) {
	ctx := context.Background()
	serve := "--runtime-config=scheduling.k8s.io/v1beta1=true"
	pod := func() *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p"},
			Spec: corev1.PodSpec{
				Containers:                   []corev1.Container{{Name: "c", Image: "i"}},
				AutomountServiceAccountToken: new(false),
				SchedulingGroup:              &corev1.PodSchedulingGroup{PodGroupName: new("g")},
			},
		}
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default"}}

	t.Run("off", func(t *testing.T) {
		c := testcluster.Start(t, testcluster.WithAPIServerFlags(serve), testcluster.WithObjects(account)).Client(t)
		if _, err := c.SchedulingV1beta1().PodGroups("default").List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("listing PodGroups: %v", err)
		}
		if p, err := c.CoreV1().Pods("default").Create(ctx, pod(), metav1.CreateOptions{}); err != nil {
			t.Error(err)
		} else if p.Spec.SchedulingGroup != nil {
			t.Error("the pod has a group")
		}
	})

	t.Run("on", func(t *testing.T) {
		cluster := testcluster.Start(t, testcluster.WithAPIServerFlags(serve, "--feature-gates=GenericWorkload=true"), testcluster.WithObjects(account))
		c := cluster.Client(t)
		if p, err := c.CoreV1().Pods("default").Create(ctx, pod(), metav1.CreateOptions{}); err != nil {
			t.Error(err)
		} else if p.Spec.SchedulingGroup == nil {
			t.Error("the pod has no group")
		}
		bad := pod()
		bad.Name, bad.Spec.SchedulingGroup.PodGroupName = "bad", new("A")
		if _, err := c.CoreV1().Pods("default").Create(ctx, bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("a pod of a group that cannot be: %v", err)
		}

		if _, err := c.SchedulingV1().PriorityClasses().Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 7}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		groups := c.SchedulingV1beta1().PodGroups("default")
		g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: "g"}}
		g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: 2}
		g.Spec.PriorityClassName = "high"
		g.Spec.PreemptionPolicy = new(schedulingv1beta1.PreemptNever) // of a feature that is off
		g, err := groups.Create(ctx, g, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := schedulingv1beta1.PodGroupSpec{
			SchedulingPolicy: g.Spec.SchedulingPolicy, PriorityClassName: "high", Priority: new(int32(7)),
			DisruptionMode: &schedulingv1beta1.DisruptionMode{Single: &schedulingv1beta1.SingleDisruptionMode{}},
		}
		if diff := cmp.Diff(want, g.Spec); diff != "" {
			t.Errorf("PodGroup (-want +got):\n%s", diff)
		}
		if !slices.Contains(g.Finalizers, "scheduling.k8s.io/podgroup-protection") {
			t.Errorf("the PodGroup is not protected: %v", g.Finalizers)
		}
		g.Labels = map[string]string{"a": "b"}
		g.Status.Conditions = []metav1.Condition{{Type: "PodGroupInitiallyScheduled", Status: "True", Reason: "Scheduled", LastTransitionTime: metav1.Now()}}
		if g, err = groups.UpdateStatus(ctx, g, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if len(g.Labels) > 0 || len(g.Status.Conditions) != 1 {
			t.Errorf("after an update of the status, labels are %v, conditions %v", g.Labels, g.Status.Conditions)
		}
		role, err := c.RbacV1().ClusterRoles().Get(ctx, "system:controller:podgroup-protection-controller", metav1.GetOptions{})
		if err != nil || len(role.Rules) != 2 {
			t.Errorf("the role of the controller: %v, %v", role, err)
		}
	})
}

// TestEvictionRequestAPI uses what the feature of that name lets in.
func TestEvictionRequestAPI(t *testing.T) {
	ctx := context.Background()
	serve := "--runtime-config=lifecycle.k8s.io/v1alpha1=true"
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default"}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: corev1.PodSpec{
			Containers:                   []corev1.Container{{Name: "c", Image: "i"}},
			AutomountServiceAccountToken: new(false),
			EvictionResponders:           []corev1.EvictionResponder{{Name: "example.com/a", Priority: new(int32(10_000))}},
		},
	}

	t.Run("off", func(t *testing.T) {
		c := testcluster.Start(t, testcluster.WithAPIServerFlags(serve), testcluster.WithObjects(account)).Client(t)
		if _, err := c.LifecycleV1alpha1().Evictions("default").List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("listing Evictions: %v", err)
		}
		if p, err := c.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil || p.Spec.EvictionResponders != nil {
			t.Errorf("the pod has responders: %v, %v", p.Spec.EvictionResponders, err)
		}
	})

	t.Run("on", func(t *testing.T) {
		c := testcluster.Start(t, testcluster.WithAPIServerFlags(serve, "--feature-gates=EvictionRequestAPI=true"), testcluster.WithObjects(account)).Client(t)
		p, err := c.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		if err != nil || len(p.Spec.EvictionResponders) != 1 {
			t.Fatalf("the pod's responders: %v, %v", p.Spec.EvictionResponders, err)
		}
		requests := c.LifecycleV1alpha1().EvictionRequests("default")
		r := &lifecyclev1alpha1.EvictionRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "r-"}}
		r.Spec.Target.Pod = &lifecyclev1alpha1.EvictionRequestPodReference{Name: p.Name, UID: p.UID}
		r.Spec.Requester, r.Spec.Intent = "example.com/drainer", lifecyclev1alpha1.EvictionRequestIntentEviction
		r.Status.ObservedGeneration = new(int64(1)) // which nobody sets here
		if r, err = requests.Create(ctx, r, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if r.Generation != 1 || r.Status.ObservedGeneration != nil {
			t.Errorf("generation %d, observed %v", r.Generation, r.Status.ObservedGeneration)
		}
		r.Spec.Intent = lifecyclev1alpha1.EvictionRequestIntentWithdrawn
		if r, err = requests.Update(ctx, r, metav1.UpdateOptions{}); err != nil || r.Generation != 2 {
			t.Errorf("after a withdrawal: %v, %v", r, err)
		}

		evictions := c.LifecycleV1alpha1().Evictions("default")
		e := &lifecyclev1alpha1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "e"}}
		e.Spec.Target.Pod = &lifecyclev1alpha1.EvictionPodReference{Name: p.Name, UID: p.UID}
		if e, err = evictions.Create(ctx, e, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		e.Labels = map[string]string{"a": "b"}
		e.Status.TargetResponders = []lifecyclev1alpha1.TargetResponder{{Name: "example.com/a", Priority: new(int32(10_000)), State: lifecyclev1alpha1.ResponderStateActive}}
		e.Status.Responders = []lifecyclev1alpha1.ResponderStatus{{Name: "example.com/a", StartTime: new(metav1.Now())}}
		if e, err = evictions.UpdateStatus(ctx, e, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if len(e.Labels) > 0 || len(e.Status.Responders) != 1 {
			t.Errorf("after an update of the status, labels are %v, responders %v", e.Labels, e.Status.Responders)
		}
		e.Status.TargetResponders[0].State = lifecyclev1alpha1.ResponderStateCompleted
		if _, err = evictions.UpdateStatus(ctx, e, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("a responder is completed and has not said so: %v", err)
		}
		role, err := c.RbacV1().ClusterRoles().Get(ctx, "system:aggregate-to-edit", metav1.GetOptions{})
		if err != nil || !slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.APIGroups, "lifecycle.k8s.io") }) {
			t.Errorf("who edits may not ask for evictions: %v", err)
		}
	})
}
