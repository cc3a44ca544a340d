package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func object(kind, name string, more map[string]any) *unstructured.Unstructured {
	o := map[string]any{"kind": kind, "metadata": map[string]any{"name": name, "uid": name + "-uid", "resourceVersion": "7"}}
	for k, v := range more {
		o[k] = v
	}
	return &unstructured.Unstructured{Object: o}
}

func TestCompare(t *testing.T) {
	end := func(ns, suffix string, count int64, status string) outcome {
		n := newNormaliser(ns, []string{"web-", "web-web-"})
		return outcome{objects: n.objects([]*unstructured.Unstructured{
			object("Pod", "web-2"+suffix, map[string]any{"status": map[string]any{"podIP": "10.88.0." + suffix[:1], "conditions": []any{
				map[string]any{"type": "Ready", "status": status, "lastTransitionTime": "2026-01-0" + suffix[:1] + "T00:00:00Z"}}}}),
			object("Event", "e", map[string]any{"type": "Normal", "reason": "Created", "message": "(combined from similar events): pod web-2" + suffix + " in " + ns, "count": count,
				"involvedObject": map[string]any{"kind": "ReplicaSet", "name": "web"}}),
		})}
	}
	for _, c := range []struct {
		name           string
		original, leme outcome
		want           []string
	}{
		{name: "what no two runs have in common", original: end("t00001", "4bcd", 2, "True"), leme: end("t90001", "5fgh", 3, "True")},
		{name: "a condition", original: end("t00001", "4bcd", 1, "True"), leme: end("t00001", "4bcd", 1, "False"),
			want: []string{`Pod/web-….status.conditions.Ready.status: original "True", leme "False"`}},
		{name: "an event told again", original: end("t00001", "4bcd", 1, "True"), leme: end("t00001", "4bcd", 2, "True"),
			want: []string{`Event of ReplicaSet/web: Created.times: original "once", leme "several times"`}},
		{name: "trouble", original: outcome{trouble: []string{"step 1: x"}}, leme: outcome{trouble: []string{"step 1: x", "step 2: y"}},
			want: []string{"the scenario is wrong: step 1: x", "trouble: leme adds step 2: y"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := compare(c.original, c.leme); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestNormaliseGeneration(t *testing.T) {
	n := newNormaliser("t00001", nil)
	o := object("Deployment", "web", map[string]any{"status": map[string]any{"observedGeneration": int64(3)}})
	o.SetGeneration(3)
	got := text(n.object(o))
	if want := `{"kind":"Deployment","metadata":{"name":"web"},"status":{"observedGeneration":"current"}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What is named after UIDs is called alike in both planes.
func TestNormaliseNamesOfWorkloads(t *testing.T) {
	n := newNormaliser("t00001", nil)
	group := object("PodGroup", "pi-6cfff96f5c-pi-pgt-0-774bb85847", map[string]any{"spec": map[string]any{"workloadRef": map[string]any{"workloadName": "pi-6cfff96f5c", "templateName": "pi-pgt-0"}}})
	group.SetOwnerReferences([]metav1.OwnerReference{{Kind: "Workload", Name: "pi-6cfff96f5c"}})
	all := n.objects([]*unstructured.Unstructured{group, object("Workload", "pi-6cfff96f5c", nil), object("Workload", "parent-workload", nil), object("ReplicaSet", "web-6cfff96f5c", nil)})
	if got, want := slices.Sorted(maps.Keys(all)), []string{"PodGroup/pi-…-pi-pgt-0-…", "ReplicaSet/web-6cfff96f5c", "Workload/parent-workload", "Workload/pi-…"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := text(all["PodGroup/pi-…-pi-pgt-0-…"]); strings.Contains(got, "6cfff96f5c") {
		t.Errorf("got %s", got)
	}
	if got, want := n.text("Created Workload pi-6cfff96f5c for Job pi"), "Created Workload pi-… for Job pi"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHas(t *testing.T) {
	value := map[string]any{"n": int64(2), "s": "x", "l": []any{map[string]any{"type": "A", "status": "True"}, map[string]any{"type": "B"}}}
	for _, c := range []struct {
		want any
		is   bool
	}{
		{map[string]any{"n": float64(2)}, true},
		{map[string]any{"n": float64(3)}, false},
		{map[string]any{"n": "*", "s": "x"}, true},
		{map[string]any{"missing": "*"}, false},
		{map[string]any{"l": []any{map[string]any{"type": "A"}}}, true},
		{map[string]any{"l": []any{map[string]any{"type": "B", "status": "True"}}}, false},
	} {
		if got := has(value, c.want); got != c.is {
			t.Errorf("has(%v) is %v", c.want, got)
		}
	}
}
