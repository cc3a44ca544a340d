package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

func names(stages []stage) map[string][]string {
	byStage := map[string][]string{}
	for _, s := range stages {
		byStage[s.name] = s.specs
	}
	return byStage
}

func TestPlan(t *testing.T) {
	specs := []spec{newSpec("[sig-apps] a"), newSpec("[sig-apps] b"), newSpec("[sig-node] c [Serial]"), newSpec("[sig-node] d [Disruptive]"), newSpec("e")}
	passing := map[string]bool{"[sig-apps] a": true, "[sig-node] c [Serial]": true}
	missing := map[string]string{"[sig-apps] b": "StatefulSets"}
	for _, tc := range []struct {
		name   string
		s      selection
		done   map[string]result
		stages map[string][]string
		not    map[string]string
	}{{
		name: "all but what is missing, by kind and hope",
		stages: map[string][]string{
			"parallel": {"[sig-apps] a"}, "serial": {"[sig-node] c [Serial]"},
			"parallel-not-passing-yet": {"e"}, "serial-not-passing-yet": {"[sig-node] d [Disruptive]"},
		},
		not: map[string]string{"[sig-apps] b": "missing: StatefulSets"},
	}, {
		name:   "really all, narrowed",
		s:      selection{all: true, focus: "sig-apps", skip: " a$"},
		stages: map[string][]string{"parallel-not-passing-yet": {"[sig-apps] b"}},
		not: map[string]string{
			"[sig-apps] a": "not selected", "[sig-node] c [Serial]": "not selected", "[sig-node] d [Disruptive]": "not selected", "e": "not selected",
		},
	}, {
		name:   "what is left of the passing ones",
		s:      selection{passingOnly: true},
		done:   map[string]result{"[sig-apps] a": {State: passed}, "e": {State: notRun}},
		stages: map[string][]string{"serial": {"[sig-node] c [Serial]"}},
		not:    map[string]string{"[sig-apps] b": "does not pass yet", "[sig-node] d [Disruptive]": "does not pass yet", "e": "does not pass yet"},
	}} {
		stages, reasons, err := tc.s.plan(specs, passing, missing, tc.done)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if got := names(stages); !reflect.DeepEqual(got, tc.stages) {
			t.Errorf("%s: stages %v, want %v", tc.name, got, tc.stages)
		}
		not := map[string]string{}
		for n, r := range reasons {
			not[n] = r.Message
		}
		if !reflect.DeepEqual(not, tc.not) {
			t.Errorf("%s: not run %v, want %v", tc.name, not, tc.not)
		}
	}
	if _, _, err := (selection{focus: "("}).plan(specs, nil, nil, nil); err == nil || !strings.HasPrefix(err.Error(), "focus: ") {
		t.Errorf("a bad pattern gives %v", err)
	}
}

