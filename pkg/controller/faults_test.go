package controller_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/controller/internal/controllertest"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

var faultsFor = flag.Duration("faults", 5*time.Second, "how long TestFaults lets the API server answer with errors")

// injected is what the API server says for no reason.
const injected = "this is a fault that was injected"

// faults is an API server that answers some requests with 409, 429 or 500 while it is on. It carries out half
// of those that it says it has not.
type faults struct {
	next http.Handler
	on   atomic.Bool
	told [3]atomic.Int64
}

// ServeHTTP implements http.Handler.
func (f *faults) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !f.on.Load() || rand.IntN(100) >= 25 {
		f.next.ServeHTTP(w, req)
		return
	}
	kind := rand.IntN(len(f.told))
	f.told[kind].Add(1)
	if kind == 2 && req.Method != http.MethodGet && rand.IntN(2) == 0 {
		f.next.ServeHTTP(httptest.NewRecorder(), req)
	}
	code := []int{http.StatusConflict, http.StatusTooManyRequests, http.StatusInternalServerError}[kind]
	reason := []metav1.StatusReason{metav1.StatusReasonConflict, metav1.StatusReasonTooManyRequests, metav1.StatusReasonInternalError}[kind]
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"reason":%q,"code":%d}`, injected, reason, code)
}

// startFaults puts itself before the API server, and returns a kubeconfig that reaches it as an administrator.
func startFaults(t *testing.T, cfg *rest.Config) (*faults, string) {
	t.Helper()
	f := &faults{}
	return f, startProxy(t, cfg, func(next http.Handler) http.Handler {
		f.next = next
		return f
	})
}

// startProxy puts what wrap returns before the API server, and returns a kubeconfig that reaches it as an administrator.
func startProxy(t *testing.T, cfg *rest.Config, wrap func(next http.Handler) http.Handler) (kubeconfig string) {
	t.Helper()
	target, err := url.Parse(cfg.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport, proxy.FlushInterval = transport, -1 // watches are told at once
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	server := httptest.NewServer(wrap(proxy))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: server.URL}},
		Contexts: map[string]*clientcmdapi.Context{"c": {Cluster: "c"}}, CurrentContext: "c",
	}, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// While the API server answers with errors at random, workloads come, change and go. No error ends the manager, what is
// wrong is told in events, and once the errors are over all is as it should be and nothing has leaked.
func TestFaults(t *testing.T) {
	tc := testcluster.Start(t)
	cs := tc.Client(t)
	c := &cluster{T: t, cfg: tc.Config, cs: cs, nodes: controllertest.StartNodes(t, cs, "n1", "n2")}
	f, kubeconfig := startFaults(t, tc.Config)

	stop, ended := c.manage(kubeconfig)
	defer stop()

	c = c.in(t) // the manager works
	w := &troubled{cluster: c}
	w.create("before")
	w.settle("before")
	before := settledGoroutines()

	f.on.Store(true)
	rounds := 0
	for until := time.Now().Add(*faultsFor); time.Now().Before(until) || rounds == 0; rounds++ {
		name := fmt.Sprint("during-", rounds)
		w.create(name)
		w.change(name)
		if rounds > 2 {
			w.delete(fmt.Sprint("during-", rounds-3))
		}
		select {
		case err := <-ended:
			t.Fatalf("the manager has ended: %v", err)
		case <-time.After(time.Until(until) / 20): // so that rounds are few, however long the faults last
		}
	}
	c.eventually("an event that says what is wrong", func(ctx context.Context) (bool, string) {
		list, err := cs.CoreV1().Events(c.ns).List(ctx, metav1.ListOptions{})
		c.must(err)
		for _, e := range list.Items {
			if e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, injected) {
				return true, ""
			}
		}
		return false, fmt.Sprintf("%d events", len(list.Items))
	})
	f.on.Store(false)
	t.Logf("%d rounds; answered with 409, 429, 500: %d, %d, %d times", rounds, f.told[0].Load(), f.told[1].Load(), f.told[2].Load())

	for i := range rounds {
		if name := fmt.Sprint("during-", i); i < rounds-3 {
			w.gone(name)
		} else {
			w.settle(name)
			w.delete(name)
			w.gone(name)
		}
	}
	w.settle("before")
	componenttest.EventuallyTold(t, "as many goroutines as before", func() (bool, string) {
		now := settledGoroutines()
		return now <= before+before/10, fmt.Sprintf("%d, before %d", now, before)
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// settledGoroutines counts goroutines, after those that wait for nothing have ended.
func settledGoroutines() int {
	runtime.GC()
	return runtime.NumGoroutine()
}

// troubled makes workloads, not through the faults.
type troubled struct{ *cluster }

func (c *troubled) create(name string) {
	c.Helper()
	labels := map[string]string{"app": name}
	meta, selector := metav1.ObjectMeta{Name: name}, &metav1.LabelSelector{MatchLabels: labels}
	_, err := c.cs.AppsV1().Deployments(c.ns).Create(c.Context(), &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](3), Selector: selector, Template: template("v1", labels)}}, metav1.CreateOptions{})
	c.must(err)
	_, err = c.cs.AppsV1().StatefulSets(c.ns).Create(c.Context(), &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](2), Selector: selector, Template: template("v1", labels)}}, metav1.CreateOptions{})
	c.must(err)
	_, err = c.cs.BatchV1().Jobs(c.ns).Create(c.Context(), &batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{Completions: ptr.To[int32](4), Parallelism: ptr.To[int32](2), Template: endingTemplate(controllertest.Succeed)}}, metav1.CreateOptions{})
	c.must(err)
}

func (c *troubled) change(name string) {
	c.Helper()
	c.retry(func(ctx context.Context) error {
		d, err := c.cs.AppsV1().Deployments(c.ns).Get(ctx, name, metav1.GetOptions{})
		c.must(err)
		d.Spec.Template.Annotations = map[string]string{"version": "2"}
		_, err = c.cs.AppsV1().Deployments(c.ns).Update(ctx, d, metav1.UpdateOptions{})
		return err
	})
	c.retry(func(ctx context.Context) error {
		s, err := c.cs.AppsV1().StatefulSets(c.ns).Get(ctx, name, metav1.GetOptions{})
		c.must(err)
		s.Spec.Replicas = ptr.To[int32](3)
		_, err = c.cs.AppsV1().StatefulSets(c.ns).Update(ctx, s, metav1.UpdateOptions{})
		return err
	})
}

// settle waits until all that belongs to name is as it should be: neither too little nor too much.
func (c *troubled) settle(name string) {
	c.Helper()
	c.slowly("what is called "+name, func(ctx context.Context) (bool, string) {
		d, err := c.cs.AppsV1().Deployments(c.ns).Get(ctx, name, metav1.GetOptions{})
		c.must(err)
		s, err := c.cs.AppsV1().StatefulSets(c.ns).Get(ctx, name, metav1.GetOptions{})
		c.must(err)
		j, err := c.cs.BatchV1().Jobs(c.ns).Get(ctx, name, metav1.GetOptions{})
		c.must(err)
		pods, err := c.cs.CoreV1().Pods(c.ns).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		c.must(err)
		ok := d.Status.ObservedGeneration == d.Generation && d.Status.Replicas == 3 && d.Status.UpdatedReplicas == 3 && d.Status.AvailableReplicas == 3 &&
			s.Status.ObservedGeneration == s.Generation && s.Status.Replicas == *s.Spec.Replicas && s.Status.AvailableReplicas == *s.Spec.Replicas &&
			j.Status.Succeeded == 4 && j.Status.Failed == 0 && j.Status.CompletionTime != nil && len(pods.Items) == int(3+*s.Spec.Replicas)
		return ok, fmt.Sprintf("%+v\n%+v\n%+v\n%d pods", d.Status, s.Status, j.Status, len(pods.Items))
	})
}

func (c *troubled) delete(name string) {
	c.Helper()
	background := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	c.must(c.cs.AppsV1().Deployments(c.ns).Delete(c.Context(), name, background))
	c.must(c.cs.AppsV1().StatefulSets(c.ns).Delete(c.Context(), name, background))
	c.must(c.cs.BatchV1().Jobs(c.ns).Delete(c.Context(), name, background))
}

// gone waits until nothing is left that belongs to name.
func (c *troubled) gone(name string) {
	c.Helper()
	c.slowly("the end of "+name, func(ctx context.Context) (bool, string) {
		_, err := c.cs.BatchV1().Jobs(c.ns).Get(ctx, name, metav1.GetOptions{})
		pods, listErr := c.cs.CoreV1().Pods(c.ns).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		c.must(listErr)
		ofJob, listErr := c.cs.CoreV1().Pods(c.ns).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name})
		c.must(listErr)
		return apierrors.IsNotFound(err) && len(pods.Items)+len(ofJob.Items) == 0, fmt.Sprintf("%v, %d and %d pods", err, len(pods.Items), len(ofJob.Items))
	})
}

// slowly is like eventually, for what waits for back-offs that many errors have made long.
func (c *troubled) slowly(what string, ok func(ctx context.Context) (bool, string)) {
	c.Helper()
	componenttest.EventuallyWithin(c, 5*time.Minute, what, func() (bool, string) { return ok(c.Context()) })
}
