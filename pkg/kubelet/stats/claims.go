package stats

import (
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/component-helpers/storage/ephemeral"
	api "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

const (
	logUsage        = "kubelet_container_log_filesystem_used_bytes"
	metricsProvider = "kubelet_metrics_provider"
)

// claimFamilies are what is told of a volume that was claimed.
var claimFamilies = []struct {
	name, help string
	value      func(*api.FsStats) *uint64
}{
	{"kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", func(s *api.FsStats) *uint64 { return s.CapacityBytes }},
	{"kubelet_volume_stats_available_bytes", "Number of available bytes in the volume", func(s *api.FsStats) *uint64 { return s.AvailableBytes }},
	{"kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", func(s *api.FsStats) *uint64 { return s.UsedBytes }},
	{"kubelet_volume_stats_inodes", "Maximum number of inodes in the volume", func(s *api.FsStats) *uint64 { return s.Inodes }},
	{"kubelet_volume_stats_inodes_free", "Number of free inodes in the volume", func(s *api.FsStats) *uint64 { return s.InodesFree }},
	{"kubelet_volume_stats_inodes_used", "Number of used inodes in the volume", func(s *api.FsStats) *uint64 { return s.InodesUsed }},
}

// RegisterMetrics implements metric.Room.
func (p *Provider) RegisterMetrics(r metrics.KubeRegistry) {
	families := []metric.Family{
		{Name: metricsProvider, Help: "Metrics provider used by kubelet to collect container stats. Values can be 'cadvisor' and 'cri'", Labels: []string{"provider"}},
		{Name: logUsage, Help: "Bytes used by the container's logs on the filesystem.", Labels: []string{"uid", "namespace", "pod", "container"}},
	}
	for _, f := range claimFamilies {
		families = append(families, metric.Family{Name: f.name, Help: f.help, Labels: []string{"namespace", "persistentvolumeclaim"}})
	}
	r.CustomMustRegister(metric.OnDemand(p.measureDisk, families...))
}

// measureDisk measures what pods have claimed, and their containers' logs.
func (p *Provider) measureDisk(emit metric.Emit) {
	emit(metricsProvider, 1, "cri")
	told := map[api.PVCReference]bool{}
	for _, pod := range p.cfg.Pods.Pods() {
		kuberuntime.EachContainer(pod, func(c *corev1.Container, _ kuberuntime.Kind) {
			dir := filepath.Join(kuberuntime.PodLogDir(p.cfg.PodLogsDir, pod.Namespace, pod.Name, pod.UID), c.Name)
			if u, err := DiskUsage(dir); err == nil {
				emit(logUsage, float64(u.Bytes), string(pod.UID), pod.Namespace, pod.Name, c.Name)
			}
		})
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return claimName(pod, &v) != "" }) {
			continue
		}
		for _, v := range p.podVolumes(pod.UID, pod) {
			if v.PVCRef == nil || told[*v.PVCRef] {
				continue
			}
			told[*v.PVCRef] = true
			for _, f := range claimFamilies {
				if value := f.value(&v.FsStats); value != nil {
					emit(f.name, float64(*value), v.PVCRef.Namespace, v.PVCRef.Name)
				}
			}
		}
	}
}

// claimName names the claim that a volume of a pod is of; empty if it is of none.
func claimName(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return ephemeral.VolumeClaimName(pod, v)
	}
	return ""
}

// claimOf finds the volume of a pod whose directory has the name of a PersistentVolume, and its claim. Where nobody says which volume that is,
// it is the only one that was claimed.
func (p *Provider) claimOf(pod *corev1.Pod, pv string) (string, *api.PVCReference) {
	if pod == nil {
		return pv, nil
	}
	known, name := false, ""
	if p.cfg.VolumeOf != nil {
		name, known = p.cfg.VolumeOf(pod.UID, pv)
	}
	found, ref := pv, (*api.PVCReference)(nil)
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		claim := claimName(pod, v)
		if claim == "" || known && v.Name != name {
			continue
		}
		if ref != nil {
			return pv, nil
		}
		found, ref = v.Name, &api.PVCReference{Name: claim, Namespace: pod.Namespace}
	}
	return found, ref
}

// claimable tells whether a directory of a kind of volumes has the name of a PersistentVolume, rather than that of a volume of the pod.
func claimable(kind, name string, pod *corev1.Pod) bool {
	if !slices.Contains([]string{"kubernetes.io~local-volume", "kubernetes.io~csi", "kubernetes.io~nfs"}, kind) {
		return false
	}
	return pod == nil || !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name && (v.CSI != nil || v.NFS != nil) })
}
