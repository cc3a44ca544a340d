package server

import (
	"net/http"
	"strings"
	"time"

	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// requestMetrics are what is counted and timed of requests.
type requestMetrics struct {
	total    *metrics.CounterVec
	inflight *metrics.GaugeVec
	duration *metrics.HistogramVec
}

func newMetrics() requestMetrics {
	labels := []string{"method", "path", "server_type", "long_running"}
	return requestMetrics{
		total:    metric.CounterVec("kubelet_http_requests_total", "Number of the http requests received since the server started", labels...),
		inflight: metric.GaugeVec("kubelet_http_inflight_requests", "Number of the inflight http requests", labels...),
		duration: metric.HistogramVec("kubelet_http_requests_duration_seconds", "Duration in seconds to serve http requests", metrics.DefBuckets, labels...),
	}
}

// RegisterMetrics implements metric.Room.
func (s *Server) RegisterMetrics(r metrics.KubeRegistry) {
	r.MustRegister(s.metrics.total, s.metrics.inflight, s.metrics.duration)
}

// metricsHandler shows what this kubelet counts, and what is counted for the process as a whole.
func (s *Server) metricsHandler() http.Handler {
	native := component.NativeHistograms(s.cfg.Kubelet.FeatureGates)
	if s.cfg.Metrics == nil {
		return component.MetricsHandler(native)
	}
	return component.MetricsHandler(native, s.cfg.Metrics)
}

// counted counts the requests to mux, which comes after next.
func (s *Server) counted(mux *http.ServeMux, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		labels := requestLabels(r.Method, pattern)
		s.metrics.total.WithLabelValues(labels...).Inc()
		inflight := s.metrics.inflight.WithLabelValues(labels...)
		inflight.Inc()
		began := time.Now()
		defer func() {
			inflight.Dec()
			s.metrics.duration.WithLabelValues(labels...).Observe(time.Since(began).Seconds())
		}()
		next.ServeHTTP(w, r)
	})
}

// requestLabels are the labels of requests that a pattern is for. There are as many of them as there are patterns, whatever clients ask for.
func requestLabels(method, pattern string) []string {
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodHead, http.MethodOptions:
	default:
		method = "other"
	}
	if _, after, ok := strings.Cut(pattern, " "); ok {
		pattern = after
	}
	path, rest, _ := strings.Cut(strings.TrimPrefix(pattern, "/"), "/")
	long := "false"
	switch {
	case path == "metrics" && rest != "":
		path += "/" + rest
	case path == "exec", path == "attach", path == "portForward", path == "debug":
		long = "true"
	}
	return []string{method, path, "readwrite", long}
}
