package apiserver

import (
	"k8s.io/apiserver/pkg/server"

	rbacbootstrap "github.com/leme-k8s/leme/pkg/apiserver/authorization/bootstrap"
	"github.com/leme-k8s/leme/pkg/apiserver/bootstrap"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/service"
)

// addHooks lists what the server does beside answering requests.
func (o *Options) addHooks(c *config, s *server.GenericAPIServer) error {
	ranges, err := o.serviceRanges()
	if err != nil {
		return err
	}
	var cidrs []string
	for _, r := range ranges {
		cidrs = append(cidrs, r.String())
	}
	api := &bootstrap.APIService{
		Client:    c.client,
		ClusterIP: ranges[0].Addr().Next().AsSlice(),
		Address:   c.PublicAddress,
		Port:      o.Serving.BindPort,
		NodePort:  o.KubernetesServiceNodePort,
	}
	switch o.EndpointReconciler {
	case "master-count":
		api.Count = o.Count
	case "lease":
		leases, closeLeases, err := bootstrap.NewLeases(c.RESTOptionsGetter)
		if err != nil {
			return err
		}
		api.Leases = leases
		s.RegisterDestroyFunc(closeLeases)
	}
	s.RegisterDestroyFunc(c.nodePorts.Destroy)
	repair := &service.Repair{Client: c.client, Ports: c.nodePorts}

	hooks := map[string]server.PostStartHookFunc{
		rbacbootstrap.HookName:                                  c.authz.Hook,
		"bootstrap-controller":                                  api.Hook,
		"start-kube-apiserver-identity-lease-controller":        bootstrap.Identity(c.client, c.APIServerID, c.peers.address),
		"start-kube-apiserver-identity-lease-garbage-collector": bootstrap.ExpiredIdentities(c.client),
		"storage-readiness":                                     s.StorageReadinessHook.Hook, // readiness waits for the watch caches
		"start-service-ip-repair-controllers": func(hc server.PostStartHookContext) error {
			go repair.Run(hc.Context)
			return nil
		},
	}
	keepers := []bootstrap.Keeper{
		bootstrap.Namespaces(),
		bootstrap.PriorityClasses(),
		bootstrap.ServiceCIDR(cidrs),
		bootstrap.LegacyTokenTracking(),
		bootstrap.AuthenticationInfo(c.authn.ClientCA, c.authn.RequestHeader),
	}
	if c.FlowControl != nil {
		keepers = append(keepers, bootstrap.FlowControl())
	}
	for _, k := range keepers {
		hooks[k.Name] = k.Hook(c.client)
	}
	if c.elections != nil {
		hooks["start-kube-apiserver-coordinated-leader-election-controller"] = c.elections.Hook
	}
	for name, hook := range hooks {
		if err := s.AddPostStartHook(name, hook); err != nil {
			return err
		}
	}
	if err := c.peers.addHooks(c, s); err != nil {
		return err
	}
	return s.AddPreShutdownHook("stop-kubernetes-service-controller", api.Leave)
}
