package podautoscaler

import (
	"context"
	"errors"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/component-base/metrics"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/census"
)

// measures are the original's metrics of autoscalers.
type measures struct {
	reconciled, computed *metrics.CounterVec
	took, tookMetric     *metrics.HistogramVec
}

func newMeasures(r metrics.KubeRegistry, reader client.Reader) *measures {
	const subsystem = "horizontal_pod_autoscaler_controller"
	m := &measures{
		reconciled: metrics.NewCounterVec(&metrics.CounterOpts{
			Subsystem: subsystem, Name: "reconciliations_total", StabilityLevel: metrics.ALPHA,
			Help: "Number of times that an autoscaler was looked at: the action is scale_down, scale_up or none, the error is spec, internal or none",
		}, []string{"action", "error"}),
		took: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: subsystem, Name: "reconciliation_duration_seconds", StabilityLevel: metrics.ALPHA,
			Help:    "Time that it took to look at an autoscaler, by action and error as in reconciliations_total",
			Buckets: metrics.ExponentialBuckets(0.001, 2, 15),
		}, []string{"action", "error"}),
		computed: metrics.NewCounterVec(&metrics.CounterOpts{
			Subsystem: subsystem, Name: "metric_computation_total", StabilityLevel: metrics.ALPHA,
			Help: "Number of times that a metric was asked how many pods it wants, by action and error as in reconciliations_total",
		}, []string{"action", "error", "metric_type"}),
		tookMetric: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: subsystem, Name: "metric_computation_duration_seconds", StabilityLevel: metrics.ALPHA,
			Help:    "Time that it took to ask one, by action and error as in reconciliations_total",
			Buckets: metrics.ExponentialBuckets(0.001, 2, 15),
		}, []string{"action", "error", "metric_type"}),
	}
	r.MustRegister(m.reconciled, m.took, m.computed, m.tookMetric)
	number := census.Gauge(subsystem, "num_horizontal_pod_autoscalers", "Number of autoscalers")
	desired := census.Gauge(subsystem, "desired_replicas", "Replicas that an autoscaler wants", "namespace", "hpa_name")
	r.CustomMustRegister(&census.Census{Gauges: []*metrics.Desc{number, desired}, Count: func(ctx context.Context, show func(*metrics.Desc, float64, ...string)) error {
		var list autoscalingv2.HorizontalPodAutoscalerList
		if err := reader.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
			return err
		}
		show(number, float64(len(list.Items)))
		for i := range list.Items {
			show(desired, float64(list.Items[i].Status.DesiredReplicas), list.Items[i].Namespace, list.Items[i].Name)
		}
		return nil
	}})
	return m
}

// specError is what only a change of the autoscaler or its target mends.
type specError struct{ error }

// outcome says what a number of pods that is wanted means, or an error.
func outcome(current, desired int32, err error) (action, kind string) {
	switch {
	case errors.As(err, &specError{}):
		return "none", "spec"
	case err != nil:
		return "none", "internal"
	case desired > current:
		return "scale_up", "none"
	case desired < current:
		return "scale_down", "none"
	}
	return "none", "none"
}

// reconciliation counts one look at an autoscaler.
func (m *measures) reconciliation(status *autoscalingv2.HorizontalPodAutoscalerStatus, err error, took time.Duration) {
	action, kind := outcome(status.CurrentReplicas, status.DesiredReplicas, err)
	m.reconciled.WithLabelValues(action, kind).Inc()
	m.took.WithLabelValues(action, kind).Observe(took.Seconds())
}

// computation counts what a metric has said.
func (m *measures) computation(of autoscalingv2.MetricSourceType, current, desired int32, err error, took time.Duration) {
	action, kind := outcome(current, desired, err)
	m.computed.WithLabelValues(action, kind, string(of)).Inc()
	m.tookMetric.WithLabelValues(action, kind, string(of)).Observe(took.Seconds())
}
