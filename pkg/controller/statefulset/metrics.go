package statefulset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/census"
)

// register adds the original's metrics of StatefulSets that are updated pod by pod: how many pods may be without work, and how many are.
func (c *Controller) register(r metrics.KubeRegistry) {
	gauge := func(name, help string) *metrics.Desc {
		return census.Gauge("statefulset_controller", name, help, "statefulset_namespace", "statefulset_name", "pod_management_policy")
	}
	allowed := gauge("statefulset_max_unavailable", "Number of pods that a rolling update may take down at a time")
	missing := gauge("statefulset_unavailable_replicas", "Number of pods that are missing or not available")
	r.CustomMustRegister(&census.Census{Gauges: []*metrics.Desc{allowed, missing}, Count: func(ctx context.Context, show func(*metrics.Desc, float64, ...string)) error {
		var list appsv1.StatefulSetList
		if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
			return err
		}
		for i := range list.Items {
			set := &list.Items[i]
			r := set.Spec.UpdateStrategy.RollingUpdate
			if set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateStatefulSetStrategyType || r == nil {
				continue
			}
			replicas := ptr.Deref(set.Spec.Replicas, 1)
			show(allowed, float64(c.budget(r, int(replicas))), set.Namespace, set.Name, string(set.Spec.PodManagementPolicy))
			show(missing, float64(max(0, replicas-set.Status.AvailableReplicas)), set.Namespace, set.Name, string(set.Spec.PodManagementPolicy))
		}
		return nil
	}})
}

// budget is how many pods of a set may be without work during an update.
func (c *Controller) budget(r *appsv1.RollingUpdateStatefulSetStrategy, replicas int) int {
	if !c.maxUnavailable {
		return 1
	}
	return maxUnavailable(r, replicas)
}
