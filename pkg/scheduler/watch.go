package scheduler

import (
	"context"
	"errors"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// newInformers returns informers that keep what the scheduler needs: pods that have not
// finished, and no object's managed fields.
func newInformers(client kubernetes.Interface) informers.SharedInformerFactory {
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(strip))
	f.InformerFor(&v1.Pod{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		unfinished := fields.AndSelectors(
			fields.OneTermNotEqualSelector("status.phase", string(v1.PodSucceeded)),
			fields.OneTermNotEqualSelector("status.phase", string(v1.PodFailed)),
		).String()
		return coreinformers.NewFilteredPodInformer(c, metav1.NamespaceAll, resync,
			cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
			func(o *metav1.ListOptions) { o.FieldSelector = unfinished })
	})
	return f
}

func strip(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// watch connects the informers with the cache and the queue. The returned function
// waits until all that exists has been taken over.
func (s *Scheduler) watch(ctx context.Context) (func() error, error) {
	pods, err := s.informers.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { s.podChanged(ctx, nil, obj.(*v1.Pod)) },
		UpdateFunc: func(old, obj any) { s.podChanged(ctx, old.(*v1.Pod), obj.(*v1.Pod)) },
		DeleteFunc: func(obj any) { deleted(obj, func(pod *v1.Pod) { s.podGone(ctx, pod) }) },
	})
	if err != nil {
		return nil, err
	}
	nodes, err := s.informers.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { s.nodeChanged(ctx, nil, obj.(*v1.Node)) },
		UpdateFunc: func(old, obj any) { s.nodeChanged(ctx, old.(*v1.Node), obj.(*v1.Node)) },
		DeleteFunc: func(obj any) { deleted(obj, func(node *v1.Node) { s.nodeGone(ctx, node) }) },
	})
	if err != nil {
		return nil, err
	}
	if err := s.watchOthers(ctx); err != nil {
		return nil, err
	}
	return func() error {
		s.informers.Start(ctx.Done())
		s.informers.WaitForCacheSync(ctx.Done())
		if !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced, nodes.HasSynced) {
			return errors.New("stopped while waiting for pods and nodes")
		}
		s.synced.Store(true)
		return nil
	}, nil
}

// watchOthers tells the queue of the other kinds of objects that plugins wait for.
func (s *Scheduler) watchOthers(ctx context.Context) error {
	wanted := map[fwk.EventResource]bool{}
	for _, fw := range s.profiles {
		for _, h := range fw.Hints() {
			wanted[h.Event.Resource] = true
		}
	}
	core, storage, devices := s.informers.Core().V1(), s.informers.Storage().V1(), s.informers.Resource().V1()
	for resource, informer := range map[fwk.EventResource]func() cache.SharedIndexInformer{
		fwk.PersistentVolume:      func() cache.SharedIndexInformer { return core.PersistentVolumes().Informer() },
		fwk.PersistentVolumeClaim: func() cache.SharedIndexInformer { return core.PersistentVolumeClaims().Informer() },
		fwk.StorageClass:          func() cache.SharedIndexInformer { return storage.StorageClasses().Informer() },
		fwk.CSINode:               func() cache.SharedIndexInformer { return storage.CSINodes().Informer() },
		fwk.CSIDriver:             func() cache.SharedIndexInformer { return storage.CSIDrivers().Informer() },
		fwk.CSIStorageCapacity:    func() cache.SharedIndexInformer { return storage.CSIStorageCapacities().Informer() },
		fwk.ResourceClaim:         func() cache.SharedIndexInformer { return devices.ResourceClaims().Informer() },
		fwk.ResourceSlice:         func() cache.SharedIndexInformer { return devices.ResourceSlices().Informer() },
		fwk.DeviceClass:           func() cache.SharedIndexInformer { return devices.DeviceClasses().Informer() },
		fwk.VolumeAttachment:      func() cache.SharedIndexInformer { return storage.VolumeAttachments().Informer() },
	} {
		if !wanted[resource] {
			continue
		}
		event := func(action fwk.ActionType, old, obj any) {
			s.queue.Event(ctx, fwk.ClusterEvent{Resource: resource, ActionType: action}, old, obj)
		}
		if _, err := informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { event(fwk.Add, nil, obj) },
			UpdateFunc: func(old, obj any) { event(fwk.Update, old, obj) },
			DeleteFunc: func(obj any) { deleted(obj, func(o metav1.Object) { event(fwk.Delete, o, nil) }) },
		}); err != nil {
			return err
		}
	}
	return nil
}

// deleted calls f with an object that is gone, also when only its last known state is.
func deleted[T any](obj any, f func(T)) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if t, ok := obj.(T); ok {
		f(t)
	}
}

func (s *Scheduler) podChanged(ctx context.Context, old, pod *v1.Pod) {
	if old != nil && old.UID != pod.UID { // deleted and made again between two looks
		s.podGone(ctx, old)
		old = nil
	}
	if pod.Spec.NodeName == "" {
		s.pendingPodChanged(ctx, old, pod)
		return
	}
	s.cache.SetPod(pod)
	if old == nil || old.Spec.NodeName == "" {
		s.queue.Delete(pod)
		s.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Add}, nil, pod)
		return
	}
	for _, a := range queue.PodChanges(old, pod) {
		s.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: a}, old, pod)
	}
}

func (s *Scheduler) pendingPodChanged(ctx context.Context, old, pod *v1.Pod) {
	if old == nil {
		if s.profiles[pod.Spec.SchedulerName] != nil {
			s.queue.Add(ctx, pod)
		}
		s.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.UnscheduledPod, ActionType: fwk.Add}, nil, pod)
		return
	}
	if s.profiles[pod.Spec.SchedulerName] != nil && !s.cache.IsAssumed(pod.UID) {
		s.queue.Update(ctx, old, pod)
	}
	for _, a := range queue.PodChanges(old, pod) {
		s.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.UnscheduledPod, ActionType: a}, old, pod)
	}
}

func (s *Scheduler) podGone(ctx context.Context, pod *v1.Pod) {
	if pod.Spec.NodeName == "" {
		s.queue.Delete(pod)
		for _, fw := range s.profiles {
			fw.RejectWaitingPod(pod.UID)
			if p := fw.GetPodInPreBind(pod.UID); p != nil {
				p.CancelPod("the pod was deleted")
			}
		}
		s.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.UnscheduledPod, ActionType: fwk.Delete}, pod, nil)
		return
	}
	s.cache.RemovePod(pod.UID)
	s.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, pod, nil)
}

func (s *Scheduler) nodeChanged(ctx context.Context, old, node *v1.Node) {
	if old == nil {
		s.cache.SetNode(node)
		s.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, nil, node)
		return
	}
	s.cache.SetNode(node)
	for _, a := range queue.NodeChanges(old, node) {
		s.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.Node, ActionType: a}, old, node)
	}
}

func (s *Scheduler) nodeGone(ctx context.Context, node *v1.Node) {
	s.cache.RemoveNode(node.Name)
	s.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Delete}, node, nil)
}
