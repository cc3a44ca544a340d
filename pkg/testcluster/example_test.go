package testcluster_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// A test starts a cluster, which ends with it.
func Example() {
	_ = func(t *testing.T) {
		c := testcluster.Start(t)
		config := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "greeting"},
			Data:       map[string]string{"say": "hello"},
		}
		if _, err := c.Client(t).CoreV1().ConfigMaps("default").Create(t.Context(), config, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// All tests of a package share the cluster that its TestMain starts.
func ExampleNew() {
	ctx := context.Background()
	c, err := testcluster.New(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer c.Stop()

	// os.Exit(m.Run()) would be here. What it runs uses c, for instance with the client of controller-runtime:
	api, err := client.New(c.Config, client.Options{})
	if err != nil {
		panic(err)
	}
	var ns corev1.Namespace
	if err := api.Get(ctx, client.ObjectKey{Name: "default"}, &ns); err != nil {
		panic(err)
	}
	fmt.Println(ns.Name, ns.Status.Phase)
	// Output: default Active
}

// Custom resources are there from the start, with all that their definition says.
func ExampleWithCRDs() {
	ctx := context.Background()
	c, err := testcluster.New(ctx, testcluster.WithCRDs("testdata"))
	if err != nil {
		panic(err)
	}
	defer c.Stop()

	boats := dynamic.NewForConfigOrDie(c.Config).
		Resource(schema.GroupVersionResource{Group: "sea.example.com", Version: "v1", Resource: "boats"}).Namespace("default")
	boat := func(name string, spec map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "sea.example.com/v1", "kind": "Boat", "metadata": map[string]any{"name": name}, "spec": spec,
		}}
	}
	ketch, err := boats.Create(ctx, boat("ketch", map[string]any{}), metav1.CreateOptions{})
	if err != nil {
		panic(err)
	}
	fmt.Println("masts:", ketch.Object["spec"].(map[string]any)["masts"])
	_, err = boats.Create(ctx, boat("raft", map[string]any{"masts": int64(0)}), metav1.CreateOptions{})
	fmt.Println(err)
	// Output:
	// masts: 2
	// Boat.sea.example.com "raft" is invalid: spec.masts: Invalid value: 0: spec.masts in body should be greater than or equal to 1
}

// With the controllers, a Deployment makes pods.
func ExampleWithControllerManager() {
	ctx := context.Background()
	c, err := testcluster.New(ctx, testcluster.WithControllerManager())
	if err != nil {
		panic(err)
	}
	defer c.Stop()

	api := kubernetes.NewForConfigOrDie(c.Config)
	labels := map[string]string{"app": "web"}
	replicas := int32(3)
	_, err = api.AppsV1().Deployments("default").Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "registry.example.com/web"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		panic(err)
	}
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		pods, err := api.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		return err == nil && len(pods.Items) == 3, err
	})
	fmt.Println("three pods:", err == nil)
	// Output: three pods: true
}

// A user may do what a role says, and nothing else.
func ExampleCluster_As() {
	_ = func(t *testing.T) {
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
		alice := c.As(t, "alice", "readers").Client(t)
		if _, err := alice.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := alice.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("alice reads secrets: %v", err)
		}
	}
}
