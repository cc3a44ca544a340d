package autoscaling

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestHorizontalPodAutoscaler(t *testing.T) {
	apitest.Run(t, "testdata/horizontalpodautoscaler.txtar", apitest.Kind[autoscalingv2.HorizontalPodAutoscaler, *autoscalingv2.HorizontalPodAutoscaler]{
		Path:        "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
		AddDefaults: AddDefaults,
		Create:      ValidateHorizontalPodAutoscaler,
		Update:      ValidateHorizontalPodAutoscalerUpdate,
		Status:      ValidateHorizontalPodAutoscalerStatusUpdate,
	})
}

// TestConversion: testdata/conversion.json has objects as the original shows them in both versions.
func TestConversion(t *testing.T) {
	data, err := os.ReadFile("testdata/conversion.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name string
		V1   autoscalingv1.HorizontalPodAutoscaler
		V2   autoscalingv2.HorizontalPodAutoscaler
		// Back is the second as it comes back from the first, where it is another.
		Back *autoscalingv2.HorizontalPodAutoscaler
	}
	if err := yaml.UnmarshalStrict(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			var v1 autoscalingv1.HorizontalPodAutoscaler
			if err := FromV2(&c.V2, &v1); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(toJSON(t, c.V1), toJSON(t, v1)); diff != "" {
				t.Errorf("v1: -original +ours:\n%s", diff)
			}
			want := c.V2
			if c.Back != nil {
				want = *c.Back
			}
			var v2 autoscalingv2.HorizontalPodAutoscaler
			if err := ToV2(&c.V1, &v2); err != nil {
				t.Fatal(err)
			}
			if !equality.Semantic.DeepEqual(want.Spec, v2.Spec) || !equality.Semantic.DeepEqual(want.Status, v2.Status) {
				t.Errorf("v2: -original +ours:\n%s", cmp.Diff(toJSON(t, want), toJSON(t, v2)))
			}
			if len(v2.Annotations) != len(want.Annotations) {
				t.Errorf("v2: annotations %v", v2.Annotations)
			}
		})
	}
}

// TestBadAnnotations: what cannot be read says nothing and is not kept.
func TestBadAnnotations(t *testing.T) {
	in := &autoscalingv1.HorizontalPodAutoscaler{}
	in.Annotations = map[string]string{metricsAnnotation: "x", currentMetricsAnnotation: "{", conditionsAnnotation: "1", behaviorAnnotation: "y", "kept": "yes"}
	var out autoscalingv2.HorizontalPodAutoscaler
	if err := ToV2(in, &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Spec.Metrics) != 1 || *out.Spec.Metrics[0].Resource.Target.AverageUtilization != 80 || out.Spec.Behavior != nil ||
		len(out.Status.CurrentMetrics) > 0 || len(out.Status.Conditions) > 0 || len(out.Annotations) != 1 {
		t.Errorf("converted to %+v", out)
	}
	if len(in.Annotations) != 5 {
		t.Error("the original was changed")
	}
}

func toJSON(t *testing.T, obj any) string {
	t.Helper()
	data, err := json.MarshalIndent(obj, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
