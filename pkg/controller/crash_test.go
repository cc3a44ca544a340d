package controller_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/controller/deployment"
	"github.com/leme-k8s/leme/pkg/controller/internal/controllertest"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/job"
	"github.com/leme-k8s/leme/pkg/controller/replicaset"
	"github.com/leme-k8s/leme/pkg/controller/statefulset"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// A crash is a connection to the API server that breaks after some writes: the last of them is carried out,
// and whoever sent it does not learn so.
type crash struct {
	next http.RoundTripper

	mu     sync.Mutex
	left   int
	broken chan struct{} // closed when it is
}

// crashAfter returns a config whose connection breaks after n writes, and when it is broken.
func crashAfter(cfg *rest.Config, n int) (*rest.Config, <-chan struct{}) {
	c := &crash{left: n, broken: make(chan struct{})}
	cfg = rest.CopyConfig(cfg)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		c.next = next
		return c
	})
	return cfg, c.broken
}

var errBroken = errors.New("the connection is broken")

// RoundTrip implements http.RoundTripper.
func (c *crash) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	left := c.left
	if left > 0 && req.Method != http.MethodGet {
		c.left--
	}
	c.mu.Unlock()
	if left == 0 {
		return nil, errBroken
	}
	resp, err := c.next.RoundTrip(req)
	if left == 1 && req.Method != http.MethodGet {
		if err == nil {
			resp.Body.Close()
		}
		close(c.broken)
		return nil, errBroken
	}
	return resp, err
}

// A scenario is what controllers do in several steps.
type scenario struct {
	controllers func(cached, live client.Client) []controllertest.Registrar
	kinds       []schema.GroupVersionKind
	indexes     []index.Index
	steps       []step
}

// A step changes something, and is over when what has come of it is there.
type step struct {
	do   func(ctx context.Context, c client.Client, ns string) error
	over func(ctx context.Context, c client.Client, ns string) (bool, string)
}

func created(o client.Object) func(context.Context, client.Client, string) error {
	return func(ctx context.Context, c client.Client, ns string) error {
		o := o.DeepCopyObject().(client.Object)
		o.SetNamespace(ns)
		return c.Create(ctx, o)
	}
}

func updated[P client.Object](empty P, change func(P)) func(context.Context, client.Client, string) error {
	return func(ctx context.Context, c client.Client, ns string) error {
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			o := empty.DeepCopyObject().(P)
			if err := c.Get(ctx, client.ObjectKey{Namespace: ns, Name: "x"}, o); err != nil {
				return err
			}
			change(o)
			return c.Update(ctx, o)
		})
	}
}

func reached[P client.Object](empty P, over func(P) bool) func(context.Context, client.Client, string) (bool, string) {
	return func(ctx context.Context, c client.Client, ns string) (bool, string) {
		o := empty.DeepCopyObject().(P)
		if err := c.Get(ctx, client.ObjectKey{Namespace: ns, Name: "x"}, o); err != nil {
			return false, err.Error()
		}
		return over(o), fmt.Sprintf("%+v", o)
	}
}

// finalState is all that the controllers have made of what they were asked for, without what differs each time.
func finalState(t *testing.T, c client.Client, ns string) string {
	t.Helper()
	var (
		lines       []string
		pods        corev1.PodList
		claims      corev1.PersistentVolumeClaimList
		revisions   appsv1.ControllerRevisionList
		sets        appsv1.ReplicaSetList
		stateful    appsv1.StatefulSetList
		deployments appsv1.DeploymentList
		jobs        batchv1.JobList
	)
	for _, list := range []client.ObjectList{&pods, &claims, &revisions, &sets, &stateful, &deployments, &jobs} {
		if err := c.List(t.Context(), list, client.InNamespace(ns)); err != nil {
			t.Fatal(err)
		}
	}
	add := func(kind string, o client.Object, more ...any) {
		owner := "nobody"
		if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
			owner = ref.Kind
		}
		lines = append(lines, fmt.Sprintln(kind, "of", owner, o.GetFinalizers(), more))
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		labels := maps.Clone(p.Labels) // two of a Job's name its UID
		maps.DeleteFunc(labels, func(name, _ string) bool { return strings.Contains(name, "controller-uid") })
		add("Pod", p, labels, p.DeletionTimestamp != nil, p.Status.Phase)
	}
	for i := range claims.Items {
		add("PersistentVolumeClaim "+claims.Items[i].Name, &claims.Items[i])
	}
	for i := range revisions.Items {
		add("ControllerRevision "+revisions.Items[i].Name, &revisions.Items[i], revisions.Items[i].Revision)
	}
	for i := range sets.Items {
		s := &sets.Items[i]
		add("ReplicaSet "+s.Name, s, *s.Spec.Replicas, s.Annotations, s.Status.Replicas, s.Status.AvailableReplicas, s.Status.Conditions)
	}
	for i := range stateful.Items {
		s := stateful.Items[i].Status
		add("StatefulSet", &stateful.Items[i], s.Replicas, s.AvailableReplicas, s.UpdatedReplicas, s.CurrentReplicas, s.CurrentRevision, s.UpdateRevision)
	}
	for i := range deployments.Items {
		d := &deployments.Items[i]
		s := d.Status
		add("Deployment", d, d.Annotations, s.Replicas, s.UpdatedReplicas, s.AvailableReplicas, s.UnavailableReplicas)
		for _, cond := range s.Conditions {
			lines = append(lines, fmt.Sprintln(cond.Type, cond.Status, cond.Reason))
		}
	}
	for i := range jobs.Items {
		s := jobs.Items[i].Status
		add("Job", &jobs.Items[i], s.Active, s.Succeeded, s.Failed, s.CompletedIndexes, *s.UncountedTerminatedPods)
		for _, cond := range s.Conditions {
			lines = append(lines, fmt.Sprintln(cond.Type, cond.Status, cond.Reason))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// The manager is killed after each of its writes in turn, and a new one goes on. It ends as if nothing had happened.
func TestKilledBetweenWrites(t *testing.T) {
	tc := testcluster.Start(t)
	cs := tc.Client(t)
	controllertest.StartNodes(t, cs, "n1", "n2")
	for name, s := range scenarios() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want string
			for n := 0; ; n++ { // 0 kills nobody
				got, killed := s.run(t, tc.Config, cs, n)
				switch {
				case n == 0:
					want = got
				case got != want:
					t.Errorf("killed after %d writes, it ends as\n%s\nundisturbed as\n%s", n, got, want)
				}
				if n > 0 && !killed {
					t.Logf("%d writes", n-1)
					return
				}
			}
		})
	}
}

