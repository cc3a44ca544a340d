package podautoscaler

import (
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/utils/ptr"
)

// history is what is remembered of one autoscaler. It is lost with the process, as that of the
// original is: a new one waits for as long as it is told to before it scales down.
type history struct {
	proposals []change
	ups       []change
	downs     []change
}

// change is a proposal, or by how much a target was scaled, and when.
type change struct {
	n  int32
	at time.Time
}

// finding says why a number was chosen, in the terms of a condition.
type finding struct{ reason, message string }

// limits are what a decision is made by, besides what metrics propose.
type limits struct {
	current, min, max int32
	behavior          *autoscalingv2.HorizontalPodAutoscalerBehavior
	// window is for how long proposals hold a target from getting smaller, if its behavior does not say so.
	window time.Duration
}

// decision is a number of replicas, and what was found on the way to it.
type decision struct {
	replicas int32
	able     finding
	limit    finding
	limited  bool
}

// decide turns a proposal into what will be done now, and notes it.
func (h *history) decide(proposed int32, l limits, now time.Time) decision {
	steady, why := h.stabilize(proposed, l, now)
	d := decision{able: finding{"ReadyForNewScale", "recommended size matches current size"}}
	if steady != proposed {
		d.able = why
	}
	d.replicas, d.limit = h.bound(steady, l, now)
	d.limited = d.replicas != steady
	return d
}

// stabilize looks back at earlier proposals.
func (h *history) stabilize(proposed int32, l limits, now time.Time) (int32, finding) {
	up, down := time.Duration(0), l.window
	if l.behavior != nil {
		up = seconds(l.behavior.ScaleUp, 0)
		down = seconds(l.behavior.ScaleDown, l.window)
	}
	lowest, highest := proposed, proposed
	for _, p := range h.proposals {
		if age := now.Sub(p.at); age < up {
			lowest = min(lowest, p.n)
		}
		if now.Sub(p.at) < down {
			highest = max(highest, p.n)
		}
	}
	h.proposals = append(slices.DeleteFunc(h.proposals, func(p change) bool { return now.Sub(p.at) > max(up, down) }), change{proposed, now})
	lower := finding{"ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation"}
	higher := finding{"ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation"}
	if l.behavior == nil {
		return highest, higher
	}
	steady := min(max(l.current, lowest), highest)
	if proposed >= l.current {
		return steady, lower
	}
	return steady, higher
}

func seconds(r *autoscalingv2.HPAScalingRules, otherwise time.Duration) time.Duration {
	if r == nil || r.StabilizationWindowSeconds == nil {
		return otherwise
	}
	return time.Duration(*r.StabilizationWindowSeconds) * time.Second
}

// bound keeps a number within what an autoscaler allows, and how fast it may get there.
func (h *history) bound(n int32, l limits, now time.Time) (int32, finding) {
	lowest, highest := l.min, l.max
	less := finding{"TooFewReplicas", "the desired replica count is less than the minimum replica count"}
	more := finding{"TooManyReplicas", "the desired replica count is more than the maximum replica count"}
	fastest := max(2*int64(l.current), 4)
	if l.behavior != nil {
		if n == l.current {
			return n, inRange
		}
		fastest = max(h.limit(l.behavior.ScaleUp, +1, l.current, now), int64(l.current))
		if slowest := min(h.limit(l.behavior.ScaleDown, -1, l.current, now), int64(l.current)); n < l.current && int64(lowest) < slowest {
			lowest = int32(slowest)
			less = finding{"ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"}
		}
	}
	if int64(highest) > fastest {
		highest = int32(fastest)
		more = finding{"ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"}
	}
	switch rises := n > l.current; {
	case n < lowest && (l.behavior == nil || !rises):
		return lowest, less
	case n > highest && (l.behavior == nil || rises):
		return highest, more
	}
	return n, inRange
}

var inRange = finding{"DesiredWithinRange", "the desired count is within the acceptable range"}

// limit returns how far the rules let a target go now; up with sign +1, down with -1.
func (h *history) limit(r *autoscalingv2.HPAScalingRules, sign int64, current int32, now time.Time) int64 {
	if r == nil {
		r = &autoscalingv2.HPAScalingRules{}
	}
	selected := ptr.Deref(r.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if selected == autoscalingv2.DisabledPolicySelect {
		return int64(current)
	}
	var all []int64
	for _, p := range r.Policies {
		period := time.Duration(p.PeriodSeconds) * time.Second
		start := int64(current) - within(h.ups, period, now) + within(h.downs, period, now)
		switch p.Type {
		case autoscalingv2.PodsScalingPolicy:
			all = append(all, start+sign*int64(p.Value))
		case autoscalingv2.PercentScalingPolicy:
			n := float64(start) * (1 + float64(sign)*float64(p.Value)/100)
			if sign > 0 {
				n = math.Ceil(n)
			}
			all = append(all, int64(n))
		}
	}
	if len(all) == 0 {
		return sign * math.MaxInt32
	}
	if (sign > 0) == (selected == autoscalingv2.MaxChangePolicySelect) {
		return slices.Max(all)
	}
	return slices.Min(all)
}

// within adds up the changes of the last period.
func within(changes []change, period time.Duration, now time.Time) int64 {
	sum := int64(0)
	for _, c := range changes {
		if now.Sub(c.at) < period {
			sum += int64(c.n)
		}
	}
	return sum
}

// scaled notes that a target was scaled, for as long as a policy may look back.
func (h *history) scaled(from, to int32, b *autoscalingv2.HorizontalPodAutoscalerBehavior, now time.Time) {
	if b == nil {
		return
	}
	longest := time.Duration(0)
	for _, r := range []*autoscalingv2.HPAScalingRules{b.ScaleUp, b.ScaleDown} {
		for _, p := range ptr.Deref(r, autoscalingv2.HPAScalingRules{}).Policies {
			longest = max(longest, time.Duration(p.PeriodSeconds)*time.Second)
		}
	}
	old := func(c change) bool { return now.Sub(c.at) >= longest }
	h.ups, h.downs = slices.DeleteFunc(h.ups, old), slices.DeleteFunc(h.downs, old)
	if to > from {
		h.ups = append(h.ups, change{to - from, now})
	} else {
		h.downs = append(h.downs, change{from - to, now})
	}
}
