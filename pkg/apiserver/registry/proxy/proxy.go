// Package proxy serves the proxy subresources of nodes, pods and services: it passes
// any HTTP request on to what they name.
package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/registry/rest"
	netutils "k8s.io/utils/net"
)

// Storage is a proxy subresource.
type Storage[Options runtime.Object] struct {
	// NewOptions makes the options, whose Path says what comes after the name.
	NewOptions func() Options
	Path       func(Options) string
	// Locate finds what the client names, as "name", "name:port" or "scheme:name:port".
	Locate func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error)
	// MaxBytesPerSec throttles upgraded connections; 0 does not.
	MaxBytesPerSec int64
}

// New implements rest.Storage.
func (s Storage[O]) New() runtime.Object { return s.NewOptions() }

// Destroy implements rest.Storage.
func (s Storage[O]) Destroy() {}

// ConnectMethods implements rest.Connecter.
func (s Storage[O]) ConnectMethods() []string {
	return []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
}

// NewConnectOptions implements rest.Connecter.
func (s Storage[O]) NewConnectOptions() (runtime.Object, bool, string) {
	return s.NewOptions(), true, "path"
}

// Connect implements rest.Connecter.
func (s Storage[O]) Connect(ctx context.Context, id string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	o, ok := options.(O)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %#v", options)
	}
	location, transport, err := s.Locate(ctx, id)
	if err != nil {
		return nil, err
	}
	location.Path = utilnet.JoinPreservingTrailingSlash(location.Path, s.Path(o))
	h := proxy.NewUpgradeAwareHandler(location, transport, true, false, proxy.NewErrorResponder(responder))
	h.MaxBytesPerSec = s.MaxBytesPerSec
	return h, nil
}

// Split takes apart what a client names.
func Split(kind, id string) (scheme, name, port string, err error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
	if !ok {
		return "", "", "", apierrors.NewBadRequest(fmt.Sprintf("invalid %s request %q", kind, id))
	}
	return scheme, name, port, nil
}

// Allowed refuses to go where a cluster's traffic cannot be: to this machine itself
// or to its link.
func Allowed(ip string) error {
	if addr := netutils.ParseIPSloppy(ip); addr == nil || !addr.IsGlobalUnicast() {
		return apierrors.NewBadRequest("address not allowed")
	}
	return nil
}

// Location is the URL of a port at an address; the port may be empty.
func Location(scheme, ip, port string) *url.URL {
	host := net.JoinHostPort(ip, port)
	if port == "" {
		host = host[:len(host)-1]
	}
	return &url.URL{Scheme: scheme, Host: host}
}
