package rules

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestIntOrPercent(t *testing.T) {
	p := field.NewPath("x")
	for _, tc := range []struct {
		value    intstr.IntOrString
		ok, zero bool
	}{
		{value: intstr.FromInt32(0), ok: true, zero: true},
		{value: intstr.FromInt32(3), ok: true},
		{value: intstr.FromInt32(-1)},
		{value: intstr.FromString("0%"), ok: true, zero: true},
		{value: intstr.FromString("100%"), ok: true},
		{value: intstr.FromString("101%")},
		{value: intstr.FromString("5"), zero: true},
		{value: intstr.FromString(""), zero: true},
	} {
		errs := append(CountOrPercent(tc.value, p), AtMost100Percent(tc.value, p)...)
		if ok := len(errs) == 0; ok != tc.ok {
			t.Errorf("%q: %v", tc.value.String(), errs)
		}
		if zero := IsZero(&tc.value); zero != tc.zero {
			t.Errorf("IsZero(%q) = %v", tc.value.String(), zero)
		}
	}
	if !IsZero(nil) {
		t.Error("nil is not zero")
	}
}

func TestFieldLabels(t *testing.T) {
	s := runtime.NewScheme()
	gvk := schema.GroupVersionKind{Group: "g", Version: "v", Kind: "K"}
	if err := ClusterFieldLabels(s, gvk, "spec.x"); err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]bool{"spec.x": true, "metadata.name": true, "metadata.namespace": false, "spec.y": false} {
		if _, _, err := s.ConvertFieldLabel(gvk, label, "v"); (err == nil) != want {
			t.Errorf("%s: %v", label, err)
		}
	}
}
