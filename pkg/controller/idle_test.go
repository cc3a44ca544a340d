package controller_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/controller/internal/controllertest"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// Where all is as it should be, nothing is written, though every controller looks at every object: a second manager
// begins with 100 Deployments and one of each other workload that a first has brought about.
func TestNothingToDo(t *testing.T) {
	const deployments = 100
	tc := testcluster.Start(t)
	c := &cluster{T: t, cfg: tc.Config, cs: tc.Client(t)}
	c.nodes = controllertest.StartNodes(t, c.cs, "n1", "n2")

	stop, ended := c.manage(tc.Kubeconfig(t))
	c = c.in(t)
	c.createWorkloads(deployments)
	c.eventually("all as it should be", c.workloadsSettled)
	stop()
	c.must(<-ended)

	w := &writes{}
	before := queues(t)
	stop, ended = c.manage(startProxy(t, tc.Config, w.count))
	c.eventually("a look at everything", func(context.Context) (bool, string) {
		var busy []string
		now := queues(t)
		for name, q := range now {
			if old := before[name]; q.added-old.added != q.done-old.done {
				busy = append(busy, fmt.Sprintf("%s: %v of %v", name, q.done-old.done, q.added-old.added))
			}
		}
		looked := func(name string) float64 { return now[name].done - before[name].done }
		ok := looked("deployment") >= deployments && looked("replicaset") >= deployments && looked("endpoint_slice") >= 1 &&
			looked("statefulset") >= 1 && looked("daemonset") >= 1 && looked("job") >= 1 && looked("cronjob") >= 1 && looked("disruption") >= 1
		return ok && len(busy) == 0, fmt.Sprintf("%v deployments; %s", looked("deployment"), strings.Join(busy, ", "))
	})
	stop()
	c.must(<-ended)
	for _, written := range w.list {
		t.Error("written:", written)
	}
}

// createWorkloads makes Deployments, and one of each other kind of workload.
func (c *cluster) createWorkloads(deployments int) {
	c.Helper()
	ctx := c.Context()
	created := func(_ any, err error) {
		c.Helper()
		c.must(err)
	}
	part := func(name string) (metav1.ObjectMeta, *metav1.LabelSelector, corev1.PodTemplateSpec) {
		labels := map[string]string{"app": name}
		return metav1.ObjectMeta{Name: name}, &metav1.LabelSelector{MatchLabels: labels}, template("v1", labels)
	}
	for i := range deployments {
		meta, selector, template := part(fmt.Sprint("d", i))
		created(c.cs.AppsV1().Deployments(c.ns).Create(ctx, &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: selector, Template: template}}, metav1.CreateOptions{}))
	}
	meta, selector, template := part("stateful")
	created(c.cs.AppsV1().StatefulSets(c.ns).Create(ctx, &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template}}, metav1.CreateOptions{}))
	meta, selector, template = part("daemon")
	created(c.cs.AppsV1().DaemonSets(c.ns).Create(ctx, &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}}, metav1.CreateOptions{}))
	jobs := batchv1.JobSpec{Template: endingTemplate(controllertest.Succeed)}
	created(c.cs.BatchV1().Jobs(c.ns).Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "job"}, Spec: jobs}, metav1.CreateOptions{}))
	yearly := batchv1.CronJobSpec{Schedule: "0 0 1 1 *", Suspend: ptr.To(true), JobTemplate: batchv1.JobTemplateSpec{Spec: jobs}}
	created(c.cs.BatchV1().CronJobs(c.ns).Create(ctx, &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "cron"}, Spec: yearly}, metav1.CreateOptions{}))
	meta, selector, _ = part("d0")
	created(c.cs.CoreV1().Services(c.ns).Create(ctx, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: selector.MatchLabels, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}))
	budget := policyv1.PodDisruptionBudgetSpec{Selector: selector, MaxUnavailable: ptr.To(intstr.FromInt32(1))}
	created(c.cs.PolicyV1().PodDisruptionBudgets(c.ns).Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: meta, Spec: budget}, metav1.CreateOptions{}))
}

// workloadsSettled says whether the statuses of what createWorkloads made tell that all is done.
func (c *cluster) workloadsSettled(ctx context.Context) (bool, string) {
	list := metav1.ListOptions{}
	var waiting []string
	wait := func(name string, done bool) {
		if !done {
			waiting = append(waiting, name)
		}
	}
	deployments, err := c.cs.AppsV1().Deployments(c.ns).List(ctx, list)
	c.must(err)
	for _, d := range deployments.Items {
		wait(d.Name, d.Status.AvailableReplicas == 1 && d.Status.UpdatedReplicas == 1)
	}
	stateful, err := c.cs.AppsV1().StatefulSets(c.ns).Get(ctx, "stateful", metav1.GetOptions{})
	c.must(err)
	wait("the StatefulSet", stateful.Status.AvailableReplicas == 1)
	daemon, err := c.cs.AppsV1().DaemonSets(c.ns).Get(ctx, "daemon", metav1.GetOptions{})
	c.must(err)
	wait("the DaemonSet", daemon.Status.NumberAvailable == 2)
	job, err := c.cs.BatchV1().Jobs(c.ns).Get(ctx, "job", metav1.GetOptions{})
	c.must(err)
	wait("the Job", job.Status.CompletionTime != nil && len(job.Status.UncountedTerminatedPods.Succeeded) == 0)
	budget, err := c.cs.PolicyV1().PodDisruptionBudgets(c.ns).Get(ctx, "d0", metav1.GetOptions{})
	c.must(err)
	wait("the budget", budget.Status.DisruptionsAllowed == 1)
	slices, err := c.cs.DiscoveryV1().EndpointSlices(c.ns).List(ctx, list)
	c.must(err)
	wait("the EndpointSlice", len(slices.Items) == 1 && len(slices.Items[0].Endpoints) == 1 && ptr.Deref(slices.Items[0].Endpoints[0].Conditions.Ready, false))
	pods, err := c.cs.CoreV1().Pods(c.ns).List(ctx, list)
	c.must(err)
	for _, p := range pods.Items {
		wait(p.Name, len(p.Finalizers) == 0 && (p.Status.Phase == corev1.PodRunning || p.Status.Phase == corev1.PodSucceeded))
	}
	return len(waiting) == 0, strings.Join(waiting, ", ")
}

// writes are requests that change something.
type writes struct {
	mu   sync.Mutex
	list []string
}

// count notes the writes among the requests that pass. To ask what a client may do changes nothing, and each manager
// tells once of each node that it has found (RegisteredNode), as the original does.
func (w *writes) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && !strings.Contains(req.URL.Path, "accessreviews") && req.URL.Path != "/api/v1/namespaces/default/events" {
			w.mu.Lock()
			w.list = append(w.list, req.Method+" "+req.URL.Path)
			w.mu.Unlock()
		}
		next.ServeHTTP(rw, req)
	})
}

// traffic is what has come to a work queue, and what has been worked on.
type traffic struct{ added, done float64 }

// queues tells of all work queues of this process.
func queues(t *testing.T) map[string]traffic {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]traffic{}
	for _, f := range families {
		for _, m := range f.Metric {
			labels := maps.Collect(func(yield func(string, string) bool) {
				for _, l := range m.Label {
					if !yield(l.GetName(), l.GetValue()) {
						return
					}
				}
			})
			q := all[labels["name"]]
			switch f.GetName() {
			case "workqueue_adds_total":
				q.added = m.GetCounter().GetValue()
			case "workqueue_work_duration_seconds":
				q.done = float64(m.GetHistogram().GetSampleCount())
			default:
				continue
			}
			all[labels["name"]] = q
		}
	}
	return all
}
