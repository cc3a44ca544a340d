package horizontalpodautoscaler

import (
	"fmt"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
)

// shown is how many metrics a table shows.
const shown = 2

// printMetrics prints metrics as current/target: "cpu: 3%/80%". The i-th status is that of the i-th metric.
func printMetrics(specs []autoscalingv2.MetricSpec, statuses []autoscalingv2.MetricStatus) string {
	if len(specs) == 0 {
		return "<none>"
	}
	var all []string
	for i := range specs {
		if i == shown {
			break
		}
		var current autoscalingv2.MetricValueStatus
		if i < len(statuses) {
			current = value(&statuses[i], specs[i].Type)
		}
		all = append(all, printMetric(&specs[i], current))
	}
	text := strings.Join(all, ", ")
	if more := len(specs) - shown; more > 0 {
		text += fmt.Sprintf(" + %d more...", more)
	}
	return text
}

// value is the current value in a status, if that is of the type.
func value(s *autoscalingv2.MetricStatus, kind autoscalingv2.MetricSourceType) autoscalingv2.MetricValueStatus {
	switch {
	case kind == autoscalingv2.ObjectMetricSourceType && s.Object != nil:
		return s.Object.Current
	case kind == autoscalingv2.PodsMetricSourceType && s.Pods != nil:
		return s.Pods.Current
	case kind == autoscalingv2.ResourceMetricSourceType && s.Resource != nil:
		return s.Resource.Current
	case kind == autoscalingv2.ContainerResourceMetricSourceType && s.ContainerResource != nil:
		return s.ContainerResource.Current
	case kind == autoscalingv2.ExternalMetricSourceType && s.External != nil:
		return s.External.Current
	}
	return autoscalingv2.MetricValueStatus{}
}

func printMetric(m *autoscalingv2.MetricSpec, current autoscalingv2.MetricValueStatus) string {
	switch {
	case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
		return printValue(&m.Object.Target, current)
	case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
		return printValue(&m.External.Target, current)
	case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
		return fraction(current.AverageValue, m.Pods.Target.AverageValue)
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		return m.Resource.Name.String() + ": " + printResource(&m.Resource.Target, current)
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		return m.ContainerResource.Name.String() + ": " + printResource(&m.ContainerResource.Target, current)
	}
	return "<unknown type>"
}

func printValue(target *autoscalingv2.MetricTarget, current autoscalingv2.MetricValueStatus) string {
	if target.AverageValue != nil {
		return fraction(current.AverageValue, target.AverageValue) + " (avg)"
	}
	return fraction(current.Value, target.Value)
}

func printResource(target *autoscalingv2.MetricTarget, current autoscalingv2.MetricValueStatus) string {
	if target.AverageValue != nil {
		return fraction(current.AverageValue, target.AverageValue)
	}
	return percent(current.AverageUtilization, unknown) + "/" + percent(target.AverageUtilization, "<auto>")
}

const unknown = "<unknown>"

func percent(p *int32, none string) string {
	if p == nil {
		return none
	}
	return fmt.Sprintf("%d%%", *p)
}

func fraction(current, target *apiresource.Quantity) string {
	text := unknown
	if current != nil {
		text = current.String()
	}
	return text + "/" + target.String()
}
