package replicaset

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
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

// A status waits once, however often it is looked at.
func TestPostponed(t *testing.T) {
	clock := testclock.NewFakePassiveClock(time.Unix(1000, 0))
	c := &Controller{clock: clock, late: map[types.NamespacedName]time.Time{}}
	a, b := types.NamespacedName{Name: "a"}, types.NamespacedName{Name: "b"}
	for _, step := range []struct {
		at   time.Duration
		set  types.NamespacedName
		want time.Duration
	}{
		{0, a, postponement}, {postponement / 2, a, postponement / 2}, {postponement / 2, b, postponement}, {postponement, a, 0},
	} {
		clock.SetTime(time.Unix(1000, 0).Add(step.at))
		if got := c.postponed(step.set); got != step.want {
			t.Errorf("%s after %v: %v, want %v", step.set.Name, step.at, got, step.want)
		}
	}
	c.written(a)
	if got := c.postponed(a); got != postponement {
		t.Errorf("after it has been written: %v, want %v", got, postponement)
	}
}
