package daemonset

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTemplateGeneration(t *testing.T) {
	counted := func(count string) *appsv1.DaemonSet {
		return &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{appsv1.DeprecatedTemplateGeneration: count}}}
	}
	for in, want := range map[string]int64{"0": 1, "1": 1, "7": 7, "x": 1} {
		d := counted(in)
		resource.PrepareForCreate(context.Background(), d)
		if got := templateGeneration(d); got != want {
			t.Errorf("created with %q: %d, want %d", in, got, want)
		}
	}
	d, old := counted("9"), counted("3")
	resource.PrepareForUpdate(context.Background(), d, old)
	if got := templateGeneration(d); got != 3 {
		t.Errorf("an update that changes nothing: %d, want 3", got)
	}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c"}}
	resource.PrepareForUpdate(context.Background(), d, old)
	if got := templateGeneration(d); got != 4 {
		t.Errorf("an update of the template: %d, want 4", got)
	}
}
