// Package volumezone keeps pods in the zones and regions that the labels of their
// volumes name.
package volumezone

import (
	"context"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/component-helpers/storage/volume"
	fwk "k8s.io/kube-scheduler/framework"
)

// Name of the plugin.
const Name = "VolumeZone"

const (
	stateKey = fwk.StateKey("PreFilter" + Name)
	reason   = "node(s) had no available volume zone"
)

// labels that name a place, each with the newer one that a node may have instead.
var places = map[string]string{
	v1.LabelTopologyZone:            v1.LabelTopologyZone,
	v1.LabelTopologyRegion:          v1.LabelTopologyRegion,
	v1.LabelFailureDomainBetaZone:   v1.LabelTopologyZone,
	v1.LabelFailureDomainBetaRegion: v1.LabelTopologyRegion,
}

// Plugin implements preFilter and filter.
type Plugin struct {
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
}

var (
	_ fwk.PreFilterPlugin   = &Plugin{}
	_ fwk.FilterPlugin      = &Plugin{}
	_ fwk.EnqueueExtensions = &Plugin{}
	_ fwk.SignPlugin        = &Plugin{}
)

// demand is a label that the node must have with one of some values.
type demand struct {
	key    string
	values sets.Set[string]
}

type demands []demand

// Clone returns the demands themselves, which do not change.
func (d demands) Clone() fwk.StateData { return d }

// New makes the plugin.
func New(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	f := h.SharedInformerFactory()
	return &Plugin{
		claims:  f.Core().V1().PersistentVolumeClaims().Lister(),
		volumes: f.Core().V1().PersistentVolumes().Lister(),
		classes: f.Storage().V1().StorageClasses().Lister(),
	}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// PreFilter collects what the labels of the pod's volumes demand.
func (p *Plugin) PreFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	var all demands
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		pv, s := p.volumeOf(pod.Namespace, v.PersistentVolumeClaim.ClaimName)
		if !s.IsSuccess() {
			return nil, s
		}
		if pv == nil {
			continue
		}
		for key := range places {
			if value, ok := pv.Labels[key]; ok {
				all = append(all, demand{key, sets.New(strings.Split(value, "__")...)})
			}
		}
	}
	if len(all) == 0 {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	state.Write(stateKey, all)
	return nil, nil
}

// volumeOf returns the volume of a claim; nil if it waits for its first consumer.
func (p *Plugin) volumeOf(namespace, name string) (*v1.PersistentVolume, *fwk.Status) {
	claim, err := p.claims.PersistentVolumeClaims(namespace).Get(name)
	if err != nil {
		return nil, unresolved(err)
	}
	if claim.Spec.VolumeName != "" {
		pv, err := p.volumes.Get(claim.Spec.VolumeName)
		return pv, unresolved(err)
	}
	className := volume.GetPersistentVolumeClaimClass(claim)
	if className == "" {
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "PersistentVolumeClaim had no pv name and storageClass name")
	}
	class, err := p.classes.Get(className)
	switch {
	case err != nil:
		return nil, unresolved(err)
	case class.VolumeBindingMode == nil:
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf("VolumeBindingMode not set for StorageClass %q", className))
	case *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer:
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "PersistentVolume had no name")
	}
	return nil, nil
}

// unresolved says that no node helps while an object is missing.
func unresolved(err error) *fwk.Status {
	if apierrors.IsNotFound(err) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, err.Error())
	}
	return fwk.AsStatus(err)
}

// PreFilterExtensions returns nil: other pods do not move volumes.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter rejects nodes in other places. A node without any of the labels is in a
// cluster of one zone, where all volumes are near.
func (p *Plugin) Filter(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	data, err := state.Read(stateKey)
	if err != nil {
		return fwk.AsStatus(err)
	}
	of := node.Node().Labels
	placed := false
	for key := range places {
		_, ok := of[key]
		placed = placed || ok
	}
	if !placed {
		return nil
	}
	for _, d := range data.(demands) {
		value, ok := of[d.key]
		if !ok {
			value, ok = of[places[d.key]]
		}
		if !ok || !d.values.Has(value) {
			return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reason)
		}
	}
	return nil
}

// SignPod tells pods apart by their volumes.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return []fwk.SignFragment{{Key: fwk.VolumesSignerName, Value: fwk.VolumesSigner(pod)}}, nil
}

// EventsToRegister: nodes come or are labelled, claims get bound, volumes and classes appear.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	changed := fwk.Add | fwk.Update
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.StorageClass, ActionType: fwk.Add}},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel}},
		{Event: fwk.ClusterEvent{Resource: fwk.PersistentVolumeClaim, ActionType: changed}},
		{Event: fwk.ClusterEvent{Resource: fwk.PersistentVolume, ActionType: changed}},
	}, nil
}
