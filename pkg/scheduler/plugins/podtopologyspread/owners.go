package podtopologyspread

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// owners find out which pods are like a given one: those of the same Services and of
// the same ReplicationController, ReplicaSet or StatefulSet.
type owners struct {
	services     corelisters.ServiceLister
	controllers  corelisters.ReplicationControllerLister
	replicaSets  appslisters.ReplicaSetLister
	statefulSets appslisters.StatefulSetLister
}

func newOwners(f informers.SharedInformerFactory) *owners {
	return &owners{
		services:     f.Core().V1().Services().Lister(),
		controllers:  f.Core().V1().ReplicationControllers().Lister(),
		replicaSets:  f.Apps().V1().ReplicaSets().Lister(),
		statefulSets: f.Apps().V1().StatefulSets().Lister(),
	}
}

// selector matches the pods that are like pod. It is empty if nothing is known.
func (o *owners) selector(pod *v1.Pod) labels.Selector {
	set := labels.Set{}
	services, err := o.services.Services(pod.Namespace).List(labels.Everything())
	if err == nil {
		for _, s := range services {
			if len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				set = labels.Merge(set, s.Spec.Selector)
			}
		}
	}
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return set.AsSelector()
	}
	var of *metav1.LabelSelector
	switch owner.APIVersion + "/" + owner.Kind {
	case "v1/ReplicationController":
		if rc, err := o.controllers.ReplicationControllers(pod.Namespace).Get(owner.Name); err == nil {
			set = labels.Merge(set, rc.Spec.Selector)
		}
	case "apps/v1/ReplicaSet":
		if rs, err := o.replicaSets.ReplicaSets(pod.Namespace).Get(owner.Name); err == nil {
			of = rs.Spec.Selector
		}
	case "apps/v1/StatefulSet":
		if ss, err := o.statefulSets.StatefulSets(pod.Namespace).Get(owner.Name); err == nil {
			of = ss.Spec.Selector
		}
	}
	selector := set.AsSelector()
	if of == nil {
		return selector
	}
	if more, err := metav1.LabelSelectorAsSelector(of); err == nil {
		if requirements, ok := more.Requirements(); ok {
			selector = selector.Add(requirements...)
		}
	}
	return selector
}
