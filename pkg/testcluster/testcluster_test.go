package testcluster_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// Several clusters start at once in one process and know nothing of each other.
func TestSeveral(t *testing.T) {
	clusters := make([]*testcluster.Cluster, 3)
	var wg sync.WaitGroup
	for i := range clusters {
		wg.Go(func() {
			c, err := testcluster.New(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			clusters[i] = c
			t.Cleanup(func() {
				if err := c.Stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	uids := map[string]bool{}
	for i, c := range clusters {
		own := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("own-", i)}}
		if _, err := c.Client(t).CoreV1().Namespaces().Create(t.Context(), own, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range clusters {
		list, err := c.Client(t).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, ns := range list.Items {
			names = append(names, ns.Name)
			uids[string(ns.UID)] = true
		}
		want := []string{"default", "kube-node-lease", "kube-public", "kube-system", fmt.Sprint("own-", i)}
		if !slices.Equal(names, want) {
			t.Errorf("cluster %d has namespaces %v, want %v", i, names, want)
		}
	}
	if len(uids) != 15 {
		t.Errorf("%d different UIDs, want 15", len(uids))
	}
}

// What stops leaves nothing behind: no files, no goroutines, nobody who answers, whatever
// its clients were doing.
func TestStop(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	before := runtime.NumGoroutine()
	for range 3 {
		c, err := testcluster.New(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		client := c.Client(t)
		w, err := client.CoreV1().Namespaces().Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Error(err)
		}
		if _, err := c.As(t, "alice").Client(t).Discovery().ServerVersion(); err != nil {
			t.Error(err)
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if err := c.Stop(); err != nil {
			t.Errorf("the second time: %v", err)
		}
		if w != nil {
			w.Stop()
		}
		if _, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err == nil {
			t.Error("the API server still answers")
		}
		left, err := os.ReadDir(tmp)
		if err != nil || len(left) > 0 {
			t.Errorf("left in the directory for temporary files: %v, %v", left, err)
		}
	}
	// A cluster has some two thousand; some of the library's wait for a few seconds, and
	// the process keeps a few.
	componenttest.EventuallyTold(t, "goroutines to end", func() (bool, string) {
		var stacks strings.Builder
		if err := pprof.Lookup("goroutine").WriteTo(&stacks, 1); err != nil {
			return false, err.Error()
		}
		n := runtime.NumGoroutine()
		return n < before+10, fmt.Sprintf("%d of %d are left: %s", n, before, &stacks)
	})
}

func TestUsers(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithObjects(
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: "reader"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "readers"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "readers"}},
		},
	))
	alice := c.As(t, "alice", "readers")
	review, err := alice.Client(t).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if u := review.Status.UserInfo; u.Username != "alice" || !slices.Equal(u.Groups, []string{"readers", "system:authenticated"}) {
		t.Errorf("alice is %s of %v", u.Username, u.Groups)
	}
	for _, check := range []struct {
		who     *testcluster.Cluster
		allowed bool
	}{{c, true}, {alice, true}, {c.As(t, "mallory"), false}, {c.As(t, "system:serviceaccount:default:reader", "readers"), true}} {
		_, err := check.who.Client(t).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
		if check.allowed && err != nil || !check.allowed && !apierrors.IsForbidden(err) {
			t.Errorf("want allowed = %v, got: %v", check.allowed, err)
		}
	}
}

func TestKubeconfig(t *testing.T) {
	c := testcluster.Start(t)
	for user, path := range map[string]string{"admin": c.Kubeconfig(t), "alice": c.As(t, "alice").Kubeconfig(t)} {
		config, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		review, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().
			Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil || review.Status.UserInfo.Username != user {
			t.Errorf("the kubeconfig of %s: %v, %v", user, review, err)
		}
	}
}

func TestObjects(t *testing.T) {
	boats := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "sea.example.com/v1", "kind": "Boat", "metadata": map[string]any{"name": "ketch"},
	}}
	c := testcluster.Start(t, testcluster.WithCRDs("testdata/boats.yaml"), testcluster.WithObjects(
		boats, ports("v1"), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "harbour"}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "harbour", Name: "map"}},
	))
	raw := func(path string) error {
		return c.Client(t).CoreV1().RESTClient().Get().AbsPath(path).Do(t.Context()).Error()
	}
	for _, path := range []string{
		"/apis/sea.example.com/v1/namespaces/default/boats/ketch", "/apis/sea.example.com/v1/ports", "/api/v1/namespaces/harbour/configmaps/map",
	} {
		if err := raw(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := raw("/api/v1/namespaces/default/configmaps/not-a-definition"); !apierrors.IsNotFound(err) {
		t.Errorf("what is no definition was installed: %v", err)
	}
}

// ports is a definition.
func ports(versions ...string) *apiextensionsv1.CustomResourceDefinition {
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "ports.sea.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "sea.example.com", Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "ports", Kind: "Port"},
		},
	}
	for i, v := range versions {
		crd.Spec.Versions = append(crd.Spec.Versions, apiextensionsv1.CustomResourceDefinitionVersion{
			Name: v, Served: true, Storage: i == 0,
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}},
		})
	}
	return crd
}

