package unhurried

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// A status waits once, however often it is looked at.
func TestWait(t *testing.T) {
	var s Statuses
	a, b := types.NamespacedName{Name: "a"}, types.NamespacedName{Name: "b"}
	began := time.Unix(1000, 0)
	for _, step := range []struct {
		at     time.Duration
		object types.NamespacedName
		want   time.Duration
	}{
		{0, a, Moment}, {Moment / 2, a, Moment / 2}, {Moment / 2, b, Moment}, {Moment, a, 0}, {2 * Moment, a, -Moment},
	} {
		if got := s.Wait(step.object, began.Add(step.at)); got != step.want {
			t.Errorf("%s after %v: %v, want %v", step.object.Name, step.at, got, step.want)
		}
	}
	s.Written(a)
	if got := s.Wait(a, began); got != Moment {
		t.Errorf("after it has been written: %v, want %v", got, Moment)
	}
}
