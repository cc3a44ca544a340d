package replicaset

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/utils/ptr"
)

func TestOnlyFewerEnd(t *testing.T) {
	status := func(replicas int32, ending *int32) *appsv1.ReplicaSetStatus {
		return &appsv1.ReplicaSetStatus{Replicas: replicas, TerminatingReplicas: ending}
	}
	for name, tc := range map[string]struct {
		before, after *appsv1.ReplicaSetStatus
		want          bool
	}{
		"fewer":                       {status(3, ptr.To[int32](4)), status(3, ptr.To[int32](1)), true},
		"none any more":               {status(3, ptr.To[int32](4)), status(3, ptr.To[int32](0)), false},
		"more":                        {status(3, ptr.To[int32](1)), status(3, ptr.To[int32](4)), false},
		"as many":                     {status(3, ptr.To[int32](1)), status(3, ptr.To[int32](1)), false},
		"fewer of a different number": {status(3, ptr.To[int32](4)), status(2, ptr.To[int32](1)), false},
		"not counted":                 {status(3, nil), status(3, nil), false},
		"counted for the first time":  {status(3, nil), status(3, ptr.To[int32](2)), false},
	} {
		if got := onlyFewerEnd(tc.before, tc.after); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
