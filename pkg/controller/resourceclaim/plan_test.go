package resourceclaim

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func stockOf(templates map[string]*resourcev1.ResourceClaimTemplate, claims ...*resourcev1.ResourceClaim) *stock {
	s := &stock{claims: map[string]*resourcev1.ResourceClaim{}, templates: templates}
	for _, c := range claims {
		s.claims[c.Name] = c
	}
	return s
}

func noGroup(*corev1.Pod) (*schedulingv1beta1.PodGroup, error) { return nil, nil }

func TestPlanPod(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}, Spec: corev1.PodSpec{ResourceClaims: []corev1.PodResourceClaim{
		{Name: "gpu", ResourceClaimTemplateName: ptr.To("t")}, {Name: "shared", ResourceClaimName: ptr.To("all")},
	}}}
	template := map[string]*resourcev1.ResourceClaimTemplate{"t": {Spec: resourcev1.ResourceClaimTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"l": "1"}}}}}
	made := fromTemplate(pod, corev1.SchemeGroupVersion.WithKind("Pod"), "gpu", template["t"])
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
		plan, err := planPod(p, stockOf(tc.templates, tc.claims...), Gates{}, noGroup)
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

// Of what a pod in a group asks for, it shares with the others what the group asks for in the same words.
func TestPlanPodOfAGroup(t *testing.T) {
	templates := map[string]*resourcev1.ResourceClaimTemplate{"t": {}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
	pod.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: ptr.To("g")}
	pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "c", ResourceClaimTemplateName: ptr.To("t")}}
	group := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "g", UID: "v"}}
	sharing := group.DeepCopy()
	sharing.Spec.ResourceClaims = []schedulingv1beta1.PodGroupResourceClaim{{Name: "c", ResourceClaimTemplateName: ptr.To("t")}}
	other := group.DeepCopy()
	other.Spec.ResourceClaims = []schedulingv1beta1.PodGroupResourceClaim{{Name: "c", ResourceClaimName: ptr.To("t")}}
	shared := fromTemplate(sharing, schedulingv1beta1.SchemeGroupVersion.WithKind("PodGroup"), "c", templates["t"])
	shared.Name = "g-c-x"
	allocated := shared.DeepCopy()
	allocated.Status.Allocation = &resourcev1.AllocationResult{}
	reserved := allocated.DeepCopy()
	reserved.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{APIGroup: schedulingv1beta1.GroupName, Resource: "podgroups", Name: "g", UID: "v"}}
	own := fromTemplate(pod, corev1.SchemeGroupVersion.WithKind("Pod"), "c", templates["t"])
	own.Name = "g-c-x"
	own.Status.Allocation = &resourcev1.AllocationResult{}
	all, groups := Gates{Groups: true, GroupClaims: true}, Gates{Groups: true}
	for name, tc := range map[string]struct {
		group   *schedulingv1beta1.PodGroup // nil: it is not there
		gates   Gates
		claim   *resourcev1.ResourceClaim
		running bool // on a node, with its claim in the status
		create  int
		found   string
		reserve string
		fails   string
	}{
		"of its own":                              {group: group, gates: all, create: 1},
		"of its own, otherwise":                   {group: other, gates: all, create: 1},
		"of its own, groups have none":            {group: group, gates: groups, create: 1},
		"shared, not made yet":                    {group: sharing, gates: all},
		"shared":                                  {group: sharing, gates: all, claim: shared, found: "g-c-x"},
		"shared, groups have none":                {group: sharing, gates: groups, fails: "DRAWorkloadResourceClaims feature is disabled"},
		"no groups":                               {group: sharing, fails: "GenericWorkload feature is disabled"},
		"the group is missing":                    {gates: groups, fails: "no such group"},
		"on a node":                               {group: sharing, gates: all, claim: allocated, running: true, reserve: "podgroups"},
		"on a node, reserved":                     {group: sharing, gates: all, claim: reserved, running: true},
		"on a node, of its own":                   {group: group, gates: all, claim: own, running: true, reserve: "pods"},
		"on a node, shared, groups have none":     {group: sharing, gates: groups, claim: own, running: true},
		"on a node, shared by name, without gate": {group: sharing, gates: Gates{}, claim: own, running: true, fails: "GenericWorkload feature is disabled"},
	} {
		p, claims := pod.DeepCopy(), []*resourcev1.ResourceClaim{}
		if tc.claim != nil {
			claims = append(claims, tc.claim)
		}
		if tc.running {
			p.Spec.NodeName = "n"
			p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "c", ResourceClaimName: ptr.To("g-c-x")}}
		}
		plan, err := planPod(p, stockOf(templates, claims...), tc.gates, func(*corev1.Pod) (*schedulingv1beta1.PodGroup, error) {
			switch {
			case !tc.gates.Groups:
				return nil, errors.New("GenericWorkload feature is disabled")
			case tc.group == nil:
				return nil, errors.New("no such group")
			}
			return tc.group, nil
		})
		if (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var by []string
		for _, r := range plan.reserve {
			by = append(by, r.by.Resource)
		}
		if len(plan.create) != tc.create || plan.found["c"] != tc.found || strings.Join(by, " ") != tc.reserve {
			t.Errorf("%s: %+v", name, plan)
		}
	}
}

