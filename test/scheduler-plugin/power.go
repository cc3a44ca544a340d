// Package power is a scheduler plugin as its author would write it for any kube-scheduler: against
// k8s.io/kube-scheduler/framework and nothing of Leme. Nodes have a budget of watts, and pods say how many
// they will draw.
package power

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// Name is the plugin's name in a KubeSchedulerConfiguration.
const Name = "Power"

// Watts is the label of nodes that says their budget, and the annotation of pods that says what they draw.
const Watts = "power.example.com/watts"

// Args are the plugin's arguments in a KubeSchedulerConfiguration.
type Args struct {
	// DefaultWatts is what a pod draws that does not say.
	DefaultWatts int64 `json:"defaultWatts"`
}

// Plugin implements preFilter, filter, score and reserve.
type Plugin struct {
	args Args

	mu sync.Mutex
	// reserved has the watts of pods whose binding the snapshot may not show yet, by node.
	reserved map[string]map[types.UID]int64
}

var (
	_ fwk.PreFilterPlugin   = &Plugin{}
	_ fwk.FilterPlugin      = &Plugin{}
	_ fwk.ScorePlugin       = &Plugin{}
	_ fwk.ScoreExtensions   = &Plugin{}
	_ fwk.ReservePlugin     = &Plugin{}
	_ fwk.EnqueueExtensions = &Plugin{}
)

// New makes the plugin from its arguments.
func New(_ context.Context, args runtime.Object, _ fwk.Handle) (fwk.Plugin, error) {
	p := &Plugin{reserved: map[string]map[types.UID]int64{}}
	if raw, ok := args.(*runtime.Unknown); ok {
		if err := json.Unmarshal(raw.Raw, &p.args); err != nil {
			return nil, fmt.Errorf("args: %w", err)
		}
	}
	return p, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// demand is what the pod draws, for the rest of the cycle.
type demand int64

// Clone returns the number itself.
func (d demand) Clone() fwk.StateData { return d }

// PreFilter reads what the pod draws.
func (p *Plugin) PreFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	watts, err := p.drawnBy(pod)
	if err != nil {
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, err.Error())
	}
	state.Write(Name, demand(watts))
	return nil, nil
}

// PreFilterExtensions returns nil: Filter looks at the node as it is.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter rejects nodes whose budget is too small for one pod more.
func (p *Plugin) Filter(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	d, err := state.Read(Name)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if int64(d.(demand)) > p.free(node) {
		return fwk.NewStatus(fwk.Unschedulable, "Insufficient power")
	}
	return nil
}

// Score prefers nodes with many watts left.
func (p *Plugin) Score(_ context.Context, _ fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	return p.free(node), nil
}

// ScoreExtensions says that the scores are to be normalized.
func (p *Plugin) ScoreExtensions() fwk.ScoreExtensions { return p }

// NormalizeScore brings watts to 0…100.
func (p *Plugin) NormalizeScore(_ context.Context, _ fwk.CycleState, _ *v1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	most := int64(1)
	for _, s := range scores {
		most = max(most, s.Score)
	}
	for i := range scores {
		scores[i].Score = scores[i].Score * fwk.MaxNodeScore / most
	}
	return nil
}

// Reserve keeps the watts until the pod is seen on the node.
func (p *Plugin) Reserve(_ context.Context, state fwk.CycleState, pod *v1.Pod, node string) *fwk.Status {
	d, err := state.Read(Name)
	if err != nil {
		return fwk.AsStatus(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reserved[node] == nil {
		p.reserved[node] = map[types.UID]int64{}
	}
	p.reserved[node][pod.UID] = int64(d.(demand))
	return nil
}

// Unreserve gives the watts back.
func (p *Plugin) Unreserve(_ context.Context, _ fwk.CycleState, pod *v1.Pod, node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.reserved[node], pod.UID)
}

// EventsToRegister: watts become free when pods go, and come with nodes.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, QueueingHintFn: p.drewPower},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel}},
	}, nil
}

func (p *Plugin) drewPower(_ klog.Logger, _ *v1.Pod, gone, _ any) (fwk.QueueingHint, error) {
	if pod, ok := gone.(*v1.Pod); ok {
		if watts, err := p.drawnBy(pod); err == nil && watts == 0 {
			return fwk.QueueSkip, nil
		}
	}
	return fwk.Queue, nil
}

func (p *Plugin) drawnBy(pod *v1.Pod) (int64, error) {
	said, ok := pod.Annotations[Watts]
	if !ok {
		return p.args.DefaultWatts, nil
	}
	watts, err := strconv.ParseInt(said, 10, 64)
	if err != nil || watts < 0 {
		return 0, fmt.Errorf("annotation %s: %q is no number of watts", Watts, said)
	}
	return watts, nil
}

// free is what is left of the node's budget, those pods included that are on their way.
func (p *Plugin) free(node fwk.NodeInfo) int64 {
	left, err := strconv.ParseInt(node.Node().Labels[Watts], 10, 64)
	if err != nil {
		return 0
	}
	seen := map[types.UID]bool{}
	for _, other := range node.GetPods() {
		seen[other.GetPod().UID] = true
		if watts, err := p.drawnBy(other.GetPod()); err == nil {
			left -= watts
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for uid, watts := range p.reserved[node.Node().Name] {
		if seen[uid] {
			delete(p.reserved[node.Node().Name], uid)
		} else {
			left -= watts
		}
	}
	return left
}
