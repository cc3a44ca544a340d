package plan_test

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/scheduler/plan"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

const manifest = `
apiVersion: v1
kind: Pod
metadata: {name: taken}
spec: {priorityClassName: high, containers: [{name: c, image: x}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: x}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: gpu}
spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: gpu}}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: owns}
spec:
  containers: [{name: c, image: x}]
  resourceClaims: [{name: dev, resourceClaimTemplateName: gpu}]
  volumes:
  - name: scratch
    ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: passed-over}
`

// What is asked of the scheduler is what the API server would admit, and nothing is made.
func TestRequest(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithObjects(
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000},
		&v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "taken"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "x"}}}},
	))
	client := c.Client(t)
	ask := func(manifest string, copies int) (*plan.Request, error) {
		objects, err := plan.Read(strings.NewReader(manifest))
		if err != nil {
			t.Fatal(err)
		}
		return (&plan.Asker{Client: client, Namespace: "default", Copies: copies}).Request(t.Context(), objects)
	}
	r, err := ask(manifest, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	uids := map[string]bool{}
	for _, p := range r.Pods {
		names = append(names, p.Name)
		uids[string(p.UID)] = true
		if p.Spec.SchedulerName != v1.DefaultSchedulerName || p.Namespace != "default" {
			t.Errorf("pod %s is not as the API server would have it", p.Name)
		}
	}
	if got := fmt.Sprint(names); got != "[taken db-0 db-1 owns]" || len(uids) != 4 {
		t.Errorf("the pods are %s, with %d UIDs", got, len(uids))
	}
	if p := r.Pods[0].Spec.Priority; p == nil || *p != 1000 {
		t.Errorf("the priority is %v", p)
	}
	if got := r.Pods[2].Spec.Volumes[0].PersistentVolumeClaim.ClaimName; got != "data-db-1" {
		t.Errorf("db-1 has the claim %s", got)
	}
	objects := ""
	for _, o := range r.Objects {
		objects += string(o.Raw)
	}
	for _, want := range []string{`"kind":"StatefulSet"`, `"name":"data-db-0"`, `"name":"data-db-1"`, `"name":"owns-scratch"`, `"name":"owns-dev"`} {
		if !strings.Contains(objects, want) {
			t.Errorf("the objects lack %s: %s", want, objects)
		}
	}
	for _, tc := range []struct {
		manifest string
		copies   int
		want     string
	}{
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}", 0, "pod p: Pod"},
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {priorityClassName: none, containers: [{name: c, image: x}]}", 3, "no PriorityClass with name none was found"},
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: none}\nspec: {containers: [{name: c, image: x}]}", 0, `namespaces "none" not found`},
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x}], resourceClaims: [{name: d, resourceClaimTemplateName: none}]}", 0, "spec.resourceClaims"},
		{"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: p}", 0, "there are no pods in it"},
		{"apiVersion: v1\nkind: Node\nmetadata: {name: p}", 0, "status.allocatable must say what it offers"},
	} {
		if _, err := ask(tc.manifest, tc.copies); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.manifest, err, tc.want)
		}
	}
	pods, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) != 1 {
		t.Errorf("there are pods %v, %v", pods.Items, err)
	}
	claims, err := client.CoreV1().PersistentVolumeClaims("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(claims.Items) != 0 {
		t.Errorf("there are claims %v, %v", claims.Items, err)
	}
}
