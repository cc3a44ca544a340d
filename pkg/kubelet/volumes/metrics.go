package volumes

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// managerMetrics are what is timed of volumes.
type managerMetrics struct {
	operations, total *metrics.HistogramVec
}

func newMetrics() managerMetrics {
	vec := func(name, help string, labels ...string) *metrics.HistogramVec {
		return metrics.NewHistogramVec(&metrics.HistogramOpts{
			Name: name, Help: help, StabilityLevel: metrics.BETA, Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600},
		}, labels)
	}
	return managerMetrics{
		operations: vec("storage_operation_duration_seconds", "Storage operation duration", "volume_plugin", "operation_name", "status", "migrated"),
		total:      vec("volume_operation_total_seconds", "Storage operation end to end duration in seconds", "plugin_name", "operation_name"),
	}
}

// RegisterMetrics implements metric.Room.
func (m *Manager) RegisterMetrics(r metrics.KubeRegistry) {
	r.MustRegister(m.metrics.operations, m.metrics.total)
	r.CustomMustRegister(metric.OnDemand(m.count,
		metric.Family{Name: "volume_manager_total_volumes", Help: "Number of volumes in Volume Manager", Labels: []string{"plugin_name", "state"}}))
}

// A source is what a volume comes from.
type source struct {
	// plugin is the original's name of what mounts it.
	plugin string
	// pv is the PersistentVolume behind it, if there is one; migrated says that a driver has taken it over.
	pv       string
	migrated bool
}

// pluginOf names what mounts a volume that needs no claim.
func pluginOf(v *corev1.Volume) string {
	switch {
	case v.EmptyDir != nil:
		return "kubernetes.io/empty-dir"
	case v.HostPath != nil:
		return "kubernetes.io/host-path"
	case v.ConfigMap != nil:
		return "kubernetes.io/configmap"
	case v.Secret != nil:
		return "kubernetes.io/secret"
	case v.DownwardAPI != nil:
		return "kubernetes.io/downward-api"
	case v.Projected != nil:
		return "kubernetes.io/projected"
	case v.Image != nil:
		return "kubernetes.io/image"
	case v.CSI != nil:
		return csiPlugin(v.CSI.Driver)
	case v.NFS != nil:
		return nfsPlugin
	}
	return ""
}

const nfsPlugin = "kubernetes.io/nfs"

func csiPlugin(driver string) string { return "kubernetes.io/csi:" + driver }

// pluginOfPV names what mounts a PersistentVolume.
func pluginOfPV(pv *corev1.PersistentVolume) string {
	switch s := &pv.Spec.PersistentVolumeSource; {
	case s.CSI != nil:
		return csiPlugin(s.CSI.Driver)
	case s.HostPath != nil:
		return "kubernetes.io/host-path"
	case s.Local != nil:
		return "kubernetes.io/local-volume"
	case s.NFS != nil:
		return nfsPlugin
	}
	return ""
}

// podVolumes are the volumes of one pod by their names in it, from when they were first asked for.
type podVolumes struct {
	asked  time.Time
	byName map[string]volumeState
}

type volumeState struct {
	source
	mounted bool
}

// tried takes note of an attempt to mount a volume that has begun at a time. What it comes from may not be known.
func (m *Manager) tried(uid types.UID, volume string, s source, began time.Time, err error) {
	if s.plugin == "" {
		return
	}
	m.timed(s, "volume_mount", began, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pods[uid]
	if p == nil {
		p = &podVolumes{asked: began, byName: map[string]volumeState{}}
		m.pods[uid] = p
	}
	was := p.byName[volume].mounted
	p.byName[volume] = volumeState{source: s, mounted: was || err == nil}
	if !was && err == nil {
		m.metrics.total.WithLabelValues(s.plugin, "overall_volume_mount").Observe(time.Since(p.asked).Seconds())
	}
}

// unmounted takes note of an attempt to unmount all volumes of a pod that has begun at a time.
func (m *Manager) unmounted(uid types.UID, began time.Time, err error) {
	m.mu.Lock()
	p := m.pods[uid]
	if err == nil {
		delete(m.pods, uid)
	}
	m.mu.Unlock()
	if p == nil {
		return
	}
	for _, v := range p.byName {
		if v.mounted {
			m.timed(v.source, "volume_unmount", began, err)
		}
	}
}

func (m *Manager) timed(s source, operation string, began time.Time, err error) {
	status := "success"
	if err != nil {
		status = "fail-unknown"
	}
	m.metrics.operations.WithLabelValues(s.plugin, operation, status, strconv.FormatBool(s.migrated)).Observe(time.Since(began).Seconds())
}

// count says how many volumes are wanted, and how many are there.
func (m *Manager) count(emit metric.Emit) {
	wanted, mounted := map[string]int{}, map[string]int{}
	m.mu.Lock()
	for _, p := range m.pods {
		for _, v := range p.byName {
			wanted[v.plugin]++
			if v.mounted {
				mounted[v.plugin]++
			}
		}
	}
	m.mu.Unlock()
	for plugin, n := range wanted {
		emit("volume_manager_total_volumes", float64(n), plugin, "desired_state_of_world")
		emit("volume_manager_total_volumes", float64(mounted[plugin]), plugin, "actual_state_of_world")
	}
}

// VolumeOf names the volume of a pod that is the PersistentVolume of a name.
func (m *Manager) VolumeOf(uid types.UID, pv string) (volume string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pods[uid]
	if p == nil {
		return "", false
	}
	for name, v := range p.byName {
		if v.pv == pv {
			return name, true
		}
	}
	return "", false
}
