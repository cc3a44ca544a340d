package scheduling

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestPriorityClass(t *testing.T) {
	apitest.Run(t, "testdata/priorityclass.txtar", apitest.Kind[schedulingv1.PriorityClass, *schedulingv1.PriorityClass]{
		Path:        "/apis/scheduling.k8s.io/v1/priorityclasses",
		AddDefaults: AddDefaults,
		Create:      ValidatePriorityClass,
		Update:      ValidatePriorityClassUpdate,
	})
}

func TestGroups(t *testing.T) {
	off := Features{CompositePodGroupFeature: false, ResourceClaimsFeature: false, PreemptionPolicyFeature: false, TopologyFeature: false}
	all := Features{CompositePodGroupFeature: true, ResourceClaimsFeature: true, PreemptionPolicyFeature: true, TopologyFeature: true}
	type groups = []schedulingv1alpha3.PodGroupTemplate
	type composites = []schedulingv1alpha3.CompositePodGroupTemplate
	meta := metav1.ObjectMeta{Name: "a", Namespace: "default"}
	basic := schedulingv1alpha3.PodGroupSchedulingPolicy{Basic: &schedulingv1alpha3.BasicSchedulingPolicy{}}
	group := func(name, class string) schedulingv1alpha3.PodGroupTemplate {
		return schedulingv1alpha3.PodGroupTemplate{Name: name, SchedulingPolicy: basic, PriorityClassName: class}
	}
	composite := func(name string, g groups, c composites) schedulingv1alpha3.CompositePodGroupTemplate {
		return schedulingv1alpha3.CompositePodGroupTemplate{
			Name: name, PodGroupTemplates: g, CompositePodGroupTemplates: c,
			SchedulingPolicy: schedulingv1alpha3.CompositePodGroupSchedulingPolicy{Basic: &schedulingv1alpha3.CompositeBasicSchedulingPolicy{}},
		}
	}
	for name, tc := range map[string]struct {
		groups     groups
		composites composites
		features   Features
		want       string
	}{
		"groups":     {groups: groups{group("a", ""), group("b", "")}, features: off},
		"composites": {composites: composites{composite("a", groups{group("b", "")}, composites{composite("c", groups{group("d", "")}, nil)})}, features: all},
		"composites without the feature": {
			composites: composites{composite("a", groups{group("b", "")}, nil)}, features: off,
			want: "spec.compositePodGroupTemplates: Forbidden",
		},
		"neither":           {features: all, want: `spec: Invalid value`},
		"a name twice":      {groups: groups{group("a", ""), group("a", "")}, features: off, want: `spec.podGroupTemplates[1]: Duplicate value: {"name":"a",`},
		"a name in a child": {composites: composites{composite("a", groups{group("a", "")}, nil)}, features: all, want: `spec.compositePodGroupTemplates[0].podGroupTemplates[0].name: Duplicate value: "a"`},
		"priorities":        {groups: groups{group("a", "x"), group("b", "y")}, features: off, want: `spec: Invalid value: null: detected multiple priority configurations`},
		"priorities below":  {composites: composites{composite("a", groups{group("b", "y")}, nil)}, features: all, want: `spec: Invalid value: null: all priority and priorityClassName values must be identical, detected multiple values`},
		"no child":          {composites: composites{composite("a", nil, nil)}, features: all, want: `spec.compositePodGroupTemplates[0]: Invalid value: "a": must have at least one child PodGroupTemplate or CompositePodGroupTemplate`},
		"too deep": {
			composites: composites{composite("a", nil, composites{composite("b", nil, composites{composite("c", nil, composites{composite("d", groups{group("e", "")}, nil)})})})},
			features:   all, want: "maximum template hierarchy depth is 4",
		},
		"a bad name": {groups: groups{group("A", "")}, features: off, want: `spec.podGroupTemplates[0].name: Invalid value: "A"`},
	} {
		w := &schedulingv1alpha3.Workload{ObjectMeta: meta, Spec: schedulingv1alpha3.WorkloadSpec{PodGroupTemplates: tc.groups, CompositePodGroupTemplates: tc.composites}}
		errs := tc.features.ValidateWorkload(w)
		if (len(errs) > 0) != (tc.want != "") || tc.want != "" && !strings.Contains(errs.ToAggregate().Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, errs, tc.want)
		}
	}

	gang := func(n int32) *schedulingv1alpha3.PodGroup {
		g := &schedulingv1alpha3.PodGroup{ObjectMeta: meta}
		g.ResourceVersion = "1"
		g.Spec.SchedulingPolicy.Gang = &schedulingv1alpha3.GangSchedulingPolicy{MinCount: n}
		setPodGroup(g)
		return g
	}
	if errs := off.ValidatePodGroup(gang(0)); len(errs) != 1 || errs[0].Field != "spec.schedulingPolicy.gang.minCount" {
		t.Errorf("a gang of none: %v", errs)
	}
	if errs := off.ValidatePodGroupUpdate(gang(3), gang(2)); len(errs) > 0 {
		t.Errorf("a larger gang: %v", errs)
	}
	other := gang(2)
	other.Spec.SchedulingPolicy = basic
	if errs := off.ValidatePodGroupUpdate(other, gang(2)); len(errs) == 0 {
		t.Error("a group changes its policy")
	}
	child := gang(2)
	child.Spec.ParentCompositePodGroupName = new("p")
	if errs := all.ValidatePodGroup(child); len(errs) != 1 || errs[0].Field != "spec.workloadRef" {
		t.Errorf("a child of no workload: %v", errs)
	}
	claims := gang(2)
	claims.Status.ResourceClaimStatuses = []schedulingv1alpha3.PodGroupResourceClaimStatus{{Name: "c"}}
	if errs := all.ValidatePodGroupStatusUpdate(claims, gang(2)); len(errs) != 1 || errs[0].Field != "status.resourceClaimStatuses[0].name" {
		t.Errorf("the status of a claim that there is not: %v", errs)
	}
}

