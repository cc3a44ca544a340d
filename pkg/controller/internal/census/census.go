// Package census counts objects for metrics: at the time somebody asks, and in the cache.
package census

import (
	"context"
	"time"

	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
)

// patience is how long a count may take: the cache of who does not lead may not be there.
const patience = time.Second

// A Census is gauges that are not kept but counted.
type Census struct {
	metrics.BaseStableCollector
	// Gauges that Count shows, each as often as it has combinations of labels.
	Gauges []*metrics.Desc
	Count  func(ctx context.Context, show func(gauge *metrics.Desc, n float64, labels ...string)) error
}

// Gauge describes one of a census.
func Gauge(subsystem, name, help string, labels ...string) *metrics.Desc {
	return metrics.NewDesc(metrics.BuildFQName("", subsystem, name), help, labels, nil, metrics.ALPHA, "")
}

// DescribeWithStability implements metrics.StableCollector.
func (c *Census) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, g := range c.Gauges {
		ch <- g
	}
}

// CollectWithStability implements metrics.StableCollector.
func (c *Census) CollectWithStability(ch chan<- metrics.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := c.Count(ctx, func(gauge *metrics.Desc, n float64, labels ...string) {
		ch <- metrics.NewLazyConstMetric(gauge, metrics.GaugeValue, n, labels...)
	})
	if err != nil {
		klog.Background().V(2).Info("Objects cannot be counted for metrics", "err", err)
	}
}
