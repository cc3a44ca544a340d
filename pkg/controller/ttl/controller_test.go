package ttl

import (
	"slices"
	"testing"
	"time"
)

func TestStepFor(t *testing.T) {
	step := 0
	var got []time.Duration
	for _, nodes := range []int{0, 100, 101, 95, 89, 600, 440, 5000, 1700, 0} {
		step = stepFor(step, nodes)
		got = append(got, steps[step].ttl)
	}
	if want := []time.Duration{0, 0, 15 * time.Second, 15 * time.Second, 0, 30 * time.Second, 15 * time.Second, 5 * time.Minute, time.Minute, 0}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
