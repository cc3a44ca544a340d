package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/component"
)

// late is how long a change may wait to be written before the proxy counts as sick.
const late = time.Minute

// health is what the proxy tells load balancers and probes.
type health struct {
	now func() time.Time

	mu       sync.Mutex
	pending  time.Time // since when a change waits, zero if none does
	updated  time.Time // when the rules were last right
	eligible bool      // the node takes new traffic: it is not being deleted
}

func newHealth(now func() time.Time) *health { return &health{now: now, eligible: true} }

func (h *health) changed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pending.IsZero() {
		h.pending = h.now()
	}
}

func (h *health) written() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending, h.updated = time.Time{}, h.now()
}

func (h *health) setEligible(ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.eligible = ok
}

// state returns whether the rules are up to date, whether the node takes traffic, and
// when the rules were last right.
func (h *health) state() (healthy, eligible bool, updated time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	healthy = !h.updated.IsZero() && (h.pending.IsZero() || h.now().Sub(h.pending) < late)
	updated = h.updated
	if healthy && h.pending.IsZero() {
		updated = h.now()
	}
	return healthy, h.eligible, updated
}

// ServeHTTP answers /healthz, which also says no when the node is going away, so that
// load balancers leave it (KEP-3836), and /livez.
func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	healthy, eligible, updated := h.state()
	body := map[string]any{"lastUpdated": updated.Format(time.RFC3339), "currentTime": h.now().Format(time.RFC3339)}
	ok := healthy
	if r.URL.Path == "/healthz" {
		body["nodeEligible"] = eligible
		ok = healthy && eligible
	}
	writeJSON(w, ok, body)
}

func writeJSON(w http.ResponseWriter, ok bool, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}

// nodePortHealth answers the health checks of load balancers at a Service's
// healthCheckNodePort: whether this node has endpoints of its own for it.
type nodePortHealth struct {
	health *health

	mu       sync.Mutex
	services map[types.NamespacedName]*healthPort
}

type healthPort struct {
	owner  *nodePortHealth
	name   types.NamespacedName
	port   int32
	server *http.Server
	local  int
}

func newNodePortHealth(h *health) *nodePortHealth {
	return &nodePortHealth{health: h, services: map[types.NamespacedName]*healthPort{}}
}

// set tells how many endpoints a Service has on this node. A port of 0 ends its checks.
func (n *nodePortHealth) set(ctx context.Context, name types.NamespacedName, port int32, local int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.services[name]
	if p != nil && p.port != port {
		_ = p.server.Close()
		delete(n.services, name)
		p = nil
	}
	if port == 0 {
		return
	}
	if p == nil {
		p = &healthPort{owner: n, name: name, port: port}
		p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
		l, err := net.Listen("tcp", ":"+strconv.Itoa(int(port)))
		if err != nil {
			klog.FromContext(ctx).Error(err, "Listening on a health check node port", "service", name, "port", port)
			return
		}
		go func() {
			if err := p.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				klog.FromContext(ctx).Error(err, "Serving a health check node port", "service", name, "port", port)
			}
		}()
		n.services[name] = p
	}
	p.local = local
}

func (n *nodePortHealth) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, p := range n.services {
		_ = p.server.Close()
		delete(n.services, name)
	}
}

// ServeHTTP answers a load balancer.
func (p *healthPort) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.owner.mu.Lock()
	local := p.local
	p.owner.mu.Unlock()
	healthy, _, _ := p.owner.health.state()
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(local))
	writeJSON(w, healthy && local > 0, map[string]any{
		"service":             map[string]string{"namespace": p.name.Namespace, "name": p.name.Name},
		"localEndpoints":      local,
		"serviceProxyHealthy": healthy,
	})
}

// healthCheckPort returns the port for such checks, 0 where the Service has none.
func healthCheckPort(svc *v1.Service) int32 {
	if svc.Spec.Type != v1.ServiceTypeLoadBalancer || !localTraffic(svc) || ignored(svc) {
		return 0
	}
	return svc.Spec.HealthCheckNodePort
}

// metricsHandler answers /metrics, with native histograms if asked for, /proxyMode, /healthz and, if asked for, /debug/pprof.
func metricsHandler(profiling, native bool) http.Handler {
	m := mux.NewPathRecorderMux("kube-proxy")
	m.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	m.HandleFunc("/proxyMode", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		fmt.Fprint(w, "nftables")
	})
	m.Handle("/metrics", component.MetricsHandler(native))
	if profiling {
		routes.Profiling{}.Install(m)
	}
	return m
}

// serve answers HTTP at an address until ctx is cancelled; an empty address is off.
func serve(ctx context.Context, address string, h http.Handler) error {
	if address == "" {
		<-ctx.Done()
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
