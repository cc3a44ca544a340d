package replicaset

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A kind is what differs between the two kinds that keep a number of pods. A
// ReplicationController is seen as a ReplicaSet; only its own type is written.
type kind struct {
	controller string
	gvk        schema.GroupVersionKind
	new        func() client.Object
	// view returns obj as a ReplicaSet, which must not be changed.
	view        func(obj client.Object) *appsv1.ReplicaSet
	list        client.ObjectList // an empty one
	status      func(set *appsv1.ReplicaSet, active []*corev1.Pod, terminating *int32, scaleErr error, now time.Time) (appsv1.ReplicaSetStatus, time.Duration)
	writeStatus func(context.Context, client.Client, client.Object, appsv1.ReplicaSetStatus) error
}

var replicaSet = kind{
	controller: "replicaset-controller",
	gvk:        appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
	new:        func() client.Object { return &appsv1.ReplicaSet{} },
	view:       func(obj client.Object) *appsv1.ReplicaSet { return obj.(*appsv1.ReplicaSet) },
	list:       &appsv1.ReplicaSetList{},
	status: func(set *appsv1.ReplicaSet, active []*corev1.Pod, terminating *int32, scaleErr error, now time.Time) (appsv1.ReplicaSetStatus, time.Duration) {
		s, next := status(set, active, scaleErr, now)
		s.TerminatingReplicas = terminating
		return s, next
	},
	writeStatus: func(ctx context.Context, c client.Client, obj client.Object, s appsv1.ReplicaSetStatus) error {
		rs := obj.(*appsv1.ReplicaSet)
		if equality.Semantic.DeepEqual(rs.Status, s) {
			return nil
		}
		rs.Status = s
		return c.Status().Update(ctx, rs)
	},
}

var replicationController = kind{
	controller: "replicationcontroller-controller",
	gvk:        corev1.SchemeGroupVersion.WithKind("ReplicationController"),
	new:        func() client.Object { return &corev1.ReplicationController{} },
	view:       func(obj client.Object) *appsv1.ReplicaSet { return asReplicaSet(obj.(*corev1.ReplicationController)) },
	list:       &corev1.ReplicationControllerList{},
	status: func(set *appsv1.ReplicaSet, active []*corev1.Pod, _ *int32, scaleErr error, now time.Time) (appsv1.ReplicaSetStatus, time.Duration) {
		return status(set, active, scaleErr, now)
	},
	writeStatus: func(ctx context.Context, c client.Client, obj client.Object, s appsv1.ReplicaSetStatus) error {
		rc := obj.(*corev1.ReplicationController)
		status := corev1.ReplicationControllerStatus{
			Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
			AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
		}
		for _, cond := range s.Conditions {
			status.Conditions = append(status.Conditions, corev1.ReplicationControllerCondition{
				Type: corev1.ReplicationControllerConditionType(cond.Type), Status: cond.Status,
				LastTransitionTime: cond.LastTransitionTime, Reason: cond.Reason, Message: cond.Message,
			})
		}
		if equality.Semantic.DeepEqual(rc.Status, status) {
			return nil
		}
		rc.Status = status
		return c.Status().Update(ctx, rc)
	},
}

func asReplicaSet(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{
		ObjectMeta: rc.ObjectMeta,
		Spec: appsv1.ReplicaSetSpec{
			Replicas:        rc.Spec.Replicas,
			MinReadySeconds: rc.Spec.MinReadySeconds,
			Selector:        &metav1.LabelSelector{MatchLabels: rc.Spec.Selector},
		},
		Status: appsv1.ReplicaSetStatus{
			Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas, ReadyReplicas: rc.Status.ReadyReplicas,
			AvailableReplicas: rc.Status.AvailableReplicas, ObservedGeneration: rc.Status.ObservedGeneration,
		},
	}
	if rc.Spec.Template != nil {
		rs.Spec.Template = *rc.Spec.Template
	}
	for _, cond := range rc.Status.Conditions {
		rs.Status.Conditions = append(rs.Status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(cond.Type), Status: cond.Status,
			LastTransitionTime: cond.LastTransitionTime, Reason: cond.Reason, Message: cond.Message,
		})
	}
	return rs
}
