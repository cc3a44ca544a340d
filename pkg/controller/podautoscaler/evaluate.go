package podautoscaler

import (
	"context"
	"errors"
	"fmt"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/leme-k8s/leme/pkg/controller/internal/metricsapi"
)

// proposal is what all metrics together ask for.
type proposal struct {
	replicas int32
	metric   string // that asks for the most
	statuses []autoscalingv2.MetricStatus
	// failed says that too many metrics have no value to go by; condition says so.
	failed    bool
	condition autoscalingv2.HorizontalPodAutoscalerCondition
}

// propose asks every metric. One that has no value keeps a target from getting smaller, and no
// more than that if others have.
func (c *Controller) propose(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, scale *autoscalingv1.Scale, selector labels.Selector, now time.Time) (proposal, error) {
	p := proposal{statuses: make([]autoscalingv2.MetricStatus, len(h.Spec.Metrics))}
	pods, err := c.pods(ctx, h.Namespace, selector)
	if err != nil {
		return proposal{failed: true}, err
	}
	e := evaluation{
		metrics: c.metrics, config: c.config, now: now, namespace: h.Namespace, selector: selector, tolerance: toleranceOf(h, c.config.Tolerance),
		target: target{desired: scale.Spec.Replicas, observed: scale.Status.Replicas, pods: pods},
	}
	invalid := 0
	var first error
	for i, m := range h.Spec.Metrics {
		began := c.clock.Now()
		n, name, status, err := e.metric(ctx, m)
		c.counts.computation(m.Type, scale.Spec.Replicas, n, err, c.clock.Since(began))
		if err != nil {
			reason := failure(m.Type)
			c.events.Event(h, corev1.EventTypeWarning, reason, err.Error())
			if invalid++; first == nil {
				first = fmt.Errorf("failed to get %s: %w", describe(m), err)
				p.condition = autoscalingv2.HorizontalPodAutoscalerCondition{
					Type: autoscalingv2.ScalingActive, Status: corev1.ConditionFalse, Reason: reason,
					Message: fmt.Sprintf("the HPA was unable to compute the replica count: %v", err),
				}
			}
			continue
		}
		p.statuses[i] = status
		if p.replicas == 0 || n > p.replicas {
			p.replicas, p.metric = n, name
		}
	}
	if first != nil {
		first = fmt.Errorf("invalid metrics (%v invalid out of %v), first error is: %w", invalid, len(h.Spec.Metrics), first)
	}
	p.failed = invalid >= len(h.Spec.Metrics) || invalid > 0 && p.replicas < scale.Spec.Replicas
	return p, first
}

// failure is the reason of events about a metric that has no value.
func failure(t autoscalingv2.MetricSourceType) string {
	switch t {
	case autoscalingv2.ObjectMetricSourceType, autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType,
		autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType:
		return "FailedGet" + string(t) + "Metric"
	}
	return "InvalidMetricSourceType"
}

func describe(m autoscalingv2.MetricSpec) string {
	switch m.Type {
	case autoscalingv2.ObjectMetricSourceType:
		if m.Object.Target.Type == autoscalingv2.AverageValueMetricType {
			return fmt.Sprintf("object metric value: failed to get %s object metric", m.Object.Metric.Name)
		}
		return "object metric value"
	case autoscalingv2.PodsMetricSourceType:
		return "pods metric value"
	case autoscalingv2.ResourceMetricSourceType:
		return fmt.Sprintf("%s resource metric value", m.Resource.Name)
	case autoscalingv2.ContainerResourceMetricSourceType:
		return fmt.Sprintf("%s container metric value", m.ContainerResource.Container)
	case autoscalingv2.ExternalMetricSourceType:
		if m.External.Target.AverageValue != nil {
			return fmt.Sprintf("%[1]s external metric value: failed to get %[1]s external metric", m.External.Metric.Name)
		}
		return fmt.Sprintf("%[1]s external metric value: failed to get external metric %[1]s", m.External.Metric.Name)
	}
	return "metric value"
}

// evaluation is what the metrics of an autoscaler are evaluated with.
type evaluation struct {
	metrics   metricsapi.Metrics
	config    Config
	now       time.Time
	namespace string
	selector  labels.Selector
	tolerance tolerance
	target    target
}

