package core

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// fieldsOf are the fields that errors name, each once.
func fieldsOf(errs field.ErrorList) []string {
	var all []string
	for _, e := range errs {
		all = append(all, e.Field)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestServiceAddresses(t *testing.T) {
	for name, tc := range map[string]struct {
		ip   string
		ips  []string
		want []string
	}{
		"none":                  {"", nil, nil},
		"one":                   {"10.0.0.1", []string{"10.0.0.1"}, nil},
		"bad ones and no first": {"", []string{"a", "10.0.0.1"}, []string{"spec.clusterIPs", "spec.clusterIPs[0]"}},
		"another first":         {"10.0.0.2", []string{"10.0.0.1"}, []string{"spec.clusterIPs"}},
		"headless":              {"None", []string{"None"}, nil},
		"headless and a bad":    {"None", []string{"None", "a"}, []string{"spec.clusterIPs", "spec.clusterIPs[1]"}},
		"three, one bad":        {"10.0.0.1", []string{"10.0.0.1", "a", "::1"}, []string{"spec.clusterIPs", "spec.clusterIPs[1]"}},
	} {
		svc := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: tc.ip, ClusterIPs: tc.ips}}
		if got := fieldsOf(ValidateServiceAddresses(svc, nil)); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

// TestServiceUpdateMeta has a name that only a new Service may not be generated from.
func TestServiceUpdateMeta(t *testing.T) {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b", ResourceVersion: "1", GenerateName: "A_"}}
	for _, err := range ValidateServiceUpdate(svc, svc) {
		if err.Field == "metadata.generateName" {
			t.Errorf("an update is refused: %v", err)
		}
	}
	if !slices.Contains(fieldsOf(ValidateService(svc)), "metadata.generateName") {
		t.Error("a new Service is not refused")
	}
}

func TestServiceWarnings(t *testing.T) {
	for name, tc := range map[string]struct {
		spec corev1.ServiceSpec
		want []string
	}{
		"external name of another type": {
			corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ExternalName: "a"},
			[]string{`spec.externalName is ignored when spec.type is not "ExternalName"`},
		},
		"external name": {corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "a"}, nil},
		"addresses of an external name": {
			corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "a", ExternalIPs: []string{"10.1.1.1"}},
			[]string{`spec.externalIPs is ignored when spec.type is "ExternalName"`},
		},
		"addresses": {
			corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ExternalIPs: []string{"10.1.1.1"}},
			[]string{"spec.externalIPs is deprecated and may no longer be implemented in some clusters"},
		},
	} {
		if got := WarningsService(&corev1.Service{Spec: tc.spec}, nil); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestPodBinding(t *testing.T) {
	for name, want := range map[string][]string{"n1": nil, "": {"target.name"}, "../n1": {"target.name"}} {
		if got := fieldsOf(ValidatePodBinding(&corev1.Binding{Target: corev1.ObjectReference{Name: name}})); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}

func TestReplicationControllerWarnings(t *testing.T) {
	rc := func(generation int64, labels ...string) *corev1.ReplicationController {
		c := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "a", Generation: generation}}
		c.Spec.Template = &corev1.PodTemplateSpec{Spec: corev1.PodSpec{NodeSelector: map[string]string{}}}
		for _, l := range labels {
			c.Spec.Template.Spec.NodeSelector[l] = ""
		}
		return c
	}
	const former = "beta.kubernetes.io/os"
	for name, tc := range map[string]struct {
		rc, old *corev1.ReplicationController
		want    int
	}{
		"new":                   {rc(1, former), nil, 1},
		"same":                  {rc(1, former), rc(1, former), 0},
		"update takes it away":  {rc(2), rc(1, former), 1},
		"update brings it here": {rc(2, former), rc(1), 0},
	} {
		if got := WarningsReplicationController(tc.rc, tc.old); len(got) != tc.want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
