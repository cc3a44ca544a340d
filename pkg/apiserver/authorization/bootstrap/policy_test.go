package bootstrap

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// testdata/original.jsonl is what `kubectl get clusterroles,clusterrolebindings -o
// json` and `kubectl get roles,rolebindings -A -o json` print on a new cluster of
// Kubernetes, one object a line, without what the server adds to every object.
func TestPolicyIsTheOriginals(t *testing.T) {
	p, err := Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	for _, o := range p.ClusterRoles {
		got["ClusterRole "+o.Name] = o
	}
	for _, o := range p.ClusterRoleBindings {
		got["ClusterRoleBinding "+o.Name] = o
	}
	for _, o := range p.Roles {
		o.TypeMeta = metav1.TypeMeta{}
		got["Role "+o.Namespace+"/"+o.Name] = o
	}
	for _, o := range p.RoleBindings {
		o.TypeMeta = metav1.TypeMeta{}
		got["RoleBinding "+o.Namespace+"/"+o.Name] = o
	}

	data, err := os.ReadFile("testdata/original.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var kind metav1.TypeMeta
		if err := json.Unmarshal(lines.Bytes(), &kind); err != nil {
			t.Fatal(err)
		}
		var name string
		var o any
		switch kind.Kind {
		case "ClusterRole":
			o = read(t, lines.Bytes(), &name, &rbacv1.ClusterRole{}, false)
		case "ClusterRoleBinding":
			o = read(t, lines.Bytes(), &name, &rbacv1.ClusterRoleBinding{}, false)
		case "Role":
			o = read(t, lines.Bytes(), &name, &rbacv1.Role{}, true)
		case "RoleBinding":
			o = read(t, lines.Bytes(), &name, &rbacv1.RoleBinding{}, true)
		}
		want[kind.Kind+" "+name] = o
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreTypes(metav1.TypeMeta{})); diff != "" {
		t.Errorf("the policy differs from the original's (-original +ours):\n%s", diff)
	}
}

func read[T metav1.Object](t *testing.T, line []byte, name *string, into T, namespaced bool) T {
	t.Helper()
	if err := json.Unmarshal(line, into); err != nil {
		t.Fatal(err)
	}
	*name = into.GetName()
	if namespaced {
		*name = into.GetNamespace() + "/" + into.GetName()
	}
	return into
}

func TestNodeRules(t *testing.T) {
	rules, err := NodeRules()
	if err != nil || len(rules) == 0 {
		t.Fatalf("rules of system:node: %d, %v", len(rules), err)
	}
}

func writes(c *fake.Clientset) int {
	n := 0
	for _, a := range c.Actions() {
		if a.GetVerb() != "list" && a.GetVerb() != "get" && a.GetResource().Resource != "namespaces" {
			n++
		}
	}
	return n
}

func TestReconcile(t *testing.T) {
	ctx := t.Context()
	p, err := Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	all := len(p.ClusterRoles) + len(p.ClusterRoleBindings) + len(p.Roles) + len(p.RoleBindings)
	client := fake.NewSimpleClientset() // NewClientset is slow: it knows managed fields
	if err := p.Reconcile(ctx, client); err != nil {
		t.Fatal(err)
	}
	if got := writes(client); got != all {
		t.Errorf("on a new cluster: %d writes for %d objects", got, all)
	}
	// Both namespaces are looked for, and made, once.
	if got, want := len(client.Actions()), 4+all+2*2; got != want {
		t.Errorf("on a new cluster: %d requests, want %d", got, want)
	}

	client.ClearActions()
	if err := p.Reconcile(ctx, client); err != nil {
		t.Fatal(err)
	}
	if got := len(client.Actions()); got != 4 {
		t.Errorf("on an unchanged cluster: %d requests, want the four lists", got)
	}

	// Somebody has taken a rule away, added one, and kept a third role for himself.
	roles := client.RbacV1().ClusterRoles()
	scheduler, err := roles.Get(ctx, "system:kube-scheduler", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(scheduler.Rules), rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"example.com"}, Resources: []string{"things"}})
	scheduler.Rules = slices.Clone(want[1:])
	if _, err := roles.Update(ctx, scheduler, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	mine, err := roles.Get(ctx, "system:basic-user", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mine.Rules, mine.Annotations[rbacv1.AutoUpdateAnnotationKey] = nil, "false"
	if _, err := roles.Update(ctx, mine, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	client.ClearActions()
	if err := p.Reconcile(ctx, client); err != nil {
		t.Fatal(err)
	}
	if got := writes(client); got != 1 {
		t.Errorf("after one change: %d writes", got)
	}
	if scheduler, err = roles.Get(ctx, "system:kube-scheduler", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if ok, missing := validation.Covers(scheduler.Rules, want); !ok {
		t.Errorf("the scheduler's role lacks %v", missing)
	}
	if mine, err = roles.Get(ctx, "system:basic-user", metav1.GetOptions{}); err != nil || len(mine.Rules) != 0 {
		t.Errorf("a protected role was changed: %v, %v", mine.Rules, err)
	}
}

// Two servers may start at once: what the other one has created meanwhile is fine.
func TestReconcileRace(t *testing.T) {
	p, err := Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewSimpleClientset()
	client.PrependReactor("create", "namespaces", func(a clienttesting.Action) (bool, runtime.Object, error) {
		o := a.(clienttesting.CreateAction).GetObject().(*corev1.Namespace)
		if err := client.Tracker().Add(o); err != nil {
			return true, nil, err
		}
		return true, nil, apierrors.NewAlreadyExists(corev1.Resource("namespaces"), o.Name)
	})
	raced := false
	client.PrependReactor("create", "clusterroles", func(a clienttesting.Action) (bool, runtime.Object, error) {
		o := a.(clienttesting.CreateAction).GetObject().(*rbacv1.ClusterRole)
		if o.Name != "cluster-admin" || raced {
			return false, nil, nil
		}
		raced = true
		if err := client.Tracker().Add(o); err != nil {
			return true, nil, err
		}
		return true, nil, apierrors.NewAlreadyExists(rbacv1.Resource("clusterroles"), o.Name)
	})
	if err := p.Reconcile(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if !raced {
		t.Error("the race did not happen")
	}
}

func TestFeatures(t *testing.T) {
	without, err := Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	with, err := Load(map[string]bool{"GenericWorkload": true, "CompositePodGroup": true, "DRAWorkloadResourceClaims": true, "EvictionRequestAPI": true,
		"DRAResourcePoolStatus": true, "StorageVersionAPI": true, "WorkloadWithJob": true})
	if err != nil {
		t.Fatal(err)
	}
	was := map[string]int{}
	for _, r := range without.ClusterRoles {
		was[r.Name] = len(r.Rules)
	}
	got := map[string]int{}
	for _, r := range with.ClusterRoles {
		if more := len(r.Rules) - was[r.Name]; more > 0 {
			got[r.Name] = more
		}
	}
	want := map[string]int{
		"system:aggregate-to-view": 3, "system:aggregate-to-edit": 3, "system:kube-scheduler": 4,
		"system:controller:job-controller": 1, "system:controller:resource-claim-controller": 2, "system:controller:podgroup-protection-controller": 2,
		"system:controller:resourcepoolstatusrequest-controller": 6, "system:controller:storage-version-garbage-collector": 3,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rules that features add (-want +got):\n%s", diff)
	}
	if more := len(with.ClusterRoleBindings) - len(without.ClusterRoleBindings); more != 3 {
		t.Errorf("%d bindings more, want those of the controllers", more)
	}
}
