// Package volumebinding puts pods where their volumes are, or can be: claims that are
// bound must be to volumes that the node reaches, and claims that wait for their first
// consumer get a volume, or have one provisioned, for the node that is chosen.
//
// find.go says for a node what is to be bound or provisioned there, bind.go does it.
package volumebinding

import (
	"context"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	csitranslation "k8s.io/csi-translation-lib"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// Name of the plugin.
const Name = "VolumeBinding"

const stateKey = fwk.StateKey(Name)

// Plugin implements preFilter, filter, preScore, score, reserve and preBind.
type Plugin struct {
	handle     fwk.Handle
	client     kubernetes.Interface
	pods       corelisters.PodLister
	nodes      corelisters.NodeLister
	claims     corelisters.PersistentVolumeClaimLister
	volumes    corelisters.PersistentVolumeLister
	classes    storagelisters.StorageClassLister
	drivers    storagelisters.CSIDriverLister
	capacities storagelisters.CSIStorageCapacityLister
	translator csitranslation.CSITranslator

	assumedClaims  *assumed[*v1.PersistentVolumeClaim]
	assumedVolumes *assumed[*v1.PersistentVolume]
	timeout        time.Duration
	shape          []configv1.UtilizationShapePoint
}

var (
	_ fwk.PreFilterPlugin   = &Plugin{}
	_ fwk.FilterPlugin      = &Plugin{}
	_ fwk.PreScorePlugin    = &Plugin{}
	_ fwk.ScorePlugin       = &Plugin{}
	_ fwk.ReservePlugin     = &Plugin{}
	_ fwk.PreBindPlugin     = &Plugin{}
	_ fwk.EnqueueExtensions = &Plugin{}
	_ fwk.SignPlugin        = &Plugin{}
	_ framework.Keeper      = &Plugin{}
)

// New makes the plugin from VolumeBindingArgs.
func New(_ context.Context, args runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	a, ok := args.(*configv1.VolumeBindingArgs)
	if !ok || a.BindTimeoutSeconds == nil {
		return nil, fmt.Errorf("args are of type %T, want VolumeBindingArgs with defaults", args)
	}
	core, storage := h.SharedInformerFactory().Core().V1(), h.SharedInformerFactory().Storage().V1()
	return &Plugin{
		handle:         h,
		client:         h.ClientSet(),
		pods:           core.Pods().Lister(),
		nodes:          core.Nodes().Lister(),
		claims:         core.PersistentVolumeClaims().Lister(),
		volumes:        core.PersistentVolumes().Lister(),
		classes:        storage.StorageClasses().Lister(),
		drivers:        storage.CSIDrivers().Lister(),
		capacities:     storage.CSIStorageCapacities().Lister(),
		translator:     csitranslation.New(),
		assumedClaims:  newAssumed[*v1.PersistentVolumeClaim](),
		assumedVolumes: newAssumed[*v1.PersistentVolume](),
		timeout:        time.Duration(*a.BindTimeoutSeconds) * time.Second,
		shape:          a.Shape,
	}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// state is what PreFilter knows of the pod's claims, and what Filter plans node by node.
type state struct {
	claims *claims

	mu    sync.Mutex
	plans map[string]*plan
}

// Clone returns a copy with plans of its own.
func (s *state) Clone() fwk.StateData {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &state{claims: s.claims, plans: maps.Clone(s.plans)}
}

func (s *state) plan(node string) *plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plans[node]
}

func read(cs fwk.CycleState) (*state, error) {
	data, err := cs.Read(stateKey)
	if err != nil {
		return nil, err
	}
	s, ok := data.(*state)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T", stateKey, data)
	}
	return s, nil
}

// PreFilter sorts the pod's claims: bound, waiting for this pod, or not ready for it.
func (p *Plugin) PreFilter(_ context.Context, cs fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	c, s := p.sort(pod)
	if !s.IsSuccess() {
		return nil, s
	}
	cs.Write(stateKey, &state{claims: c, plans: map[string]*plan{}})
	if len(c.bound)+len(c.waiting) == 0 {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	return nil, nil
}

// PreFilterExtensions returns nil: other pods take no volumes away.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter rejects nodes that do not reach a volume, or where a claim cannot get one.
func (p *Plugin) Filter(_ context.Context, cs fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	planned, reasons, err := p.find(s.claims, node.Node())
	if err != nil {
		return fwk.AsStatus(err)
	}
	if len(reasons) > 0 {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reasons...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plans[node.Node().Name] = planned
	return nil
}

// PreScore has nothing to do when no claim needs a volume.
func (p *Plugin) PreScore(_ context.Context, cs fwk.CycleState, _ *v1.Pod, _ []fwk.NodeInfo) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if len(s.claims.waiting) == 0 {
		return fwk.NewStatus(fwk.Skip)
	}
	return nil
}

// Score prefers nodes by how much of their storage, class by class, the pod would use.
func (p *Plugin) Score(_ context.Context, cs fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	s, err := read(cs)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	planned := s.plan(node.Node().Name)
	if planned == nil {
		return 0, nil
	}
	usage := planned.usage()
	if len(usage) == 0 {
		return 0, nil
	}
	var sum int64
	for _, u := range usage {
		utilization := int64(100)
		if u.capacity > 0 && u.requested <= u.capacity {
			utilization = u.requested * 100 / u.capacity
		}
		sum += along(p.shape, utilization)
	}
	return int64(math.Round(float64(sum) / float64(len(usage)))), nil
}

// along reads a score, 0…100, off a line through points (utilization in percent, score 0…10).
func along(shape []configv1.UtilizationShapePoint, utilization int64) int64 {
	for i, p := range shape {
		if utilization > int64(p.Utilization) {
			continue
		}
		if i == 0 {
			return int64(p.Score) * 10
		}
		from := shape[i-1]
		return int64(from.Score)*10 + int64(p.Score-from.Score)*10*(utilization-int64(from.Utilization))/int64(p.Utilization-from.Utilization)
	}
	return int64(shape[len(shape)-1].Score) * 10
}

// ScoreExtensions returns nil: the scores are in range.
func (p *Plugin) ScoreExtensions() fwk.ScoreExtensions { return nil }

// SignPod tells pods apart by their volumes.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return []fwk.SignFragment{{Key: fwk.VolumesSignerName, Value: fwk.VolumesSigner(pod)}}, nil
}

// EventsToRegister: claims get bound, volumes, classes and capacity appear, nodes come
// or get the labels that volumes ask for.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	changed := fwk.Add | fwk.Update
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.StorageClass, ActionType: changed}},
		{Event: fwk.ClusterEvent{Resource: fwk.PersistentVolumeClaim, ActionType: changed}, QueueingHintFn: ofItsNamespace},
		{Event: fwk.ClusterEvent{Resource: fwk.PersistentVolume, ActionType: changed}},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel}},
		{Event: fwk.ClusterEvent{Resource: fwk.CSINode, ActionType: changed}},
		{Event: fwk.ClusterEvent{Resource: fwk.CSIDriver, ActionType: fwk.Update}},
		{Event: fwk.ClusterEvent{Resource: fwk.CSIStorageCapacity, ActionType: changed}},
	}, nil
}

// ofItsNamespace asks whether a claim could be one of the pod's.
func ofItsNamespace(_ klog.Logger, pod *v1.Pod, _, newObj any) (fwk.QueueingHint, error) {
	if claim, ok := newObj.(*v1.PersistentVolumeClaim); ok && claim.Namespace != pod.Namespace {
		return fwk.QueueSkip, nil
	}
	return fwk.Queue, nil
}
