package controller_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/controller/internal/controllertest"
)

// retry applies a change until it meets no conflict.
func (c *cluster) retry(change func(ctx context.Context) error) {
	c.Helper()
	c.eventually("a change", func(ctx context.Context) (bool, string) {
		err := change(ctx)
		if !apierrors.IsConflict(err) {
			c.must(err)
		}
		return err == nil, fmt.Sprint(err)
	})
}

func testDaemonSet(t *testing.T, shared *cluster) {
	c := shared.in(t)
	labels := map[string]string{"app": "agent"}
	api := c.cs.AppsV1().DaemonSets(c.ns)
	ds, err := api.Create(t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template("v1", labels)},
	}, metav1.CreateOptions{})
	c.must(err)
	settled := func(what string) {
		t.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			ds, err = api.Get(ctx, "agent", metav1.GetOptions{})
			c.must(err)
			s := ds.Status
			return s.ObservedGeneration == ds.Generation && s.DesiredNumberScheduled == 2 && s.NumberAvailable == 2 && s.UpdatedNumberScheduled == 2 && s.CurrentNumberScheduled == 2,
				fmt.Sprintf("%+v", s)
		})
	}
	settled("a pod on each node")
	for _, r := range []appsv1.RollingUpdateDaemonSet{
		{MaxUnavailable: ptr.To(intstr.FromInt32(1)), MaxSurge: ptr.To(intstr.FromInt32(0))},
		{MaxUnavailable: ptr.To(intstr.FromInt32(0)), MaxSurge: ptr.To(intstr.FromInt32(1))},
	} {
		c.retry(func(ctx context.Context) error {
			ds, err := api.Get(ctx, "agent", metav1.GetOptions{})
			c.must(err)
			ds.Spec.UpdateStrategy.RollingUpdate = &r
			ds.Spec.Template.Spec.Containers[0].Image += "x"
			_, err = api.Update(ctx, ds, metav1.UpdateOptions{})
			return err
		})
		settled("a rolling update")
	}
	revisions, err := c.cs.AppsV1().ControllerRevisions(c.ns).List(t.Context(), metav1.ListOptions{})
	c.must(err)
	if len(revisions.Items) != 3 {
		t.Errorf("%d revisions after two updates", len(revisions.Items))
	}
}

