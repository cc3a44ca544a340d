// Package horizontalpodautoscaler serves HorizontalPodAutoscaler of autoscaling/v2
// and autoscaling/v1.
package horizontalpodautoscaler

import (
	"strconv"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/autoscaling"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var (
	specDoc   = autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()
	statusDoc = autoscalingv2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()
)

// Storage returns the storage of horizontalpodautoscalers and horizontalpodautoscalers/status.
var Storage = generic.StorageOf(generic.Resource[*autoscalingv2.HorizontalPodAutoscaler]{
	GroupVersion: autoscalingv2.SchemeGroupVersion,
	Name:         "horizontalpodautoscalers",
	ShortNames:   []string{"hpa"},
	Categories:   []string{"all"},

	Status: &generic.Update[*autoscalingv2.HorizontalPodAutoscaler]{
		Validate: generic.CheckUpdate(autoscaling.ValidateHorizontalPodAutoscalerStatusUpdate),
	},

	Generation:     generic.SpecChanged[*autoscalingv2.HorizontalPodAutoscaler],
	Validate:       generic.Check(autoscaling.ValidateHorizontalPodAutoscaler),
	ValidateUpdate: generic.CheckUpdate(autoscaling.ValidateHorizontalPodAutoscalerUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Reference", "string", specDoc["scaleTargetRef"]),
		generic.Column("Targets", "string", specDoc["metrics"]),
		generic.Column("MinPods", "string", specDoc["minReplicas"]),
		generic.Column("MaxPods", "string", specDoc["maxReplicas"]),
		generic.Column("Replicas", "string", statusDoc["currentReplicas"]),
		generic.AgeColumn,
	},
	Cells: func(a *autoscalingv2.HorizontalPodAutoscaler) []any {
		least := "<unset>"
		if m := a.Spec.MinReplicas; m != nil {
			least = strconv.Itoa(int(*m))
		}
		return []any{
			a.Name, a.Spec.ScaleTargetRef.Kind + "/" + a.Spec.ScaleTargetRef.Name, printMetrics(a.Spec.Metrics, a.Status.CurrentMetrics),
			least, int64(a.Spec.MaxReplicas), int64(a.Status.CurrentReplicas), generic.Age(a.CreationTimestamp),
		}
	},
})
