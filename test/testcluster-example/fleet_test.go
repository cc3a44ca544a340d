package fleet

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// The operator runs as the user that its role is made for, so that a rule that is missing in
// the role fails the test; Deployments make pods, and the garbage collector ends what a
// boat has left.
func TestCrew(t *testing.T) {
	c := testcluster.Start(t,
		testcluster.WithCRDs("crds"),
		testcluster.WithControllerManager(),
		testcluster.WithObjects(role(), binding("fleet-operator")))
	runOperator(t, c.As(t, "fleet-operator"))

	api, err := client.New(c.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	boat := NewBoat()
	boat.SetNamespace("default")
	boat.SetName("ketch")
	if err := unstructured.SetNestedField(boat.Object, int64(3), "spec", "crew"); err != nil {
		t.Fatal(err)
	}
	if err := api.Create(t.Context(), boat); err != nil {
		t.Fatal(err)
	}
	pods := func(want int) func(context.Context) error {
		return func(ctx context.Context) error {
			var list corev1.PodList
			if err := api.List(ctx, &list, client.InNamespace("default"), client.MatchingLabels{"boat": "ketch"}); err != nil {
				return err
			}
			if len(list.Items) != want {
				return fmt.Errorf("%d pods, want %d", len(list.Items), want)
			}
			return nil
		}
	}
	eventually(t, pods(3))
	if err := api.Delete(t.Context(), boat); err != nil {
		t.Fatal(err)
	}
	eventually(t, pods(0))
}

// What the definition refuses never reaches the operator.
func TestNoCrew(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithCRDs("crds"))
	api, err := client.New(c.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	boat := NewBoat()
	boat.SetNamespace("default")
	boat.SetName("ghost-ship")
	if err := unstructured.SetNestedField(boat.Object, int64(0), "spec", "crew"); err != nil {
		t.Fatal(err)
	}
	if err := api.Create(t.Context(), boat); !apierrors.IsInvalid(err) {
		t.Errorf("creating a boat without a crew: %v", err)
	}
}

func runOperator(t *testing.T, c *testcluster.Cluster) {
	t.Helper()
	manyInOneProcess := true
	mgr, err := ctrl.NewManager(c.Config, ctrl.Options{
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &manyInOneProcess},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Reconciler{mgr.GetClient()}).Register(mgr); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func role() *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "fleet-operator"},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"fleet.example.com"}, Resources: []string{"boats"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{"fleet.example.com"}, Resources: []string{"boats/finalizers"}, Verbs: []string{"update"}},
			{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: []string{"get", "list", "watch", "create", "update"}},
		},
	}
}

func binding(user string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "fleet-operator"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "fleet-operator"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
}

func eventually(t *testing.T, ok func(context.Context) error) {
	t.Helper()
	var last error
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = ok(ctx)
		return last == nil, nil
	}); err != nil {
		t.Fatalf("%v: %v", err, last)
	}
}
