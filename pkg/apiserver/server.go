package apiserver

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/notfoundhandler"

	"github.com/leme-k8s/leme/pkg/api/scheme"
	"github.com/leme-k8s/leme/pkg/apiserver/registry"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/component"
)

// Server is an assembled API server.
type Server struct {
	generic *server.GenericAPIServer
}

// New implements component.Options.
func (o *Options) New(ctx context.Context) (component.Runner, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c, err := o.newConfig(ctx)
	if err != nil {
		return nil, err
	}
	return c.newServer()
}

// Run implements component.Runner.
func (s *Server) Run(ctx context.Context) error {
	return s.generic.PrepareRun().RunWithContext(ctx)
}

func (c *config) newServer() (*Server, error) {
	complete := c.Complete(c.informers)
	notFound := server.NewEmptyDelegateWithCustomHandler(notfoundhandler.New(c.Serializer, filters.NoMuxAndDiscoveryIncompleteKey))
	s, err := complete.New("kube-apiserver", notFound)
	if err != nil {
		return nil, err
	}
	if err := c.install(s); err != nil {
		return nil, err
	}
	return &Server{generic: s}, nil
}

// install gives the server every resource that --runtime-config leaves enabled.
func (c *config) install(s *server.GenericAPIServer) error {
	options := generic.Options{Scheme: c.scheme, RESTOptions: c.RESTOptionsGetter}
	codecs, parameters := scheme.NewCodecs(c.scheme), runtime.NewParameterCodec(c.scheme)

	var groups []*server.APIGroupInfo
	byName := map[string]*server.APIGroupInfo{}
	for _, g := range registry.Groups(registry.Config{Options: options}) {
		storage, err := g.Storage(options)
		if err != nil {
			return err
		}
		for path := range storage {
			if !c.MergedResourceConfig.ResourceEnabled(g.WithResource(path)) {
				delete(storage, path)
			}
		}
		if len(storage) == 0 {
			continue
		}
		info := byName[g.Group]
		if info == nil {
			i := server.NewDefaultAPIGroupInfo(g.Group, c.scheme, parameters, codecs)
			info = &i
			byName[g.Group] = info
			groups = append(groups, info)
		}
		info.VersionedResourcesStorageMap[g.Version] = storage
	}

	var named []*server.APIGroupInfo
	for _, info := range groups {
		if info.PrioritizedVersions[0].Group != "" {
			named = append(named, info)
			continue
		}
		if err := s.InstallLegacyAPIGroup(server.DefaultLegacyAPIPrefix, info); err != nil {
			return fmt.Errorf("installing core/v1: %w", err)
		}
	}
	if err := s.InstallAPIGroups(named...); err != nil {
		return fmt.Errorf("installing API groups: %w", err)
	}
	return nil
}
