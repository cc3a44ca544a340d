package job

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestIndexes(t *testing.T) {
	for _, c := range []struct {
		text  string
		limit int
		want  string
		n     int
	}{
		{"", 10, "", 0}, {"3", 10, "3", 1}, {"1,2", 10, "1,2", 2}, {"1,2,3", 10, "1-3", 3},
		{"0-4,7", 10, "0-4,7", 6}, {"0-9", 5, "0-4", 5}, {"7", 5, "", 0}, {"x,1-y,2", 5, "2", 1},
	} {
		if x := parseIndexes(c.text, c.limit); x.String() != c.want || x.len() != c.n {
			t.Errorf("%q below %d: %q with %d", c.text, c.limit, x, x.len())
		}
	}
	var x indexes
	for _, i := range []int{5, 3, 4, 4, 9, 0, 8} {
		x.add(i)
	}
	if x.String() != "0,3-5,8,9" || x.len() != 6 || !x.has(4) || x.has(6) {
		t.Errorf("%q with %d", x, x.len())
	}
	if n := x.within(parseIndexes("2-8", 10)); n != 4 {
		t.Errorf("%d within", n)
	}
}

func job(change ...func(*batchv1.JobSpec)) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", UID: "j"}}
	j.Spec.Parallelism, j.Spec.Completions, j.Spec.BackoffLimit = ptr.To[int32](2), ptr.To[int32](3), ptr.To[int32](6)
	j.Spec.PodReplacementPolicy = ptr.To(batchv1.TerminatingOrFailed)
	j.Status.StartTime = ptr.To(metav1.NewTime(now.Add(-time.Minute)))
	for _, f := range change {
		f(&j.Spec)
	}
	return j
}

func pod(name string, phase corev1.PodPhase, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: types.UID(name), Finalizers: []string{batchv1.JobTrackingFinalizer}, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour)),
	}}
	p.Status.Phase = phase
	for _, f := range change {
		f(p)
	}
	return p
}

func index(i int) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Annotations = map[string]string{batchv1.JobCompletionIndexAnnotation: fmt.Sprint(i)}
	}
}

// Each end is written down first, then set free, then counted: once, whatever happens
// in between.
func TestAccounting(t *testing.T) {
	j := job()
	p := pod("a", corev1.PodSucceeded)
	for step, want := range []struct {
		uncounted int
		succeeded int32
		free      int
	}{
		{1, 0, 1}, // written down
		{1, 0, 1}, // the finalizer is still there: again, with no harm
		{0, 1, 0}, // gone: counted
		{0, 1, 0}, // and not once more
	} {
		if step == 2 {
			p.Finalizers = nil
		}
		got := newInput(j, []*corev1.Pod{p}, "", now).plan()
		if n := len(got.status.UncountedTerminatedPods.Succeeded); n != want.uncounted || got.status.Succeeded != want.succeeded || len(got.free) != want.free {
			t.Errorf("step %d: %d uncounted, %d succeeded, %d to free", step, n, got.status.Succeeded, len(got.free))
		}
		j.Status = got.status
	}
}

