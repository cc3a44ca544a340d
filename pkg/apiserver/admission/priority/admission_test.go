package priority

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

func class(name string, value int32, isDefault bool, policy *corev1.PreemptionPolicy) *schedulingv1.PriorityClass {
	return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, GlobalDefault: isDefault, PreemptionPolicy: policy}
}

func plugin(t *testing.T, objects ...runtime.Object) *Plugin {
	t.Helper()
	f := informers.NewSharedInformerFactory(fake.NewSimpleClientset(objects...), 0) // NewClientset is slow: it knows managed fields
	p := New()
	p.SetExternalKubeInformerFactory(f)
	f.Start(t.Context().Done())
	f.WaitForCacheSync(t.Context().Done())
	return p
}

func TestPods(t *testing.T) {
	high, never := class("high", 1000, false, nil), class("never", 5, false, ptr.To(corev1.PreemptNever))
	low, lower := class("low", 10, true, nil), class("lower", 9, true, nil)
	for name, test := range map[string]struct {
		classes []runtime.Object
		spec    corev1.PodSpec
		want    int32
		class   string
		policy  corev1.PreemptionPolicy
		refused string
	}{
		"no classes":            {policy: corev1.PreemptLowerPriority},
		"the default":           {classes: []runtime.Object{high, low}, want: 10, class: "low", policy: corev1.PreemptLowerPriority},
		"two defaults":          {classes: []runtime.Object{low, lower}, want: 9, class: "lower", policy: corev1.PreemptLowerPriority},
		"a class":               {classes: []runtime.Object{high, low}, spec: corev1.PodSpec{PriorityClassName: "high"}, want: 1000, class: "high", policy: corev1.PreemptLowerPriority},
		"a class's policy":      {classes: []runtime.Object{never}, spec: corev1.PodSpec{PriorityClassName: "never"}, want: 5, class: "never", policy: corev1.PreemptNever},
		"the same number given": {classes: []runtime.Object{high}, spec: corev1.PodSpec{PriorityClassName: "high", Priority: ptr.To[int32](1000)}, want: 1000, class: "high", policy: corev1.PreemptLowerPriority},
		"another number given":  {classes: []runtime.Object{high}, spec: corev1.PodSpec{PriorityClassName: "high", Priority: ptr.To[int32](2000)}, refused: "the integer value of priority (2000) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name"},
		"another policy given":  {classes: []runtime.Object{high}, spec: corev1.PodSpec{PriorityClassName: "high", PreemptionPolicy: ptr.To(corev1.PreemptNever)}, refused: "the string value of PreemptionPolicy (Never) must not be provided"},
		"a class that is not":   {spec: corev1.PodSpec{PriorityClassName: "none"}, refused: "no PriorityClass with name none was found"},
	} {
		pod := &corev1.Pod{Spec: test.spec}
		err := plugin(t, test.classes...).Admit(t.Context(), attributes(pod, nil, corev1.SchemeGroupVersion.WithResource("pods").Resource, admission.Create), nil)
		if test.refused != "" {
			if err == nil || !strings.Contains(err.Error(), test.refused) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || ptr.Deref(pod.Spec.Priority, -1) != test.want || pod.Spec.PriorityClassName != test.class || ptr.Deref(pod.Spec.PreemptionPolicy, "") != test.policy {
			t.Errorf("%s: %v, %+v", name, err, pod.Spec)
		}
	}

	// A client that does not know the fields does not lose them.
	old := &corev1.Pod{Spec: corev1.PodSpec{Priority: ptr.To[int32](7), PreemptionPolicy: ptr.To(corev1.PreemptNever)}}
	pod := &corev1.Pod{}
	if err := plugin(t).Admit(t.Context(), attributes(pod, old, "pods", admission.Update), nil); err != nil || *pod.Spec.Priority != 7 || *pod.Spec.PreemptionPolicy != corev1.PreemptNever {
		t.Errorf("update: %v, %+v", err, pod.Spec)
	}
}

func attributes(obj, old runtime.Object, resource string, op admission.Operation) admission.Attributes {
	gv := corev1.SchemeGroupVersion
	if resource == "priorityclasses" {
		gv = schedulingv1.SchemeGroupVersion
	}
	return admission.NewAttributesRecord(obj, old, gv.WithKind("X"), "", "", gv.WithResource(resource), "", op, nil, false, nil)
}

func TestOneDefault(t *testing.T) {
	p := plugin(t, class("low", 10, true, nil))
	for name, test := range map[string]struct {
		class   *schedulingv1.PriorityClass
		refused bool
	}{
		"another default": {class("x", 1, true, nil), true},
		"no default":      {class("x", 1, false, nil), false},
		"the same":        {class("low", 10, true, nil), false},
	} {
		err := p.Validate(t.Context(), attributes(test.class, nil, "priorityclasses", admission.Create), nil)
		if (err != nil) != test.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}
