package limitranger

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func list(kv ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		l[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return l
}

func pod(requests, limits corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: "a", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}, {Name: "b", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}}}
}

func TestPlugin(t *testing.T) {
	container, whole := corev1.LimitTypeContainer, corev1.LimitTypePod
	for name, test := range map[string]struct {
		item       corev1.LimitRangeItem
		obj        *corev1.Pod
		annotation string
		refused    string
	}{
		"defaults":            {item: corev1.LimitRangeItem{Type: container, DefaultRequest: list("cpu", "100m", "memory", "1Mi"), Default: list("cpu", "200m")}, obj: pod(nil, nil), annotation: "LimitRanger plugin set: cpu, memory request for container a; cpu limit for container a; cpu, memory request for container b; cpu limit for container b"},
		"own values stay":     {item: corev1.LimitRangeItem{Type: container, DefaultRequest: list("cpu", "100m"), Default: list("cpu", "200m")}, obj: pod(list("cpu", "1"), list("cpu", "1"))},
		"below the minimum":   {item: corev1.LimitRangeItem{Type: container, Min: list("cpu", "100m")}, obj: pod(list("cpu", "50m"), nil), refused: `pods "p" is forbidden: minimum cpu usage per Container is 100m, but request is 50m`},
		"nothing asked":       {item: corev1.LimitRangeItem{Type: container, Min: list("cpu", "100m")}, obj: pod(nil, nil), refused: "minimum cpu usage per Container is 100m.  No request is specified"},
		"above the maximum":   {item: corev1.LimitRangeItem{Type: container, Max: list("cpu", "100m")}, obj: pod(list("cpu", "50m"), list("cpu", "150m")), refused: "maximum cpu usage per Container is 100m, but limit is 150m"},
		"no limit":            {item: corev1.LimitRangeItem{Type: container, Max: list("cpu", "100m")}, obj: pod(list("cpu", "50m"), nil), refused: "maximum cpu usage per Container is 100m.  No limit is specified"},
		"ratio":               {item: corev1.LimitRangeItem{Type: container, MaxLimitRequestRatio: list("cpu", "2")}, obj: pod(list("cpu", "100m"), list("cpu", "250m")), refused: "cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000"},
		"ratio kept":          {item: corev1.LimitRangeItem{Type: container, MaxLimitRequestRatio: list("cpu", "2")}, obj: pod(list("cpu", "100m"), list("cpu", "200m"))},
		"pod's sum":           {item: corev1.LimitRangeItem{Type: whole, Max: list("memory", "100Mi")}, obj: pod(list("memory", "60Mi"), list("memory", "60Mi")), refused: "maximum memory usage per Pod is 100Mi, but limit is 120Mi"},
		"pod's sum kept":      {item: corev1.LimitRangeItem{Type: whole, Max: list("memory", "120Mi")}, obj: pod(list("memory", "60Mi"), list("memory", "60Mi"))},
		"of claims, not pods": {item: corev1.LimitRangeItem{Type: corev1.LimitTypePersistentVolumeClaim, Max: list("storage", "1Gi")}, obj: pod(nil, nil)},
	} {
		r := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{test.item}}}
		// The informer knows nothing yet: the server is asked.
		p := New()
		p.SetExternalKubeClientSet(fake.NewSimpleClientset(r)) // NewClientset is slow: it knows managed fields
		f := informers.NewSharedInformerFactory(fake.NewSimpleClientset(), 0)
		p.SetExternalKubeInformerFactory(f)
		f.Start(t.Context().Done())
		f.WaitForCacheSync(t.Context().Done())

		a := admission.NewAttributesRecord(test.obj, nil, corev1.SchemeGroupVersion.WithKind("Pod"), "ns", "p", corev1.SchemeGroupVersion.WithResource("pods"), "", admission.Create, nil, false, nil)
		err := p.Admit(t.Context(), a, nil)
		if err == nil {
			err = p.Validate(t.Context(), a, nil)
		}
		if (err == nil) != (test.refused == "") || err != nil && !strings.Contains(err.Error(), test.refused) {
			t.Errorf("%s: %v, want %q", name, err, test.refused)
		}
		if got := test.obj.Annotations[annotation]; got != test.annotation {
			t.Errorf("%s: annotation %q", name, got)
		}
	}
}

func TestClaims(t *testing.T) {
	item := &corev1.LimitRangeItem{Type: corev1.LimitTypePersistentVolumeClaim, Min: list("storage", "1Gi"), Max: list("storage", "5Gi")}
	for size, want := range map[string]string{
		"500Mi": "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi",
		"2Gi":   "",
		"6Gi":   "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi",
	} {
		claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: list("storage", size)}}}
		errs := checkClaim(claim, item)
		if len(errs) == 0 != (want == "") || len(errs) > 0 && errs[0].Error() != want {
			t.Errorf("%s: %v", size, errs)
		}
	}
}
