package stats

import (
	"context"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	api "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// gatherer makes metrics when they are asked for.
type gatherer func() ([]*dto.MetricFamily, error)

func (g gatherer) Gather() ([]*dto.MetricFamily, error) { return g() }

// families collects samples by metric.
type families struct {
	byName map[string]*dto.MetricFamily
}

func newFamilies() *families { return &families{byName: map[string]*dto.MetricFamily{}} }

// add adds a sample; labels are keys and values in turn. A nil value is no sample.
func (f *families) add(name, help string, kind dto.MetricType, v *float64, at time.Time, labels ...string) {
	if v == nil {
		return
	}
	fam := f.byName[name]
	if fam == nil {
		fam = &dto.MetricFamily{Name: &name, Help: &help, Type: &kind}
		f.byName[name] = fam
	}
	m := &dto.Metric{}
	for i := 0; i+1 < len(labels); i += 2 {
		m.Label = append(m.Label, &dto.LabelPair{Name: &labels[i], Value: &labels[i+1]})
	}
	slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	if kind == dto.MetricType_COUNTER {
		m.Counter = &dto.Counter{Value: v}
	} else {
		m.Gauge = &dto.Gauge{Value: v}
	}
	if !at.IsZero() {
		ms := at.UnixMilli()
		m.TimestampMs = &ms
	}
	fam.Metric = append(fam.Metric, m)
}

func (f *families) sorted() []*dto.MetricFamily {
	out := make([]*dto.MetricFamily, 0, len(f.byName))
	for _, fam := range f.byName {
		out = append(out, fam)
	}
	slices.SortFunc(out, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

func scaled(v *uint64, by float64) *float64 {
	if v == nil {
		return nil
	}
	f := float64(*v) * by
	return &f
}

const (
	counter = dto.MetricType_COUNTER
	gauge   = dto.MetricType_GAUGE
)

// Resource gathers the metrics that autoscalers and kubectl top live on.
func (p *Provider) Resource(ctx context.Context) metrics.Gatherer {
	return gatherer(func() ([]*dto.MetricFamily, error) {
		f := newFamilies()
		failed := 0.0
		s, err := p.Summary(ctx, true)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Measuring resources failed")
			failed = 1
		} else {
			resourceMetrics(f, s)
		}
		f.add("resource_scrape_error", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise", gauge, &failed, time.Time{})
		return f.sorted(), nil
	})
}

func resourceMetrics(f *families, s *api.Summary) {
	cpu := func(prefix, what string, c *api.CPUStats, labels ...string) {
		if c != nil {
			f.add(prefix+"_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the "+what+" in core-seconds", counter,
				scaled(c.UsageCoreNanoSeconds, 1e-9), c.Time.Time, labels...)
		}
	}
	mem := func(prefix, what string, m *api.MemoryStats, labels ...string) {
		if m != nil {
			f.add(prefix+"_memory_working_set_bytes", "[STABLE] Current working set of the "+what+" in bytes", gauge,
				scaled(m.WorkingSetBytes, 1), m.Time.Time, labels...)
		}
	}
	swap := func(prefix, what string, m *api.SwapStats, labels ...string) {
		if m != nil {
			f.add(prefix+"_swap_usage_bytes", "[ALPHA] Current swap usage of the "+what+" in bytes. Reported only on non-windows systems", gauge,
				scaled(m.SwapUsageBytes, 1), m.Time.Time, labels...)
		}
	}
	cpu("node", "node", s.Node.CPU)
	mem("node", "node", s.Node.Memory)
	swap("node", "node", s.Node.Swap)
	for i := range s.Pods {
		pod := &s.Pods[i]
		labels := []string{"namespace", pod.PodRef.Namespace, "pod", pod.PodRef.Name}
		cpu("pod", "pod", pod.CPU, labels...)
		mem("pod", "pod", pod.Memory, labels...)
		swap("pod", "pod", pod.Swap, labels...)
		for j := range pod.Containers {
			c := &pod.Containers[j]
			labels := append([]string{"container", c.Name}, labels...)
			cpu("container", "container", c.CPU, labels...)
			mem("container", "container", c.Memory, labels...)
			swap("container", "container", c.Swap, labels...)
			if !c.StartTime.IsZero() {
				start := float64(c.StartTime.UnixNano()) / 1e9
				f.add("container_start_time_seconds", "[STABLE] Start time of the container since unix epoch in seconds", gauge, &start, time.Time{}, labels...)
			}
		}
	}
}

// Containers gathers the metrics that cAdvisor used to make, from the runtime: as
// the runtime itself names them if it can, else those that follow from its statistics.
func (p *Provider) Containers(ctx context.Context) metrics.Gatherer {
	return gatherer(func() ([]*dto.MetricFamily, error) {
		f := newFamilies()
		cpus, mem, failed := float64(p.cfg.Machine.CPUs), float64(p.cfg.Machine.Memory), 0.0
		f.add("machine_cpu_cores", "Number of logical CPU cores.", gauge, &cpus, time.Time{})
		f.add("machine_memory_bytes", "Amount of memory installed on the machine.", gauge, &mem, time.Time{})
		err := p.runtimeMetrics(ctx, f)
		if status.Code(err) == codes.Unimplemented {
			err = p.derivedMetrics(ctx, f)
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, "Measuring containers failed")
			failed = 1
		}
		f.add("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", gauge, &failed, time.Time{})
		return f.sorted(), nil
	})
}

func (p *Provider) runtimeMetrics(ctx context.Context, f *families) error {
	descriptors, err := p.cfg.Runtime.ListMetricDescriptors(ctx)
	if err != nil {
		return err
	}
	pods, err := p.cfg.Runtime.ListPodSandboxMetrics(ctx)
	if err != nil {
		return err
	}
	byName := make(map[string]*runtimeapi.MetricDescriptor, len(descriptors))
	for _, d := range descriptors {
		byName[d.GetName()] = d
	}
	add := func(ms []*runtimeapi.Metric) {
		for _, m := range ms {
			d := byName[m.GetName()]
			if d == nil || len(d.GetLabelKeys()) != len(m.GetLabelValues()) {
				continue
			}
			labels := make([]string, 0, 2*len(m.GetLabelValues()))
			for i, k := range d.GetLabelKeys() {
				labels = append(labels, k, m.GetLabelValues()[i])
			}
			kind := counter
			if m.GetMetricType() == runtimeapi.MetricType_GAUGE {
				kind = gauge
			}
			var at time.Time
			if m.GetTimestamp() != 0 {
				at = time.Unix(0, m.GetTimestamp())
			}
			f.add(m.GetName(), d.GetHelp(), kind, scaled(value(m.GetValue()), 1), at, labels...)
		}
	}
	for _, pod := range pods {
		add(pod.GetMetrics())
		for _, c := range pod.GetContainerMetrics() {
			add(c.GetMetrics())
		}
	}
	return nil
}

func (p *Provider) derivedMetrics(ctx context.Context, f *families) error {
	sandboxes, err := p.cfg.Runtime.ListPodSandboxStats(ctx, nil)
	if err != nil {
		return err
	}
	for _, sb := range sandboxes {
		meta := sb.GetAttributes().GetMetadata()
		labels := func(container, id string) []string {
			return []string{"container", container, "id", id, "namespace", meta.GetNamespace(), "pod", meta.GetName()}
		}
		usage(f, criCPU(sb.GetLinux().GetCpu()), criMemory(sb.GetLinux().GetMemory()), labels("", sb.GetAttributes().GetId()))
		if n := criNetwork(sb.GetLinux().GetNetwork()); n != nil {
			for _, i := range n.Interfaces {
				l := append(labels("", sb.GetAttributes().GetId()), "interface", i.Name)
				for name, v := range map[string]*uint64{"receive_bytes": i.RxBytes, "receive_errors": i.RxErrors, "transmit_bytes": i.TxBytes, "transmit_errors": i.TxErrors} {
					f.add("container_network_"+name+"_total", "Cumulative count of "+strings.ReplaceAll(name, "_", " "), counter, scaled(v, 1), n.Time.Time, l...)
				}
			}
		}
		for _, c := range sb.GetLinux().GetContainers() {
			l := labels(c.GetAttributes().GetLabels()[kubelettypes.KubernetesContainerNameLabel], c.GetAttributes().GetId())
			usage(f, criCPU(c.GetCpu()), criMemory(c.GetMemory()), l)
			if w := c.GetWritableLayer(); w != nil {
				f.add("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", gauge,
					scaled(value(w.GetUsedBytes()), 1), stamp(w.GetTimestamp()).Time, l...)
			}
		}
	}
	return nil
}

func usage(f *families, c *api.CPUStats, m *api.MemoryStats, labels []string) {
	if c != nil {
		f.add("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", counter, scaled(c.UsageCoreNanoSeconds, 1e-9), c.Time.Time,
			append(slices.Clone(labels), "cpu", "total")...)
	}
	if m == nil {
		return
	}
	at := func(t metav1.Time) time.Time { return t.Time }
	f.add("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", gauge, scaled(m.UsageBytes, 1), at(m.Time), labels...)
	f.add("container_memory_working_set_bytes", "Current working set in bytes.", gauge, scaled(m.WorkingSetBytes, 1), at(m.Time), labels...)
	f.add("container_memory_rss", "Size of RSS in bytes.", gauge, scaled(m.RSSBytes, 1), at(m.Time), labels...)
}
