package job

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Time before a failed pod is replaced: doubled by each failure after the last success.
const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 10 * time.Minute
)

// input is what is decided on.
type input struct {
	job         *batchv1.Job
	now         time.Time
	group       string // the PodGroup of new pods
	pods        []*corev1.Pod
	active      []*corev1.Pod
	terminating int32

	// Indexed Jobs only.
	indexed       bool
	done, refused indexes // completed and failed for good

	succeeded, failed int32 // all that are known, counted or not
}

// plan is what to do, and the status to write before finalizers go.
type plan struct {
	status  batchv1.JobStatus
	create  []*corev1.Pod
	remove  []*corev1.Pod                    // to delete, which counts as their failure
	discard []*corev1.Pod                    // to delete as not needed, which does not; the finalizer goes first
	free    []*corev1.Pod                    // to take the finalizer off
	handled []batchv1.PodFailurePolicyAction // what the failure policy has said of pods that were looked at for the first time
	again   time.Duration
}

func (p *plan) wait(d time.Duration) {
	if d > 0 && (p.again == 0 || d < p.again) {
		p.again = d
	}
}

func newInput(job *batchv1.Job, owned []*corev1.Pod, group string, now time.Time) *input {
	in := &input{job: job, pods: owned, group: group, now: now, indexed: ptr.Deref(job.Spec.CompletionMode, batchv1.NonIndexedCompletion) == batchv1.IndexedCompletion}
	for _, p := range owned {
		switch {
		case pods.IsActive(p):
			in.active = append(in.active, p)
		case !pods.IsTerminated(p):
			in.terminating++
		}
	}
	return in
}

// onlyFailed says that a pod is replaced when it has failed, not when it is about to.
func (in *input) onlyFailed() bool {
	return ptr.Deref(in.job.Spec.PodReplacementPolicy, batchv1.TerminatingOrFailed) == batchv1.Failed || in.job.Spec.PodFailurePolicy != nil
}

func (in *input) hasFailed(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodFailed {
		return true
	}
	return !in.onlyFailed() && p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded
}

// account moves the ends of pods towards the counters of s and returns the pods that
// may lose their finalizers once s is written.
func (in *input) account(s *batchv1.JobStatus) (free []*corev1.Pod, handled []batchv1.PodFailurePolicyAction) {
	u := s.UncountedTerminatedPods.DeepCopy()
	if u == nil {
		u = &batchv1.UncountedTerminatedPods{}
	}
	held := map[types.UID]bool{}
	for _, p := range in.pods {
		if tracked(p) {
			held[p.UID] = true
		}
	}
	settle := func(uids []types.UID, counter *int32) (rest []types.UID) {
		for _, uid := range uids {
			if held[uid] {
				rest = append(rest, uid)
			} else {
				*counter++
			}
		}
		return rest
	}
	decided := isTrue(*s, batchv1.JobFailureTarget) || isTrue(*s, batchv1.JobSuccessCriteriaMet)
	u.Succeeded = settle(u.Succeeded, &s.Succeeded)
	u.Failed = settle(u.Failed, &s.Failed)

	ended := slices.Clone(in.pods)
	slices.SortStableFunc(ended, func(a, b *corev1.Pod) int { return finishedAt(a).Compare(finishedAt(b)) })
	for _, p := range ended {
		if !tracked(p) {
			continue
		}
		if slices.Contains(u.Succeeded, p.UID) || slices.Contains(u.Failed, p.UID) {
			free = append(free, p)
			continue
		}
		if len(u.Succeeded)+len(u.Failed) >= burst {
			break
		}
		switch index, ok := indexOf(p); {
		case p.Status.Phase == corev1.PodSucceeded && !in.indexed:
			u.Succeeded = append(u.Succeeded, p.UID)
		case p.Status.Phase == corev1.PodSucceeded:
			// Indexes are written down themselves.
			if ok && index < int(ptr.Deref(in.job.Spec.Completions, 0)) {
				in.done.add(index)
			}
		case in.hasFailed(p):
			action, why := in.matchFailure(p)
			if why != "" {
				handled = append(handled, action)
			}
			if action == batchv1.PodFailurePolicyActionIgnore {
				break
			}
			u.Failed = append(u.Failed, p.UID)
			if ok && !decided && in.refuses(p) {
				in.refused.add(index)
			}
		default:
			continue // still at work
		}
		free = append(free, p)
	}
	if in.indexed {
		s.Succeeded = int32(in.done.len())
		s.CompletedIndexes = in.done.String()
		if in.job.Spec.BackoffLimitPerIndex != nil {
			s.FailedIndexes = ptr.To(in.refused.String())
		}
	}
	in.succeeded = s.Succeeded + int32(len(u.Succeeded))
	in.failed = s.Failed + int32(len(u.Failed))
	s.UncountedTerminatedPods = u
	return free, handled
}