func TestFill(t *testing.T) {
	it := func(name string, state types.SpecState, message string) types.SpecReport {
		return types.SpecReport{LeafNodeType: types.NodeTypeIt, LeafNodeText: name, State: state, RunTime: time.Second, Failure: types.Failure{Message: message}}
	}
	report := types.Report{
		SpecReports: types.SpecReports{
			it("good", types.SpecStatePassed, ""),
			it("bad", types.SpecStateFailed, "\n  first line\nsecond"),
			it("slow", types.SpecStateTimedout, "A node timeout occurred"),
			it("cut off", types.SpecStateInterrupted, "Interrupted by User"),
			it("unfit", types.SpecStateSkipped, "needs three nodes"),
			it("never meant", types.SpecStateSkipped, ""),
		},
	}
	got := unrun([]string{"good", "bad", "slow", "cut off", "unfit", "not reached"}, "out of time")
	fill(got, report)
	want := map[string]result{
		"good":        {State: passed, Seconds: 1},
		"bad":         {State: failed, Message: "first line", Seconds: 1},
		"slow":        {State: failed, Message: "A node timeout occurred", Seconds: 1},
		"cut off":     {State: notRun, Message: "out of time"},
		"unfit":       {State: notRun, Message: "skipped: needs three nodes"},
		"not reached": {State: notRun, Message: "out of time"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}

	got = unrun([]string{"a"}, "out of time")
	fill(got, types.Report{SpecReports: types.SpecReports{{LeafNodeType: types.NodeTypeSynchronizedBeforeSuite, State: types.SpecStateFailed, Failure: types.Failure{Message: "no node is ready"}}}})
	if r := got["a"]; r.State != notRun || r.Message != "the suite's set-up failed: no node is ready" {
		t.Errorf("after a failed set-up: %+v", r)
	}
}

func TestProgress(t *testing.T) {
	output := `------------------------------
• [1.038 seconds]
[sig-node] Pods good [sig-node, Conformance]
------------------------------
• [FAILED] [301.2 seconds]
[sig-apps] StatefulSet [It] bad [sig-apps, Conformance]
  file.go:12
  [FAILED] in [It] - file.go:14
  [FAILED] no pod
  In [It] at: file.go:14
------------------------------
• [PANICKED!] [0.1 seconds]
[sig-apps] Job [It] worse [sig-apps, Conformance]
------------------------------
S [SKIPPED] [0.4 seconds]
[sig-node] other [sig-node, Conformance]
------------------------------
`
	var w strings.Builder
	p := newProgress(&w, false, time.Now(), 4)
	got := p.follow(strings.NewReader(output))
	want := map[string]result{
		"[sig-node] Pods good":       {State: passed},
		"[sig-apps] StatefulSet bad": {State: failed, Message: "no pod"},
		"[sig-apps] Job worse":       {State: failed},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if p.done != 4 || p.failed != 2 {
		t.Errorf("counted %d, %d failed", p.done, p.failed)
	}
	for _, want := range []string{"FAILED [sig-apps] StatefulSet bad", "FAILED [sig-apps] Job worse", "4 of 4, 2 failed"} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("%q is not in\n%s", want, &w)
		}
	}
}

func TestLists(t *testing.T) {
	dir := t.TempDir()
	l := lists{passing: filepath.Join(dir, "passing.txt"), status: filepath.Join(dir, "STATUS.md")}
	specs := []spec{newSpec("[sig-apps] a"), newSpec("[sig-apps] b"), newSpec("[sig-apps] c")}
	status := "# Status\n\n- [not a test](x)\n\n## StatefulSets\n\nNot built.\n\n- [sig-apps] b\n"
	if err := os.WriteFile(l.status, []byte(status), 0o644); err != nil {
		t.Fatal(err)
	}
	passing, missing, err := l.load(specs)
	if err != nil || len(passing) != 0 || !reflect.DeepEqual(missing, map[string]string{"[sig-apps] b": "StatefulSets"}) {
		t.Fatalf("passing %v, missing %v, error %v", passing, missing, err)
	}
	added, err := l.add(passing, map[string]result{"[sig-apps] c": {State: passed}, "[sig-apps] a": {State: passed}, "[sig-apps] b": {State: failed}})
	if err != nil || added != 2 {
		t.Fatalf("added %d, error %v", added, err)
	}
	if data, _ := os.ReadFile(l.passing); string(data) != "[sig-apps] a\n[sig-apps] c\n" {
		t.Errorf("passing.txt holds %q", data)
	}
	if _, _, err := l.load(specs[:2]); err == nil || !strings.Contains(err.Error(), `no test "[sig-apps] c"`) {
		t.Errorf("an unknown name gives %v", err)
	}
}

func TestStoreResumes(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.merge(map[string]result{"a": {State: passed, Seconds: 2}}, nil); err != nil {
		t.Fatal(err)
	}
	if again, err := openStore(dir, true); err != nil || again.results["a"].State != passed {
		t.Errorf("resumed with %v, error %v", again, err)
	}
	if fresh, err := openStore(dir, false); err != nil || len(fresh.results) != 0 {
		t.Errorf("started with %v, error %v", fresh, err)
	}
}

func TestSummary(t *testing.T) {
	specs := []spec{newSpec("[sig-apps] a"), newSpec("[sig-apps] b"), newSpec("[sig-node] c")}
	var w strings.Builder
	summarize(&w, specs, map[string]result{"[sig-apps] a": {State: passed}, "[sig-apps] b": {State: failed, Message: "timed out", Seconds: 61}})
	for _, want := range []string{"[sig-apps] b (1m1s)\n      timed out", "1        1         0    2  sig-apps", "1        1         1    3  all", "1  no result yet"} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("%q is not in\n%s", want, &w)
		}
	}
}

