package controller_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/spf13/pflag"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/controller"
	"github.com/leme-k8s/leme/pkg/controller/internal/controllertest"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// cluster is an API server with this controller manager and two played nodes.
type cluster struct {
	*testing.T
	cfg   *rest.Config
	cs    kubernetes.Interface
	nodes *controllertest.Nodes
	ns    string
	// metrics is where the manager tells of itself.
	metrics string
}

func start(t *testing.T) *cluster {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	tc := testcluster.Start(t, testcluster.WithControllerManager("--controllers=*,bootstrapsigner,tokencleaner",
		"--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16", "--horizontal-pod-autoscaler-sync-period=100ms",
		"--node-monitor-grace-period=1h", // the played nodes send one heartbeat
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--authorization-always-allow-paths=/metrics"))
	cs := tc.Client(t)
	return &cluster{T: t, metrics: fmt.Sprintf("https://127.0.0.1:%d/metrics", port), cfg: tc.Config, cs: cs, nodes: controllertest.StartNodes(t, cs, "n1", "n2")}
}

// in returns the cluster for the use of one test, with a namespace of its own.
func (c *cluster) in(t *testing.T) *cluster {
	own := *c
	own.T = t
	ns, err := c.cs.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}, metav1.CreateOptions{})
	own.must(err)
	own.ns = ns.Name
	own.eventually("a service account", func(ctx context.Context) (bool, string) {
		_, err := c.cs.CoreV1().ServiceAccounts(own.ns).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, fmt.Sprint(err)
	})
	return &own
}

// manage runs one more manager, as an administrator, until it is stopped.
func (c *cluster) manage(kubeconfig string) (stop context.CancelFunc, ended <-chan error) {
	c.Helper()
	o := controller.NewOptions()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.AddFlags(fs)
	c.must(fs.Parse([]string{"--kubeconfig=" + kubeconfig, "--secure-port=0", "--leader-elect=false", "--node-monitor-grace-period=1h"}))
	runner, err := o.New(c.Context())
	c.must(err)
	ctx, stop := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- runner.Run(ctx) }()
	return stop, end
}

// TestControllers runs all suites against one cluster.
func TestControllers(t *testing.T) {
	c := start(t)
	for name, test := range map[string]func(*testing.T, *cluster){
		"Deployment":          testDeployment,
		"DaemonSet":           testDaemonSet,
		"Job":                 testJob,
		"StatefulSet":         testStatefulSet,
		"CronJob":             testCronJob,
		"Disruption":          testDisruption,
		"Unscaled":            testDisruptionWithoutScale,
		"Endpoints":           testEndpoints,
		"GarbageCollector":    testGarbageCollector,
		"VanishingDefinition": testVanishingDefinition,
		"NodeNotReady":        testNodeNotReady,
		"Certificates":        testCertificates,
		"OldRequests":         testOldRequests,
		"AggregatedRoles":     testAggregatedRoles,
		"PolicyStatus":        testPolicyStatus,
		"ResourceQuota":       testResourceQuota,
		"Mirroring":           testMirroring,
		"Protection":          testProtection,
		"Autoscaling":         testAutoscaling,
		"AccountTokens":       testAccountTokens,
		"TrustBundle":         testTrustBundle,
		"ServiceCIDR":         testServiceCIDR,
		"Binding":             testBinding,
		"Provisioning":        testProvisioning,
		"Attachment":          testAttachment,
		"Devices":             testDevices,
		"Migration":           testMigration,
	} {
		t.Run(name, func(t *testing.T) { test(t, c) })
	}
	t.Run("Metrics", func(t *testing.T) { testMetrics(t, c) })
}

func (c *cluster) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) eventually(what string, ok func(ctx context.Context) (bool, string)) {
	c.Helper()
	componenttest.EventuallyTold(c, what, func() (bool, string) { return ok(c.Context()) })
}

func template(image string, labels map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}, TerminationGracePeriodSeconds: ptr.To[int64](0)},
	}
}

func testDeployment(t *testing.T, shared *cluster) {
	c := shared.in(t)
	labels := map[string]string{"app": "web"}
	api := c.cs.AppsV1().Deployments(c.ns)
	d, err := api.Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](5), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template("v1", labels),
			RevisionHistoryLimit: ptr.To[int32](1),
			Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: ptr.To(intstr.FromInt32(1)), MaxUnavailable: ptr.To(intstr.FromInt32(1))}},
		},
	}, metav1.CreateOptions{})
	c.must(err)
	complete := func(what string) {
		t.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			d, err = api.Get(ctx, "web", metav1.GetOptions{})
			c.must(err)
			n := *d.Spec.Replicas
			s := d.Status
			ok := s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n
			return ok, fmt.Sprintf("%+v", s)
		})
	}
	change := func(f func(d *appsv1.Deployment)) {
		t.Helper()
		c.eventually("an update", func(ctx context.Context) (bool, string) {
			d, err = api.Get(ctx, "web", metav1.GetOptions{})
			c.must(err)
			f(d)
			_, err = api.Update(ctx, d, metav1.UpdateOptions{})
			if !apierrors.IsConflict(err) {
				c.must(err)
			}
			return err == nil, fmt.Sprint(err)
		})
	}
	complete("the first rollout")
	if d.Annotations["deployment.kubernetes.io/revision"] != "1" {
		t.Errorf("annotations: %v", d.Annotations)
	}
	for i := 2; i <= 4; i++ {
		change(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = fmt.Sprint("v", i) })
		complete(fmt.Sprint("rollout ", i))
	}
	change(func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](20) })
	complete("growth")
	change(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "v3" })
	complete("the way back")
	if got := d.Annotations["deployment.kubernetes.io/revision"]; got != "5" {
		t.Errorf("revision after the way back is %s", got)
	}
	change(func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](0) })
	complete("the end")
	c.eventually("a short history", func(ctx context.Context) (bool, string) {
		l, err := c.cs.AppsV1().ReplicaSets(c.ns).List(ctx, metav1.ListOptions{})
		c.must(err)
		return len(l.Items) == 2, fmt.Sprint(len(l.Items))
	})
	for _, cond := range d.Status.Conditions {
		t.Logf("%s %s %s %s", cond.Type, cond.Status, cond.Reason, cond.Message)
	}
	c.must(c.cs.CoreV1().Namespaces().Delete(t.Context(), c.ns, metav1.DeleteOptions{}))
	c.eventually("the namespace to go", func(ctx context.Context) (bool, string) {
		ns, err := c.cs.CoreV1().Namespaces().Get(ctx, c.ns, metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprintf("%+v", ns)
	})
}
