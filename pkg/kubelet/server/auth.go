package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
)

// NewAuth builds authentication and authorization as the configuration says. client
// may be nil for a kubelet without an API server. run follows changes of the client
// CA file until its context is done.
func NewAuth(k *kubeletconfig.KubeletConfiguration, client kubernetes.Interface) (auth Auth, run func(context.Context), err error) {
	run = func(context.Context) {}
	c := authenticatorfactory.DelegatingAuthenticatorConfig{
		Anonymous:                &apiserver.AnonymousAuthConfig{Enabled: k.Authentication.Anonymous.Enabled != nil && *k.Authentication.Anonymous.Enabled},
		CacheTTL:                 k.Authentication.Webhook.CacheTTL.Duration,
		WebhookRetryBackoff:      options.DefaultAuthWebhookRetryBackoff(),
		TokenAccessReviewTimeout: 10 * time.Second,
	}
	if file := k.Authentication.X509.ClientCAFile; file != "" {
		ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca-bundle", file)
		if err != nil {
			return auth, nil, fmt.Errorf("authentication.x509.clientCAFile: %w", err)
		}
		c.ClientCertificateCAContentProvider = ca
		run = func(ctx context.Context) { ca.Run(ctx, 1) }
	}
	if k.Authentication.Webhook.Enabled != nil && *k.Authentication.Webhook.Enabled {
		if client == nil {
			return auth, nil, errors.New("authentication.webhook.enabled: needs an API server (--kubeconfig)")
		}
		c.TokenAccessReviewClient = client.AuthenticationV1()
	}
	if auth.Authenticator, _, err = c.New(); err != nil {
		return auth, nil, fmt.Errorf("authentication: %w", err)
	}
	switch k.Authorization.Mode {
	case kubeletconfig.KubeletAuthorizationModeAlwaysAllow:
		auth.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	case kubeletconfig.KubeletAuthorizationModeWebhook:
		if client == nil {
			return auth, nil, errors.New("authorization.mode: Webhook needs an API server (--kubeconfig)")
		}
		auth.Authorizer, err = authorizerfactory.DelegatingAuthorizerConfig{
			SubjectAccessReviewClient: client.AuthorizationV1(),
			AllowCacheTTL:             k.Authorization.Webhook.CacheAuthorizedTTL.Duration,
			DenyCacheTTL:              k.Authorization.Webhook.CacheUnauthorizedTTL.Duration,
			WebhookRetryBackoff:       options.DefaultAuthWebhookRetryBackoff(),
		}.New()
		if err != nil {
			return auth, nil, fmt.Errorf("authorization: %w", err)
		}
	default:
		return auth, nil, fmt.Errorf("authorization.mode: %q is neither AlwaysAllow nor Webhook", k.Authorization.Mode)
	}
	return auth, run, nil
}

// Attributes says which rights on the Node give access to a path: any one of them is
// enough. The last is always nodes/proxy, which gives access to everything.
func Attributes(u user.Info, node, method, path string) []authorizer.AttributesRecord {
	verb := map[string]string{
		http.MethodPost: "create", http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
	}[method]
	under := func(prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }
	var subresources []string
	switch {
	case under("/stats"):
		return records(u, node, verb, path, "stats")
	case under("/metrics"):
		return records(u, node, verb, path, "metrics")
	case under("/logs"):
		return records(u, node, verb, path, "log")
	case under("/checkpoint"):
		return records(u, node, verb, path, "checkpoint")
	case under("/pods"), under("/runningpods"):
		subresources = append(subresources, "pods")
	case under("/healthz"):
		subresources = append(subresources, "healthz")
	case under("/configz"):
		subresources = append(subresources, "configz")
	}
	return records(u, node, verb, path, append(subresources, "proxy")...)
}

func records(u user.Info, node, verb, path string, subresources ...string) []authorizer.AttributesRecord {
	out := make([]authorizer.AttributesRecord, len(subresources))
	for i, s := range subresources {
		out[i] = authorizer.AttributesRecord{User: u, Verb: verb, APIVersion: "v1", Resource: "nodes", Subresource: s, Name: node, ResourceRequest: true, Path: path}
	}
	return out
}

// authorized lets only those requests through that may be made.
func (s *Server) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		logger := klog.FromContext(r.Context())
		who, ok, err := s.cfg.Auth.Authenticator.AuthenticateRequest(r)
		if err != nil {
			logger.V(2).Info("Unable to authenticate a request", "path", r.URL.Path, "err", err)
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		if !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		all := Attributes(who.User, s.cfg.NodeName, r.Method, r.URL.Path)
		var failed error
		for _, a := range all {
			decision, _, err := s.cfg.Auth.Authorizer.Authorize(r.Context(), a)
			if decision == authorizer.DecisionAllow {
				next.ServeHTTP(w, r)
				return
			}
			failed = errors.Join(failed, err)
		}
		last := all[len(all)-1]
		if failed != nil {
			logger.Error(failed, "Unable to authorize a request", "user", who.User.GetName(), "path", r.URL.Path)
			http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=%s, subresource=%s)",
				who.User.GetName(), last.Verb, last.Resource, last.Subresource), http.StatusInternalServerError)
			return
		}
		names := make([]string, len(all))
		for i := range all {
			names[i] = all[i].Subresource
		}
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=%s, subresource(s)=%v)",
			who.User.GetName(), last.Verb, last.Resource, names), http.StatusForbidden)
	})
}

func tlsConfig(k *kubeletconfig.KubeletConfiguration) (*tls.Config, error) {
	// Certificates of clients are asked for here and verified by the authenticator,
	// which follows changes of the CA file and lets other clients try a token.
	c := &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	var err error
	if k.TLSMinVersion != "" {
		if c.MinVersion, err = cliflag.TLSVersion(k.TLSMinVersion); err != nil {
			return nil, fmt.Errorf("tlsMinVersion: %w", err)
		}
	}
	if len(k.TLSCipherSuites) > 0 {
		if c.CipherSuites, err = cliflag.TLSCipherSuites(k.TLSCipherSuites); err != nil {
			return nil, fmt.Errorf("tlsCipherSuites: %w", err)
		}
	}
	for _, id := range k.TLSCurvePreferences {
		c.CurvePreferences = append(c.CurvePreferences, tls.CurveID(id))
	}
	return c, nil
}