func testJob(t *testing.T, shared *cluster) {
	c := shared.in(t)
	api := c.cs.BatchV1().Jobs(c.ns)
	job := func(name, image string, change func(*batchv1.JobSpec)) *batchv1.Job {
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}}
		j.Spec.Template = template(image, nil)
		j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		change(&j.Spec)
		_, err := api.Create(t.Context(), j, metav1.CreateOptions{})
		c.must(err)
		return j
	}
	ends := func(name string, as batchv1.JobConditionType, reason string) *batchv1.Job {
		t.Helper()
		var j *batchv1.Job
		c.eventually(name+" to end", func(ctx context.Context) (bool, string) {
			var err error
			j, err = api.Get(ctx, name, metav1.GetOptions{})
			c.must(err)
			return slices.ContainsFunc(j.Status.Conditions, func(cond batchv1.JobCondition) bool {
				return cond.Type == as && cond.Status == corev1.ConditionTrue && cond.Reason == reason
			}), fmt.Sprintf("%+v", j.Status)
		})
		return j
	}
	job("plain", controllertest.Succeed, func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = ptr.To[int32](7), ptr.To[int32](3) })
	job("indexed", controllertest.Succeed, func(s *batchv1.JobSpec) {
		s.CompletionMode, s.Completions, s.Parallelism = ptr.To(batchv1.IndexedCompletion), ptr.To[int32](6), ptr.To[int32](2)
	})
	job("failing", controllertest.Fail, func(s *batchv1.JobSpec) { s.BackoffLimit = ptr.To[int32](0) })
	job("late", "forever", func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = ptr.To[int64](1) })
	job("sleeping", controllertest.Succeed, func(s *batchv1.JobSpec) { s.Suspend = ptr.To(true) })
	job("brief", controllertest.Succeed, func(s *batchv1.JobSpec) { s.TTLSecondsAfterFinished = ptr.To[int32](0) })

	if j := ends("plain", batchv1.JobComplete, batchv1.JobReasonCompletionsReached); j.Status.Succeeded != 7 || j.Status.CompletionTime == nil {
		t.Errorf("%+v", j.Status)
	}
	if j := ends("indexed", batchv1.JobComplete, batchv1.JobReasonCompletionsReached); j.Status.CompletedIndexes != "0-5" || j.Status.Succeeded != 6 {
		t.Errorf("%+v", j.Status)
	}
	if j := ends("failing", batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded); j.Status.Failed != 1 {
		t.Errorf("%+v", j.Status)
	}
	if j := ends("late", batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded); j.Status.Failed != 1 || j.Status.Active != 0 {
		t.Errorf("%+v", j.Status)
	}
	c.retry(func(ctx context.Context) error {
		j, err := api.Get(ctx, "sleeping", metav1.GetOptions{})
		c.must(err)
		j.Spec.Suspend = ptr.To(false)
		_, err = api.Update(ctx, j, metav1.UpdateOptions{})
		return err
	})
	ends("sleeping", batchv1.JobComplete, batchv1.JobReasonCompletionsReached)
	c.eventually("the brief Job to go", func(ctx context.Context) (bool, string) {
		j, err := api.Get(ctx, "brief", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprintf("%+v %+v", j.ObjectMeta, j.Status)
	})
	c.eventually("pods without finalizers", func(ctx context.Context) (bool, string) {
		l, err := c.cs.CoreV1().Pods(c.ns).List(ctx, metav1.ListOptions{})
		c.must(err)
		held := 0
		for i := range l.Items {
			held += len(l.Items[i].Finalizers)
		}
		return held == 0, fmt.Sprint(held)
	})
}

func testEndpoints(t *testing.T, shared *cluster) {
	c := shared.in(t)
	labels := map[string]string{"app": "web"}
	_, err := c.cs.AppsV1().ReplicaSets(c.ns).Create(t.Context(), &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](3), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template("v1", labels)},
	}, metav1.CreateOptions{})
	c.must(err)
	_, err = c.cs.CoreV1().Services(c.ns).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	c.must(err)
	count := func(want int) {
		t.Helper()
		c.eventually("endpoints", func(ctx context.Context) (bool, string) {
			l, err := c.cs.DiscoveryV1().EndpointSlices(c.ns).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
			c.must(err)
			inSlices := 0
			for _, s := range l.Items {
				for _, e := range s.Endpoints {
					if ptr.Deref(e.Conditions.Ready, false) {
						inSlices++
					}
				}
			}
			e, err := c.cs.CoreV1().Endpoints(c.ns).Get(ctx, "web", metav1.GetOptions{})
			inEndpoints := 0
			if err == nil && len(e.Subsets) > 0 {
				inEndpoints = len(e.Subsets[0].Addresses)
			}
			return inSlices == want && inEndpoints == want, fmt.Sprintf("%d in slices, %d in Endpoints: %v", inSlices, inEndpoints, err)
		})
	}
	count(3)
	_, err = c.cs.AppsV1().ReplicaSets(c.ns).Patch(t.Context(), "web", "application/merge-patch+json", []byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{})
	c.must(err)
	count(1)
	c.must(c.cs.CoreV1().Services(c.ns).Delete(t.Context(), "web", metav1.DeleteOptions{}))
	c.eventually("endpoints to go", func(ctx context.Context) (bool, string) {
		l, err := c.cs.DiscoveryV1().EndpointSlices(c.ns).List(ctx, metav1.ListOptions{})
		c.must(err)
		_, err = c.cs.CoreV1().Endpoints(c.ns).Get(ctx, "web", metav1.GetOptions{})
		return len(l.Items) == 0 && apierrors.IsNotFound(err), fmt.Sprint(len(l.Items), err)
	})
}

