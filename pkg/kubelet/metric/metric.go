// Package metric makes metrics under the original's names. A metric belongs to who makes it and counts nothing until it is
// registered, so that several kubelets in one process count apart, and a room counts without asking whether somebody looks.
package metric

import "k8s.io/component-base/metrics"

// A Room has metrics.
type Room interface {
	// RegisterMetrics is called once, before the room is used.
	RegisterMetrics(r metrics.KubeRegistry)
}

// Counter returns a counter without labels.
func Counter(name, help string) *metrics.Counter {
	return metrics.NewCounter(&metrics.CounterOpts{Name: name, Help: help, StabilityLevel: metrics.ALPHA})
}

// CounterVec returns counters by labels.
func CounterVec(name, help string, labels ...string) *metrics.CounterVec {
	return metrics.NewCounterVec(&metrics.CounterOpts{Name: name, Help: help, StabilityLevel: metrics.ALPHA}, labels)
}

// Gauge returns a gauge without labels.
func Gauge(name, help string) *metrics.Gauge {
	return metrics.NewGauge(&metrics.GaugeOpts{Name: name, Help: help, StabilityLevel: metrics.ALPHA})
}

// GaugeVec returns gauges by labels.
func GaugeVec(name, help string, labels ...string) *metrics.GaugeVec {
	return metrics.NewGaugeVec(&metrics.GaugeOpts{Name: name, Help: help, StabilityLevel: metrics.ALPHA}, labels)
}

// Histogram returns a histogram without labels.
func Histogram(name, help string, buckets []float64) *metrics.Histogram {
	return metrics.NewHistogram(&metrics.HistogramOpts{Name: name, Help: help, Buckets: buckets, StabilityLevel: metrics.ALPHA})
}

// HistogramVec returns histograms by labels.
func HistogramVec(name, help string, buckets []float64, labels ...string) *metrics.HistogramVec {
	return metrics.NewHistogramVec(&metrics.HistogramOpts{Name: name, Help: help, Buckets: buckets, StabilityLevel: metrics.ALPHA}, labels)
}

// A Family are gauges of one name whose values are found when somebody asks.
type Family struct {
	Name, Help string
	Labels     []string
	// Stability is ALPHA if it is not given.
	Stability metrics.StabilityLevel
}

// Emit gives the value of a gauge, with the values of its labels in their order.
type Emit func(name string, value float64, labels ...string)

// OnDemand has collect called whenever somebody asks for some gauges, which cost nothing in between.
func OnDemand(collect func(Emit), families ...Family) metrics.StableCollector {
	c := &collector{collect: collect, descs: map[string]*metrics.Desc{}}
	for _, f := range families {
		if f.Stability == "" {
			f.Stability = metrics.ALPHA
		}
		c.descs[f.Name] = metrics.NewDesc(f.Name, f.Help, f.Labels, nil, f.Stability, "")
	}
	return c
}

type collector struct {
	metrics.BaseStableCollector
	collect func(Emit)
	descs   map[string]*metrics.Desc
}

// DescribeWithStability implements metrics.StableCollector.
func (c *collector) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// CollectWithStability implements metrics.StableCollector.
func (c *collector) CollectWithStability(ch chan<- metrics.Metric) {
	c.collect(func(name string, value float64, labels ...string) {
		ch <- metrics.NewLazyConstMetric(c.descs[name], metrics.GaugeValue, value, labels...)
	})
}