// metric returns how many pods a metric asks for, what it is called and its status.
func (e evaluation) metric(ctx context.Context, m autoscalingv2.MetricSpec) (int32, string, autoscalingv2.MetricStatus, error) {
	status := autoscalingv2.MetricStatus{Type: m.Type}
	switch m.Type {
	case autoscalingv2.ResourceMetricSourceType:
		n, name, value, err := e.resource(ctx, m.Resource.Name, "", m.Resource.Target)
		status.Resource = &autoscalingv2.ResourceMetricStatus{Name: m.Resource.Name, Current: value}
		return n, name, status, err
	case autoscalingv2.ContainerResourceMetricSourceType:
		r := m.ContainerResource
		n, name, value, err := e.resource(ctx, r.Name, r.Container, r.Target)
		status.ContainerResource = &autoscalingv2.ContainerResourceMetricStatus{Name: r.Name, Container: r.Container, Current: value}
		return n, name, status, err
	case autoscalingv2.PodsMetricSourceType:
		all, err := e.metrics.Pods(e.namespace, e.selector, m.Pods.Metric)
		if err != nil {
			return 0, "", status, fmt.Errorf("unable to get metric %s: %w", m.Pods.Metric.Name, err)
		}
		n, u, err := e.pods(all, false, byAverage(m.Pods.Target.AverageValue.MilliValue()))
		status.Pods = &autoscalingv2.PodsMetricStatus{Metric: m.Pods.Metric, Current: average(u.average, resource.DecimalSI)}
		return n, "pods metric " + m.Pods.Metric.Name, status, err
	case autoscalingv2.ObjectMetricSourceType:
		o := m.Object
		value, err := e.metrics.Object(e.namespace, o.DescribedObject, o.Metric)
		if err != nil {
			return 0, "", status, fmt.Errorf("unable to get metric %s on %s %s/%s: %w", o.Metric.Name, o.DescribedObject.Kind, e.namespace, o.DescribedObject.Name, err)
		}
		n, name, current, err := e.value(value, o.Target, fmt.Sprintf("%s metric %s", o.DescribedObject.Kind, o.Metric.Name), o.Metric)
		status.Object = &autoscalingv2.ObjectMetricStatus{DescribedObject: o.DescribedObject, Metric: o.Metric, Current: current}
		return n, name, status, err
	case autoscalingv2.ExternalMetricSourceType:
		x := m.External
		values, err := e.metrics.External(e.namespace, x.Metric)
		if err != nil {
			return 0, "", status, fmt.Errorf("unable to get external metric %s/%s/%+v: %w", e.namespace, x.Metric.Name, x.Metric.Selector, err)
		}
		n, name, current, err := e.value(total(values), x.Target, external(x.Metric), x.Metric)
		status.External = &autoscalingv2.ExternalMetricStatus{Metric: x.Metric, Current: current}
		return n, name, status, err
	}
	return 0, "", status, fmt.Errorf("unknown metric source type %q", m.Type)
}

func external(m autoscalingv2.MetricIdentifier) string {
	return fmt.Sprintf("external metric %s(%+v)", m.Name, m.Selector)
}

func average(milli int64, format resource.Format) autoscalingv2.MetricValueStatus {
	return autoscalingv2.MetricValueStatus{AverageValue: resource.NewMilliQuantity(milli, format)}
}

// pods evaluates readings of pods.
func (e evaluation) pods(all metricsapi.Readings, cpu bool, m measure) (int32, use, error) {
	if len(e.target.pods) == 0 {
		return 0, use{}, errors.New("no pods returned by selector while calculating replica count")
	}
	return e.target.byPods(all, groupPods(e.target.pods, all, cpu, e.config, e.now), e.tolerance, m)
}

// resource evaluates the use of a resource, by pods or by their containers of a name.
func (e evaluation) resource(ctx context.Context, name corev1.ResourceName, container string, t autoscalingv2.MetricTarget) (int32, string, autoscalingv2.MetricValueStatus, error) {
	none := autoscalingv2.MetricValueStatus{}
	if t.AverageValue == nil && t.AverageUtilization == nil {
		return 0, "", none, errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
	}
	format := resource.DecimalSI
	if name == corev1.ResourceMemory {
		format = resource.BinarySI
	}
	all, err := e.metrics.Resource(ctx, e.namespace, e.selector, name, container)
	if err != nil {
		err = fmt.Errorf("unable to get metrics for resource %s: %w", name, err)
	}
	if t.AverageValue != nil {
		if err != nil {
			return 0, "", none, fmt.Errorf("failed to get %s usage: %w", name, err)
		}
		n, u, err := e.pods(all, name == corev1.ResourceCPU, byAverage(t.AverageValue.MilliValue()))
		if err != nil {
			return 0, "", none, fmt.Errorf("failed to get %s usage: %w", name, err)
		}
		return n, fmt.Sprintf("%s resource", name), average(u.average, format), nil
	}
	requests := map[string]int64{}
	if err == nil {
		requests, err = requestsOf(e.target.pods, name, container)
	}
	if err != nil {
		return 0, "", none, fmt.Errorf("failed to get %s utilization: %w", name, err)
	}
	n, u, err := e.pods(all, name == corev1.ResourceCPU, byUtilization(*t.AverageUtilization, requests))
	if err != nil {
		return 0, "", none, fmt.Errorf("failed to get %s utilization: %w", name, err)
	}
	what := "resource"
	if container != "" {
		what = "container resource"
	}
	status := average(u.average, format)
	status.AverageUtilization = &u.utilization
	return n, fmt.Sprintf("%s %s utilization (percentage of request)", name, what), status, nil
}

// value evaluates one value, which is for all pods or to be shared among them.
func (e evaluation) value(value int64, t autoscalingv2.MetricTarget, name string, m autoscalingv2.MetricIdentifier) (int32, string, autoscalingv2.MetricValueStatus, error) {
	switch {
	case t.AverageValue != nil && t.Type != autoscalingv2.ValueMetricType:
		n, share := e.target.byShare(value, t.AverageValue.MilliValue(), e.tolerance)
		return n, external(m), average(share, resource.DecimalSI), nil
	case t.Value != nil:
		n, err := e.target.byTotal(value, t.Value.MilliValue(), e.tolerance)
		return n, name, autoscalingv2.MetricValueStatus{Value: resource.NewMilliQuantity(value, resource.DecimalSI)}, err
	}
	return 0, "", autoscalingv2.MetricValueStatus{}, errors.New("invalid metric source: neither a value target nor an average value target was set")
}