func TestPlan(t *testing.T) {
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.NewTime(now)) }
	indexed := func(s *batchv1.JobSpec) { s.CompletionMode = ptr.To(batchv1.IndexedCompletion) }
	exit := func(code int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}}
		}
	}
	policy := func(action batchv1.PodFailurePolicyAction) func(*batchv1.JobSpec) {
		return func(s *batchv1.JobSpec) {
			s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
				Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}},
			}}}
		}
	}
	for _, c := range []struct {
		name                    string
		job                     *batchv1.Job
		pods                    []*corev1.Pod
		create, remove, discard int
		condition               batchv1.JobConditionType
		reason                  string
		wait                    bool
	}{
		{name: "at the start", job: job(), create: 2},
		{name: "as many as are still needed", job: job(), pods: []*corev1.Pod{pod("a", corev1.PodSucceeded), pod("b", corev1.PodSucceeded)}, create: 1},
		{name: "all have succeeded", job: job(), pods: []*corev1.Pod{pod("a", corev1.PodSucceeded), pod("b", corev1.PodSucceeded), pod("c", corev1.PodSucceeded)},
			condition: batchv1.JobSuccessCriteriaMet, reason: batchv1.JobReasonCompletionsReached},
		{name: "parallelism has shrunk", job: job(func(s *batchv1.JobSpec) { s.Parallelism = ptr.To[int32](1) }),
			pods: []*corev1.Pod{pod("a", corev1.PodRunning), pod("b", corev1.PodRunning)}, discard: 1},
		{name: "suspended", job: job(func(s *batchv1.JobSpec) { s.Suspend = ptr.To(true) }), pods: []*corev1.Pod{pod("a", corev1.PodRunning)},
			discard: 1, condition: batchv1.JobSuspended, reason: "JobSuspended"},
		{name: "a failure is waited for", job: job(), pods: []*corev1.Pod{pod("a", corev1.PodFailed, func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now) })}, wait: true},
		{name: "too many failures", job: job(func(s *batchv1.JobSpec) { s.BackoffLimit = ptr.To[int32](0) }),
			pods: []*corev1.Pod{pod("a", corev1.PodFailed), pod("b", corev1.PodRunning)}, remove: 1, condition: batchv1.JobFailureTarget, reason: batchv1.JobReasonBackoffLimitExceeded},
		{name: "too late", job: job(func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = ptr.To[int64](60) }),
			pods: []*corev1.Pod{pod("a", corev1.PodRunning)}, remove: 1, condition: batchv1.JobFailureTarget, reason: batchv1.JobReasonDeadlineExceeded},
		{name: "one success ends a Job without a number", job: job(func(s *batchv1.JobSpec) { s.Completions = nil }),
			pods: []*corev1.Pod{pod("a", corev1.PodSucceeded), pod("b", corev1.PodRunning)}},
		{name: "a deleted pod is replaced", job: job(), pods: []*corev1.Pod{pod("a", corev1.PodRunning), pod("b", corev1.PodRunning, deleted, func(p *corev1.Pod) {
			p.DeletionTimestamp = ptr.To(metav1.NewTime(now.Add(-time.Hour)))
		})}, create: 1},
		{name: "a deleted pod is waited for", job: job(func(s *batchv1.JobSpec) { s.PodReplacementPolicy = ptr.To(batchv1.Failed) }),
			pods: []*corev1.Pod{pod("a", corev1.PodRunning), pod("b", corev1.PodRunning, deleted)}},
		{name: "the index that is missing", job: job(indexed), pods: []*corev1.Pod{pod("a", corev1.PodSucceeded, index(0)), pod("b", corev1.PodRunning, index(2))}, create: 1},
		{name: "two of an index", job: job(indexed), pods: []*corev1.Pod{pod("a", corev1.PodRunning, index(0)), pod("b", corev1.PodRunning, index(0))}, discard: 1},
		{name: "the policy fails the Job", job: job(policy(batchv1.PodFailurePolicyActionFailJob)), pods: []*corev1.Pod{pod("a", corev1.PodFailed, exit(42)), pod("b", corev1.PodRunning)},
			remove: 1, condition: batchv1.JobFailureTarget, reason: batchv1.JobReasonPodFailurePolicy},
		{name: "the policy forgives", job: job(policy(batchv1.PodFailurePolicyActionIgnore), func(s *batchv1.JobSpec) { s.BackoffLimit = ptr.To[int32](0) }),
			pods: []*corev1.Pod{pod("a", corev1.PodFailed, exit(42))}, create: 2},
		{name: "the policy is content", job: job(indexed, func(s *batchv1.JobSpec) {
			s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr.To("1")}}}
		}), pods: []*corev1.Pod{pod("a", corev1.PodRunning, index(0)), pod("b", corev1.PodSucceeded, index(1))},
			discard: 1, condition: batchv1.JobSuccessCriteriaMet, reason: batchv1.JobReasonSuccessPolicy},
		{name: "an index is given up", job: job(indexed, func(s *batchv1.JobSpec) { s.BackoffLimitPerIndex = ptr.To[int32](0) }),
			pods: []*corev1.Pod{pod("a", corev1.PodFailed, index(0)), pod("b", corev1.PodRunning, index(1))}, create: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newInput(c.job, c.pods, "", now).plan()
			if len(p.create) != c.create || len(p.remove) != c.remove || len(p.discard) != c.discard {
				t.Errorf("create %d, remove %d, discard %d", len(p.create), len(p.remove), len(p.discard))
			}
			if c.condition != "" {
				if cond := condition(p.status, c.condition); cond == nil || cond.Reason != c.reason {
					t.Errorf("conditions: %+v", p.status.Conditions)
				}
			} else if len(p.status.Conditions) > 0 {
				t.Errorf("conditions: %+v", p.status.Conditions)
			}
			if (p.again > 0) != c.wait {
				t.Errorf("again in %v", p.again)
			}
		})
	}
}

