package scheduler

import (
	"context"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// lookAgain is how long a kind is taken not to be served.
const lookAgain = 10 * time.Minute

// addOptional makes the informers of kinds that an API server may be told not to serve
// (--runtime-config=resource.k8s.io/v1=false). Of a kind that is not served there is
// nothing, and the scheduler does not wait for it.
func addOptional(f informers.SharedInformerFactory, gates framework.Gates) {
	f.InformerFor(&resourceapi.ResourceClaim{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		api := c.ResourceV1().ResourceClaims(metav1.NamespaceAll)
		list := func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) }
		return optional(c, &resourceapi.ResourceClaim{}, &resourceapi.ResourceClaimList{}, list, api.Watch, resync)
	})
	f.InformerFor(&resourceapi.ResourceSlice{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		api := c.ResourceV1().ResourceSlices()
		list := func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) }
		return optional(c, &resourceapi.ResourceSlice{}, &resourceapi.ResourceSliceList{}, list, api.Watch, resync)
	})
	f.InformerFor(&resourceapi.DeviceClass{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		api := c.ResourceV1().DeviceClasses()
		list := func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) }
		return optional(c, &resourceapi.DeviceClass{}, &resourceapi.DeviceClassList{}, list, api.Watch, resync)
	})
	f.InformerFor(&resourceapi.DeviceTaintRule{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		api := c.ResourceV1().DeviceTaintRules()
		list := func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) }
		return optional(c, &resourceapi.DeviceTaintRule{}, &resourceapi.DeviceTaintRuleList{}, list, api.Watch, resync)
	})
	if !gates.GenericWorkload {
		return
	}
	f.InformerFor(&schedulingv1beta1.PodGroup{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		api := c.SchedulingV1beta1().PodGroups(metav1.NamespaceAll)
		list := func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) }
		return optional(c, &schedulingv1beta1.PodGroup{}, &schedulingv1beta1.PodGroupList{}, list, api.Watch, resync)
	})
	if !gates.CompositePodGroup {
		return
	}
	f.InformerFor(&schedulingv1alpha3.CompositePodGroup{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		api := c.SchedulingV1alpha3().CompositePodGroups(metav1.NamespaceAll)
		list := func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) }
		return optional(c, &schedulingv1alpha3.CompositePodGroup{}, &schedulingv1alpha3.CompositePodGroupList{}, list, api.Watch, resync)
	})
}

func optional(c kubernetes.Interface, kind, none runtime.Object, list cache.ListWithContextFunc, watching cache.WatchFuncWithContext, resync time.Duration) cache.SharedIndexInformer {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			found, err := list(ctx, o)
			if apierrors.IsNotFound(err) {
				return none.DeepCopyObject(), nil
			}
			return found, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := watching(ctx, o)
			if !apierrors.IsNotFound(err) || o.SendInitialEvents != nil { // a list follows the failure of one that is to begin with all there is
				return w, err
			}
			idle := watch.NewRaceFreeFake()
			time.AfterFunc(lookAgain, idle.Stop)
			return idle, nil
		},
	}
	return cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, c), kind, resync, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
}
