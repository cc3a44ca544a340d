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
	reconciled *metrics.CounterVec
	took       *metrics.HistogramVec
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
	}
	r.MustRegister(m.reconciled, m.took)
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

// reconciliation counts one look at an autoscaler.
func (m *measures) reconciliation(status *autoscalingv2.HorizontalPodAutoscalerStatus, err error, took time.Duration) {
	action, kind := "none", "none"
	switch {
	case errors.As(err, &specError{}):
		kind = "spec"
	case err != nil:
		kind = "internal"
	case status.DesiredReplicas > status.CurrentReplicas:
		action = "scale_up"
	case status.DesiredReplicas < status.CurrentReplicas:
		action = "scale_down"
	}
	m.reconciled.WithLabelValues(action, kind).Inc()
	m.took.WithLabelValues(action, kind).Observe(took.Seconds())
}
