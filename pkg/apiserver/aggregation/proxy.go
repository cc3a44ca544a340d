package aggregation

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"

	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/transport"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	"k8s.io/kube-aggregator/pkg/controllers/status/remote"
)

// Proxy reaches aggregated API servers for what clients do not ask of them.
type Proxy struct {
	Services webhook.ServiceResolver
	// Dial, if any, is how to get there.
	Dial *transport.DialHolder
	// CertFile and KeyFile vouch for the user that the server speaks for.
	CertFile, KeyFile string
}

// Handler passes requests on to the API server that s names, for the user in their
// context.
func (p *Proxy) Handler(s *apiregistrationv1.APIService) http.Handler {
	config := remote.BuildTransportConfig(p.Dial, nil, nil, s)
	config.TLS.CertFile, config.TLS.KeyFile, config.TLS.ReloadTLSFiles = p.CertFile, p.KeyFile, p.CertFile != ""
	rt, err := transport.New(config)
	if err == nil && !helper.IsAPIServiceConditionTrue(s, apiregistrationv1.Available) {
		err = fmt.Errorf("APIService %s is not available", s.Name)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		at, err := p.Services.ResolveEndpoint(s.Spec.Service.Namespace, s.Spec.Service.Name, *s.Spec.Service.Port)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		user, ok := request.UserFrom(r.Context())
		if !ok {
			http.Error(w, "request without a user", http.StatusInternalServerError)
			return
		}
		(&httputil.ReverseProxy{
			Rewrite:   func(out *httputil.ProxyRequest) { out.SetURL(&url.URL{Scheme: "https", Host: at.Host}) },
			Transport: transport.NewAuthProxyRoundTripper(user.GetName(), user.GetUID(), user.GetGroups(), user.GetExtra(), rt),
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				http.Error(w, err.Error(), http.StatusBadGateway)
			},
		}).ServeHTTP(w, r)
	})
}