// plan decides.
func (in *input) plan() *plan {
	job := in.job
	p := &plan{status: *job.Status.DeepCopy()}
	s := &p.status
	if in.indexed {
		in.done = parseIndexes(s.CompletedIndexes, int(ptr.Deref(job.Spec.Completions, 0)))
		in.refused = parseIndexes(ptr.Deref(s.FailedIndexes, ""), int(ptr.Deref(job.Spec.Completions, 0)))
	}
	suspended := ptr.Deref(job.Spec.Suspend, false)
	if s.StartTime == nil && !suspended {
		s.StartTime = ptr.To(metav1.NewTime(in.now))
	}
	p.free, p.handled = in.account(s)
	s.Active = int32(len(in.active))
	s.Terminating = ptr.To(in.terminating)
	ready := int32(0)
	for _, pod := range in.active {
		if pods.IsReady(pod) {
			ready++
		}
	}
	s.Ready = &ready

	verdict := in.verdict(s, suspended, p)
	switch {
	case verdict != nil:
		in.end(p, verdict.Type == batchv1.JobFailureTarget)
		setCondition(s, verdict.Type, corev1.ConditionTrue, verdict.Reason, verdict.Message, in.now)
		in.finish(s, verdict)
	case suspended:
		p.discard = in.active
		if !isTrue(*s, batchv1.JobSuspended) {
			setCondition(s, batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended", in.now)
			s.StartTime = nil
		}
	default:
		if isTrue(*s, batchv1.JobSuspended) {
			setCondition(s, batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed", in.now)
			s.StartTime = ptr.To(metav1.NewTime(in.now))
		}
		in.size(p)
	}
	return p
}

// end plans the end of the pods that are left once the outcome is known, which theirs does not change: where the Job
// fails, they count as failed whatever becomes of them; where it succeeds, they do not count. That an index has failed is not said
// of them.
func (in *input) end(p *plan, failed bool) {
	u := p.status.UncountedTerminatedPods
	if failed {
		p.remove = in.active
	} else {
		p.discard = in.active
	}
	settled := sets.New[types.UID]()
	for _, pod := range slices.Concat(p.free, p.discard) {
		settled.Insert(pod.UID)
	}
	for _, pod := range in.pods {
		if !tracked(pod) || settled.Has(pod.UID) || pods.IsTerminated(pod) { // an end that there was no room for is counted the next time
			continue
		}
		if failed {
			if len(u.Succeeded)+len(u.Failed) >= burst {
				break
			}
			u.Failed = append(u.Failed, pod.UID)
		}
		p.free = append(p.free, pod)
	}
}

// finish turns the verdict into the final condition once no pod is left running and
// all are counted.
func (in *input) finish(s *batchv1.JobStatus, verdict *batchv1.JobCondition) {
	u := s.UncountedTerminatedPods
	if len(in.active) > 0 || in.terminating > 0 || len(u.Succeeded) > 0 || len(u.Failed) > 0 {
		return
	}
	s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	if verdict.Type == batchv1.JobSuccessCriteriaMet {
		setCondition(s, batchv1.JobComplete, corev1.ConditionTrue, verdict.Reason, verdict.Message, in.now)
		s.CompletionTime = ptr.To(metav1.NewTime(in.now))
		return
	}
	setCondition(s, batchv1.JobFailed, corev1.ConditionTrue, verdict.Reason, verdict.Message, in.now)
}

// verdict says whether the Job has succeeded or failed, though pods may still run. A
// verdict that was given stands.
func (in *input) verdict(s *batchv1.JobStatus, suspended bool, p *plan) *batchv1.JobCondition {
	for _, t := range []batchv1.JobConditionType{batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if isTrue(*s, t) {
			return condition(*s, t)
		}
	}
	fail := func(reason, message string) *batchv1.JobCondition {
		return &batchv1.JobCondition{Type: batchv1.JobFailureTarget, Reason: reason, Message: message}
	}
	spec := in.job.Spec
	if message := in.failJobRule(); message != "" {
		return fail(batchv1.JobReasonPodFailurePolicy, message)
	}
	if in.tooManyFailures() {
		return fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	}
	if d := spec.ActiveDeadlineSeconds; d != nil && !suspended && s.StartTime != nil {
		left := s.StartTime.Add(time.Duration(*d) * time.Second).Sub(in.now)
		if left <= 0 {
			return fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
		}
		p.wait(left)
	}
	if in.indexed && spec.BackoffLimitPerIndex != nil {
		if m := spec.MaxFailedIndexes; m != nil && in.refused.len() > int(*m) {
			return fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
		}
		if in.refused.len() > 0 && in.refused.len()+in.done.len() >= int(*spec.Completions) {
			return fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
		}
	}
	if in.indexed && spec.SuccessPolicy != nil {
		if message := in.successRule(); message != "" {
			return &batchv1.JobCondition{Type: batchv1.JobSuccessCriteriaMet, Reason: batchv1.JobReasonSuccessPolicy, Message: message}
		}
	}
	complete := false
	if spec.Completions == nil {
		complete = in.succeeded > 0 && len(in.active) == 0 && (in.terminating == 0 || !in.onlyFailed())
	} else {
		complete = in.succeeded >= *spec.Completions
	}
	if complete {
		return &batchv1.JobCondition{Type: batchv1.JobSuccessCriteriaMet, Reason: batchv1.JobReasonCompletionsReached, Message: "Reached expected number of succeeded pods"}
	}
	return nil
}

// tooManyFailures compares failed pods, or restarts where containers are restarted in
// place, with the backoff limit.
func (in *input) tooManyFailures() bool {
	limit := ptr.Deref(in.job.Spec.BackoffLimit, 6)
	if in.failed > limit {
		return true
	}
	if in.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	restarts := int32(0)
	for _, p := range in.active {
		if p.Status.Phase != corev1.PodRunning && p.Status.Phase != corev1.PodPending {
			continue
		}
		for _, st := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			restarts += st.RestartCount
		}
	}
	if limit == 0 {
		return restarts > 0
	}
	return restarts >= limit
}

// size plans the pods to create or delete so that as many run as should.
func (in *input) size(p *plan) {
	spec := in.job.Spec
	want := ptr.Deref(spec.Parallelism, 1)
	if spec.Completions != nil {
		want = min(want, *spec.Completions-in.succeeded-int32(in.refused.len()))
	} else if in.succeeded > 0 {
		want = min(want, int32(len(in.active))) // one success ends it: no new ones
	}
	want = max(want, 0)
	if len(in.active) > int(want) {
		p.discard = in.surplus(int(want))
		return
	}
	if in.indexed {
		if p.discard = in.duplicates(); len(p.discard) > 0 {
			return
		}
	}
	n := int(want) - len(in.active)
	if in.onlyFailed() {
		n -= int(in.terminating)
	}
	if n <= 0 {
		return
	}
	if !in.indexed || spec.BackoffLimitPerIndex == nil {
		if left := in.backoff(in.pods); left > 0 {
			p.wait(left)
			return
		}
	}
	if !in.indexed {
		for range n {
			p.create = append(p.create, in.newPod(-1))
		}
		return
	}
	taken := map[int]bool{}
	for _, pod := range in.pods {
		if i, ok := indexOf(pod); ok && (pods.IsActive(pod) || in.onlyFailed() && !pods.IsTerminated(pod)) {
			taken[i] = true
		}
	}
	byIndex := in.podsByIndex()
	for i := 0; i < int(*spec.Completions) && len(p.create) < n; i++ {
		if taken[i] || in.done.has(i) || in.refused.has(i) {
			continue
		}
		if spec.BackoffLimitPerIndex != nil {
			if left := in.backoff(byIndex[i]); left > 0 {
				p.wait(left)
				continue
			}
		}
		p.create = append(p.create, in.newPod(i))
	}
}

// surplus returns the active pods beyond want: of an indexed Job the highest indexes.
func (in *input) surplus(want int) []*corev1.Pod {
	if !in.indexed {
		return pods.ToDelete(in.active, nil, len(in.active)-want, false, in.now)
	}
	duplicates := in.duplicates()
	rest := slices.DeleteFunc(slices.Clone(in.active), func(p *corev1.Pod) bool { return slices.Contains(duplicates, p) })
	slices.SortStableFunc(rest, func(a, b *corev1.Pod) int {
		i, _ := indexOf(a)
		j, _ := indexOf(b)
		return cmp.Compare(i, j)
	})
	return append(duplicates, rest[min(want, len(rest)):]...)
}

// duplicates returns the active pods that an indexed Job has no use for.
func (in *input) duplicates() (out []*corev1.Pod) {
	seen := sets.New[int]()
	for _, p := range in.active {
		i, ok := indexOf(p)
		if !ok || i >= int(*in.job.Spec.Completions) || in.done.has(i) || in.refused.has(i) || seen.Has(i) {
			out = append(out, p)
		}
		seen.Insert(i)
	}
	return out
}

func (in *input) podsByIndex() map[int][]*corev1.Pod {
	m := map[int][]*corev1.Pod{}
	for _, p := range in.pods {
		if i, ok := indexOf(p); ok {
			m[i] = append(m[i], p)
		}
	}
	return m
}

// backoff returns how long no new pod should be made because of the failures among
// these since their last success.
func (in *input) backoff(among []*corev1.Pod) time.Duration {
	var success, last time.Time
	for _, p := range among {
		if t := finishedAt(p); p.Status.Phase == corev1.PodSucceeded && t.After(success) {
			success = t
		}
	}
	n := 0
	for _, p := range among {
		if t := finishedAt(p); in.hasFailed(p) && t.After(success) {
			n++
			if t.After(last) {
				last = t
			}
		}
	}
	if n == 0 {
		return 0
	}
	d := time.Duration(math.Min(float64(maxBackoff), float64(firstBackoff)*math.Pow(2, float64(n-1))))
	return max(0, last.Add(d).Sub(in.now))
}

// finishedAt is when the last container of a pod ended, as far as is known.
func finishedAt(p *corev1.Pod) time.Time {
	var at time.Time
	for _, st := range p.Status.ContainerStatuses {
		if st.State.Terminated != nil && st.State.Terminated.FinishedAt.After(at) {
			at = st.State.Terminated.FinishedAt.Time
		}
	}
	if !at.IsZero() {
		return at
	}
	if c := pods.Condition(p, corev1.PodReady); c != nil && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if p.DeletionTimestamp != nil {
		return p.DeletionTimestamp.Time
	}
	return p.CreationTimestamp.Time
}

// newPod returns a pod for an index, or for none if it is negative.
func (in *input) newPod(index int) *corev1.Pod {
	p := pods.FromTemplate(&in.job.Spec.Template, in.job, kind)
	p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
	if in.group != "" {
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &in.group}
	}
	if index < 0 {
		return p
	}
	in.addIndex(p, index)
	p.Spec.Hostname = fmt.Sprintf("%s-%d", in.job.Name, index)
	p.GenerateName = fmt.Sprintf("%s-%d-", in.job.Name, index)
	return p
}