func testGarbageCollector(t *testing.T, shared *cluster) {
	c := shared.in(t)
	labels := map[string]string{"app": "x"}
	sets := c.cs.AppsV1().ReplicaSets(c.ns)
	for policy, left := range map[metav1.DeletionPropagation]int{
		metav1.DeletePropagationBackground: 0, metav1.DeletePropagationForeground: 0, metav1.DeletePropagationOrphan: 2,
	} {
		_, err := sets.Create(t.Context(), &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Name: "x"},
			Spec:       appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template("v1", labels)},
		}, metav1.CreateOptions{})
		c.must(err)
		podsLeft := func(want int, ownerGone bool) {
			t.Helper()
			c.eventually(fmt.Sprint(policy, ": ", want, " pods"), func(ctx context.Context) (bool, string) {
				l, err := c.cs.CoreV1().Pods(c.ns).List(ctx, metav1.ListOptions{LabelSelector: "app=x"})
				c.must(err)
				_, err = sets.Get(ctx, "x", metav1.GetOptions{})
				return len(l.Items) == want && apierrors.IsNotFound(err) == ownerGone, fmt.Sprint(len(l.Items), err)
			})
		}
		podsLeft(2, false)
		c.must(sets.Delete(t.Context(), "x", metav1.DeleteOptions{PropagationPolicy: &policy}))
		podsLeft(left, true)
		l, err := c.cs.CoreV1().Pods(c.ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=x"})
		c.must(err)
		for i := range l.Items {
			if len(l.Items[i].OwnerReferences) > 0 {
				t.Errorf("%s: %v", policy, l.Items[i].OwnerReferences)
			}
			c.must(c.cs.CoreV1().Pods(c.ns).Delete(t.Context(), l.Items[i].Name, metav1.DeleteOptions{}))
		}
		podsLeft(0, true)
	}
	// An owner that never was.
	_, err := c.cs.CoreV1().ConfigMaps(c.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Name: "orphan", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: "none", UID: "never"}},
	}}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("the orphan to go", func(ctx context.Context) (bool, string) {
		_, err := c.cs.CoreV1().ConfigMaps(c.ns).Get(ctx, "orphan", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
}

func testStatefulSet(t *testing.T, shared *cluster) {
	c := shared.in(t)
	labels := map[string]string{"app": "db"}
	api := c.cs.AppsV1().StatefulSets(c.ns)
	set, err := api.Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](3), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template("v1", labels), ServiceName: "db",
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
				ObjectMeta: metav1.ObjectMeta{Name: "data"},
				Spec: corev1.PersistentVolumeClaimSpec{
					AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
					Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
				},
			}},
		},
	}, metav1.CreateOptions{})
	c.must(err)
	settled := func(what, revision string) {
		t.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			set, err = api.Get(ctx, "db", metav1.GetOptions{})
			c.must(err)
			s, n := set.Status, *set.Spec.Replicas
			ok := s.ObservedGeneration == set.Generation && s.Replicas == n && s.AvailableReplicas == n && s.UpdatedReplicas == n && s.CurrentReplicas == n &&
				s.CurrentRevision == s.UpdateRevision && s.CurrentRevision != revision
			return ok, fmt.Sprintf("%+v", s)
		})
	}
	change := func(f func(*appsv1.StatefulSetSpec)) {
		t.Helper()
		c.retry(func(ctx context.Context) error {
			set, err := api.Get(ctx, "db", metav1.GetOptions{})
			c.must(err)
			f(&set.Spec)
			_, err = api.Update(ctx, set, metav1.UpdateOptions{})
			return err
		})
	}
	image := func(to string) func(*appsv1.StatefulSetSpec) {
		return func(s *appsv1.StatefulSetSpec) { s.Template.Spec.Containers[0].Image = to }
	}
	settled("three pods", "")
	pods, err := c.cs.CoreV1().Pods(c.ns).List(t.Context(), metav1.ListOptions{})
	c.must(err)
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, p := range pods.Items {
		if v := p.Spec.Volumes[0]; v.PersistentVolumeClaim == nil || v.PersistentVolumeClaim.ClaimName != "data-"+p.Name || p.Spec.Hostname != p.Name {
			t.Errorf("%s: %+v", p.Name, p.Spec)
		}
	}
	first := set.Status.CurrentRevision
	change(image("v2"))
	settled("a rolling update", first)
	second := set.Status.CurrentRevision
	change(image("v1"))
	settled("the way back", second)
	if set.Status.CurrentRevision != first {
		t.Errorf("the revision after the way back is %s, before it was %s", set.Status.CurrentRevision, first)
	}
	revisions, err := c.cs.AppsV1().ControllerRevisions(c.ns).List(t.Context(), metav1.ListOptions{})
	c.must(err)
	if len(revisions.Items) != 2 {
		t.Errorf("%d revisions of two templates", len(revisions.Items))
	}
	was, err := c.cs.CoreV1().Pods(c.ns).Get(t.Context(), "db-1", metav1.GetOptions{})
	c.must(err)
	c.must(c.cs.CoreV1().Pods(c.ns).Delete(t.Context(), "db-1", metav1.DeleteOptions{}))
	c.eventually("a deleted pod to come back", func(ctx context.Context) (bool, string) { // the status may not tell yet that it has gone
		p, err := c.cs.CoreV1().Pods(c.ns).Get(ctx, "db-1", metav1.GetOptions{})
		return err == nil && p.UID != was.UID, fmt.Sprint(err)
	})
	settled("it to be ready", second)
	change(func(s *appsv1.StatefulSetSpec) { s.Replicas = ptr.To[int32](1) })
	settled("the last two to go", second)
	c.eventually("their claims to go", func(ctx context.Context) (bool, string) {
		l, err := c.cs.CoreV1().PersistentVolumeClaims(c.ns).List(ctx, metav1.ListOptions{})
		c.must(err)
		var left []string
		for i := range l.Items {
			if l.Items[i].DeletionTimestamp == nil { // the rest is a matter of volume protection
				left = append(left, l.Items[i].Name)
			}
		}
		return slices.Equal(left, []string{"data-db-0"}), fmt.Sprint(left)
	})
}

