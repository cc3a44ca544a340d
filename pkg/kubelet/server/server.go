// Package server is the kubelet's HTTPS API: logs, exec, attach and port-forward for
// the API server and kubectl, statistics for metrics-server, health and metrics
// for monitoring.
//
// Who a client is, is learnt from its certificate or, for a token, from the API
// server; what it may do, from the API server, as an attribute of the Node object
// (see [Attributes]). Health has a second, plain endpoint on loopback.
//
// Streams (exec, attach, port-forward) are handed to the container runtime's own
// streaming endpoint connection and all: the kubelet copies bytes and understands none.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-base/metrics"
	cri "k8s.io/cri-api/pkg/apis"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Pods are the node's pods as the server sees them.
type Pods interface {
	Pods() []*corev1.Pod
	PodByName(namespace, name string) (*corev1.Pod, bool)
	// ContainerID and SandboxID give the runtime's ids of the newest of their kind.
	ContainerID(uid types.UID, container string) (string, bool)
	SandboxID(uid types.UID) (string, bool)
	// ContainerLog finds the log of a container, or of the one before it. Its error
	// says why there is none, in words meant for the user.
	ContainerLog(uid types.UID, container string, previous bool) (path, id string, err error)
}

// Stats measures the node and its pods.
type Stats interface {
	Summary(ctx context.Context, onlyCPUAndMemory bool) (*stats.Summary, error)
	// Resource and Containers are the metrics of /metrics/resource and /metrics/cadvisor.
	Resource(ctx context.Context) metrics.Gatherer
	Containers(ctx context.Context) metrics.Gatherer
}

// Check is a named part of the kubelet's health.
type Check struct {
	Name string
	Do   func(*http.Request) error
}

// Config is what the server serves and to whom.
type Config struct {
	// NodeName is the Node object that clients need rights on.
	NodeName string
	// RootDir is the kubelet's root directory; checkpoints go below it.
	RootDir string
	// Kubelet is the whole configuration: the source of addresses, TLS settings and
	// switches, and what /configz shows.
	Kubelet *kubeletconfig.KubeletConfiguration
	// Certificate is the serving certificate; it may change while the server runs.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Auth says who a client is and what it may do.
	Auth Auth

	Pods    Pods
	Stats   Stats
	Runtime cri.RuntimeService
	// Metrics are those of /metrics that are this kubelet's own; may be nil.
	Metrics metrics.Gatherer
	// Probes are the metrics of /metrics/probes.
	Probes metrics.Gatherer
	Checks []Check
}

// Auth authenticates and authorizes requests.
type Auth struct {
	Authenticator authenticator.Request
	Authorizer    authorizer.UnconditionalAuthorizer
}

// Server answers on the kubelet's ports.
type Server struct {
	cfg    Config
	tls    *tls.Config
	secure net.Listener
	health net.Listener

	metrics requestMetrics
}

// New checks the configuration and begins to listen, without answering.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, metrics: newMetrics()}
	k := cfg.Kubelet
	var err error
	if s.tls, err = tlsConfig(k); err != nil {
		return nil, err
	}
	s.tls.GetCertificate = cfg.Certificate
	if k.ReadOnlyPort != 0 {
		return nil, errors.New("readOnlyPort: this kubelet answers only clients that it knows; set it to 0")
	}
	if k.EnableServer == nil || *k.EnableServer {
		if s.secure, err = net.Listen("tcp", net.JoinHostPort(k.Address, strconv.Itoa(int(k.Port)))); err != nil {
			return nil, fmt.Errorf("port: %w", err)
		}
	}
	if k.HealthzPort != nil && *k.HealthzPort != 0 {
		if s.health, err = net.Listen("tcp", net.JoinHostPort(k.HealthzBindAddress, strconv.Itoa(int(*k.HealthzPort)))); err != nil {
			if s.secure != nil {
				s.secure.Close()
			}
			return nil, fmt.Errorf("healthzPort: %w", err)
		}
	}
	return s, nil
}

// Port is the port of the HTTPS API, for the Node's status; 0 if it is off.
func (s *Server) Port() int32 {
	if s.secure == nil {
		return 0
	}
	return int32(s.secure.Addr().(*net.TCPAddr).Port)
}

// HealthAddr is where health is served in the clear, or empty.
func (s *Server) HealthAddr() string {
	if s.health == nil {
		return ""
	}
	return s.health.Addr().String()
}

// Run answers requests until ctx is cancelled. Streams that are open then are cut.
func (s *Server) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	failed := make(chan error, 2)
	var servers []*http.Server
	serve := func(l net.Listener, h http.Handler, t *tls.Config) {
		srv := &http.Server{
			Handler: h, TLSConfig: t, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second, MaxHeaderBytes: 1 << 20,
			BaseContext: func(net.Listener) context.Context { return ctx },
			ErrorLog:    log.New(logLines{logger}, "", 0),
		}
		servers = append(servers, srv)
		go func() {
			var err error
			if t != nil {
				err = srv.ServeTLS(l, "", "")
			} else {
				err = srv.Serve(l)
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	if s.secure != nil {
		serve(s.secure, s.Handler(), s.tls)
		logger.Info("Serving the kubelet API", "address", s.secure.Addr())
	}
	if s.health != nil {
		mux := http.NewServeMux()
		s.installHealth(mux)
		serve(s.health, mux, nil)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("serving the kubelet API: %w", err)
	}
	for _, srv := range servers {
		err = errors.Join(err, srv.Close())
	}
	return err
}

// logLines passes on what net/http has to say of single connections. A client that
// hangs up or distrusts the certificate is no trouble of the node's.
type logLines struct{ logger klog.Logger }

func (l logLines) Write(b []byte) (int, error) {
	l.logger.V(3).Info("HTTP server", "message", string(b))
	return len(b), nil
}
