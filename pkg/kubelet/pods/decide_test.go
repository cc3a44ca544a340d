package pods

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
	"github.com/leme-k8s/leme/pkg/kubelet/probes"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
	"github.com/leme-k8s/leme/pkg/kubelet/status"
)

var update = flag.Bool("update", false, "write what the scenarios give into their files")

// TestScenarios decides about the pod of each scenario in each of its situations. A situation `*.in`
// is followed by the plan and the status that are expected, `*.out`.
//
//	now 15s                                          time since the epoch of the scenario
//	sandbox s1 ready 10.0.0.1                        newest first, as are containers
//	container c1 name=c sandbox=s1 running           or created, or exited=CODE; with restarts=N at=TIME
//	probe c1 started ready dead unstarted            what probes have found
//	backoff c 10s at=5s                              a start that was granted then
//	failed c ErrImagePull until=20s
//	actuated c cpu=100m memory=64Mi                  limits that were applied; of every container as specified unless said; "-" is unknown
//	resize failed until=20s | unsized                a resize failed; the pod's cgroup is not up to date
//	end grace=30 since=10s
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pod := &v1.Pod{}
			out := map[string]string{}
			for i := range archive.Files {
				f := &archive.Files[i]
				name, kind, _ := strings.Cut(f.Name, ".")
				switch kind {
				case "yaml":
					if err := yaml.UnmarshalStrict(f.Data, pod); err != nil {
						t.Fatal(err)
					}
					pod.UID = "uid"
				case "in":
					out[name] = situation(t, pod, string(f.Data))
				case "out":
					if *update {
						f.Data = []byte(out[name])
					} else if diff := cmp.Diff(string(f.Data), out[name]); diff != "" {
						t.Errorf("%s (-want +got):\n%s", name, diff)
					}
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func situation(t *testing.T, pod *v1.Pod, text string) string {
	in := Input{
		Pod: pod, State: &runtime.State{UID: pod.UID}, Probes: map[string]probes.Results{}, Backoff: map[string]Backoff{},
		Failed: map[string]Failure{}, Restart: map[string]bool{}, Now: epoch, Limits: BackoffLimits{10 * time.Second, 300 * time.Second},
		Actuated: allocation.Of(pod), Sized: true,
	}
	runtime.EachContainer(pod, func(c *v1.Container, _ runtime.Kind) { in.Actuated.Containers[c.Name] = allocation.Effective(pod, c) })
	at := func(s string) time.Time {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		return epoch.Add(d)
	}
	age := time.Duration(0)
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		options := map[string]string{}
		for _, w := range words[1:] {
			k, v, _ := strings.Cut(w, "=")
			options[k] = v
		}
		_, set := options["ready"]
		age += time.Second
		switch words[0] {
		case "now":
			in.Now = at(words[1])
		case "sandbox":
			b := runtime.Sandbox{ID: words[1], Ready: set, Attempt: uint32(len(in.State.Sandboxes)), CreatedAt: epoch.Add(-age)}
			if set && len(words) > 3 {
				b.IPs = words[3:]
			}
			in.State.Sandboxes = append(in.State.Sandboxes, b)
		case "container":
			c := runtime.Container{ID: words[1], Name: options["name"], SandboxID: options["sandbox"], CreatedAt: epoch.Add(-age), StartedAt: epoch}
			c.RestartCount, _ = strconv.Atoi(options["restarts"])
			if spec := runtime.FindContainer(pod, c.Name); spec != nil && options["changed"] == "" {
				c.Hash = runtime.Hash(spec)
			} else {
				c.Hash = 1
			}
			for _, state := range []runtime.ContainerState{runtime.Created, runtime.Running, runtime.Exited} {
				if _, ok := options[string(state)]; ok {
					c.State = state
				}
			}
			c.ExitCode, _ = strconv.Atoi(options["exited"])
			if when := options["at"]; when != "" {
				c.FinishedAt = at(when)
			}
			in.State.Containers = append(in.State.Containers, c)
		case "probe":
			_, started := options["started"]
			_, dead := options["dead"]
			_, unstarted := options["unstarted"]
			in.Probes[words[1]] = probes.Results{Started: started, Ready: set, Dead: dead, Unstarted: unstarted}
		case "backoff":
			d, _ := time.ParseDuration(words[2])
			in.Backoff[words[1]] = Backoff{Delay: d, Last: at(options["at"])}
		case "failed":
			in.Failed[words[1]] = Failure{Waiting: status.Waiting{Reason: words[2]}, Until: at(options["until"])}
		case "actuated":
			if _, unknown := options["-"]; unknown {
				delete(in.Actuated.Containers, words[1])
				break
			}
			had := v1.ResourceRequirements{Requests: runtime.FindContainer(pod, words[1]).Resources.Requests, Limits: v1.ResourceList{}}
			for _, name := range resized {
				if q := options[string(name)]; q != "" {
					had.Limits[name] = resource.MustParse(q)
				}
			}
			in.Actuated.Containers[words[1]] = had
		case "resize":
			in.Failed[failedResize] = Failure{Until: at(options["until"])}
		case "unsized":
			in.Sized = false
		case "end":
			grace, _ := strconv.ParseInt(options["grace"], 10, 64)
			in.End = &End{Grace: grace, Since: at(options["since"])}
		default:
			t.Fatalf("%q says nothing", line)
		}
	}
	return show(in, Decide(in))
}

// show prints a plan and the status that goes with it.
func show(in Input, p Plan) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, s := range p.Stop {
		after := ""
		if len(s.After) > 0 {
			slices.Sort(s.After)
			after = " after " + strings.Join(s.After, ",")
		}
		line("stop %s (%s) within %ds%s: %s", s.ID, s.Name, s.Grace, after, s.Message)
	}
	for _, id := range p.StopSandboxes {
		line("stop sandbox %s", id)
	}
	for _, id := range p.Remove {
		line("remove %s", id)
	}
	if p.Sandbox != nil {
		line("new sandbox, attempt %d", p.Sandbox.Attempt)
	}
	if r := p.Resize; r != nil {
		line("resize%s", map[bool]string{true: ", the runtime hears of it"}[r.Announce])
		for _, u := range r.Update {
			line("  update %s (%s)", u.ID, u.Name)
		}
	}
	if p.Resizing {
		line("resizing")
	}
	for _, s := range p.Start {
		line("start %s (%s)", s.Name, s.Kind)
	}
	if !p.Wake.IsZero() {
		line("wake at %s", p.Wake.Sub(epoch))
	}
	if p.Phase != "" {
		line("finished: %s", p.Phase)
	}
	if p.Done {
		line("done")
	}
	s := status.Generate(status.Input{
		Pod: in.Pod, State: in.State, Probes: func(id string) probes.Results { return in.Probes[id] }, Waiting: p.Waiting,
		Phase: p.Phase, RuntimeName: "fake", Now: in.Now,
	})
	line("status: %s", s.Phase)
	for _, list := range [][]v1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for _, c := range list {
			state := "running"
			if w := c.State.Waiting; w != nil {
				state = "waiting " + w.Reason
			} else if t := c.State.Terminated; t != nil {
				state = fmt.Sprintf("terminated %s %d", t.Reason, t.ExitCode)
			}
			if c.Ready {
				state += " ready"
			}
			if c.RestartCount > 0 {
				state += fmt.Sprintf(" restarts %d", c.RestartCount)
			}
			line("  %s: %s", c.Name, state)
		}
	}
	var conditions []string
	for _, c := range s.Conditions {
		if c.Status == v1.ConditionTrue {
			conditions = append(conditions, string(c.Type))
		}
	}
	line("  %s", strings.Join(conditions, " "))
	return b.String()
}