// Without controllers, a pod needs no service account, unless a test wants it so.
func TestServiceAccounts(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "registry.example.com/c"}}},
	}
	for want, opts := range map[string][]testcluster.Option{
		"": nil,
		`pods "p" is forbidden: error looking up service account default/default: serviceaccount "default" not found`: {
			testcluster.WithAPIServerFlags("--enable-admission-plugins=ServiceAccount"),
		},
	} {
		got := ""
		if _, err := testcluster.Start(t, opts...).Client(t).CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// With everything, a Deployment makes pods that are given to nodes, and a namespace goes.
func TestControlPlane(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithControllerManager(), testcluster.WithScheduler())
	client, ctx := c.Client(t), t.Context()
	room := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("10")}
	// At once, as a kubelet does it: controllers write new nodes as well.
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{
		Capacity: room, Allocatable: room,
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}},
	}}
	if _, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "web"}
	if _, err := client.AppsV1().Deployments("shop").Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: "c", Image: "registry.example.com/c"}}, TerminationGracePeriodSeconds: ptr.To[int64](0),
			}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	componenttest.EventuallyTold(t, "two pods on the node", func() (bool, string) {
		pods, err := client.CoreV1().Pods("shop").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n"})
		return err == nil && len(pods.Items) == 2, fmt.Sprint(pods, err)
	})
	if err := client.CoreV1().Namespaces().Delete(ctx, "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	componenttest.EventuallyTold(t, "the end of the namespace", func() (bool, string) {
		ns, err := client.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(ns, err)
	})
}

// What cannot be is said at once, and names what is wrong.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"old.yaml": "apiVersion: apiextensions.k8s.io/v1beta1\nkind: CustomResourceDefinition\nmetadata: {name: old}\n", "broken.yaml": "a: [",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	empty := t.TempDir()
	for _, test := range []struct {
		opt  testcluster.Option
		want string
	}{
		{testcluster.WithAPIServerFlags("--no-such-flag=1"), "testcluster: kube-apiserver: unknown flag: --no-such-flag"},
		{testcluster.WithAPIServerFlags("audit-log-path=x"), `kube-apiserver: "audit-log-path=x" is not of the form --flag=value`},
		{testcluster.WithAPIServerFlags("--secure-port=6443"), "kube-apiserver: --secure-port is set by the cluster itself"},
		{testcluster.WithAPIServerFlags("--authorization-mode=Magic"), "--authorization-mode"},
		{testcluster.WithControllerManager("--controllers=nobody"), `"nobody" is not a controller`},
		{testcluster.WithScheduler("--config=/does/not/exist"), "kube-scheduler: --config: open /does/not/exist"},
		{testcluster.WithCRDs("no/such/path"), "WithCRDs: stat no/such/path: no such file or directory"},
		{testcluster.WithCRDs(empty), empty + ": there is no CustomResourceDefinition"},
		{testcluster.WithCRDs(dir + "/old.yaml"), "old.yaml: old: version v1beta1 of CustomResourceDefinition is not served, only v1"},
		{testcluster.WithCRDs(dir + "/broken.yaml"), "broken.yaml: "},
		{testcluster.WithObjects(&unknown{}), "object 0 (*testcluster_test.unknown): it is not of a built-in kind: set its apiVersion and kind"},
		{testcluster.WithObjects(ports()), `creating CustomResourceDefinition ports.sea.example.com: CustomResourceDefinition.apiextensions.k8s.io "ports.sea.example.com" is invalid`},
		{testcluster.WithObjects(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "nowhere", Name: "p"}}), "creating Pod p: "},
	} {
		c, err := testcluster.New(t.Context(), test.opt)
		if err == nil {
			t.Errorf("started, want an error with %q", test.want)
			c.Stop()
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %q, want %q", err, test.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := testcluster.New(ctx); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// unknown is of a kind that no scheme has.
type unknown struct{ corev1.Pod }

func (u *unknown) DeepCopyObject() apiruntime.Object { return &unknown{*u.DeepCopy()} }

// BenchmarkStart is how long it takes until a cluster is ready; stopping is not counted.
func BenchmarkStart(b *testing.B) {
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		c, err := testcluster.New(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
		b.StopTimer()
		if err := c.Stop(); err != nil {
			b.Error(err)
		}
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "median-ms")
}
