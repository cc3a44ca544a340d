package component

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/spf13/pflag"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	genericfilters "k8s.io/apiserver/pkg/endpoints/filters"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/component-base/metrics"
)

// Serving is the HTTPS endpoint of a component that only reports on itself: the
// controller manager, the scheduler, the cloud controller manager. It answers
// /healthz, /livez, /readyz, /metrics, /configz and, when profiling is on, /debug/pprof,
// and asks the API server who a client is and what it may read. Health is open to all.
type Serving struct {
	Secure         *options.SecureServingOptions
	Authentication *options.DelegatingAuthenticationOptions
	Authorization  *options.DelegatingAuthorizationOptions
	// Profiling serves /debug/pprof.
	Profiling bool
	// Metrics are those of this one instance, which /metrics shows beside those that the process shares; may be nil.
	Metrics metrics.KubeRegistry
	// NativeHistograms shows exponential buckets too.
	NativeHistograms bool
}

// NewServing returns the defaults that the original components share: TLS on the
// given port of all addresses with a self-signed certificate made in memory.
func NewServing(port int) *Serving {
	s := &Serving{
		Secure:         options.NewSecureServingOptions(),
		Authentication: options.NewDelegatingAuthenticationOptions(),
		Authorization:  options.NewDelegatingAuthorizationOptions(),
		Profiling:      true,
	}
	s.Secure.BindPort = port
	s.Secure.ServerCert.CertDirectory = ""
	s.Secure.ServerCert.PairName = "component"
	s.Authentication.RemoteKubeConfigFileOptional = true
	s.Authorization.RemoteKubeConfigFileOptional = true
	s.Authorization.AlwaysAllowPaths = []string{"/healthz", "/livez", "/readyz"}
	return s
}

// AddFlags adds the original's --bind-address, --secure-port, --tls-*,
// --authentication-*, --authorization-* and --profiling flags.
func (s *Serving) AddFlags(fs *pflag.FlagSet) {
	s.Secure.AddFlags(fs)
	s.Authentication.AddFlags(fs)
	s.Authorization.AddFlags(fs)
	fs.BoolVar(&s.Profiling, "profiling", s.Profiling, "Serve profiles under /debug/pprof/")
}

// Validate reports every flag that is wrong.
func (s *Serving) Validate() error {
	return errors.Join(append(append(s.Secure.Validate(), s.Authentication.Validate()...), s.Authorization.Validate()...)...)
}

// Server is an assembled Serving endpoint.
type Server struct {
	info    *server.SecureServingInfo
	handler http.Handler
}

// New assembles the endpoint and begins to listen, without answering. A port of 0
// switches it off: New then returns nil, whose Run only waits. checks feed
// /healthz, /livez and /readyz; install adds a component's own paths and may be nil.
func (s *Serving) New(checks []healthz.HealthChecker, install func(*mux.PathRecorderMux)) (*Server, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Secure.BindPort == 0 && s.Secure.Listener == nil {
		return nil, nil
	}
	if err := s.selfSign(); err != nil {
		return nil, fmt.Errorf("--tls-cert-file: making a self-signed certificate: %w", err)
	}
	var (
		info  *server.SecureServingInfo
		authn server.AuthenticationInfo
		authz server.AuthorizationInfo
	)
	if err := s.Secure.ApplyTo(&info); err != nil {
		return nil, fmt.Errorf("--secure-port: %w", err)
	}
	if err := s.Authentication.ApplyTo(&authn, info, nil); err != nil {
		return nil, fmt.Errorf("--authentication-kubeconfig: %w", err)
	}
	if err := s.Authorization.ApplyTo(&authz); err != nil {
		return nil, fmt.Errorf("--authorization-kubeconfig: %w", err)
	}

	m := mux.NewPathRecorderMux("component")
	healthz.InstallHandler(m, checks...)
	healthz.InstallLivezHandler(m, checks...)
	healthz.InstallReadyzHandler(m, checks...)
	m.Handle("/metrics", s.metrics())
	if s.Profiling {
		routes.Profiling{}.Install(m)
	}
	if install != nil {
		install(m)
	}

	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"}) // for the Status that says why a request is refused
	codecs := serializer.NewCodecFactory(scheme)
	failed := genericfilters.Unauthorized(codecs)
	authenticator := authn.Authenticator
	if authenticator == nil {
		authenticator = anonymous.NewAuthenticator(nil)
	}
	h := genericfilters.WithAuthorization(m, authz.Authorizer, codecs)
	h = genericfilters.WithAuthentication(h, authenticator, failed, authn.APIAudiences, nil)
	h = genericfilters.WithRequestInfo(h, &genericrequest.RequestInfoFactory{APIPrefixes: sets.NewString(), GrouplessAPIPrefixes: sets.NewString()})
	h = genericfilters.WithCacheControl(h)
	return &Server{info: info, handler: h}, nil
}

// metrics shows what has been counted, and forgets it when it is deleted.
func (s *Serving) metrics() http.Handler {
	if s.Metrics == nil {
		return WithReset(MetricsHandler(s.NativeHistograms))
	}
	return WithReset(MetricsHandler(s.NativeHistograms, s.Metrics), s.Metrics)
}

// selfSign makes a certificate if the flags name none: in memory, or where --cert-dir says.
func (s *Serving) selfSign() error {
	local := net.IPv4(127, 0, 0, 1)
	have := &s.Secure.ServerCert
	if have.CertDirectory != "" {
		return s.Secure.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{local})
	}
	if have.CertKey.CertFile != "" || have.CertKey.KeyFile != "" || have.GeneratedCert != nil {
		return nil
	}
	ips := []net.IP{local}
	if a := s.Secure.BindAddress; !a.IsUnspecified() && !a.Equal(local) {
		ips = append(ips, a)
	}
	cert, key, err := SelfSigned("localhost", ips...)
	if err != nil {
		return err
	}
	have.GeneratedCert, err = dynamiccertificates.NewStaticCertKeyContent("self-signed", cert, key)
	return err
}

// Run answers requests until ctx is cancelled.
func (s *Server) Run(ctx context.Context) error {
	if s == nil {
		<-ctx.Done()
		return nil
	}
	stopped, _, err := s.info.Serve(s.handler, 0, ctx.Done())
	if err != nil {
		return err
	}
	<-stopped
	return nil
}