// Once the outcome is known, the ends of the pods that are left tell nothing new.
func TestPodsLeftAtTheEnd(t *testing.T) {
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.NewTime(now)) }
	perIndex := func(s *batchv1.JobSpec) {
		s.CompletionMode, s.BackoffLimitPerIndex, s.MaxFailedIndexes = ptr.To(batchv1.IndexedCompletion), ptr.To[int32](0), ptr.To[int32](0)
		s.PodReplacementPolicy = ptr.To(batchv1.Failed)
	}
	success := func(s *batchv1.JobSpec) {
		s.CompletionMode = ptr.To(batchv1.IndexedCompletion)
		s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr.To("1")}}}
		s.PodReplacementPolicy = ptr.To(batchv1.Failed)
	}
	for name, c := range map[string]struct {
		spec         func(*batchv1.JobSpec)
		outcome      batchv1.JobConditionType // that is known already
		pods         []*corev1.Pod
		failed, free string
		indexes      string
	}{
		"a Job that fails": {spec: perIndex, pods: []*corev1.Pod{pod("a", corev1.PodFailed, index(0)), pod("b", corev1.PodRunning, index(1)), pod("c", corev1.PodRunning, index(2), deleted)},
			failed: "a b c", free: "a b c", indexes: "0"},
		"one that has failed": {spec: perIndex, outcome: batchv1.JobFailureTarget, pods: []*corev1.Pod{pod("b", corev1.PodFailed, index(1))}, failed: "b", free: "b"},
		"one that succeeds": {spec: success, pods: []*corev1.Pod{pod("a", corev1.PodFailed, index(0)), pod("b", corev1.PodSucceeded, index(1)), pod("c", corev1.PodRunning, index(2), deleted), pod("d", corev1.PodRunning, index(0))},
			failed: "a", free: "a b c"}, // d is set free when it is deleted
		"one that goes on": {spec: success, pods: []*corev1.Pod{pod("a", corev1.PodRunning, index(0)), pod("c", corev1.PodRunning, index(2), deleted)}},
	} {
		j := job(c.spec)
		if c.outcome != "" {
			setCondition(&j.Status, c.outcome, corev1.ConditionTrue, "Known", "", now)
		}
		p := newInput(j, c.pods, "", now).plan()
		var failed, free []string
		for _, uid := range p.status.UncountedTerminatedPods.Failed {
			failed = append(failed, string(uid))
		}
		for _, pod := range p.free {
			free = append(free, string(pod.UID))
		}
		slices.Sort(free)
		if strings.Join(failed, " ") != c.failed || strings.Join(free, " ") != c.free || ptr.Deref(p.status.FailedIndexes, "") != c.indexes {
			t.Errorf("%s: counted %v, set free %v, failed indexes %q", name, failed, free, ptr.Deref(p.status.FailedIndexes, ""))
		}
	}
}

func TestPodsOfAGroup(t *testing.T) {
	j := &batchv1.Job{}
	if got := newInput(j, nil, "g", now).newPod(-1).Spec.SchedulingGroup; got == nil || *got.PodGroupName != "g" {
		t.Errorf("a new pod is in %+v", got)
	}
	if got := newInput(j, nil, "", now).newPod(-1).Spec.SchedulingGroup; got != nil {
		t.Errorf("without a group, a new pod is in %+v", got)
	}
	j.Spec.Template.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: ptr.To("theirs")}
	if got := newInput(j, nil, "", now).newPod(-1).Spec.SchedulingGroup; got == nil || *got.PodGroupName != "theirs" {
		t.Errorf("of a template with a group, a new pod is in %+v", got)
	}
}
