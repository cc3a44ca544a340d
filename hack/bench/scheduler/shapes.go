package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// A shape is what the pods that are measured ask for.
type shape struct {
	name string
	// change makes the i-th pod, which belongs to app, one of this shape.
	change func(pod *corev1.Pod, app string, i int)
	// preempts says that every node is full of pods of lower priority.
	preempts bool
}

// shapes that are measured, in this order.
var shapes = []shape{
	{name: "basic", change: func(*corev1.Pod, string, int) {}},
	{name: "affinity", change: near},
	{name: "anti-affinity", change: apart},
	{name: "spread", change: spread},
	{name: "mixed", change: func(pod *corev1.Pod, app string, i int) {
		mix := []func(*corev1.Pod, string, int){func(*corev1.Pod, string, int) {}, near, apart, spread}
		// An app is of one kind, or those that want to be alone would keep the others away.
		pod.Labels["app"] = fmt.Sprint(app, "-", i%len(mix))
		mix[i%len(mix)](pod, pod.Labels["app"], i)
	}},
	{name: "preemption", preempts: true, change: func(pod *corev1.Pod, _ string, _ int) {
		pod.Spec.PriorityClassName = highPriority
		pod.Spec.Containers[0].Resources.Requests = amounts("3", "1Gi")
	}},
}

// highPriority is the class of pods that preempt.
const highPriority = "high"

// near wants pods to be in one zone with those of their app.
func near(pod *corev1.Pod, app string, _ int) {
	pod.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(app, corev1.LabelTopologyZone)}}}
}

// apart wants pods to be alone of their app on a host.
func apart(pod *corev1.Pod, app string, _ int) {
	pod.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(app, corev1.LabelHostname)}}}
}

// spread wants as many pods of an app in one zone as in the next.
func spread(pod *corev1.Pod, app string, _ int) {
	pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector(app),
	}}
}

func term(app, key string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: selector(app)}
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

// pod returns the i-th pod. There are so many apps that those of one fit on half of the nodes, one on each.
func (s *shape) pod(i int) *corev1.Pod {
	app := fmt.Sprint("app-", i/max(*nodes/2, 1))
	p := newPod(fmt.Sprintf("pod-%06d", i), app, amounts("10m", "32Mi"))
	s.change(p, app, i)
	return p
}

func newPod(name, app string, requests corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{
			Containers:                    []corev1.Container{{Name: "c", Image: "registry.example.com/web:1.2.3", Resources: corev1.ResourceRequirements{Requests: requests}}},
			TerminationGracePeriodSeconds: ptr.To[int64](0), // there is no kubelet that would let a victim end
		},
	}
}

// node returns the i-th node, which is ready.
func node(i int) *corev1.Node {
	list := amounts("4", "32Gi")
	list[corev1.ResourcePods] = resource.MustParse("110")
	name := nodeName(i)
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprint("zone-", i%10)}},
		Status: corev1.NodeStatus{
			Capacity: list, Allocatable: list,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Fake"}},
		},
	}
}

func nodeName(i int) string { return fmt.Sprintf("node-%05d", i) }

func amounts(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}
