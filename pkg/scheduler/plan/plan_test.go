package plan

import (
	"fmt"
	"strings"
	"testing"
)

func TestPodsOf(t *testing.T) {
	const pod = "\n  metadata: {labels: {app: web}}\n  spec: {containers: [{name: c, image: x}]}"
	indented := strings.ReplaceAll(pod, "\n", "\n  ")
	for _, tc := range []struct {
		manifest string
		copies   int
		want     string // names, and the owner's kind
	}{
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x}]}", 0, "[p] "},
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x}]}", 2, "[p-1 p-2] "},
		{"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  replicas: 2\n  template:" + indented, 0, "[d-1 d-2] ReplicaSet"},
		{"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  template:" + indented, 3, "[d-1 d-2 d-3] ReplicaSet"},
		{"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  replicas: 0\n  template:" + indented, 0, "[] ReplicaSet"},
		{"apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: r}\nspec:\n  template:" + indented, 0, "[r-1] ReplicaSet"},
		{"apiVersion: v1\nkind: ReplicationController\nmetadata: {name: r}\nspec:\n  template:" + indented, 0, "[r-1] ReplicationController"},
		{"apiVersion: v1\nkind: ReplicationController\nmetadata: {name: r}", 0, "ReplicationController r has no template"},
		{"apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s}\nspec:\n  ordinals: {start: 5}\n  replicas: 2\n  template:" + indented, 0, "[s-5 s-6] StatefulSet"},
		{"apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  parallelism: 4\n  completions: 3\n  template:" + indented, 0, "[j-1 j-2 j-3] "},
		{"apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: j}\nspec:\n  jobTemplate:\n    spec:\n      template:" + strings.ReplaceAll(pod, "\n", "\n      "), 0, "[j-1] "},
		{"apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d}", 0, "DaemonSet d: each of its pods has its node already when the scheduler is asked"},
		{"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}", 0, "not about pods"},
	} {
		objects, err := Read(strings.NewReader(tc.manifest))
		if err != nil || len(objects) != 1 {
			t.Errorf("%s: %v, %v", tc.manifest, objects, err)
			continue
		}
		g, ok, err := podsOf(objects[0], tc.copies)
		got := "not about pods"
		switch {
		case err != nil:
			got = err.Error()
		case ok:
			got = fmt.Sprint(g.names, " ")
			if g.owner != nil {
				got += g.owner.GetObjectKind().GroupVersionKind().Kind
				if len(g.pod.OwnerReferences) != 1 || g.pod.Labels["app"] != "web" {
					t.Errorf("%s: the pod is %v", tc.manifest, g.pod)
				}
			}
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.manifest, got, tc.want)
		}
	}
}

func TestRead(t *testing.T) {
	for _, tc := range []struct{ manifest, want string }{
		{"", "0"},
		{"---\n---\n", "0"},
		{"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: c}", "3"},
		{"apiVersion: example.com/v1\nkind: Other\nmetadata: {name: x}", "0"},
		{"kind: Pod", "document 1: "},
		{"apiVersion: v1\nkind: Pod\n---\n{", "document 2: "},
		{"apiVersion: v1\nkind: Pod\nspec: 7", "document 1: "},
	} {
		objects, err := Read(strings.NewReader(tc.manifest))
		got := fmt.Sprint(len(objects))
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, tc.want) {
			t.Errorf("%q: %s, want %s", tc.manifest, got, tc.want)
		}
	}
}
