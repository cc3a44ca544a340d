// Package limitranger gives containers the default requests and limits of their
// namespace's LimitRanges, and refuses pods and claims outside of the ranges.
package limitranger

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
)

// PluginName is the plugin's name in flags.
const PluginName = "LimitRanger"

// Plugin applies LimitRanges.
type Plugin struct {
	listing.ClientHandler[corelisters.LimitRangeLister]
	recent recentNamespaces
}

var (
	_ admission.MutationInterface   = &Plugin{}
	_ admission.ValidationInterface = &Plugin{}
)

// New returns the plugin.
func New() *Plugin {
	return &Plugin{ClientHandler: listing.NewClientHandler(func(f informers.SharedInformerFactory) listing.Informer[corelisters.LimitRangeLister] {
		return f.Core().V1().LimitRanges()
	}, admission.Create, admission.Update)}
}

// Admit adds the defaults to a new pod's containers.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok || a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetSubresource() != "" || a.GetOperation() != admission.Create {
		return nil
	}
	ranges, err := p.list(ctx, a)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		addDefaults(pod, r)
	}
	return nil
}

// Validate refuses what is outside of the ranges: new pods, pods that are resized,
// and claims. Other updates of a pod change no resources.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	var check func(*corev1.LimitRangeItem) []error
	switch o := a.GetObject().(type) {
	case *corev1.Pod:
		created := a.GetOperation() == admission.Create && a.GetSubresource() == ""
		resized := a.GetOperation() == admission.Update && a.GetSubresource() == "resize"
		if !created && !resized {
			return nil
		}
		check = func(item *corev1.LimitRangeItem) []error { return checkPod(o, item) }
	case *corev1.PersistentVolumeClaim:
		if a.GetSubresource() != "" {
			return nil
		}
		check = func(item *corev1.LimitRangeItem) []error { return checkClaim(o, item) }
	default:
		return nil
	}
	ranges, err := p.list(ctx, a)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		var errs []error
		for i := range r.Spec.Limits {
			errs = append(errs, check(&r.Spec.Limits[i])...)
		}
		if len(errs) > 0 {
			return admission.NewForbidden(a, utilerrors.NewAggregate(errs))
		}
	}
	return nil
}

// list returns the namespace's LimitRanges. One that was made just before a pod may
// not be in the cache yet: the server is asked if the cache knows none, but not for
// every pod of a namespace that has none.
func (p *Plugin) list(ctx context.Context, a admission.Attributes) ([]*corev1.LimitRange, error) {
	if err := p.Ready(a); err != nil {
		return nil, err
	}
	namespace := a.GetNamespace()
	ranges, err := p.Lister.LimitRanges(namespace).List(labels.Everything())
	if err != nil {
		return nil, admission.NewForbidden(a, fmt.Errorf("unable to %s %v at this time because there was an error enforcing limit ranges", a.GetOperation(), a.GetResource()))
	}
	if len(ranges) > 0 {
		return ranges, nil
	}
	return p.recent.get(namespace, func() ([]*corev1.LimitRange, error) {
		live, err := p.Client.CoreV1().LimitRanges(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, admission.NewForbidden(a, err)
		}
		for i := range live.Items {
			ranges = append(ranges, &live.Items[i])
		}
		return ranges, nil
	})
}
