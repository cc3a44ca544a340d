package generic

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// A field of a feature that is off stays only where it was stored already.
func TestDisabledFieldsAreDropped(t *testing.T) {
	template := func(signal *corev1.Signal) *corev1.PodTemplate {
		t := &corev1.PodTemplate{}
		t.Template.Spec.Containers = []corev1.Container{{
			Name: "c",
			Lifecycle: &corev1.Lifecycle{
				StopSignal: signal, PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}},
			},
		}}
		return t
	}
	signal := func(t *corev1.PodTemplate) *corev1.Signal { return t.Template.Spec.Containers[0].Lifecycle.StopSignal }
	s := strategy[*corev1.PodTemplate]{r: &Resource[*corev1.PodTemplate]{
		PodSpec: func(t *corev1.PodTemplate) (*corev1.PodSpec, *field.Path) {
			return &t.Template.Spec, field.NewPath("template", "spec")
		},
	}}

	created := template(ptr.To(corev1.SIGHUP))
	s.PrepareForCreate(context.Background(), created)
	if signal(created) != nil {
		t.Error("it is stored on creation")
	}
	for _, stored := range []*corev1.Signal{nil, ptr.To(corev1.SIGINT)} {
		updated := template(ptr.To(corev1.SIGHUP))
		s.PrepareForUpdate(context.Background(), updated, template(stored))
		if kept := signal(updated) != nil; kept != (stored != nil) {
			t.Errorf("stored was %v: kept %v", stored, kept)
		}
	}
}
