// Package registry lists the resources of the API server.
package registry

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	authenticationreview "github.com/leme-k8s/leme/pkg/apiserver/authentication/review"
	authorizationreview "github.com/leme-k8s/leme/pkg/apiserver/authorization/review"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/apps/deployment"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/configmap"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/endpoints"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/event"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/limitrange"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/namespace"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/persistentvolume"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/persistentvolumeclaim"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/podtemplate"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/replicationcontroller"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/resourcequota"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Group is one version of an API group and the resources in it.
type Group struct {
	schema.GroupVersion
	Resources []Resource
}

// Resource builds the storage of a resource and its subresources.
type Resource func(generic.Options) (generic.Storage, error)

// Groups lists everything that is served.
func Groups(c Config) []Group {
	return []Group{
		{corev1.SchemeGroupVersion, []Resource{
			configmap.Storage,
			endpoints.Storage,
			c.events,
			limitrange.Storage,
			namespace.Storage,
			persistentvolume.Storage,
			persistentvolumeclaim.Storage,
			podtemplate.Storage,
			c.podsAndOthers,
			replicationcontroller.Storage,
			resourcequota.Storage,
		}},
		{appsv1.SchemeGroupVersion, []Resource{
			deployment.Storage,
		}},
		{authenticationv1.SchemeGroupVersion, []Resource{
			func(generic.Options) (generic.Storage, error) {
				return authenticationreview.Storage(c.Authentication.Authenticator, c.Authentication.Audiences), nil
			},
		}},
		{authorizationv1.SchemeGroupVersion, []Resource{
			func(generic.Options) (generic.Storage, error) {
				return authorizationreview.Storage(c.Authorization.Authorizer, c.Authorization.Rules), nil
			},
		}},
		{eventsv1.SchemeGroupVersion, []Resource{
			c.events,
		}},
	}
}

func (c Config) events(o generic.Options) (generic.Storage, error) {
	return event.Storage(o, c.EventTTL)
}

// Storage builds the storage of all of the group's resources.
func (g Group) Storage(o generic.Options) (generic.Storage, error) {
	all := generic.Storage{}
	for _, resource := range g.Resources {
		storage, err := resource(o)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, storage)
	}
	return all, nil
}
