package limitpodhardantiaffinitytopology

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func TestValidate(t *testing.T) {
	required := func(keys ...string) *corev1.Affinity {
		a := &corev1.PodAntiAffinity{}
		for _, k := range keys {
			a.RequiredDuringSchedulingIgnoredDuringExecution = append(a.RequiredDuringSchedulingIgnoredDuringExecution, corev1.PodAffinityTerm{TopologyKey: k})
		}
		return &corev1.Affinity{PodAntiAffinity: a}
	}
	const refusal = "has TopologyKey topology.kubernetes.io/zone but only key kubernetes.io/hostname is allowed"
	for name, c := range map[string]struct {
		affinity *corev1.Affinity
		resource string
		err      string
	}{
		"none":            {resource: "/pods"},
		"other affinity":  {affinity: &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelTopologyZone}}}}, resource: "/pods"},
		"preferred":       {affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelTopologyZone}}}}}, resource: "/pods"},
		"nodes":           {affinity: required(corev1.LabelHostname), resource: "/pods"},
		"zones":           {affinity: required(corev1.LabelTopologyZone), resource: "/pods", err: refusal},
		"nodes and zones": {affinity: required(corev1.LabelHostname, corev1.LabelTopologyZone), resource: "/pods", err: refusal},
		"a subresource":   {affinity: required(corev1.LabelTopologyZone), resource: "/pods/status"},
		"no pod":          {affinity: required(corev1.LabelTopologyZone), resource: "/podtemplates"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Affinity: c.affinity}}
			admissiontest.Check(t, admissiontest.Run(t, New(), admissiontest.Request{Resource: c.resource, Object: pod}.Attributes(t)), c.err)
		})
	}
}