func testCronJob(t *testing.T, shared *cluster) {
	c := shared.in(t)
	api := c.cs.BatchV1().CronJobs(c.ns)
	cronJob := func(name, image string, policy batchv1.ConcurrencyPolicy) {
		cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: name}}
		cj.Spec.Schedule, cj.Spec.ConcurrencyPolicy = "@every 1s", policy
		cj.Spec.JobTemplate.Spec.Template = template(image, nil)
		cj.Spec.JobTemplate.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		_, err := api.Create(t.Context(), cj, metav1.CreateOptions{})
		c.must(err)
	}
	cronJob("brief", controllertest.Succeed, batchv1.AllowConcurrent)
	cronJob("long", "forever", batchv1.ForbidConcurrent)
	c.eventually("a success", func(ctx context.Context) (bool, string) {
		cj, err := api.Get(ctx, "brief", metav1.GetOptions{})
		c.must(err)
		return cj.Status.LastSuccessfulTime != nil && cj.Status.LastScheduleTime != nil && len(cj.Status.Active) == 0, fmt.Sprintf("%+v", cj.Status)
	})
	c.eventually("a Job that runs", func(ctx context.Context) (bool, string) {
		cj, err := api.Get(ctx, "long", metav1.GetOptions{})
		c.must(err)
		if len(cj.Status.Active) != 1 {
			return false, fmt.Sprintf("%+v", cj.Status)
		}
		j, err := c.cs.BatchV1().Jobs(c.ns).Get(ctx, cj.Status.Active[0].Name, metav1.GetOptions{})
		c.must(err)
		return j.UID == cj.Status.Active[0].UID && metav1.IsControlledBy(j, cj) && j.Annotations[batchv1.CronJobScheduledTimestampAnnotation] != "", fmt.Sprintf("%+v", j.ObjectMeta)
	})
}

