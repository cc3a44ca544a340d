package scheduler

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/plan"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
)

// watching returns a scheduler that knows some objects and does not schedule.
func watching(t *testing.T, objects ...runtime.Object) (*Scheduler, *fake.Clientset) {
	t.Helper()
	client := fake.NewClientset(objects...)
	c := config.Default()
	s, err := assemble(t.Context(), Config{
		KubeConfig: &rest.Config{Host: "https://192.0.2.1"}, Component: c, Plugins: plugins.Registry(), MaxUnschedulable: time.Minute,
	}, client)
	if err != nil {
		t.Fatal(err)
	}
	ready, err := s.watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := ready(); err != nil {
		t.Fatal(err)
	}
	return s, client
}

func raw(t *testing.T, obj runtime.Object) runtime.RawExtension {
	t.Helper()
	data, err := runtime.Encode(clientscheme.Codecs.LegacyCodec(v1.SchemeGroupVersion), obj)
	if err != nil {
		t.Fatal(err)
	}
	return runtime.RawExtension{Raw: data}
}

// where runs a dry run and says, for each pod, its node and whom it preempts, or why it
// stays pending.
func where(t *testing.T, s *Scheduler, r *plan.Request) []string {
	t.Helper()
	answer, err := s.dryRun(t.Context(), r)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, p := range answer.Pods {
		if p.Node == "" {
			out = append(out, p.Message)
			continue
		}
		out = append(out, strings.Join(append([]string{p.Node}, p.Preempted...), " "))
	}
	return out
}

func TestDryRun(t *testing.T) {
	a, b := makeNode("a", "4", "8Gi"), makeNode("b", "2", "8Gi")
	low := makePod("low", "3", "", on("a"), priority(1), labelled("app", "low"))
	gated := func(p *v1.Pod) { p.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "wait"}} }
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)}
	volume := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "v"},
		Spec: v1.PersistentVolumeSpec{
			StorageClassName: "local", AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, Capacity: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{"b"}}},
			}}}},
			PersistentVolumeSource: v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: "/x"}},
		},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeAvailable},
	}
	claim := func(name string) runtime.Object {
		return &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To("local"), AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}},
		}}
	}
	with := func(claim string) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.Volumes = []v1.Volume{{Name: "data", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
		}
	}
	s, client := watching(t, a, b, low, class, volume, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	client.ClearActions()
	for _, tc := range []struct {
		name    string
		request plan.Request
		want    []string
	}{
		{"copies fill the nodes", plan.Request{Pods: []v1.Pod{*makePod("x", "1", "1Gi"), *makePod("y", "1", "1Gi"), *makePod("z", "1", "1Gi"), *makePod("w", "1", "1Gi")}},
			[]string{"b", "a", "b", "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."}},
		{"victims go for one pod, and their room is there for the next", plan.Request{Pods: []v1.Pod{*makePod("x", "3", "", priority(10)), *makePod("y", "1", "", priority(10), onlyOn("a"))}},
			[]string{"a default/low", "a"}},
		{"without a node", plan.Request{Pods: []v1.Pod{*makePod("x", "2", ""), *makePod("y", "2", "")}, WithoutNodes: []string{"b"}},
			[]string{"0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
				"0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."}},
		{"with one more", plan.Request{Pods: []v1.Pod{*makePod("x", "8", "")}, Objects: []runtime.RawExtension{raw(t, makeNode("c", "8", "8Gi"))}}, []string{"c"}},
		{"with one that is larger than it is", plan.Request{Pods: []v1.Pod{*makePod("x", "8", "")}, Objects: []runtime.RawExtension{raw(t, makeNode("b", "8", "8Gi"))}}, []string{"b"}},
		{"without one that is not there", plan.Request{Pods: []v1.Pod{*makePod("x", "1", "")}, WithoutNodes: []string{"none"}}, []string{`there is no node "none" to be without`}},
		{"held back", plan.Request{Pods: []v1.Pod{*makePod("x", "1", "", gated)}}, []string{"held back by SchedulingGates: waiting for scheduling gates: [wait]"}},
		{"of another scheduler", plan.Request{Pods: []v1.Pod{*makePod("x", "1", "", func(p *v1.Pod) { p.Spec.SchedulerName = "mine" })}}, []string{`this scheduler has no profile "mine", by which the pod asks for it`}},
		{"claims that do not exist yet, for one volume", plan.Request{Pods: []v1.Pod{*makePod("x", "1", "", with("c1")), *makePod("y", "1", "", with("c2"))},
			Objects: []runtime.RawExtension{raw(t, claim("c1")), raw(t, claim("c2"))}},
			[]string{"b", "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."}},
		{"nothing to place", plan.Request{}, []string{"pods: there are none to place"}},
		{"an object without a name", plan.Request{Pods: []v1.Pod{*makePod("x", "1", "")}, Objects: []runtime.RawExtension{raw(t, &v1.Node{})}}, []string{"objects[0]: a Node without a name"}},
	} {
		if got := where(t, s, &tc.request); !slices.Equal(got, tc.want) {
			t.Errorf("%s:\n%s\nwant\n%s", tc.name, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
		}
	}
	for _, action := range client.Actions() {
		if !slices.Contains([]string{"list", "watch"}, action.GetVerb()) {
			t.Errorf("a dry run did %s %s", action.GetVerb(), action.GetResource().Resource)
		}
	}
	if nodes, pods, assumed := s.cache.Counts(); nodes != 2 || pods != 1 || assumed != 0 {
		t.Errorf("the scheduler now knows %d nodes and %d pods, %d of them assumed", nodes, pods, assumed)
	}
	if active, _, _, _ := s.queue.Counts(); active != 0 {
		t.Errorf("%d pods are in the queue", active)
	}
}

func onlyOn(node string) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{v1.LabelHostname: node} }
}

