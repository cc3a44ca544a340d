package podautoscaler

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/leme-k8s/leme/pkg/controller/internal/metricsapi"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// tolerance is how far the ratio of use to target may be from one with nothing to do.
type tolerance struct{ down, up float64 }

func (t tolerance) within(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// toleranceOf returns that of an autoscaler: its own, or what all have.
func toleranceOf(h *autoscalingv2.HorizontalPodAutoscaler, common float64) tolerance {
	t := tolerance{common, common}
	if b := h.Spec.Behavior; b != nil {
		if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
			t.down = b.ScaleDown.Tolerance.AsApproximateFloat64()
		}
		if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
			t.up = b.ScaleUp.Tolerance.AsApproximateFloat64()
		}
	}
	return t
}

// target is what is scaled.
type target struct {
	desired, observed int32 // spec.replicas and status.replicas
	pods              []*corev1.Pod
}

// running are the pods that work.
func (t target) running() int {
	n := 0
	for _, p := range t.pods {
		if p.Status.Phase == corev1.PodRunning && pods.IsReady(p) {
			n++
		}
	}
	return n
}

// use is how pods do.
type use struct {
	ratio       float64 // to the target
	average     int64
	utilization int32 // per cent of what is requested; 0 without a target for it
}

// A measure makes one value out of the readings of pods.
type measure struct {
	of func(metricsapi.Readings) (use, error)
	// assumed is what a pod without a reading is taken to use when the others use less than they may.
	assumed func(pod string) int64
}

// byAverage compares the average of readings with a value.
func byAverage(value int64) measure {
	return measure{
		assumed: func(string) int64 { return value },
		of: func(r metricsapi.Readings) (use, error) {
			sum := int64(0)
			for _, v := range r {
				sum += v.Value
			}
			average := sum / int64(len(r))
			return use{ratio: float64(average) / float64(value), average: average}, nil
		},
	}
}

// byUtilization compares readings, in sum, with per cent of what pods request.
func byUtilization(percent int32, requests map[string]int64) measure {
	return measure{
		assumed: func(pod string) int64 { return requests[pod] * int64(max(100, percent)) / 100 },
		of: func(r metricsapi.Readings) (use, error) {
			used, requested, n := int64(0), int64(0), int64(0)
			for pod, v := range r {
				if request, ok := requests[pod]; ok {
					used, requested, n = used+v.Value, requested+request, n+1
				}
			}
			if requested == 0 {
				return use{}, errors.New("no metrics returned matched known pods")
			}
			u := use{utilization: int32(used * 100 / requested), average: used / n}
			u.ratio = float64(u.utilization) / float64(percent)
			return u, nil
		},
	}
}

// groups are the pods of a target by what their readings are good for.
type groups struct {
	ready                     int
	unready, missing, ignored []string
}

// groupPods sorts pods. The use of CPU says little of a pod that is only starting.
func groupPods(all []*corev1.Pod, r metricsapi.Readings, cpu bool, o Config, now time.Time) groups {
	var g groups
	for _, p := range all {
		v, read := r[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
			g.ignored = append(g.ignored, p.Name)
		case p.Status.Phase == corev1.PodPending:
			g.unready = append(g.unready, p.Name)
		case !read:
			g.missing = append(g.missing, p.Name)
		case cpu && starting(p, v, o, now):
			g.unready = append(g.unready, p.Name)
		default:
			g.ready++
		}
	}
	return g
}

func starting(p *corev1.Pod, v metricsapi.Reading, o Config, now time.Time) bool {
	ready := pods.Condition(p, corev1.PodReady)
	if ready == nil || p.Status.StartTime == nil {
		return true
	}
	since, unready := ready.LastTransitionTime.Time, ready.Status == corev1.ConditionFalse
	if p.Status.StartTime.Add(o.CPUInitialization).After(now) {
		// All of what was measured must be from when it was ready.
		return unready || v.At.Before(since.Add(v.Window))
	}
	// It has never been ready, unless it was so for less than the delay.
	return unready && p.Status.StartTime.Add(o.InitialReadiness).After(since)
}

