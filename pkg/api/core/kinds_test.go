package core

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// found lists what was found wrong, as "path: type".
func found(errs field.ErrorList) []string {
	var list []string
	for _, e := range errs {
		list = append(list, e.Field+": "+e.Type.String())
	}
	return list
}

func TestValidatePodBinding(t *testing.T) {
	for _, c := range []struct {
		target corev1.ObjectReference
		want   []string
	}{
		{corev1.ObjectReference{Kind: "Node", Name: "n"}, nil},
		{corev1.ObjectReference{Name: "n"}, nil},
		{corev1.ObjectReference{Kind: "Node"}, []string{"target.name: Required value"}},
		{corev1.ObjectReference{Kind: "Pod", Name: "n"}, []string{"target.kind: Unsupported value"}},
	} {
		if d := cmp.Diff(c.want, found(ValidatePodBinding(&corev1.Binding{Target: c.target}))); d != "" {
			t.Errorf("%v: %s", c.target, d)
		}
	}
}

func TestFieldLabels(t *testing.T) {
	s := runtime.NewScheme()
	if err := AddFieldLabels(s); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ kind, label, want string }{
		{"Pod", "spec.nodeName", "spec.nodeName"},
		{"Pod", "spec.host", "spec.nodeName"},
		{"Pod", "metadata.namespace", "metadata.namespace"},
		{"Pod", "status.qosClass", ""},
		{"Node", "spec.unschedulable", "spec.unschedulable"},
		{"Node", "metadata.namespace", ""},
		{"Secret", "type", "type"},
		{"ConfigMap", "metadata.name", "metadata.name"},
		{"ConfigMap", "data", ""},
	} {
		label, value, err := s.ConvertFieldLabel(corev1.SchemeGroupVersion.WithKind(c.kind), c.label, "v")
		if label != c.want || (err == nil) != (c.want != "") || err == nil && value != "v" {
			t.Errorf("%s %s: got %q, %q, %v; want %q", c.kind, c.label, label, value, err, c.want)
		}
	}
}

// A pod that was stored while a feature was on keeps the feature's fields.
func TestDisabledFieldsInUse(t *testing.T) {
	mode := corev1.GRPCProbeModeTLS
	probe := func() *corev1.PodSpec {
		return &corev1.PodSpec{Containers: []corev1.Container{{
			LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1, Mode: &mode}}},
		}}}
	}
	for _, c := range []struct {
		name     string
		old      *corev1.PodSpec
		features map[string]bool
		kept     bool
	}{
		{"creation", nil, nil, false}, {"not in use", &corev1.PodSpec{}, nil, false}, {"in use", probe(), nil, true},
		{"on", nil, map[string]bool{"GRPCContainerProbeTLS": true}, true},
	} {
		spec := probe()
		DropDisabledPodFields(spec, c.old, c.features)
		if kept := spec.Containers[0].LivenessProbe.GRPC.Mode != nil; kept != c.kept {
			t.Errorf("%s: kept %v, want %v", c.name, kept, c.kept)
		}
	}
}

// What is wrong with the new spec is said besides that it may not change.
func TestPodUpdateIsValidatedWhole(t *testing.T) {
	old := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", ResourceVersion: "1"}}
	old.Spec = corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst, TerminationGracePeriodSeconds: ptr.To[int64](30),
		Containers: []corev1.Container{{
			Name: "c", Image: "i", ImagePullPolicy: corev1.PullAlways, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		}},
	}
	pod := old.DeepCopy()
	pod.Spec.Hostname = "A_"
	if d := cmp.Diff([]string{"spec.hostname: Invalid value", "spec: Forbidden"}, found(ValidatePodUpdate(pod, old))); d != "" {
		t.Error(d)
	}
}
