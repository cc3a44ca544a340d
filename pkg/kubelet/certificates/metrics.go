package certificates

import (
	"crypto/tls"
	"math"
	"time"

	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

const (
	clientTTL  = "kubelet_certificate_manager_client_ttl_seconds"
	servingTTL = "kubelet_certificate_manager_server_ttl_seconds"
)

func newClientErrors() *metrics.Counter {
	return metric.Counter("kubelet_certificate_manager_client_expiration_renew_errors", "Counter of certificate renewal errors.")
}

// RegisterMetrics implements metric.Room. There are none of a certificate that is not renewed here.
func (c *Client) RegisterMetrics(r metrics.KubeRegistry) {
	if c.manager == nil {
		return
	}
	r.MustRegister(c.failed)
	r.CustomMustRegister(metric.OnDemand(func(emit metric.Emit) { emit(clientTTL, ttl(c.manager.Current(), time.Now())) }, metric.Family{
		Name: clientTTL,
		Help: "Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry (negative if already expired). If client certificate is invalid or unused, the value will be +INF.",
	}))
}

// servingMetrics are what is counted of a serving certificate that the cluster signs.
type servingMetrics struct {
	failed *metrics.Counter
	lived  *metrics.Histogram
}

func newServingMetrics() *servingMetrics {
	const minute, hour, day = 60, 60 * 60, 24 * 60 * 60
	return &servingMetrics{
		failed: metric.Counter("kubelet_server_expiration_renew_errors", "Counter of certificate renewal errors."),
		lived: metric.Histogram("kubelet_certificate_manager_server_rotation_seconds", "Histogram of the number of seconds the previous certificate lived before being rotated.",
			[]float64{minute, hour, 4 * hour, day, 7 * day, 30 * day, 90 * day, 180 * day, 360 * day, 4 * 360 * day}),
	}
}

// RegisterMetrics implements metric.Room. There are none of a certificate that is not renewed here.
func (s *Serving) RegisterMetrics(r metrics.KubeRegistry) {
	if s.metrics == nil {
		return
	}
	r.MustRegister(s.metrics.failed, s.metrics.lived)
	r.CustomMustRegister(metric.OnDemand(func(emit metric.Emit) {
		current, err := s.get()
		if err != nil {
			current = nil // there is none yet
		}
		emit(servingTTL, ttl(current, time.Now()))
	}, metric.Family{
		Name: servingTTL,
		Help: "Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate expiry (negative if already expired). If serving certificate is invalid or unused, the value will be +INF.",
	}))
}

// ttl is for how many seconds a certificate is good.
func ttl(c *tls.Certificate, now time.Time) float64 {
	if c == nil || c.Leaf == nil {
		return math.Inf(1)
	}
	return c.Leaf.NotAfter.Sub(now).Seconds()
}
