package denyserviceexternalips

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func TestValidate(t *testing.T) {
	service := func(ips ...string) *corev1.Service {
		return &corev1.Service{Spec: corev1.ServiceSpec{ExternalIPs: ips}}
	}
	const refusal = "Use of external IPs is denied by admission control"
	for name, c := range map[string]struct {
		request admissiontest.Request
		err     string
	}{
		"none":      {request: admissiontest.Request{Resource: "/services", Object: service()}},
		"created":   {request: admissiontest.Request{Resource: "/services", Object: service("1.2.3.4")}, err: refusal},
		"added":     {request: admissiontest.Request{Resource: "/services", Old: service(), Object: service("1.2.3.4")}, err: refusal},
		"one more":  {request: admissiontest.Request{Resource: "/services", Old: service("1.2.3.4"), Object: service("1.2.3.4", "1.2.3.5")}, err: refusal},
		"exchanged": {request: admissiontest.Request{Resource: "/services", Old: service("1.2.3.4"), Object: service("1.2.3.5")}, err: refusal},
		"kept":      {request: admissiontest.Request{Resource: "/services", Old: service("1.2.3.4", "1.2.3.5"), Object: service("1.2.3.5", "1.2.3.4")}},
		"fewer":     {request: admissiontest.Request{Resource: "/services", Old: service("1.2.3.4", "1.2.3.5"), Object: service("1.2.3.5")}},
		"removed":   {request: admissiontest.Request{Resource: "/services", Old: service("1.2.3.4"), Object: service()}},
	} {
		t.Run(name, func(t *testing.T) {
			admissiontest.Check(t, admissiontest.Run(t, New(), c.request.Attributes(t)), c.err)
		})
	}
}