func TestPlanGroup(t *testing.T) {
	templates := map[string]*resourcev1.ResourceClaimTemplate{"t": {}}
	group := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "g", UID: "v"}, Spec: schedulingv1beta1.PodGroupSpec{ResourceClaims: []schedulingv1beta1.PodGroupResourceClaim{
		{Name: "c", ResourceClaimTemplateName: ptr.To("t")}, {Name: "all", ResourceClaimName: ptr.To("all")},
	}}}
	claim := fromTemplate(group, schedulingv1beta1.SchemeGroupVersion.WithKind("PodGroup"), "c", templates["t"])
	claim.Name = "g-c-x"
	foreign := claim.DeepCopy()
	foreign.OwnerReferences = nil
	for name, tc := range map[string]struct {
		claims    []*resourcev1.ResourceClaim
		templates map[string]*resourcev1.ResourceClaimTemplate
		status    *string
		going     bool
		create    int
		found     string
		fails     string
	}{
		"new":               {templates: templates, create: 1},
		"no template":       {fails: "PodGroupResourceClaim c: resource claim template \"t\": resourceclaimtemplate.resource.k8s.io \"t\" not found"},
		"made, not noted":   {claims: []*resourcev1.ResourceClaim{claim}, found: "g-c-x"},
		"made and noted":    {claims: []*resourcev1.ResourceClaim{claim}, status: ptr.To("g-c-x")},
		"noted and gone":    {templates: templates, status: ptr.To("g-c-x"), create: 1},
		"noted, another's":  {templates: templates, claims: []*resourcev1.ResourceClaim{foreign}, status: ptr.To("g-c-x"), create: 1},
		"going":             {templates: templates, going: true},
		"another's of that": {claims: []*resourcev1.ResourceClaim{foreign}, fails: "not found"},
	} {
		g := group.DeepCopy()
		if tc.status != nil {
			g.Status.ResourceClaimStatuses = []schedulingv1beta1.PodGroupResourceClaimStatus{{Name: "c", ResourceClaimName: tc.status}}
		}
		if tc.going {
			g.DeletionTimestamp = &metav1.Time{}
		}
		m, err := planGroup(g, stockOf(tc.templates, tc.claims...))
		if (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%s: %v", name, err)
		} else if err == nil && (len(m.create) != tc.create || m.found["c"] != tc.found) {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if claim.GenerateName != "g-c-" || !metav1.IsControlledBy(claim, group) || claim.OwnerReferences[0].BlockOwnerDeletion != nil || claim.OwnerReferences[0].Kind != "PodGroup" {
		t.Errorf("made: %+v", claim.ObjectMeta)
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
