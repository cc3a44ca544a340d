// Package nodevolumelimits keeps a node from getting more volumes of a CSI driver than
// the driver can attach to it.
package nodevolumelimits

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/component-helpers/storage/volume"
	csitranslation "k8s.io/csi-translation-lib"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
)

// Name of the plugin.
const Name = "NodeVolumeLimits"

const reason = "node(s) exceed max volume count"

// Plugin implements preFilter and filter.
type Plugin struct {
	csiNodes    storagelisters.CSINodeLister
	drivers     storagelisters.CSIDriverLister
	claims      corelisters.PersistentVolumeClaimLister
	volumes     corelisters.PersistentVolumeLister
	classes     storagelisters.StorageClassLister
	attachments storagelisters.VolumeAttachmentLister
	translator  csitranslation.CSITranslator
}

var (
	_ fwk.PreFilterPlugin   = &Plugin{}
	_ fwk.FilterPlugin      = &Plugin{}
	_ fwk.EnqueueExtensions = &Plugin{}
	_ fwk.SignPlugin        = &Plugin{}
)

// New makes the plugin.
func New(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	core, storage := h.SharedInformerFactory().Core().V1(), h.SharedInformerFactory().Storage().V1()
	return &Plugin{
		csiNodes:    storage.CSINodes().Lister(),
		drivers:     storage.CSIDrivers().Lister(),
		claims:      core.PersistentVolumeClaims().Lister(),
		volumes:     core.PersistentVolumes().Lister(),
		classes:     storage.StorageClasses().Lister(),
		attachments: storage.VolumeAttachments().Lister(),
		translator:  csitranslation.New(),
	}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// PreFilter skips pods without volumes that are attached.
func (p *Plugin) PreFilter(_ context.Context, _ fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	if slices.ContainsFunc(pod.Spec.Volumes, func(v v1.Volume) bool {
		return v.PersistentVolumeClaim != nil || v.Ephemeral != nil || p.translator.IsInlineMigratable(&v)
	}) {
		return nil, nil
	}
	return nil, fwk.NewStatus(fwk.Skip)
}

// PreFilterExtensions returns nil: Filter looks at the node as it is.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// attached are volumes by a name of their own, each with its driver.
type attached map[string]string

// Filter rejects nodes to which no more volumes of a driver can be attached.
func (p *Plugin) Filter(_ context.Context, _ fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	wanted := attached{}
	if err := p.collect(pod, wanted, true); apierrors.IsNotFound(err) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, err.Error())
	} else if err != nil {
		return fwk.AsStatus(err)
	}
	if len(wanted) == 0 {
		return nil
	}
	csiNode, err := p.csiNodes.Get(node.Node().Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return fwk.AsStatus(err)
	}
	limits, installed := limitsOf(csiNode)
	for _, driver := range wanted {
		if !installed[driver] && p.required(driver) {
			return fwk.NewStatus(fwk.Unschedulable, driver+" CSI driver is not installed on the node")
		}
	}
	if len(limits) == 0 {
		return nil
	}
	used, err := p.used(node)
	if err != nil {
		return fwk.AsStatus(err)
	}
	count := map[string]int{}
	for _, driver := range used {
		count[driver]++
	}
	more := map[string]bool{}
	for name, driver := range wanted {
		if _, there := used[name]; !there {
			count[driver]++
			more[driver] = true
		}
	}
	for driver := range more {
		if limit, limited := limits[driver]; limited && count[driver] > limit {
			return fwk.NewStatus(fwk.Unschedulable, reason)
		}
	}
	return nil
}

// limitsOf returns how many volumes each driver can attach to a node, and which drivers
// there are.
func limitsOf(n *storagev1.CSINode) (limits map[string]int, installed map[string]bool) {
	limits, installed = map[string]int{}, map[string]bool{}
	if n == nil {
		return limits, installed
	}
	for _, d := range n.Spec.Drivers {
		installed[d.Name] = true
		if d.Allocatable != nil && d.Allocatable.Count != nil {
			limits[d.Name] = int(*d.Allocatable.Count)
		}
	}
	return limits, installed
}