func TestSomeTests(t *testing.T) {
	var specs []spec
	passing := map[string]bool{}
	for _, n := range []string{"a1", "a2", "a3", "a4", "a5 [Serial]", "b1"} {
		specs = append(specs, newSpec(n))
		passing[n] = n != "a2"
	}
	if got := some(specs, passing, regexp.MustCompile("a"), 2); !reflect.DeepEqual(got, []string{"a1", "a3"}) {
		t.Errorf("picked %v", got)
	}
	if got := some(specs, passing, regexp.MustCompile("a"), 9); !reflect.DeepEqual(got, []string{"a1", "a3", "a4"}) {
		t.Errorf("picked %v", got)
	}
}

func TestMatrix(t *testing.T) {
	cells := []*cell{
		{component: "kubelet", cluster: inLeme, tests: []string{"a", "b"}, results: map[string]result{"a": {State: passed}, "b": {State: failed, Message: "no pod"}}},
		{component: "kubelet", cluster: inOriginals, tests: []string{"a"}, results: map[string]result{"a": {State: passed}}},
	}
	var w strings.Builder
	if !matrix(&w, cells) {
		t.Error("a failure is not told")
	}
	for _, want := range []string{"kubelet                   1 of 2                              1 of 1", "kubelet, cluster of Leme: b\n      failed: no pod"} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("%q is not in\n%s", want, &w)
		}
	}
}

// TestSecondChance: a test that fails by chance counts as passed, and is told of; one that
// fails twice keeps its first reason.
func TestSecondChance(t *testing.T) {
	specs := []spec{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}}
	passing := map[string]bool{"a": true, "b": true, "d": true}
	s := &store{results: map[string]result{
		"a": {State: failed, Message: "by chance"}, "b": {State: failed, Message: "first"}, "c": {State: failed}, "d": {State: passed},
	}}
	again := lost(specs, passing, s.results)
	if !slices.Equal(again, []string{"a", "b"}) {
		t.Fatalf("%v are run again", again)
	}
	before := maps.Clone(s.results)
	s.set(map[string]result{"a": {State: passed}, "b": {State: notRun, Message: "out of time"}})
	s.settle(again, before)
	if s.results["a"].State != passed || s.results["b"] != before["b"] || !slices.Equal(s.again, []string{"a"}) {
		t.Errorf("results %v, again %v", s.results, s.again)
	}
}

func TestVigil(t *testing.T) {
	gone := errors.New("node box-2 is not ready: Kubelet stopped posting node status.")
	type sight struct {
		after   time.Duration
		free    uint64
		trouble error
		want    string
	}
	const room = 10 << 30
	for name, sights := range map[string][]sight{
		"all is well":         {{0, room, nil, ""}, {time.Hour, room, nil, ""}},
		"a full disk":         {{0, room, nil, ""}, {time.Second, 12 << 20, nil, "the disk of /data is full: 12 MiB are free, the kubelets need 1024"}},
		"a node that died":    {{0, room, gone, ""}, {patience, room, gone, ""}, {patience + time.Second, room, gone, gone.Error()}},
		"a node that reboots": {{0, room, gone, ""}, {patience, room, nil, ""}, {2 * patience, room, gone, ""}, {3 * patience, room, gone, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			var v vigil
			start := time.Now()
			for _, s := range sights {
				got := ""
				if err := v.look(start.Add(s.after), "/data", s.free, s.trouble); err != nil {
					got = err.Error()
				}
				if got != s.want {
					t.Errorf("after %v: %q, want %q", s.after, got, s.want)
				}
			}
		})
	}
}

// A kubectl that says what a cluster with a dead node says.
func TestReadyNamesTheNode(t *testing.T) {
	kubectl := filepath.Join(t.TempDir(), "kubectl")
	script := "#!/bin/sh\nprintf 'box True kubelet is ready\\nbox-2 Unknown Kubelet stopped posting node status.\\n'\n"
	if err := os.WriteFile(kubectl, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	err := (&cluster{}).ready(t.Context(), kubectl)
	if want := "node box-2 is not ready: Kubelet stopped posting node status."; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		c    cluster
		want []string
	}{
		"one of Leme":     {cluster{kubeconfig: "admin.conf", nodes: 2}, []string{"--kubeconfig=admin.conf", "--num-nodes=2"}},
		"somebody else's": {cluster{kubeconfig: "admin.conf"}, []string{"--kubeconfig=admin.conf"}},
	} {
		if got := tc.c.flags(); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
