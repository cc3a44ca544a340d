package plan

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// group are pods that a manifest asks for and that differ by their names only.
type group struct {
	pod   v1.Pod // without name
	names []string
	// owner is the controller of the pods, by which plugins know which others are like
	// them; nil if it has no say.
	owner runtime.Object
	// claims are made for each pod, under its name.
	claims []v1.PersistentVolumeClaim
}

// podsOf returns the pods that an object asks for. ok is false if it is not about pods.
// copies, if it is not 0, is how many there are to be.
func podsOf(obj runtime.Object, copies int) (g group, ok bool, err error) {
	number := func(n *int32) int {
		if copies > 0 {
			return copies
		}
		return int(ptr.Deref(n, 1))
	}
	switch o := obj.(type) {
	case *v1.Pod:
		g = group{pod: *o.DeepCopy(), names: []string{o.Name}}
		if copies > 0 {
			g.names = numbered(o.Name, 1, copies)
		}
		g.pod.Name = ""
		g.pod.Status = v1.PodStatus{}
	case *appsv1.Deployment:
		rs := &appsv1.ReplicaSet{
			TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"},
			ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name + "-dry-run"},
			Spec:       appsv1.ReplicaSetSpec{Selector: o.Spec.Selector},
		}
		g = fromTemplate(o, o.Spec.Template, rs, rs.Name)
		g.names = numbered(o.Name, 1, number(o.Spec.Replicas))
	case *appsv1.ReplicaSet:
		g = fromTemplate(o, o.Spec.Template, o, o.Name)
		g.names = numbered(o.Name, 1, number(o.Spec.Replicas))
	case *v1.ReplicationController:
		if o.Spec.Template == nil {
			return g, true, fmt.Errorf("ReplicationController %s has no template", o.Name)
		}
		g = fromTemplate(o, *o.Spec.Template, o, o.Name)
		g.names = numbered(o.Name, 1, number(o.Spec.Replicas))
	case *appsv1.StatefulSet:
		g = fromTemplate(o, o.Spec.Template, o, o.Name)
		first := 0
		if o.Spec.Ordinals != nil {
			first = int(o.Spec.Ordinals.Start)
		}
		g.names = numbered(o.Name, first, number(o.Spec.Replicas))
		for _, c := range o.Spec.VolumeClaimTemplates {
			g.claims = append(g.claims, *c.DeepCopy())
			g.pod.Spec.Volumes = append(g.pod.Spec.Volumes, v1.Volume{Name: c.Name, VolumeSource: v1.VolumeSource{
				PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{}, // named after each pod
			}})
		}
	case *batchv1.Job:
		g = ofJob(o, o.Spec, number)
	case *batchv1.CronJob:
		g = ofJob(o, o.Spec.JobTemplate.Spec, number)
	case *appsv1.DaemonSet:
		return g, true, fmt.Errorf("DaemonSet %s: each of its pods has its node already when the scheduler is asked", o.Name)
	default:
		return g, false, nil
	}
	return g, true, nil
}

func ofJob(o metav1.Object, spec batchv1.JobSpec, number func(*int32) int) group {
	g := fromTemplate(o, spec.Template, nil, "")
	n := number(spec.Parallelism)
	if spec.Completions != nil {
		n = min(n, max(number(spec.Completions), 0))
	}
	g.names = numbered(o.GetName(), 1, n)
	return g
}

// fromTemplate makes a pod of a template, owned by a controller.
func fromTemplate(o metav1.Object, t v1.PodTemplateSpec, owner runtime.Object, ownerName string) group {
	pod := v1.Pod{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
	pod.Namespace, pod.Name = o.GetNamespace(), ""
	if owner != nil {
		gvk := owner.GetObjectKind().GroupVersionKind()
		pod.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Name: ownerName, UID: types.UID("dry-run-" + ownerName), Controller: ptr.To(true),
		}}
	}
	return group{pod: pod, owner: owner}
}

func numbered(name string, first, n int) []string {
	names := make([]string, max(n, 0))
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", name, first+i)
	}
	return names
}
