package job

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// measures are the original's metrics of Jobs.
type measures struct {
	duration                                         *metrics.HistogramVec
	syncs, finished, podsFinished, indexes, podsMade *metrics.CounterVec
	handled, held, others                            *metrics.CounterVec
}

func newMeasures(r metrics.KubeRegistry) *measures {
	counter := func(level metrics.StabilityLevel, name, help string, labels ...string) *metrics.CounterVec {
		return metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: "job_controller", Name: name, Help: help, StabilityLevel: level}, labels)
	}
	m := &measures{
		duration: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "job_controller", Name: "job_sync_duration_seconds", StabilityLevel: metrics.STABLE,
			Help: "Time that it took to reconcile a Job", Buckets: metrics.ExponentialBuckets(0.004, 2, 15),
		}, []string{"completion_mode", "result", "action"}),
		syncs:        counter(metrics.STABLE, "job_syncs_total", "Number of times that Jobs were reconciled", "completion_mode", "result", "action"),
		finished:     counter(metrics.STABLE, "jobs_finished_total", "Number of Jobs that have finished", "completion_mode", "result", "reason"),
		podsFinished: counter(metrics.STABLE, "job_pods_finished_total", "Number of pods whose end has been counted", "completion_mode", "result"),
		indexes:      counter(metrics.ALPHA, "job_finished_indexes_total", "Number of indexes that have finished; the back-off limit is perIndex or global", "status", "backoffLimit"),
		podsMade:     counter(metrics.ALPHA, "job_pods_creation_total", "Number of pods that were created, by why: new, recreate_terminating_or_failed, recreate_failed", "reason", "status"),
		handled:      counter(metrics.BETA, "pod_failures_handled_by_failure_policy_total", "Number of failed pods that a rule of the failure policy has spoken of, by its action", "action"),
		held:         counter(metrics.BETA, "terminated_pods_tracking_finalizer_total", "Number of ended pods with the finalizer of Jobs: those that it was found on (add), and those that have lost it (delete)", "event"),
		others:       counter(metrics.ALPHA, "jobs_by_external_controller_total", "Number of Jobs that another controller manages", "controller_name"),
	}
	r.MustRegister(m.duration, m.syncs, m.finished, m.podsFinished, m.indexes, m.podsMade, m.handled, m.held, m.others)
	return m
}

func completionMode(job *batchv1.Job) string {
	return string(ptr.Deref(job.Spec.CompletionMode, batchv1.NonIndexedCompletion))
}

// jobs passes all events of Jobs, and counts those that another controller manages.
func (m *measures) jobs() predicate.Predicate {
	return predicate.Funcs{CreateFunc: func(e event.CreateEvent) bool {
		if by := e.Object.(*batchv1.Job).Spec.ManagedBy; by != nil && *by != batchv1.JobControllerName {
			m.others.WithLabelValues(*by).Inc()
		}
		return true
	}}
}

// pods passes all events of pods, and counts the ends that the finalizer holds and has held.
func (m *measures) pods() predicate.Predicate {
	held := func(o client.Object) bool { return pods.IsTerminated(o.(*corev1.Pod)) && tracked(o.(*corev1.Pod)) }
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			if held(e.Object) {
				m.held.WithLabelValues("add").Inc()
			}
			return true
		},
		UpdateFunc: func(e event.UpdateEvent) bool {
			switch before, now := held(e.ObjectOld), held(e.ObjectNew); {
			case now && !before:
				m.held.WithLabelValues("add").Inc()
			case before && !now:
				m.held.WithLabelValues("delete").Inc()
			}
			return true
		},
	}
}

// synced counts one reconciliation that has had a plan.
func (m *measures) synced(job *batchv1.Job, p *plan, err error, took time.Duration) {
	result, action := "success", "tracking"
	if err != nil {
		result = "error"
	}
	switch {
	case len(p.create) > 0:
		action = "pods_created"
	case len(p.remove)+len(p.discard) > 0:
		action = "pods_deleted"
	}
	m.syncs.WithLabelValues(completionMode(job), result, action).Inc()
	m.duration.WithLabelValues(completionMode(job), result, action).Observe(took.Seconds())
}

// created counts the pods that were to be created.
func (m *measures) created(job *batchv1.Job, succeeded, failed int) {
	reason := "new"
	switch again := job.Status.Failed > 0 || ptr.Deref(job.Status.Terminating, 0) > 0; {
	case again && ptr.Deref(job.Spec.PodReplacementPolicy, batchv1.TerminatingOrFailed) == batchv1.Failed:
		reason = "recreate_failed"
	case again:
		reason = "recreate_terminating_or_failed"
	}
	m.podsMade.WithLabelValues(reason, "succeeded").Add(float64(succeeded))
	m.podsMade.WithLabelValues(reason, "failed").Add(float64(failed))
}

// written counts what is new in a status.
func (m *measures) written(job *batchv1.Job, before, after *batchv1.JobStatus) {
	mode := completionMode(job)
	more := func(c *metrics.CounterVec, n int32, labels ...string) {
		if n > 0 {
			c.WithLabelValues(labels...).Add(float64(n))
		}
	}
	more(m.podsFinished, after.Succeeded-before.Succeeded, mode, "succeeded")
	more(m.podsFinished, after.Failed-before.Failed, mode, "failed")
	if job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion {
		limit, all := "global", int(ptr.Deref(job.Spec.Completions, 0))
		if job.Spec.BackoffLimitPerIndex != nil {
			limit = "perIndex"
		}
		count := func(text string) int32 { return int32(parseIndexes(text, all).len()) }
		more(m.indexes, count(after.CompletedIndexes)-count(before.CompletedIndexes), "succeeded", limit)
		more(m.indexes, count(ptr.Deref(after.FailedIndexes, ""))-count(ptr.Deref(before.FailedIndexes, "")), "failed", limit)
	}
	for t, result := range map[batchv1.JobConditionType]string{batchv1.JobComplete: "succeeded", batchv1.JobFailed: "failed"} {
		if c := condition(*after, t); c != nil && c.Status == corev1.ConditionTrue && !isTrue(*before, t) {
			m.finished.WithLabelValues(mode, result, c.Reason).Inc()
		}
	}
}
