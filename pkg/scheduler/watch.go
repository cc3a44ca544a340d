package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
)

// newInformers returns informers that keep what the scheduler needs: pods that have not
// finished, and no object's managed fields.
func newInformers(client kubernetes.Interface, gates framework.Gates) informers.SharedInformerFactory {
	f := newFactory(client)
	addOptional(f, gates)
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

func newFactory(client kubernetes.Interface) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(keep(&alike{})))
}

// keep returns what makes objects that come ready to be kept: without managed fields, and pods with what they share.
func keep(pods *alike) cache.TransformFunc {
	return func(obj any) (any, error) {
		if o, ok := obj.(metav1.Object); ok {
			o.SetManagedFields(nil)
		}
		if pod, ok := obj.(*v1.Pod); ok {
			pods.pod(pod)
		}
		return obj, nil
	}
}

// watch connects the informers with the cache and the queue. The returned function
// waits until all that exists has been taken over.
func (s *Scheduler) watch(ctx context.Context) (func() error, error) {
	pods, err := s.informers.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { s.podChanged(ctx, nil, obj.(*v1.Pod)) },
		UpdateFunc: func(old, obj any) { s.podChanged(ctx, old.(*v1.Pod), obj.(*v1.Pod)) },
		DeleteFunc: func(obj any) { deleted(obj, func(pod *v1.Pod) { s.podDeleted(ctx, pod) }) },
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
		read := s.informers.WaitForCacheSync(ctx.Done())
		if missing := record.Unrecorded(maps.Keys(read)); s.recorder != nil && len(missing) > 0 {
			return fmt.Errorf("--record-to: plugins read objects that are not recorded: %s", strings.Join(missing, ", "))
		}
		if !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced, nodes.HasSynced) {
			return errors.New("stopped while waiting for pods and nodes")
		}
		s.synced.Store(true)
		return nil
	}, nil
}

func (s *Scheduler) podDeleted(ctx context.Context, pod *v1.Pod) {
	s.podGone(ctx, pod)
	if group, ok := podgroup.KeyOf(pod); ok {
		s.arrivals.left(group)
	}
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
		fwk.PersistentVolume:      core.PersistentVolumes().Informer,
		fwk.PersistentVolumeClaim: core.PersistentVolumeClaims().Informer,
		fwk.StorageClass:          storage.StorageClasses().Informer,
		fwk.CSINode:               storage.CSINodes().Informer,
		fwk.CSIDriver:             storage.CSIDrivers().Informer,
		fwk.CSIStorageCapacity:    storage.CSIStorageCapacities().Informer,
		fwk.ResourceClaim:         devices.ResourceClaims().Informer,
		fwk.ResourceSlice:         devices.ResourceSlices().Informer,
		fwk.DeviceClass:           devices.DeviceClasses().Informer,
		fwk.VolumeAttachment:      storage.VolumeAttachments().Informer,
		fwk.PodGroup:              s.informers.Scheduling().V1beta1().PodGroups().Informer,
		fwk.CompositePodGroup:     s.informers.Scheduling().V1alpha3().CompositePodGroups().Informer,
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
	if !wanted[fwk.ResourceSlice] {
		return nil
	}
	// A rule that taints devices changes the slices that they are in.
	changed := func() {
		s.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.ResourceSlice, ActionType: fwk.Update}, nil, nil)
	}
	_, err := devices.DeviceTaintRules().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { changed() },
		UpdateFunc: func(_, _ any) { changed() },
		DeleteFunc: func(any) { changed() },
	})
	return err
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
