package group

import (
	"fmt"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	cacheindex "github.com/leme-k8s/leme/pkg/controller/internal/index"
)

func newJob(change ...func(*batchv1.Job)) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "j", UID: "u"}, Spec: batchv1.JobSpec{Parallelism: ptr.To[int32](4)}}
	for _, f := range change {
		f(j)
	}
	return j
}

func gangOf(n *int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.Scheduling = &batchv1.JobSchedulingConfiguration{SchedulingPolicy: &schedulingv1alpha3.WorkloadPodGroupSchedulingPolicy{
			Gang: &schedulingv1alpha3.WorkloadPodGroupGangSchedulingPolicy{MinCount: n},
		}}
	}
}

// ofParent is a Job that somebody's controller has made, and which leaves it the group of a template unless that has no name.
func ofParent(kind, template string) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: kind, Name: "parent", UID: "p", Controller: ptr.To(true)}}
		if template != "" {
			j.Annotations = map[string]string{templateAnnotation: template}
		}
	}
}

func inGroup(j *batchv1.Job) {
	j.Spec.Template.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: ptr.To("theirs")}
}

func TestSourceOf(t *testing.T) {
	for name, tc := range map[string]struct {
		job  *batchv1.Job
		want string
	}{
		"alone":                           {newJob(), "batch Job j, own"},
		"with an annotation, but alone":   {newJob(func(j *batchv1.Job) { j.Annotations = map[string]string{templateAnnotation: "w"} }), "batch Job j, own"},
		"of a CronJob":                    {newJob(ofParent("CronJob", "")), "none"},
		"delegated":                       {newJob(ofParent("Set", "w")), "example.com Set parent, template w"},
		"in a group":                      {newJob(inGroup), "none"},
		"in a group, though delegated":    {newJob(ofParent("Set", "w"), inGroup), "none"},
		"with an owner that does not run": {newJob(func(j *batchv1.Job) { j.OwnerReferences = []metav1.OwnerReference{{Kind: "Set", Name: "s"}} }), "batch Job j, own"},
		"going":                           {newJob(func(j *batchv1.Job) { j.DeletionTimestamp = &metav1.Time{} }), "none"},
	} {
		got := "none"
		if s := sourceOf(tc.job); s != nil {
			got = fmt.Sprintf("%s %s %s, template %s", s.of.APIGroup, s.of.Kind, s.of.Name, s.template)
			if s.own {
				got = fmt.Sprintf("%s %s %s, own", s.of.APIGroup, s.of.Kind, s.of.Name)
			}
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestUntouched(t *testing.T) {
	for name, tc := range map[string]struct {
		status batchv1.JobStatus
		pods   int
		want   bool
	}{
		"new":       {want: true},
		"pods":      {pods: 1},
		"started":   {status: batchv1.JobStatus{StartTime: &metav1.Time{}}},
		"succeeded": {status: batchv1.JobStatus{Succeeded: 1}},
		"failed":    {status: batchv1.JobStatus{Failed: 1}},
		"suspended": {status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobSuspended, Status: corev1.ConditionTrue}}}},
	} {
		if got := untouched(&batchv1.Job{Status: tc.status}, tc.pods); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestNewWorkload(t *testing.T) {
	for name, tc := range map[string]struct {
		job  *batchv1.Job
		gang int32
	}{
		"nothing said":           {job: newJob()},
		"basic":                  {job: newJob(func(j *batchv1.Job) { j.Spec.Scheduling = &batchv1.JobSchedulingConfiguration{} })},
		"a gang":                 {job: newJob(gangOf(ptr.To[int32](3))), gang: 3},
		"a gang of all":          {job: newJob(gangOf(nil)), gang: 4},
		"a gang of none for now": {job: newJob(gangOf(nil), func(j *batchv1.Job) { j.Spec.Parallelism = ptr.To[int32](0) }), gang: 1},
	} {
		w, err := newWorkload(tc.job)
		if err != nil {
			t.Fatal(err)
		}
		template := w.Spec.PodGroupTemplates[0]
		if len(w.Spec.PodGroupTemplates) != 1 || template.Name != "j-pgt-0" || *w.Spec.ControllerRef != sourceOf(tc.job).of || !metav1.IsControlledBy(w, tc.job) {
			t.Errorf("%s: %+v", name, w)
		}
		if policy := template.SchedulingPolicy; (policy.Gang != nil) != (tc.gang > 0) || policy.Gang != nil && policy.Gang.MinCount != tc.gang {
			t.Errorf("%s: %+v", name, policy)
		}
	}
	rich := newJob(gangOf(nil))
	rich.Spec.Template.Spec.PriorityClassName = "high"
	rich.Spec.Scheduling.DisruptionMode = &schedulingv1alpha3.WorkloadPodGroupDisruptionMode{All: &schedulingv1alpha3.WorkloadPodGroupAllDisruptionMode{}}
	rich.Spec.Scheduling.SchedulingConstraints = &schedulingv1alpha3.WorkloadPodGroupSchedulingConstraints{Topology: []schedulingv1alpha3.TopologyConstraint{{Key: "zone"}}}
	rich.Spec.Scheduling.ResourceClaims = []schedulingv1alpha3.WorkloadPodGroupResourceClaim{{Name: "c", ResourceClaimName: ptr.To("r")}}
	w, err := newWorkload(rich)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.Spec.PodGroupTemplates[0]; got.PriorityClassName != "high" || got.DisruptionMode.All == nil || got.SchedulingConstraints.Topology[0].Key != "zone" || *got.ResourceClaims[0].ResourceClaimName != "r" {
		t.Errorf("%+v", got)
	}
}

// What the original has called them, in a run of it.
func TestNamesOfWorkloadsAndGroups(t *testing.T) {
	if got := workloadName("plain", "6e8fd608-6a23-4370-99fc-6c3f5801f80f"); got != "plain-6cfff96f5c" {
		t.Errorf("the Workload: %s", got)
	}
	if got := groupName("plain-6cfff96f5c", "plain-pgt-0"); got != "plain-6cfff96f5c-plain-pgt-0-774bb85847" {
		t.Errorf("the group: %s", got)
	}
	if got := workloadName(strings.Repeat("j", 253), "u"); len(got) != 253 {
		t.Errorf("a long name: %s", got)
	}
	template := strings.Repeat("t", 63)
	if got := groupName(strings.Repeat("w", 253), template); len(got) != 253 || !strings.Contains(got, "w-"+template+"-") {
		t.Errorf("a long name: %s", got)
	}
}

func TestGroup(t *testing.T) {
	owned := func(o client.Object, j *batchv1.Job) {
		o.SetNamespace("ns")
		if j != nil {
			o.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(j, kind)})
		}
	}
	gang := func(n int32) schedulingv1beta1.PodGroupSchedulingPolicy {
		return schedulingv1beta1.PodGroupSchedulingPolicy{Gang: &schedulingv1beta1.GangSchedulingPolicy{MinCount: n}}
	}
	workload := func(name string, owner *batchv1.Job, of *source, n int32, templates ...string) *schedulingv1beta1.Workload {
		w := &schedulingv1beta1.Workload{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: schedulingv1beta1.WorkloadSpec{ControllerRef: &of.of}}
		for _, name := range templates {
			w.Spec.PodGroupTemplates = append(w.Spec.PodGroupTemplates, schedulingv1beta1.PodGroupTemplate{Name: name, SchedulingPolicy: gang(n)})
		}
		owned(w, owner)
		return w
	}
	group := func(name, workload, template string, owner *batchv1.Job, n int32) *schedulingv1beta1.PodGroup {
		g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: schedulingv1beta1.PodGroupSpec{
			WorkloadRef: &schedulingv1beta1.WorkloadReference{WorkloadName: workload, TemplateName: template}, SchedulingPolicy: gang(n),
		}}
		owned(g, owner)
		return g
	}
	root, child := newJob(gangOf(nil)), newJob(ofParent("Set", "workers"))
	sibling := newJob(ofParent("Set", "workers"))
	sibling.UID, sibling.Name = "v", "k"
	rootRef, childRef := sourceOf(root), sourceOf(child)
	own, ownTemplate := workloadName("j", "u"), "j-pgt-0"
	ran := root.DeepCopy()
	ran.Status.StartTime = &metav1.Time{}
	for name, tc := range map[string]struct {
		job    *batchv1.Job
		pods   int
		there  []client.Object
		want   string // the group
		made   int    // Workloads and groups
		gang   int32
		owners int
		events int
		err    string
	}{
		"both are made":                     {job: root, want: groupName(own, ownTemplate), made: 2, gang: 4, owners: 2, events: 2},
		"not after pods":                    {job: root, pods: 1},
		"not after the start":               {job: ran},
		"both are found":                    {job: ran, there: []client.Object{workload("w", root, rootRef, 4, ownTemplate), group("g", "w", ownTemplate, root, 4)}, want: "g", gang: 4, owners: 1},
		"both are found, by pods":           {job: root, pods: 1, there: []client.Object{workload("w", root, rootRef, 4, ownTemplate), group("g", "w", ownTemplate, root, 4)}, want: "g", gang: 4, owners: 1},
		"the size has changed":              {job: ran, there: []client.Object{workload("w", root, rootRef, 2, ownTemplate), group("g", "w", ownTemplate, root, 2)}, want: "g", gang: 4, owners: 1},
		"the group is missing":              {job: root, there: []client.Object{workload("w", root, rootRef, 4, ownTemplate)}, want: groupName("w", ownTemplate), made: 1, gang: 4, owners: 2, events: 1},
		"a Workload of somebody else":       {job: root, there: []client.Object{workload("w", nil, rootRef, 4, ownTemplate)}, want: groupName(own, ownTemplate), made: 2, gang: 4, owners: 2, events: 2},
		"a group of somebody else":          {job: root, there: []client.Object{workload("w", root, rootRef, 4, ownTemplate), group("g", "w", ownTemplate, nil, 4)}, want: groupName("w", ownTemplate), made: 1, gang: 4, owners: 2, events: 1},
		"two Workloads":                     {job: root, there: []client.Object{workload("w", root, rootRef, 4, ownTemplate), workload("v", root, rootRef, 4, ownTemplate)}},
		"two groups":                        {job: root, there: []client.Object{workload("w", root, rootRef, 4, ownTemplate), group("g", "w", ownTemplate, root, 4), group("h", "w", ownTemplate, root, 4)}},
		"two templates":                     {job: root, there: []client.Object{workload("w", root, rootRef, 4, "a", "b")}, err: "has 2 templates of groups"},
		"delegated":                         {job: child, there: []client.Object{workload("w", nil, childRef, 3, "others", "workers")}, want: groupName("w", "workers"), made: 1, gang: 3, owners: 1, events: 1},
		"delegated, the Workload missing":   {job: child},
		"delegated, the template missing":   {job: child, there: []client.Object{workload("w", nil, childRef, 3, "others")}},
		"delegated, the size has changed":   {job: child, pods: 1, there: []client.Object{workload("w", nil, childRef, 7, "workers"), group("g", "w", "workers", child, 4)}, want: "g", gang: 7, owners: 1},
		"delegated, the group is another's": {job: child, there: []client.Object{workload("w", nil, childRef, 3, "workers"), group(groupName("w", "workers"), "w", "workers", sibling, 3)}, err: "already exists"},
	} {
		t.Run(name, func(t *testing.T) {
			b := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(tc.there...)
			for _, o := range []client.Object{&schedulingv1beta1.Workload{}, &schedulingv1beta1.PodGroup{}} {
				i := cacheindex.ByController(o)
				b.WithIndex(i.Object, i.Field, i.Values)
			}
			api, events := b.Build(), record.NewFakeRecorder(10)
			got, err := New(api, events).Of(t.Context(), tc.job, tc.pods)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || got != tc.want || len(events.Events) != tc.events {
				t.Errorf("got %q and %d events, %v", got, len(events.Events), err)
			}
			var workloads schedulingv1beta1.WorkloadList
			var groups schedulingv1beta1.PodGroupList
			if err := api.List(t.Context(), &workloads); err != nil {
				t.Fatal(err)
			}
			if err := api.List(t.Context(), &groups); err != nil {
				t.Fatal(err)
			}
			if made := len(workloads.Items) + len(groups.Items) - len(tc.there); made != tc.made {
				t.Errorf("%d made", made)
			}
			for _, g := range groups.Items {
				if g.Name == tc.want && (g.Spec.SchedulingPolicy.Gang.MinCount != tc.gang || len(g.OwnerReferences) != tc.owners || !metav1.IsControlledBy(&g, tc.job)) {
					t.Errorf("the group: %+v", g)
				}
			}
			for _, w := range workloads.Items {
				if tc.want != "" && metav1.IsControlledBy(&w, tc.job) && w.Spec.PodGroupTemplates[0].SchedulingPolicy.Gang.MinCount != tc.gang {
					t.Errorf("the Workload: %+v", w.Spec)
				}
			}
		})
	}
}
