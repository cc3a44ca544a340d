// Package volumerestrictions keeps pods apart that cannot share a volume: disks that only
// one may write, and claims with the access mode ReadWriteOncePod.
package volumerestrictions

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
)

// Name of the plugin.
const Name = "VolumeRestrictions"

const (
	stateKey   = fwk.StateKey("PreFilter" + Name)
	reasonDisk = "node(s) had no available disk"
	reasonPod  = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)

// Plugin implements preFilter and filter.
type Plugin struct {
	snapshot fwk.SharedLister
	claims   corelisters.PersistentVolumeClaimLister
}

var (
	_ fwk.PreFilterPlugin     = &Plugin{}
	_ fwk.PreFilterExtensions = &Plugin{}
	_ fwk.FilterPlugin        = &Plugin{}
	_ fwk.EnqueueExtensions   = &Plugin{}
	_ fwk.SignPlugin          = &Plugin{}
)

// exclusive are the pod's claims that only one pod may use, and how many other pods do.
type exclusive struct {
	claims sets.Set[string]
	users  int
}

// Clone returns a copy with a number of its own.
func (e *exclusive) Clone() fwk.StateData {
	c := *e
	return &c
}

// New makes the plugin.
func New(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	return &Plugin{h.SnapshotSharedLister(), h.SharedInformerFactory().Core().V1().PersistentVolumeClaims().Lister()}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// PreFilter looks for claims that another pod holds alone.
func (p *Plugin) PreFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	e := &exclusive{claims: sets.New[string]()}
	for i := range pod.Spec.Volumes {
		name, ok := cache.ClaimName(pod, &pod.Spec.Volumes[i])
		if !ok || pod.Spec.Volumes[i].Ephemeral != nil { // an ephemeral one is the pod's own
			continue
		}
		claim, err := p.claims.PersistentVolumeClaims(pod.Namespace).Get(name)
		if apierrors.IsNotFound(err) {
			return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, err.Error())
		}
		if err != nil {
			return nil, fwk.AsStatus(err)
		}
		if slices.Contains(claim.Spec.AccessModes, v1.ReadWriteOncePod) {
			e.claims.Insert(name)
			if p.snapshot.StorageInfos().IsPVCUsedByPods(pod.Namespace + "/" + name) {
				e.users++
			}
		}
	}
	if e.users == 0 && !slices.ContainsFunc(pod.Spec.Volumes, func(v v1.Volume) bool { return restricted(&v) }) {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	state.Write(stateKey, e)
	return nil, nil
}

// PreFilterExtensions returns the plugin: a pod that goes may free a claim.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return p }

// AddPod counts a pod that is thought to be on a node.
func (p *Plugin) AddPod(_ context.Context, state fwk.CycleState, pod *v1.Pod, add fwk.PodInfo, _ fwk.NodeInfo) *fwk.Status {
	return change(state, pod, add.GetPod(), 1)
}

// RemovePod takes a pod out that is thought to be gone.
func (p *Plugin) RemovePod(_ context.Context, state fwk.CycleState, pod *v1.Pod, remove fwk.PodInfo, _ fwk.NodeInfo) *fwk.Status {
	return change(state, pod, remove.GetPod(), -1)
}

func change(state fwk.CycleState, pod, other *v1.Pod, n int) *fwk.Status {
	e, err := read(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if other.Namespace != pod.Namespace {
		return nil
	}
	for _, v := range other.Spec.Volumes {
		if v.PersistentVolumeClaim != nil && e.claims.Has(v.PersistentVolumeClaim.ClaimName) {
			e.users += n
		}
	}
	return nil
}

func read(state fwk.CycleState) (*exclusive, error) {
	data, err := state.Read(stateKey)
	if err != nil {
		return nil, err
	}
	e, ok := data.(*exclusive)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T", stateKey, data)
	}
	return e, nil
}

// Filter rejects nodes where a disk is in use, and all while a claim is.
func (p *Plugin) Filter(_ context.Context, state fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if !restricted(v) {
			continue
		}
		for _, other := range node.GetPods() {
			if slices.ContainsFunc(other.GetPod().Spec.Volumes, func(w v1.Volume) bool { return conflict(v, &w) }) {
				return fwk.NewStatus(fwk.Unschedulable, reasonDisk)
			}
		}
	}
	e, err := read(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if e.users > 0 {
		return fwk.NewStatus(fwk.Unschedulable, reasonPod)
	}
	return nil
}

// restricted reports whether a volume is of a kind that pods on a node may not share freely.
func restricted(v *v1.Volume) bool {
	return v.GCEPersistentDisk != nil || v.AWSElasticBlockStore != nil || v.ISCSI != nil || v.RBD != nil
}

// conflict reports whether two volumes are the same disk. All but AWS' may be read by many.
func conflict(a, b *v1.Volume) bool {
	switch {
	case a.GCEPersistentDisk != nil && b.GCEPersistentDisk != nil:
		x, y := a.GCEPersistentDisk, b.GCEPersistentDisk
		return x.PDName == y.PDName && !(x.ReadOnly && y.ReadOnly)
	case a.AWSElasticBlockStore != nil && b.AWSElasticBlockStore != nil:
		return a.AWSElasticBlockStore.VolumeID == b.AWSElasticBlockStore.VolumeID
	case a.ISCSI != nil && b.ISCSI != nil:
		return a.ISCSI.IQN == b.ISCSI.IQN && !(a.ISCSI.ReadOnly && b.ISCSI.ReadOnly)
	case a.RBD != nil && b.RBD != nil:
		x, y := a.RBD, b.RBD
		return x.RBDPool == y.RBDPool && x.RBDImage == y.RBDImage && !(x.ReadOnly && y.ReadOnly) &&
			slices.ContainsFunc(x.CephMonitors, func(m string) bool { return slices.Contains(y.CephMonitors, m) })
	}
	return false
}

// SignPod tells pods apart by their volumes.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return []fwk.SignFragment{{Key: fwk.VolumesSignerName, Value: fwk.VolumesSigner(pod)}}, nil
}

// EventsToRegister: a pod that goes frees its volumes; nodes come; claims are made.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, QueueingHintFn: freed},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}},
		{Event: fwk.ClusterEvent{Resource: fwk.PersistentVolumeClaim, ActionType: fwk.Add | fwk.Update}, QueueingHintFn: ofItsNamespace},
	}, nil
}

func freed(_ klog.Logger, pod *v1.Pod, oldObj, _ any) (fwk.QueueingHint, error) {
	gone, ok := oldObj.(*v1.Pod)
	if !ok {
		return fwk.Queue, nil
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		for j := range gone.Spec.Volumes {
			w := &gone.Spec.Volumes[j]
			shared := v.PersistentVolumeClaim != nil && w.PersistentVolumeClaim != nil && gone.Namespace == pod.Namespace &&
				v.PersistentVolumeClaim.ClaimName == w.PersistentVolumeClaim.ClaimName
			if shared || conflict(v, w) {
				return fwk.Queue, nil
			}
		}
	}
	return fwk.QueueSkip, nil
}

func ofItsNamespace(_ klog.Logger, pod *v1.Pod, _, newObj any) (fwk.QueueingHint, error) {
	if claim, ok := newObj.(*v1.PersistentVolumeClaim); ok && claim.Namespace != pod.Namespace {
		return fwk.QueueSkip, nil
	}
	return fwk.Queue, nil
}
