package podnodeselector

import (
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func TestAdmit(t *testing.T) {
	const conflict, foreign = "conflicts with its namespace node label selector", "conflict with its namespace whitelist"
	for name, c := range map[string]struct {
		config     string
		annotation *string
		own, want  map[string]string
		err        string
	}{
		"nothing configured":         {},
		"default":                    {config: "clusterDefaultNodeSelector: infra=no", want: map[string]string{"infra": "no"}},
		"annotation with blanks":     {annotation: ptr.To(" infra = no "), want: map[string]string{"infra": "no"}},
		"annotation before default":  {config: "clusterDefaultNodeSelector: infra=no", annotation: ptr.To("infra=yes"), want: map[string]string{"infra": "yes"}},
		"empty annotation":           {config: "clusterDefaultNodeSelector: infra=no", annotation: ptr.To("")},
		"beside the pod's own":       {annotation: ptr.To("infra=yes"), own: map[string]string{"env": "test"}, want: map[string]string{"infra": "yes", "env": "test"}},
		"against the pod's own":      {annotation: ptr.To("infra=yes,env=test"), own: map[string]string{"env": "dev"}, err: conflict},
		"all in the whitelist":       {config: "ns: 'env=dev,infra=no,color=blue'", annotation: ptr.To("infra=no"), own: map[string]string{"color": "blue"}, want: map[string]string{"infra": "no", "color": "blue"}},
		"a value beside the list":    {config: "ns: 'env=dev'", own: map[string]string{"env": "test"}, err: foreign},
		"a key beside the list":      {config: "ns: 'env=dev'", own: map[string]string{"color": "blue"}, err: foreign},
		"a default beside the list":  {config: "{clusterDefaultNodeSelector: env=dev, ns: env=prod}", err: foreign},
		"another namespace's list":   {config: "other: 'env=dev'", own: map[string]string{"env": "test"}, want: map[string]string{"env": "test"}},
		"an annotation that is none": {annotation: ptr.To("env in (a, b)"), err: "invalid selector"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := New(strings.NewReader("podNodeSelectorPluginConfig:\n  " + c.config))
			if err != nil {
				t.Fatal(err)
			}
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}
			if c.annotation != nil {
				namespace.Annotations = map[string]string{annotation: *c.annotation}
			}
			admissiontest.Start(t, p, namespace)
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: corev1.PodSpec{NodeSelector: c.own}}
			a := admissiontest.Request{Resource: "/pods", Object: pod}.Attributes(t)
			validation := p.Validate(t.Context(), a, nil)
			admissiontest.Check(t, admissiontest.Run(t, p, a), c.err)
			if c.err == "" && !maps.Equal(pod.Spec.NodeSelector, c.want) {
				t.Errorf("selector %v, want %v", pod.Spec.NodeSelector, c.want)
			}
			if c.err == conflict {
				admissiontest.Check(t, validation, conflict)
			}
		})
	}
}