// A budget that one pod's victims have used up protects those of the next.
func TestDryRunCountsDisruptions(t *testing.T) {
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "keep"},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "low"}}},
		Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1},
	}
	s, _ := watching(t, budget, makeNode("a", "2", "8Gi"), makeNode("b", "2", "8Gi"),
		makePod("x", "2", "", on("a"), labelled("app", "low")), makePod("y", "2", "", on("b"), labelled("app", "low")))
	answer, err := s.dryRun(t.Context(), &plan.Request{Pods: []v1.Pod{*makePod("p", "2", "", priority(1)), *makePod("q", "2", "", priority(1))}})
	if err != nil {
		t.Fatal(err)
	}
	if first, second := answer.Pods[0], answer.Pods[1]; len(first.Preempted) != 1 || len(second.Preempted) != 1 || first.Node == second.Node {
		t.Errorf("the plan is %v", answer.Pods)
	}
	var page strings.Builder
	if err := answer.Write(&page); err != nil {
		t.Fatal(err)
	}
	if want := "2 of 2 pods would be placed on 2 nodes, and 2 pods preempted. Nothing has been written."; !strings.Contains(page.String(), want) {
		t.Errorf("the page lacks %q:\n%s", want, page.String())
	}
}

func TestPlanHandler(t *testing.T) {
	s, _ := watching(t, makeNode("a", "4", "8Gi"))
	good, err := json.Marshal(plan.Request{Pods: []v1.Pod{*makePod("x", "1", "1Gi"), *makePod("y", "9", "1Gi"), *makePod("z", "9", "1Gi")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		method, body string
		code         int
		want         string
	}{
		{http.MethodPost, string(good), http.StatusOK, `"node": "a"`},
		{http.MethodGet, "", http.StatusMethodNotAllowed, "want POST"},
		{http.MethodPost, "{", http.StatusBadRequest, "reading the request"},
		{http.MethodPost, `{"pods":[{}]}`, http.StatusBadRequest, "pods[0].metadata: namespace and name must be given"},
		{http.MethodPost, `{"pods":[{"metadata":{"namespace":"d","name":"x"}}],"objects":[{"kind":"None","apiVersion":"v1"}]}`, http.StatusBadRequest, "objects[0]"},
	} {
		r := httptest.NewRecorder()
		s.planHandler().ServeHTTP(r, httptest.NewRequest(tc.method, plan.Path, strings.NewReader(tc.body)))
		if r.Code != tc.code || !strings.Contains(r.Body.String(), tc.want) {
			t.Errorf("%s %s: %d %s", tc.method, tc.body, r.Code, r.Body)
		}
		if tc.code != http.StatusOK {
			continue
		}
		var p plan.Plan
		if err := json.Unmarshal(r.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		var page strings.Builder
		if err := p.Write(&page); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"1 of 3 pods would be placed on 1 node.", "default/x  a", "Pending: default/y, default/z\n  0/1 nodes are available: 1 Insufficient cpu.", "NodeResourcesFit"} {
			if !strings.Contains(page.String(), want) {
				t.Errorf("the page lacks %q:\n%s", want, page.String())
			}
		}
	}
	s.synced.Store(false)
	r := httptest.NewRecorder()
	s.planHandler().ServeHTTP(r, httptest.NewRequest(http.MethodPost, plan.Path, strings.NewReader(string(good))))
	if r.Code != http.StatusServiceUnavailable {
		t.Errorf("before the cluster is known: %d", r.Code)
	}
}
