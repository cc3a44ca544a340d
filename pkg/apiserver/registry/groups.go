// Package registry lists the resources of the API server.
package registry

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/leme-k8s/leme/pkg/apiserver/registry/apps/deployment"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/configmap"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Config is what single resources need beside the options that all share.
type Config struct {
	generic.Options
}

// Group is one version of an API group and the resources in it.
type Group struct {
	schema.GroupVersion
	Resources []func(generic.Options) (generic.Storage, error)
}

// Groups lists everything that is served.
func Groups(c Config) []Group {
	type resources = []func(generic.Options) (generic.Storage, error)
	return []Group{
		{corev1.SchemeGroupVersion, resources{
			configmap.Storage,
		}},
		{appsv1.SchemeGroupVersion, resources{
			deployment.Storage,
		}},
	}
}

// Storage builds the storage of all of the group's resources.
func (g Group) Storage(o generic.Options) (generic.Storage, error) {
	all := generic.Storage{}
	for _, resource := range g.Resources {
		storage, err := resource(o)
		if err != nil {
			return nil, err
		}
		for path, s := range storage {
			all[path] = s
		}
	}
	return all, nil
}
