package pvbinder

import (
	"cmp"
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/census"
)

// measures are the original's metrics of what is done for volumes and claims. What takes long is done by others: it begins when they are
// asked and ends when it is seen to be done.
type measures struct {
	took                *metrics.HistogramVec
	failed, failedOld   *metrics.CounterVec
	classed, notClassed *metrics.Counter
	clock               clock.PassiveClock

	mu      sync.Mutex
	waiting map[types.NamespacedName]operation // by claim or, without a namespace, volume
}

// operation is what a plugin or a provisioner does.
type operation struct {
	plugin, name string
	began        time.Time
}

// Names of operations.
const (
	provision = "provision"
	remove    = "delete"
)

func newMeasures(r metrics.KubeRegistry, reader client.Reader) *measures {
	counters := func(name string) *metrics.CounterVec {
		return metrics.NewCounterVec(&metrics.CounterOpts{Name: name, Help: "Number of operations on volumes that failed", StabilityLevel: metrics.ALPHA}, []string{"plugin_name", "operation_name"})
	}
	counter := func(name, help string) *metrics.Counter {
		return metrics.NewCounter(&metrics.CounterOpts{Name: name, Help: help, StabilityLevel: metrics.ALPHA})
	}
	m := &measures{
		took: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Name: "volume_operation_total_seconds", Help: "Time that an operation on a volume took from end to end", StabilityLevel: metrics.BETA,
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600},
		}, []string{"plugin_name", "operation_name"}),
		failed: counters("volume_operation_errors_total"), failedOld: counters("volume_operation_total_errors"),
		classed:    counter("retroactive_storageclass_total", "Number of claims without a class that have got the default one"),
		notClassed: counter("retroactive_storageclass_errors_total", "Number of times that a claim could not be given the default class"),
		clock:      clock.RealClock{}, waiting: map[types.NamespacedName]operation{},
	}
	r.MustRegister(m.took, m.failed, m.failedOld, m.classed, m.notClassed)
	register(r, reader)
	return m
}

// begin notes that an operation has begun, unless that is known.
func (m *measures) begin(of types.NamespacedName, plugin, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.waiting[of]; !known {
		m.waiting[of] = operation{plugin, name, m.clock.Now()}
	}
}

// end notes that the operation of this name that is waited for, if there is one, is done, or will never be.
func (m *measures) end(of types.NamespacedName, name string, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, known := m.waiting[of]
	if !known || o.name != name {
		return
	}
	delete(m.waiting, of)
	if done {
		m.took.WithLabelValues(o.plugin, o.name).Observe(m.clock.Since(o.began).Seconds())
	}
}

// fail counts an operation that there is nobody for.
func (m *measures) fail(plugin, name string) {
	m.failed.WithLabelValues(plugin, name).Inc()
	m.failedOld.WithLabelValues(plugin, name).Inc()
}

// gaveClass counts a claim that was to get the default class.
func (m *measures) gaveClass(err error) {
	if err != nil {
		m.notClassed.Inc()
	} else {
		m.classed.Inc()
	}
}

// register adds the original's metrics of how many volumes and claims there are.
func register(r metrics.KubeRegistry, reader client.Reader) {
	gauge := func(name, help string, labels ...string) *metrics.Desc {
		return census.Gauge("pv_collector", name, help, labels...)
	}
	total := gauge("total_pv_count", "Number of PersistentVolumes", "plugin_name", "volume_mode")
	bound := gauge("bound_pv_count", "Number of PersistentVolumes that are bound", "storage_class")
	unbound := gauge("unbound_pv_count", "Number of PersistentVolumes that are not bound", "storage_class")
	boundClaims := gauge("bound_pvc_count", "Number of PersistentVolumeClaims that are bound", "namespace", "storage_class", "volume_attributes_class")
	unboundClaims := gauge("unbound_pvc_count", "Number of PersistentVolumeClaims that are not bound", "namespace", "storage_class", "volume_attributes_class")
	r.CustomMustRegister(&census.Census{
		Gauges: []*metrics.Desc{total, bound, unbound, boundClaims, unboundClaims},
		Count: func(ctx context.Context, show func(*metrics.Desc, float64, ...string)) error {
			asCached := []client.ListOption{client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency}
			var pvs corev1.PersistentVolumeList
			if err := reader.List(ctx, &pvs, asCached...); err != nil {
				return err
			}
			var claims corev1.PersistentVolumeClaimList
			if err := reader.List(ctx, &claims, asCached...); err != nil {
				return err
			}
			type key struct {
				gauge   *metrics.Desc
				a, b, c string
			}
			sum := map[key]float64{}
			for i := range pvs.Items {
				pv := &pvs.Items[i]
				sum[key{gauge: total, a: pluginName(pv), b: string(ptr.Deref(pv.Spec.VolumeMode, corev1.PersistentVolumeFilesystem))}]++
				g := unbound
				if pv.Status.Phase == corev1.VolumeBound {
					g = bound
				}
				sum[key{gauge: g, a: pv.Spec.StorageClassName}]++
			}
			for i := range claims.Items {
				claim := &claims.Items[i]
				g := unboundClaims
				if claim.Status.Phase == corev1.ClaimBound {
					g = boundClaims
				}
				sum[key{g, claim.Namespace, storagehelpers.GetPersistentVolumeClaimClass(claim), ptr.Deref(claim.Spec.VolumeAttributesClassName, "")}]++
			}
			for k, n := range sum {
				switch k.gauge {
				case total:
					show(k.gauge, n, k.a, k.b)
				case bound, unbound:
					show(k.gauge, n, k.a)
				default:
					show(k.gauge, n, k.a, k.b, k.c)
				}
			}
			return nil
		},
	})
}

// pluginName is what the original calls what provides a volume.
func pluginName(pv *corev1.PersistentVolume) string {
	s := pv.Spec.PersistentVolumeSource
	var name string
	switch {
	case s.CSI != nil:
		name = "kubernetes.io/csi:" + s.CSI.Driver
	case s.HostPath != nil:
		name = "kubernetes.io/host-path"
	case s.NFS != nil:
		name = "kubernetes.io/nfs"
	case s.Local != nil:
		name = "kubernetes.io/local-volume"
	case s.ISCSI != nil:
		name = "kubernetes.io/iscsi"
	case s.FC != nil:
		name = "kubernetes.io/fc"
	}
	return cmp.Or(name, "N/A")
}