func TestDropDisabledFields(t *testing.T) {
	full := func() *schedulingv1alpha3.PodGroupSpec {
		return &schedulingv1alpha3.PodGroupSpec{
			SchedulingConstraints: &schedulingv1alpha3.PodGroupSchedulingConstraints{}, ResourceClaims: []schedulingv1alpha3.PodGroupResourceClaim{{Name: "c"}},
			PreemptionPolicy: new(schedulingv1alpha3.PreemptNever), ParentCompositePodGroupName: new("p"),
		}
	}
	template := func() *schedulingv1alpha3.WorkloadSpec {
		g := []schedulingv1alpha3.PodGroupTemplate{{Name: "g", SchedulingConstraints: full().SchedulingConstraints, ResourceClaims: full().ResourceClaims, PreemptionPolicy: full().PreemptionPolicy}}
		return &schedulingv1alpha3.WorkloadSpec{
			PodGroupTemplates:          g,
			CompositePodGroupTemplates: []schedulingv1alpha3.CompositePodGroupTemplate{{Name: "c", PreemptionPolicy: full().PreemptionPolicy, PodGroupTemplates: g}},
		}
	}
	drop := func(old *schedulingv1alpha3.PodGroupSpec, oldTemplate *schedulingv1alpha3.WorkloadSpec, features Features) (*schedulingv1alpha3.PodGroupSpec, *schedulingv1alpha3.WorkloadSpec) {
		g, w := &schedulingv1alpha3.PodGroup{Spec: *full()}, &schedulingv1alpha3.Workload{Spec: *template()}
		var wasGroup *schedulingv1alpha3.PodGroup
		var wasWorkload *schedulingv1alpha3.Workload
		if old != nil {
			wasGroup, wasWorkload = &schedulingv1alpha3.PodGroup{Spec: *old}, &schedulingv1alpha3.Workload{Spec: *oldTemplate}
		}
		features.DropDisabledPodGroupFields(g, wasGroup)
		features.DropDisabledWorkloadFields(w, wasWorkload)
		return &g.Spec, &w.Spec
	}
	empty := &schedulingv1alpha3.WorkloadSpec{PodGroupTemplates: []schedulingv1alpha3.PodGroupTemplate{{Name: "g"}}}
	for name, tc := range map[string]struct {
		old         *schedulingv1alpha3.PodGroupSpec
		oldTemplate *schedulingv1alpha3.WorkloadSpec
		features    Features
		want        *schedulingv1alpha3.PodGroupSpec
		template    *schedulingv1alpha3.WorkloadSpec
	}{
		"off":    {want: &schedulingv1alpha3.PodGroupSpec{}, template: empty},
		"in use": {old: full(), oldTemplate: template(), want: full(), template: template()},
		"on": {
			features: Features{CompositePodGroupFeature: true, ResourceClaimsFeature: true, PreemptionPolicyFeature: true, TopologyFeature: true},
			want:     full(), template: template(),
		},
	} {
		got, workload := drop(tc.old, tc.oldTemplate, tc.features)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: PodGroup (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(tc.template, workload); diff != "" {
			t.Errorf("%s: Workload (-want +got):\n%s", name, diff)
		}
	}
}
