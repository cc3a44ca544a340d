// Package aggregation keeps the APIServices that say which versions of which groups
// the server itself has, and reaches the API servers that others name.
package aggregation

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdinformers "k8s.io/apiextensions-apiserver/pkg/client/informers/externalversions/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	apiregistrationclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"
	apiregistrationinformers "k8s.io/kube-aggregator/pkg/client/informers/externalversions/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/controllers/autoregister"
)

// HookName is that of the post-start hook.
const HookName = "kube-apiserver-autoregistration"

// workers write APIServices at the same time.
const workers = 5

// Registration keeps an APIService for each version that the server has: of built-in
// groups from the start on, of custom resources while they are defined.
type Registration struct {
	services apiregistrationinformers.APIServiceInformer
	crds     crdinformers.CustomResourceDefinitionInformer
	keeper   interface {
		autoregister.AutoAPIServiceRegistration
		Run(workers int, stop <-chan struct{})
	}
	local  []schema.GroupVersion
	custom sets.Set[schema.GroupVersion]
}

// NewRegistration returns a registration of nothing yet. The informers must not have
// started.
func NewRegistration(loopback *rest.Config, services apiregistrationinformers.APIServiceInformer, crds crdinformers.CustomResourceDefinitionInformer) (*Registration, error) {
	client, err := apiregistrationclient.NewForConfig(loopback)
	if err != nil {
		return nil, fmt.Errorf("loopback client: %w", err)
	}
	return &Registration{
		services: services, crds: crds,
		keeper: autoregister.NewAutoRegisterController(services, client),
		custom: sets.New[schema.GroupVersion](),
	}, nil
}

// Local registers the versions whose root is among the server's paths.
func (r *Registration) Local(paths []string, discovery aggregated.ResourceManager) {
	for _, gv := range versionsOf(paths) {
		p := local(gv)
		r.local = append(r.local, gv)
		r.keeper.AddAPIServiceToSyncOnStart(apiService(gv, p))
		discovery.SetGroupVersionPriority(metav1.GroupVersion(gv), int(p.group), int(p.version))
	}
}

// versionsOf finds the versions whose root is among paths.
func versionsOf(paths []string) []schema.GroupVersion {
	var all []schema.GroupVersion
	for _, path := range paths {
		switch parts := strings.Split(path, "/"); {
		case path == "/api/v1":
			all = append(all, schema.GroupVersion{Version: "v1"})
		case len(parts) == 4 && parts[1] == "apis":
			all = append(all, schema.GroupVersion{Group: parts[2], Version: parts[3]})
		}
	}
	return all
}

// apiService says that the server itself has a version.
func apiService(gv schema.GroupVersion, p priority) *apiregistrationv1.APIService {
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: gv.Version + "." + gv.Group},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: p.group, VersionPriority: p.version,
		},
	}
}

// Check fails until the built-in versions are registered.
func (r *Registration) Check() healthz.HealthChecker {
	return healthz.NamedCheck("autoregister-completion", func(*http.Request) error {
		var missing []string
		for _, gv := range r.local {
			name := gv.Version + "." + gv.Group
			s, err := r.services.Lister().Get(name)
			if err != nil || !helper.IsAPIServiceConditionTrue(s, apiregistrationv1.Available) {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			slices.Sort(missing)
			return fmt.Errorf("missing APIService: %v", missing)
		}
		return nil
	})
}

// Hook is the post-start hook.
func (r *Registration) Hook(hc server.PostStartHookContext) error {
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // whoever looks next sees this change, too
		}
	}
	handle, err := r.crds.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	})
	if err != nil {
		return fmt.Errorf("watching CustomResourceDefinitions: %w", err)
	}
	go func() {
		// What is stored and not wanted is deleted: first all that is wanted must be known.
		if !cache.WaitFor(hc.Context, "", handle.HasSyncedChecker()) {
			return
		}
		r.follow(hc.Context)
		go r.keeper.Run(workers, hc.Done())
		for {
			select {
			case <-hc.Done():
				return
			case <-changed:
				r.follow(hc.Context)
			}
		}
	}()
	return nil
}

// follow registers what is defined now.
func (r *Registration) follow(ctx context.Context) {
	crds, err := r.crds.Lister().List(labels.Everything())
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listing CustomResourceDefinitions")
		return
	}
	now := defined(crds).Delete(r.local...)
	for gv := range now.Difference(r.custom) {
		r.keeper.AddAPIServiceToSync(apiService(gv, custom))
	}
	for gv := range r.custom.Difference(now) {
		r.keeper.RemoveAPIServiceToSync(gv.Version + "." + gv.Group)
	}
	r.custom = now
}

// defined returns the versions of custom resources that are served.
func defined(crds []*apiextensionsv1.CustomResourceDefinition) sets.Set[schema.GroupVersion] {
	all := sets.New[schema.GroupVersion]()
	for _, crd := range crds {
		for _, v := range crd.Spec.Versions {
			if v.Served {
				all.Insert(schema.GroupVersion{Group: crd.Spec.Group, Version: v.Name})
			}
		}
	}
	return all
}
