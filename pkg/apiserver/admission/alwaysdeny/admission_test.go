package alwaysdeny

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func TestAllIsRefused(t *testing.T) {
	a := admissiontest.Request{Resource: "/pods", Object: &corev1.Pod{}}.Attributes(t)
	admissiontest.Check(t, New().Admit(t.Context(), a, nil), "denying all modifications")
	admissiontest.Check(t, New().Validate(t.Context(), a, nil), "denying all modifications")
}