func testDisruption(t *testing.T, shared *cluster) {
	c := shared.in(t)
	labels := map[string]string{"app": "guarded"}
	one := intstr.FromInt32(1)
	_, err := c.cs.AppsV1().Deployments(c.ns).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "guarded"},
		Spec:       appsv1.DeploymentSpec{Replicas: ptr.To[int32](3), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template("v1", labels)},
	}, metav1.CreateOptions{})
	c.must(err)
	budgets := c.cs.PolicyV1().PodDisruptionBudgets(c.ns)
	_, err = budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "guard"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: labels}},
	}, metav1.CreateOptions{})
	c.must(err)
	allowed := func(n int32) {
		t.Helper()
		c.eventually(fmt.Sprint(n, " disruptions allowed"), func(ctx context.Context) (bool, string) {
			b, err := budgets.Get(ctx, "guard", metav1.GetOptions{})
			c.must(err)
			s := b.Status
			return s.DisruptionsAllowed == n && s.ExpectedPods == 3 && s.DesiredHealthy == 2 && len(s.DisruptedPods) == 0, fmt.Sprintf("%+v", s)
		})
	}
	evict := func() error {
		l, err := c.cs.CoreV1().Pods(c.ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=guarded", FieldSelector: "status.phase=Running"})
		c.must(err)
		return c.cs.CoreV1().Pods(c.ns).EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: l.Items[0].Name, Namespace: c.ns}})
	}
	allowed(1)
	c.must(evict())
	allowed(1) // the next one has come
	c.retry(func(ctx context.Context) error {
		d, err := c.cs.AppsV1().Deployments(c.ns).Get(ctx, "guarded", metav1.GetOptions{})
		c.must(err)
		d.Spec.Template.Spec.Containers[0].Image = controllertest.Unready
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: ptr.To(intstr.FromInt32(0)), MaxUnavailable: &one}
		_, err = c.cs.AppsV1().Deployments(c.ns).Update(ctx, d, metav1.UpdateOptions{})
		return err
	})
	allowed(0)
	l, err := c.cs.CoreV1().Pods(c.ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=guarded"})
	c.must(err)
	for _, p := range l.Items {
		if p.Spec.Containers[0].Image == controllertest.Unready {
			continue
		}
		err := c.cs.CoreV1().Pods(c.ns).EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: c.ns}})
		if !apierrors.IsTooManyRequests(err) || !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
			t.Errorf("evicting one too many: %v", err)
		}
	}
}

// What has no scale cannot be budgeted by shares: nothing may go, and the budget says why.
func testDisruptionWithoutScale(t *testing.T, shared *cluster) {
	c := shared.in(t)
	labels := map[string]string{"app": "unscaled"}
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "unscaled"}}
	job.Spec.Template = template("forever", labels)
	job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	_, err := c.cs.BatchV1().Jobs(c.ns).Create(t.Context(), job, metav1.CreateOptions{})
	c.must(err)
	budgets := c.cs.PolicyV1().PodDisruptionBudgets(c.ns)
	_, err = budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "guard"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}},
	}, metav1.CreateOptions{})
	c.must(err)
	c.eventually("a budget that says why it cannot be counted", func(ctx context.Context) (bool, string) {
		b, err := budgets.Get(ctx, "guard", metav1.GetOptions{})
		c.must(err)
		cond := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition)
		return cond != nil && cond.Reason == policyv1.SyncFailedReason && cond.Message == "jobs.batch does not implement the scale subresource", fmt.Sprintf("%+v", b.Status)
	})
}
