package resourceclaim

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestPlanPod(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}, Spec: corev1.PodSpec{ResourceClaims: []corev1.PodResourceClaim{
		{Name: "gpu", ResourceClaimTemplateName: ptr.To("t")}, {Name: "shared", ResourceClaimName: ptr.To("all")},
	}}}
	template := map[string]*resourcev1.ResourceClaimTemplate{"t": {Spec: resourcev1.ResourceClaimTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"l": "1"}}}}}
	made := fromTemplate(pod, "gpu", template["t"])
	made.Name = "p-gpu-x"
	allocated := made.DeepCopy()
	allocated.Status.Allocation = &resourcev1.AllocationResult{}
	reserved := allocated.DeepCopy()
	reserved.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "u"}}
	foreign := made.DeepCopy()
	foreign.OwnerReferences[0].UID = "v"
	noted := func(name *string) []corev1.PodResourceClaimStatus {
		return []corev1.PodResourceClaimStatus{{Name: "gpu", ResourceClaimName: name}}
	}
	for name, tc := range map[string]struct {
		claims    []*resourcev1.ResourceClaim
		templates map[string]*resourcev1.ResourceClaimTemplate
		status    []corev1.PodResourceClaimStatus
		node      string
		going     bool
		ended     bool
		create    string
		found     string
		reserve   int
		fails     bool
	}{
		"new":                      {templates: template, create: "gpu"},
		"no template":              {fails: true},
		"made, not noted":          {claims: []*resourcev1.ResourceClaim{made}, templates: template, found: "p-gpu-x"},
		"made and noted":           {claims: []*resourcev1.ResourceClaim{made}, templates: template, status: noted(ptr.To("p-gpu-x"))},
		"noted and gone":           {templates: template, status: noted(ptr.To("p-gpu-x")), create: "gpu"},
		"not needed":               {status: noted(nil)},
		"noted, another's":         {claims: []*resourcev1.ResourceClaim{foreign}, templates: template, status: noted(ptr.To("p-gpu-x")), create: "gpu"},
		"on a node by hand":        {claims: []*resourcev1.ResourceClaim{allocated}, status: noted(ptr.To("p-gpu-x")), node: "n", reserve: 1},
		"on a node by a scheduler": {claims: []*resourcev1.ResourceClaim{reserved}, status: noted(ptr.To("p-gpu-x")), node: "n"},
		"going":                    {templates: template, going: true},
		"ended, its claim deleted": {templates: template, status: noted(ptr.To("p-gpu-x")), node: "n", ended: true},
	} {
		p := pod.DeepCopy()
		p.Status.ResourceClaimStatuses, p.Spec.NodeName = tc.status, tc.node
		if tc.going {
			p.DeletionTimestamp = &metav1.Time{}
		}
		if tc.ended {
			p.Status.Phase = corev1.PodSucceeded
		}
		plan, err := planPod(p, tc.claims, tc.templates)
		if (err != nil) != tc.fails {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := strings.Join(slices.Collect(maps.Keys(plan.create)), " "); got != tc.create || plan.found["gpu"] != tc.found || len(plan.reserve) != tc.reserve {
			t.Errorf("%s: %+v", name, plan)
		}
	}
	if made.GenerateName != "p-gpu-" || made.Labels["l"] != "1" || made.Annotations[resourcev1.PodResourceClaimAnnotation] != "gpu" {
		t.Errorf("made: %+v", made.ObjectMeta)
	}
	if got := prefix(strings.Repeat("a", 60), strings.Repeat("b", 60)); len(got) > 58 || !strings.Contains(got, "a-b") {
		t.Errorf("prefix %q", got)
	}
}

func TestPlanClaim(t *testing.T) {
	owner := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}}
	ended := owner.DeepCopy()
	ended.Status.Phase = corev1.PodSucceeded
	claim := func(finalizer, allocated, going bool, consumers ...string) *resourcev1.ResourceClaim {
		c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("Pod"))}}}
		if finalizer {
			c.Finalizers = []string{resourcev1.Finalizer}
		}
		if allocated {
			c.Status.Allocation = &resourcev1.AllocationResult{}
		}
		if going {
			c.DeletionTimestamp = &metav1.Time{}
		}
		for _, name := range consumers {
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: name})
		}
		return c
	}
	gone := func(r resourcev1.ResourceClaimConsumerReference) (bool, error) { return r.Name == "gone", nil }
	for name, tc := range map[string]struct {
		claim                       *resourcev1.ResourceClaim
		owner                       *corev1.Pod
		consumers                   int
		deallocate, release, remove bool
	}{
		"in use":                        {claim: claim(true, true, false, "here"), owner: owner, consumers: 1},
		"one is gone":                   {claim: claim(true, true, false, "here", "gone"), owner: owner, consumers: 1},
		"all are gone":                  {claim: claim(true, true, false, "gone"), owner: owner, deallocate: true, release: true},
		"all are gone, its owner too":   {claim: claim(true, true, false, "gone"), owner: ended, deallocate: true, release: true, remove: true},
		"allocated, not used yet":       {claim: claim(true, true, false), owner: owner},
		"going":                         {claim: claim(true, true, true), owner: owner, deallocate: true, release: true},
		"going, in use":                 {claim: claim(true, true, true, "here"), owner: owner, consumers: 1},
		"allocated by somebody else":    {claim: claim(false, true, false, "gone"), owner: owner},
		"its owner is for the gc to do": {claim: claim(false, false, false)},
	} {
		p, err := planClaim(tc.claim, gone, tc.owner)
		if err != nil || len(p.consumers) != tc.consumers || p.deallocate != tc.deallocate || p.release != tc.release || p.remove != tc.remove {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}
