package noderesources

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/devices"
)

// BalancedName is the name of the BalancedAllocation plugin.
const BalancedName = "NodeResourcesBalancedAllocation"

const balancedKey = fwk.StateKey("PreScore" + BalancedName)

// BalancedAllocation implements preScore and score.
type BalancedAllocation struct {
	resources []configv1.ResourceSpec
	devices   *devices.Manager
}

var (
	_ fwk.PreScorePlugin = &BalancedAllocation{}
	_ fwk.ScorePlugin    = &BalancedAllocation{}
	_ fwk.SignPlugin     = &BalancedAllocation{}
)

// NewBalancedAllocation makes the plugin from NodeResourcesBalancedAllocationArgs.
func NewBalancedAllocation(_ context.Context, args runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	a, ok := args.(*configv1.NodeResourcesBalancedAllocationArgs)
	if !ok {
		return nil, fmt.Errorf("args are of type %T, want NodeResourcesBalancedAllocationArgs", args)
	}
	known, err := knownDevices(h)
	if err != nil {
		return nil, err
	}
	return &BalancedAllocation{a.Resources, known}, nil
}

// Name returns the plugin's name.
func (p *BalancedAllocation) Name() string { return BalancedName }

// PreScore skips pods that ask for none of the resources: they unbalance nothing.
func (p *BalancedAllocation) PreScore(ctx context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) *fwk.Status {
	r, err := toWeigh(ctx, state, pod, p.resources, p.devices)
	if err != nil {
		return fwk.AsStatus(err)
	}
	for _, spec := range p.resources {
		if amount(r.Resource, v1.ResourceName(spec.Name)) > 0 {
			state.Write(balancedKey, r)
			return nil
		}
	}
	return fwk.NewStatus(fwk.Skip)
}

// Score compares the balance of the node with the pod and without it: 100 where the
// pod evens out what was most uneven, 50 the other way round.
func (p *BalancedAllocation) Score(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	r, err := state.Read(balancedKey)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	list := uses(p.resources, r.(*request), node, false)
	without := balance(list, func(u use) int64 { return u.before })
	with := balance(list, func(u use) int64 { return u.after })
	return (with - without + 150) / 2, nil
}

// ScoreExtensions returns nil: the scores are in range.
func (p *BalancedAllocation) ScoreExtensions() fwk.ScoreExtensions { return nil }

// EventsToRegister returns nothing: the plugin never rejects a pod.
func (p *BalancedAllocation) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return nil, nil
}

// ByNode says that what the plugin says of a node follows from the pod's signature and
// the node, so pods that are alike share it.
func (p *BalancedAllocation) ByNode() {}

// SignPod tells pods apart by what they ask for.
func (p *BalancedAllocation) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return sign(pod, p.devices)
}
