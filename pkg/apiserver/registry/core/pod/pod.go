// Package pod serves v1 Pod and its subresources, and Binding.
package pod

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Store is the store of pods.
type Store = generic.Store[*corev1.Pod]

// New returns the store of pods.
func New(o generic.Options) (*Store, error) { return generic.NewStore(resource, o) }

var resource = generic.Resource[*corev1.Pod]{
	GroupVersion: corev1.SchemeGroupVersion,
	Name:         "pods",
	ShortNames:   []string{"po"},
	Categories:   []string{"all"},

	HasStatus:        true,
	Generation:       generic.SpecChanged[*corev1.Pod],
	PrepareForCreate: func(ctx context.Context, obj *corev1.Pod) { prepare(ctx, obj) },
	Validate:         generic.Check(core.ValidatePod),
	PrepareForUpdate: func(_ context.Context, obj, old *corev1.Pod) { keepPodResources(obj, old) },
	ValidateUpdate:   generic.CheckUpdate(core.ValidatePodUpdate),
	PodSpec: func(p *corev1.Pod) (*corev1.PodSpec, *field.Path) {
		return &p.Spec, field.NewPath("spec")
	},
	// Those who update pods are programs, and they do it often.
	Warnings: func(_ context.Context, obj, old *corev1.Pod) []string {
		if old != nil {
			return nil
		}
		return core.WarningsPod(obj, old)
	},

	DeleteGracefully: gracePeriod,
	ReturnDeleted:    true,

	Fields: func(p *corev1.Pod) fields.Set {
		ip := ""
		if len(p.Status.PodIPs) > 0 {
			ip = p.Status.PodIPs[0].IP
		}
		return fields.Set{
			"spec.nodeName":            p.Spec.NodeName,
			"spec.restartPolicy":       string(p.Spec.RestartPolicy),
			"spec.schedulerName":       p.Spec.SchedulerName,
			"spec.serviceAccountName":  p.Spec.ServiceAccountName,
			"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
			"status.phase":             string(p.Status.Phase),
			"status.podIP":             ip,
			"status.nominatedNodeName": p.Status.NominatedNodeName,
		}
	},
	TriggerFields: []string{"spec.nodeName"},
	Indexers: &cache.Indexers{
		storage.FieldIndex("spec.nodeName"): func(obj any) ([]string, error) {
			p, ok := obj.(*corev1.Pod)
			if !ok {
				return nil, fmt.Errorf("%T is not a pod", obj)
			}
			return []string{p.Spec.NodeName}, nil
		},
	},
	Columns:       columns,
	Cells:         cells,
	RowConditions: rowConditions,
}

// gracePeriod gives a pod the time to end that the client, or else the pod, says.
// One that runs nowhere needs none.
func gracePeriod(_ context.Context, p *corev1.Pod, options *metav1.DeleteOptions) bool {
	if options == nil {
		return false
	}
	period := ptr.Deref(options.GracePeriodSeconds, ptr.Deref(p.Spec.TerminationGracePeriodSeconds, 0))
	switch {
	case p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded:
		period = 0
	case period < 0:
		period = 1
	}
	options.GracePeriodSeconds = &period
	return true
}
