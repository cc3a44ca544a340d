package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// What the scheduler of a cluster has recorded, with the flags that `leme up -f` gives
// it, is decided again by `leme scheduler replay`, and otherwise by another configuration.
func TestReplayOfACluster(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	c := testcluster.Start(t, testcluster.WithScheduler("--leader-elect=true", "--record-to="+log, "--record-limit=64Mi"))
	client, ctx := c.Client(t), t.Context()
	for name, cpu := range map[string]string{"small": "2", "big": "4"} {
		list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("10")}
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}, Status: corev1.NodeStatus{Capacity: list, Allocatable: list}}
		if _, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pods := client.CoreV1().Pods("default")
	for i, cpu := range []string{"1", "1", "1", "8"} {
		name := fmt.Sprint("p", i)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
			Containers:  []corev1.Container{{Name: "c", Image: "registry.example.com/c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, // no controller says that nodes are ready
		}}
		if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		componenttest.EventuallyTold(t, "a decision about "+name, func() (bool, string) {
			got, err := pods.Get(ctx, name, metav1.GetOptions{})
			return err == nil && len(got.Status.Conditions) > 0, fmt.Sprint(got.Status, err)
		})
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	replay := func(args ...string) (string, error) {
		cmd := newScheduler()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(append([]string{"replay", log}, args...))
		err := cmd.ExecuteContext(ctx)
		return out.String(), err
	}
	page, err := replay()
	if err != nil || !regexp.MustCompile(`\n4 decisions, 3 of which found a node: 4 are the same now, 0 are otherwise\.\n$`).MatchString(page) {
		t.Errorf("%v: the replay shows\n%s", err, page)
	}
	for _, want := range []string{"default/p0", "big", "0/2 nodes are available: 2 Insufficient cpu."} {
		if !strings.Contains(page, want) {
			t.Errorf("the replay does not show %q:\n%s", want, page)
		}
	}
	other := filepath.Join(dir, "packed.yaml")
	if err := os.WriteFile(other, []byte(`apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}}
  plugins: {score: {disabled: [{name: NodeResourcesBalancedAllocation}]}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if page, err = replay("--config", other, "--differing"); err != nil || !strings.Contains(page, "small") {
		t.Errorf("%v: the replay of another configuration shows\n%s", err, page)
	}
}