// required reports whether a driver wants pods kept off nodes on which it does not run.
func (p *Plugin) required(driver string) bool {
	d, err := p.drivers.Get(driver)
	return err == nil && ptr.Deref(d.Spec.PreventPodSchedulingIfMissing, false)
}

// used returns the volumes of the node's pods and those that are attached to it still.
func (p *Plugin) used(node fwk.NodeInfo) (attached, error) {
	all := attached{}
	for _, other := range node.GetPods() {
		if err := p.collect(other.GetPod(), all, false); err != nil {
			return nil, err
		}
	}
	list, err := p.attachments.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		if a.Spec.NodeName != node.Node().Name || a.Spec.Source.PersistentVolumeName == nil {
			continue
		}
		pv, err := p.volumes.Get(*a.Spec.Source.PersistentVolumeName)
		if err != nil {
			continue // it is gone, and soon detached
		}
		if driver, handle := p.csi(pv); driver != "" {
			all[driver+"/"+handle] = driver
		}
	}
	return all, nil
}

// collect adds the volumes of a pod. Claims of pods on nodes may be gone; those of a
// new pod must be there.
func (p *Plugin) collect(pod *v1.Pod, into attached, must bool) error {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if p.translator.IsInlineMigratable(v) {
			pv, err := p.translator.TranslateInTreeInlineVolumeToCSI(klog.Background(), v, pod.Namespace)
			if err != nil {
				return fmt.Errorf("volume %s: %w", v.Name, err)
			}
			into[pv.Spec.CSI.Driver+"/"+pv.Spec.CSI.VolumeHandle] = pv.Spec.CSI.Driver
			continue
		}
		name, ok := cache.ClaimName(pod, v)
		if !ok {
			continue
		}
		claim, err := p.claims.PersistentVolumeClaims(pod.Namespace).Get(name)
		if err != nil {
			if must {
				return err
			}
			continue
		}
		if driver, unique := p.driverOf(claim); driver != "" {
			into[driver+"/"+unique] = driver
		}
	}
	return nil
}

// driverOf returns the CSI driver of a claim's volume, or of the one that will be made
// for it, and what tells it from others.
func (p *Plugin) driverOf(claim *v1.PersistentVolumeClaim) (driver, unique string) {
	if claim.Spec.VolumeName != "" {
		if pv, err := p.volumes.Get(claim.Spec.VolumeName); err == nil {
			return p.csi(pv)
		}
	}
	class, err := p.classes.Get(volume.GetPersistentVolumeClaimClass(claim))
	if err != nil {
		return "", ""
	}
	driver = class.Provisioner
	if p.translator.IsMigratableIntreePluginByName(driver) {
		if driver, err = p.translator.GetCSINameFromInTreeName(driver); err != nil {
			return "", ""
		}
	}
	return driver, "claim " + claim.Namespace + "/" + claim.Name
}

func (p *Plugin) csi(pv *v1.PersistentVolume) (driver, handle string) {
	if p.translator.IsPVMigratable(pv) {
		translated, err := p.translator.TranslateInTreePVToCSI(klog.Background(), pv)
		if err != nil {
			return "", ""
		}
		pv = translated
	}
	if pv.Spec.CSI == nil {
		return "", ""
	}
	return pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle
}

// SignPod tells pods apart by their volumes.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return []fwk.SignFragment{{Key: fwk.VolumesSignerName, Value: fwk.VolumesSigner(pod)}}, nil
}

// EventsToRegister: drivers tell their limits, volumes are detached, pods go.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.CSINode, ActionType: fwk.Add | fwk.Update}},
		{Event: fwk.ClusterEvent{Resource: fwk.CSIDriver, ActionType: fwk.Update}},
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, QueueingHintFn: hadVolumes},
		{Event: fwk.ClusterEvent{Resource: fwk.PersistentVolumeClaim, ActionType: fwk.Add}},
		{Event: fwk.ClusterEvent{Resource: fwk.VolumeAttachment, ActionType: fwk.Delete}},
	}, nil
}

func hadVolumes(_ klog.Logger, _ *v1.Pod, oldObj, _ any) (fwk.QueueingHint, error) {
	if gone, ok := oldObj.(*v1.Pod); ok && len(gone.Spec.Volumes) == 0 {
		return fwk.QueueSkip, nil
	}
	return fwk.Queue, nil
}