// run takes the steps in a namespace of their own, and kills the manager after n writes if n is above zero.
func (s *scenario) run(t *testing.T, cfg *rest.Config, cs kubernetes.Interface, n int) (state string, killed bool) {
	t.Helper()
	ctx := t.Context()
	ns, err := cs.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "crash-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := cs.CoreV1().ServiceAccounts(ns.Name).Create(ctx, account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	setup := controllertest.Setup{Kinds: s.kinds, Indexes: s.indexes, Namespace: ns.Name, Assemble: s.controllers}
	broken := make(<-chan struct{}) // never
	first := cfg
	if n > 0 {
		first, broken = crashAfter(cfg, n)
	}
	_, stop := controllertest.Run(t, first, setup)
	defer func() { stop() }()
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range s.steps {
		if err := step.do(ctx, c, ns.Name); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		componenttest.EventuallyTold(t, fmt.Sprintf("the end of step %d, killed after %d writes", i, n), func() (bool, string) {
			select {
			case <-broken:
				if !killed {
					killed = true
					stop()
					_, stop = controllertest.Run(t, cfg, setup)
				}
			default:
			}
			return step.over(ctx, c, ns.Name)
		})
	}
	return finalState(t, c, ns.Name), killed
}

// scenarios of the workloads that take many writes.
func scenarios() map[string]*scenario {
	labels := map[string]string{"app": "x"}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	named := metav1.ObjectMeta{Name: "x"}
	pod, podIndex := corev1.SchemeGroupVersion.WithKind("Pod"), index.ByController(&corev1.Pod{})
	set, setIndex := appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), index.ByController(&appsv1.ReplicaSet{})
	events := &record.FakeRecorder{}
	gates := replicaset.Gates{TerminatingReplicas: true, PodDeletionCost: true}

	replicas := func(n int32) func(*appsv1.ReplicaSet) bool {
		return func(s *appsv1.ReplicaSet) bool {
			return s.Status.ObservedGeneration == s.Generation && s.Status.Replicas == n && s.Status.AvailableReplicas == n && *s.Status.TerminatingReplicas == 0
		}
	}
	rolledOut := func(n int32) func(*appsv1.Deployment) bool {
		return func(d *appsv1.Deployment) bool {
			s := d.Status
			for _, cond := range s.Conditions {
				if cond.Type == appsv1.DeploymentProgressing && cond.Reason != "NewReplicaSetAvailable" {
					return false
				}
			}
			return s.ObservedGeneration == d.Generation && s.Replicas == n && s.UpdatedReplicas == n && s.AvailableReplicas == n && *s.TerminatingReplicas == 0
		}
	}
	stateful := func(n int32) func(*appsv1.StatefulSet) bool {
		return func(set *appsv1.StatefulSet) bool {
			s := set.Status
			return s.ObservedGeneration == set.Generation && s.Replicas == n && s.UpdatedReplicas == n && s.AvailableReplicas == n && s.CurrentRevision == s.UpdateRevision
		}
	}
	ended := func(of batchv1.JobConditionType) func(*batchv1.Job) bool {
		return func(j *batchv1.Job) bool {
			return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == of && c.Status == corev1.ConditionTrue })
		}
	}
	// The finalizers go after the Job has ended, too.
	free := func(over func(context.Context, client.Client, string) (bool, string)) func(context.Context, client.Client, string) (bool, string) {
		return func(ctx context.Context, c client.Client, ns string) (bool, string) {
			if ok, why := over(ctx, c, ns); !ok {
				return false, why
			}
			var list corev1.PodList
			err := c.List(ctx, &list, client.InNamespace(ns))
			held := slices.ContainsFunc(list.Items, func(p corev1.Pod) bool { return len(p.Finalizers) > 0 })
			return err == nil && !held, fmt.Sprintf("%v, pods with finalizers: %t", err, held)
		}
	}
	jobs := func(image string, completions, parallelism int32, of batchv1.JobConditionType) *scenario {
		return &scenario{
			controllers: func(cached, live client.Client) []controllertest.Registrar {
				return []controllertest.Registrar{job.New(cached, live, events, metrics.NewKubeRegistry(), false)}
			},
			kinds: []schema.GroupVersionKind{pod, batchv1.SchemeGroupVersion.WithKind("Job")}, indexes: []index.Index{podIndex},
			steps: []step{{created(&batchv1.Job{ObjectMeta: named, Spec: batchv1.JobSpec{
				Completions: &completions, Parallelism: &parallelism, BackoffLimit: ptr.To[int32](0), Template: endingTemplate(image),
			}}), free(reached(&batchv1.Job{}, ended(of)))}},
		}
	}
	return map[string]*scenario{
		"ReplicaSet": {
			controllers: func(cached, live client.Client) []controllertest.Registrar {
				return []controllertest.Registrar{replicaset.New(cached, live, events, gates, replicaset.NewMetrics(metrics.NewKubeRegistry()))}
			},
			kinds: []schema.GroupVersionKind{pod, set}, indexes: []index.Index{podIndex, setIndex},
			steps: []step{
				{created(&appsv1.ReplicaSet{ObjectMeta: named, Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](3), Selector: selector, Template: template("v1", labels)}}),
					reached(&appsv1.ReplicaSet{}, replicas(3))},
				{updated(&appsv1.ReplicaSet{}, func(s *appsv1.ReplicaSet) { s.Spec.Replicas = ptr.To[int32](1) }), reached(&appsv1.ReplicaSet{}, replicas(1))},
			},
		},
		"Deployment": {
			controllers: func(cached, live client.Client) []controllertest.Registrar {
				return []controllertest.Registrar{deployment.New(cached, live, events, true), replicaset.New(cached, live, events, gates, replicaset.NewMetrics(metrics.NewKubeRegistry()))}
			},
			kinds: []schema.GroupVersionKind{pod, set, appsv1.SchemeGroupVersion.WithKind("Deployment")}, indexes: []index.Index{podIndex, setIndex},
			steps: []step{
				{created(&appsv1.Deployment{ObjectMeta: named, Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](2), Selector: selector, Template: template("v1", labels)}}),
					reached(&appsv1.Deployment{}, rolledOut(2))},
				{updated(&appsv1.Deployment{}, func(d *appsv1.Deployment) { d.Spec.Template = template("v2", labels) }), reached(&appsv1.Deployment{}, rolledOut(2))},
			},
		},
		"StatefulSet": {
			controllers: func(cached, live client.Client) []controllertest.Registrar {
				return []controllertest.Registrar{statefulset.New(cached, live, events, true, metrics.NewKubeRegistry())}
			},
			kinds: []schema.GroupVersionKind{pod, corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
				appsv1.SchemeGroupVersion.WithKind("StatefulSet"), appsv1.SchemeGroupVersion.WithKind("ControllerRevision")},
			indexes: []index.Index{podIndex, index.ByController(&appsv1.ControllerRevision{})},
			steps: []step{
				{created(&appsv1.StatefulSet{ObjectMeta: named, Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](2), Selector: selector, Template: template("v1", labels),
					VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
						AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
						Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
					}}}}}), reached(&appsv1.StatefulSet{}, stateful(2))},
				{updated(&appsv1.StatefulSet{}, func(s *appsv1.StatefulSet) { s.Spec.Template = template("v2", labels) }), reached(&appsv1.StatefulSet{}, stateful(2))},
				{updated(&appsv1.StatefulSet{}, func(s *appsv1.StatefulSet) { s.Spec.Replicas = ptr.To[int32](1) }), reached(&appsv1.StatefulSet{}, stateful(1))},
			},
		},
		"JobThatSucceeds": jobs(controllertest.Succeed, 3, 2, batchv1.JobComplete),
		"JobThatFails":    jobs(controllertest.Fail, 1, 1, batchv1.JobFailed),
	}
}

func endingTemplate(image string) corev1.PodTemplateSpec {
	t := template(image, nil)
	t.Spec.RestartPolicy = corev1.RestartPolicyNever
	return t
}