// byPods proposes a number of replicas by what each pod uses. Pods of which nothing is known are taken to make
// the least of a difference.
func (t target) byPods(r metricsapi.Readings, g groups, tol tolerance, m measure) (int32, use, error) {
	r = maps.Clone(r)
	for _, names := range [][]string{g.ignored, g.unready} {
		for _, pod := range names {
			delete(r, pod)
		}
	}
	if len(r) == 0 {
		return 0, use{}, errors.New("did not receive metrics for targeted pods (pods might be unready)")
	}
	first, err := m.of(r)
	if err != nil {
		return 0, use{}, err
	}
	up := first.ratio > 1
	if len(g.missing) == 0 && (len(g.unready) == 0 || !up) {
		if tol.within(first.ratio) {
			return t.desired, first, nil
		}
		return ceil(first.ratio * float64(g.ready)), first, nil
	}
	for _, pod := range g.missing {
		if first.ratio < 1 {
			r[pod] = metricsapi.Reading{Value: m.assumed(pod)}
		} else if up {
			r[pod] = metricsapi.Reading{}
		}
	}
	if up {
		for _, pod := range g.unready {
			r[pod] = metricsapi.Reading{}
		}
	}
	second, err := m.of(r)
	if err != nil {
		return 0, first, err
	}
	n := ceil(second.ratio * float64(len(r)))
	switch {
	case tol.within(second.ratio),
		first.ratio < 1 && second.ratio > 1, up && second.ratio < 1, // they have turned the direction
		second.ratio < 1 && n > t.desired, second.ratio > 1 && n < t.desired:
		return t.desired, first, nil
	}
	return n, first, nil
}

// byTotal proposes a number by a value for all pods together.
func (t target) byTotal(value, want int64, tol tolerance) (int32, error) {
	ratio := float64(value) / float64(want)
	if t.desired == 0 {
		return ceil(ratio), nil
	}
	if tol.within(ratio) {
		return t.desired, nil
	}
	if len(t.pods) == 0 {
		return 0, errors.New("unable to calculate ready pods: no pods returned by selector while calculating replica count")
	}
	return ceil(ratio * float64(t.running())), nil
}

// byShare proposes a number by a value that pods share, and returns the share of each.
func (t target) byShare(value, want int64, tol tolerance) (int32, int64) {
	n := t.observed
	if !tol.within(float64(value) / (float64(want) * float64(n))) {
		n = ceil(float64(value) / float64(want))
	}
	if t.observed == 0 || value == math.MaxInt64 {
		return n, value
	}
	return n, int64(math.Ceil(float64(value) / float64(t.observed)))
}

// ceil rounds up, to what fits.
func ceil(f float64) int32 {
	return int32(min(math.Ceil(f), math.MaxInt32))
}

// total adds values up, to what fits.
func total(values []int64) int64 {
	sum := int64(0)
	for _, v := range values {
		if v > 0 && sum > math.MaxInt64-v {
			return math.MaxInt64
		}
		sum += v
	}
	return sum
}

// requestsOf returns what pods, or the named container of each, request.
func requestsOf(all []*corev1.Pod, resource corev1.ResourceName, container string) (map[string]int64, error) {
	requests := map[string]int64{}
	for _, p := range all {
		n, err := request(p, resource, container)
		if err != nil {
			return nil, err
		}
		requests[p.Name] = n
	}
	return requests, nil
}

func request(p *corev1.Pod, resource corev1.ResourceName, container string) (int64, error) {
	if container == "" && resourcehelper.IsPodLevelRequestsSet(p) {
		q, ok := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})[resource]
		if !ok {
			return 0, fmt.Errorf("missing pod-level request for %s in Pod %s", resource, p.Name)
		}
		return q.MilliValue(), nil
	}
	sum, found := int64(0), container == ""
	add := func(c *corev1.Container) error {
		if container != "" && c.Name != container {
			return nil
		}
		q, ok := c.Resources.Requests[resource]
		if !ok {
			return fmt.Errorf("missing request for %s in container %s of Pod %s", resource, c.Name, p.Name)
		}
		sum, found = sum+q.MilliValue(), true
		return nil
	}
	for i := range p.Spec.Containers {
		if err := add(&p.Spec.Containers[i]); err != nil {
			return 0, err
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		if err := add(c); err != nil {
			return 0, err
		}
	}
	if !found {
		return 0, fmt.Errorf("container %s not found in Pod %s", container, p.Name)
	}
	return sum, nil
}
