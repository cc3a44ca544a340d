package power

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

const configuration = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
  plugins:
    multiPoint:
      enabled: [{name: Power, weight: 100}]
  pluginConfig:
  - name: Power
    args: {defaultWatts: 10}
`

// The plugin runs in Leme's scheduler as it is: it refuses nodes, prefers one, reserves,
// and has a pod tried again once there is room.
func TestPower(t *testing.T) {
	file := filepath.Join(t.TempDir(), "scheduler.yaml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	c := testcluster.Start(t,
		// Nobody is there to take away the taint that a new node would get.
		testcluster.WithAPIServerFlags("--disable-admission-plugins=TaintNodesByCondition"),
		testcluster.WithScheduler("--config="+file), testcluster.WithSchedulerPlugin(Name, New))
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	for name, watts := range map[string]string{"small": "100", "large": "300", "dark": ""} {
		makeNode(t, client, name, watts)
	}

	// The largest budget is preferred. What the first draws is counted for the second.
	create(t, client, "a", "250")
	wantOn(t, client, "a", "large")
	create(t, client, "b", "80")
	wantOn(t, client, "b", "small")
	// One that does not say draws ten, as the arguments have it.
	create(t, client, "c", "")
	wantOn(t, client, "c", "large")

	create(t, client, "d", "200")
	eventually(t, func(ctx context.Context) error {
		const want = "0/3 nodes are available: 3 Insufficient power."
		pod, err := client.CoreV1().Pods("default").Get(ctx, "d", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, cond := range pod.Status.Conditions {
			if cond.Type == v1.PodScheduled && strings.HasPrefix(cond.Message, want) {
				return nil
			}
		}
		return fmt.Errorf("pod d says %v, want %q", pod.Status.Conditions, want)
	})
	if err := client.CoreV1().Pods("default").Delete(t.Context(), "a", *metav1.NewDeleteOptions(0)); err != nil {
		t.Fatal(err)
	}
	wantOn(t, client, "d", "large")
}

func makeNode(t *testing.T, client kubernetes.Interface, name, watts string) {
	t.Helper()
	amounts := v1.ResourceList{v1.ResourceCPU: resource.MustParse("4"), v1.ResourceMemory: resource.MustParse("8Gi"), v1.ResourcePods: resource.MustParse("10")}
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	if watts != "" {
		node.Labels[Watts] = watts
	}
	node, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status = v1.NodeStatus{Capacity: amounts, Allocatable: amounts, Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}}
	if _, err := client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, client kubernetes.Interface, name, watts string) {
	t.Helper()
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "registry.example.com/c"}}}}
	if watts != "" {
		pod.Annotations = map[string]string{Watts: watts}
	}
	if _, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func wantOn(t *testing.T, client kubernetes.Interface, name, node string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		pod, err := client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
		if err == nil && pod.Spec.NodeName != node {
			err = fmt.Errorf("pod %s is on %q, want %q: %v", name, pod.Spec.NodeName, node, pod.Status.Conditions)
		}
		return err
	})
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
