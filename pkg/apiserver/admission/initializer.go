package admission

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/leme-k8s/leme/pkg/api/quota"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/reviews"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/served"
)

// ownInitializer gives plugins what is the same for every kube-apiserver.
type ownInitializer struct{ d Dependencies }

func (i ownInitializer) Initialize(p admission.Interface) {
	if w, ok := p.(served.Wants); ok {
		w.SetServed(i.d.Serves)
	}
	if w, ok := p.(wantsFeatures); ok {
		w.SetFeatures(i.d.Features)
	}
	if w, ok := p.(initializer.WantsExcludedAdmissionResources); ok {
		w.SetExcludedAdmissionResources(reviews.Resources())
	}
	if w, ok := p.(initializer.WantsQuotaConfiguration); ok {
		// What is used in all is written in quotas: nothing has to be listed.
		w.SetQuotaConfiguration(generic.NewConfiguration(quota.Evaluators(nil, devices(i.d.Client), clock.RealClock{}), withoutQuota()))
	}
	if w, ok := p.(initializer.WantsManifestLoaders); ok {
		w.SetManifestLoaders(manifestLoaders(i.d.Scheme))
	}
}

// devices asks this server about claims in namespaces with quotas. There are few of them.
func devices(c kubernetes.Interface) quota.Devices {
	const patience = 5 * time.Second
	return quota.Devices{
		Class: func(name string) (*resourcev1.DeviceClass, error) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			return c.ResourceV1().DeviceClasses().Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
		},
		Pod: func(namespace, name string) (*corev1.Pod, error) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			return c.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		Claims: func(namespace string) ([]resourcev1.ResourceClaim, error) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			list, err := c.ResourceV1().ResourceClaims(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return nil, err
			}
			return list.Items, nil
		},
	}
}

// wantsFeatures is a plugin that does more where features are on.
type wantsFeatures interface {
	SetFeatures(map[string]bool)
}

// withoutQuota are resources that no quota counts: what is not stored, and events.
func withoutQuota() map[schema.GroupResource]struct{} {
	ignored := map[schema.GroupResource]struct{}{
		corev1.Resource("bindings"):          {},
		corev1.Resource("componentstatuses"): {},
		corev1.Resource("events"):            {},
	}
	for _, r := range reviews.Resources() {
		ignored[r] = struct{}{}
	}
	return ignored
}
