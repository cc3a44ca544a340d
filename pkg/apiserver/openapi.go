package apiserver

import (
	"fmt"

	"github.com/emicklei/go-restful/v3"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/transport"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"

	"github.com/leme-k8s/leme/pkg/apiserver/aggregation"
	"github.com/leme-k8s/leme/pkg/apiserver/openapi"
)

// installOpenAPI has the first server of the chain say what all of them serve.
func (o *Options) installOpenAPI(c server.CompletedConfig, services webhook.ServiceResolver, crds *apiextensions.CustomResourceDefinitions, s *server.GenericAPIServer, front *aggregator.APIAggregator) error {
	proxy := &aggregation.Proxy{Services: services, CertFile: o.ProxyClientCertFile, KeyFile: o.ProxyClientKeyFile}
	if c.EgressSelector != nil {
		dial, err := c.EgressSelector.Lookup(egressselector.Cluster.AsNetworkContext())
		if err != nil {
			return fmt.Errorf("--egress-selector-config-file: %w", err)
		}
		if dial != nil {
			proxy.Dial = &transport.DialHolder{Dial: dial}
		}
	}
	return (&openapi.Documents{
		V2: c.OpenAPIConfig,
		V3: c.OpenAPIV3Config,
		Servers: []*restful.Container{
			front.GenericAPIServer.Handler.GoRestfulContainer, s.Handler.GoRestfulContainer, crds.GenericAPIServer.Handler.GoRestfulContainer,
		},
		CRDs:        crds.Informers.Apiextensions().V1().CustomResourceDefinitions().Lister(),
		APIServices: front.APIRegistrationInformers.Apiregistration().V1().APIServices(),
		Proxy:       proxy.Handler,
	}).Install(front.GenericAPIServer)
}
