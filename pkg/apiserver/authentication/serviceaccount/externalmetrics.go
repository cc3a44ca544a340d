package serviceaccount

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"

	externaljwtv1 "k8s.io/externaljwt/apis/v1"
)

// externalMetrics say how an external signer does.
type externalMetrics struct {
	keysFetched, keysDated *metrics.Gauge
	fetches, signatures    *metrics.CounterVec
	durations              *metrics.HistogramVec
}

func newExternalMetrics() *externalMetrics {
	const namespace, subsystem = "apiserver", "externaljwt"
	gauge := func(name, help string) *metrics.Gauge {
		return metrics.NewGauge(&metrics.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, StabilityLevel: metrics.ALPHA})
	}
	counter := func(name, help string) *metrics.CounterVec {
		return metrics.NewCounterVec(&metrics.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, StabilityLevel: metrics.ALPHA}, []string{"code"})
	}
	m := &externalMetrics{
		keysFetched: gauge("fetch_keys_success_timestamp", "When keys were last fetched, in seconds of Unix time"),
		keysDated:   gauge("fetch_keys_data_timestamp", "The data_timestamp of the keys that were last fetched, in seconds of Unix time"),
		fetches:     counter("fetch_keys_request_total", "Attempts to fetch keys"),
		signatures:  counter("sign_request_total", "Attempts to sign tokens"),
		durations: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "request_duration_seconds", Help: "How long the signer took to answer",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}, StabilityLevel: metrics.ALPHA,
		}, []string{"method", "code"}),
	}
	for _, r := range []metrics.Registerable{m.keysFetched, m.keysDated, m.fetches, m.signatures, m.durations} {
		_ = legacyregistry.Register(r) // of several servers in one process, the first one counts
	}
	return m
}

func (m *externalMetrics) fetched(r *externaljwtv1.FetchKeysResponse, err error) {
	m.fetches.WithLabelValues(code(err)).Inc()
	if err == nil {
		m.keysFetched.SetToCurrentTime()
		m.keysDated.Set(float64(r.DataTimestamp.AsTime().UnixNano()) / float64(time.Second))
	}
}

func (m *externalMetrics) signed(err error) { m.signatures.WithLabelValues(code(err)).Inc() }

// intercept implements grpc.UnaryClientInterceptor.
func (m *externalMetrics) intercept(ctx context.Context, method string, request, reply any, c *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
	start := time.Now()
	err := call(ctx, method, request, reply, c, options...)
	m.durations.WithLabelValues(method, code(err)).Observe(time.Since(start).Seconds())
	return err
}

// code is that of the call, if the error is of one.
func code(err error) string {
	var call interface{ GRPCStatus() *status.Status }
	if err != nil && !errors.As(err, &call) {
		return "unknown-non-grpc"
	}
	return status.Code(err).String()
}
