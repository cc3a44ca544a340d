package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// disabledFields are the fields of pods that belong to features which are off by default, by
// feature. Each function clears the fields and tells whether any was set.
var disabledFields = map[string]func(*corev1.PodSpec) bool{
	"GenericWorkload":    func(s *corev1.PodSpec) bool { return clearField(&s.SchedulingGroup) },
	"EvictionRequestAPI": func(s *corev1.PodSpec) bool { return clearList(&s.EvictionResponders) },
	"EmptyDirVolumeMode": func(s *corev1.PodSpec) (used bool) {
		for i := range s.Volumes {
			if e := s.Volumes[i].EmptyDir; e != nil {
				used = clearField(&e.Mode) || used
			}
		}
		return used
	},
	"AtomicWriteVolumeUserFields": func(s *corev1.PodSpec) (used bool) {
		for i := range s.Volumes {
			used = clearOwners(&s.Volumes[i].VolumeSource) || used
		}
		return used
	},
	"ContainerStopSignals": inContainers(func(c *corev1.Container) bool {
		used := c.Lifecycle != nil && clearField(&c.Lifecycle.StopSignal)
		if used && *c.Lifecycle == (corev1.Lifecycle{}) {
			c.Lifecycle = nil
		}
		return used
	}),
	"VolumeBindMountOptions": inContainers(func(c *corev1.Container) (used bool) {
		for i := range c.VolumeMounts {
			used = clearList(&c.VolumeMounts[i].BindMountOptions) || used
		}
		return used
	}),
	"H2CContainerProbe": func(s *corev1.PodSpec) bool {
		inProbe := inProbes(func(p *corev1.Probe) bool { return clearProtocol(p.HTTPGet) })(s)
		return inContainers(func(c *corev1.Container) (used bool) {
			if c.Lifecycle == nil {
				return false
			}
			for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
				used = h != nil && clearProtocol(h.HTTPGet) || used
			}
			return used
		})(s) || inProbe
	},
	"GRPCContainerProbeTLS": inProbes(func(p *corev1.Probe) bool {
		return p.GRPC != nil && clearField(&p.GRPC.Mode)
	}),
}

// DropDisabledPodFields clears the fields of a pod, or of a template for pods, that
// belong to features which are off, unless the stored one uses them already. old
// is nil on creation. Features are those that are on beside what is on by default.
func DropDisabledPodFields(spec, old *corev1.PodSpec, features map[string]bool) {
	was := old.DeepCopy() // each function clears fields that no other looks at
	for name, drop := range disabledFields {
		if !features[name] && (was == nil || !drop(was)) {
			drop(spec)
		}
	}
}

// DropDisabledPodStatusFields clears the fields of the status of a pod that belong
// to features which are off, unless the stored one uses them already.
func DropDisabledPodStatusFields(status, old *corev1.PodStatus) {
	if len(old.VolumeHealth) == 0 {
		status.VolumeHealth = nil
	}
	if !slices.ContainsFunc(volumeMounts(old), func(m *corev1.VolumeMountStatus) bool { return m.VolumeStatus != nil }) {
		for _, m := range volumeMounts(status) {
			m.VolumeStatus = nil
		}
	}
	if len(old.NodeAllocatableResourceClaimStatuses) == 0 {
		status.NodeAllocatableResourceClaimStatuses = nil
	}
}

// volumeMounts are those of all containers.
func volumeMounts(s *corev1.PodStatus) []*corev1.VolumeMountStatus {
	var all []*corev1.VolumeMountStatus
	for _, containers := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range containers {
			for j := range containers[i].VolumeMounts {
				all = append(all, &containers[i].VolumeMounts[j])
			}
		}
	}
	return all
}

// DropDisabledNodeFields clears the fields of a Node that belong to features which
// are off or gone, unless the stored one uses them already. old is nil on creation.
func DropDisabledNodeFields(node, old *corev1.Node) {
	if old == nil {
		old = &corev1.Node{}
	}
	if old.Spec.ConfigSource == nil {
		node.Spec.ConfigSource = nil
	}
	if old.Spec.PodPreemptionPolicy == nil {
		node.Spec.PodPreemptionPolicy = nil
	}
	if old.Status.Config == nil {
		node.Status.Config = nil
	}
}

// DropDisabledClaimStatusFields clears the fields of the status of a claim that
// belong to features which are off, unless the stored one uses them already.
func DropDisabledClaimStatusFields(status, old *corev1.PersistentVolumeClaimStatus) {
	if old.HealthStatus == nil {
		status.HealthStatus = nil
	}
}

func clearProtocol(g *corev1.HTTPGetAction) bool { return g != nil && clearField(&g.Protocol) }

func clearField[T any](p **T) bool {
	used := *p != nil
	*p = nil
	return used
}

func clearList[T any](p *[]T) bool {
	used := len(*p) > 0
	*p = nil
	return used
}

func inContainers(drop func(*corev1.Container) bool) func(*corev1.PodSpec) bool {
	return func(s *corev1.PodSpec) (used bool) {
		eachContainer(s, nil, func(c *corev1.Container, _ *field.Path) { used = drop(c) || used })
		return used
	}
}

func inProbes(drop func(*corev1.Probe) bool) func(*corev1.PodSpec) bool {
	return inContainers(func(c *corev1.Container) (used bool) {
		for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if p != nil {
				used = drop(p) || used
			}
		}
		return used
	})
}

// clearOwners clears whose the files of a volume are.
func clearOwners(v *corev1.VolumeSource) (used bool) {
	drop := func(p **int64) { used = clearField(p) || used }
	keys := func(items []corev1.KeyToPath) {
		for i := range items {
			drop(&items[i].User)
		}
	}
	downward := func(items []corev1.DownwardAPIVolumeFile) {
		for i := range items {
			drop(&items[i].User)
		}
	}
	if s := v.Secret; s != nil {
		drop(&s.DefaultUser)
		keys(s.Items)
	}
	if s := v.ConfigMap; s != nil {
		drop(&s.DefaultUser)
		keys(s.Items)
	}
	if s := v.DownwardAPI; s != nil {
		drop(&s.DefaultUser)
		downward(s.Items)
	}
	if v.Projected == nil {
		return used
	}
	drop(&v.Projected.DefaultUser)
	for _, s := range v.Projected.Sources {
		switch {
		case s.Secret != nil:
			keys(s.Secret.Items)
		case s.ConfigMap != nil:
			keys(s.ConfigMap.Items)
		case s.DownwardAPI != nil:
			downward(s.DownwardAPI.Items)
		case s.ServiceAccountToken != nil:
			drop(&s.ServiceAccountToken.User)
		case s.ClusterTrustBundle != nil:
			drop(&s.ClusterTrustBundle.User)
		case s.PodCertificate != nil:
			drop(&s.PodCertificate.User)
		}
	}
	return used
}
