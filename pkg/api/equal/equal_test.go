package equal

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

func TestSemantic(t *testing.T) {
	pod := func(change func(*corev1.PodSpec)) *corev1.PodSpec {
		s := &corev1.PodSpec{
			NodeSelector: map[string]string{"disk": "ssd", "zone": "a", "arch": "amd64"},
			Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("1Gi")},
			}}},
		}
		change(s)
		return s
	}
	same := pod(func(*corev1.PodSpec) {})
	for name, c := range map[string]struct {
		change func(*corev1.PodSpec)
		want   bool
	}{
		"nothing":                {func(*corev1.PodSpec) {}, true},
		"an image":               {func(s *corev1.PodSpec) { s.Containers[0].Image = "j" }, false},
		"a grace period of 0":    {func(s *corev1.PodSpec) { s.TerminationGracePeriodSeconds = ptr.To[int64](0) }, false},
		"an empty list for none": {func(s *corev1.PodSpec) { s.Volumes = []corev1.Volume{} }, true},
		"the same amount, other text": {func(s *corev1.PodSpec) {
			s.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("0.1")
		}, true},
	} {
		if got := Semantic(pod(c.change), same); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// BenchmarkSemantic is how long it takes to see that a spec is as it was.
func BenchmarkSemantic(b *testing.B) {
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/check"}}}, PeriodSeconds: 5}
	amounts := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	spec := &corev1.PodSpec{
		NodeSelector: map[string]string{"disk": "ssd"},
		Containers: []corev1.Container{{
			Name: "web", Image: "registry.example.com/web:1.2.3", Args: []string{"--listen=:8080"}, ReadinessProbe: probe, LivenessProbe: probe,
			Env: []corev1.EnvVar{{Name: "A", Value: "1"}}, Resources: corev1.ResourceRequirements{Requests: amounts, Limits: amounts},
		}},
	}
	old := spec.DeepCopy()
	b.Run("the same bytes", func(b *testing.B) {
		for b.Loop() {
			Semantic(spec, old)
		}
	})
	b.Run("by reflection", func(b *testing.B) {
		for b.Loop() {
			equality.Semantic.DeepEqual(spec, old)
		}
	})
}

func TestSemanticWithoutProtobuf(t *testing.T) {
	type part struct{ Items []string }
	if !Semantic(&part{}, &part{Items: []string{}}) || Semantic(&part{}, &part{Items: []string{"a"}}) {
		t.Error("what is not in protobuf is compared by reflection")
	}
}
