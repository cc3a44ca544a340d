package attachdetach

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// unmountPatience is how long the kubelet of a node that is not well has to unmount a volume
// before it is taken away.
const unmountPatience = 6 * time.Minute

// A wanted volume is one that pods on a node use.
type wanted struct {
	name   string // as nodes name it in their status
	driver string
	pv     *corev1.PersistentVolume
	inline bool // the pod describes it, and pv exists nowhere else
	pods   []*corev1.Pod
}

// exclusive reports whether the volume can be attached to one node only.
func (w *wanted) exclusive() bool {
	modes := w.pv.Spec.AccessModes
	return len(modes) > 0 && !slices.Contains(modes, corev1.ReadWriteMany) && !slices.Contains(modes, corev1.ReadOnlyMany)
}

// An attachment is a VolumeAttachment and the name of its volume.
type attachment struct {
	*storagev1.VolumeAttachment
	volume string
}

// nodeState is what matters of a node.
type nodeState struct {
	// inUse are the volumes that the kubelet has mounted, or may have.
	inUse []corev1.UniqueVolumeName
	// attached are those that it is told that it may mount.
	attached []corev1.AttachedVolume
	// gone, unwell and outOfService nodes may not unmount anything any more.
	gone, unwell, outOfService bool
}

func (s nodeState) equal(o nodeState) bool {
	return slices.Equal(s.inUse, o.inUse) && slices.Equal(s.attached, o.attached) && s.gone == o.gone && s.unwell == o.unwell && s.outOfService == o.outOfService
}

// plan is what there is to do for a node.
type plan struct {
	attach []*wanted
	// blocked volumes are still attached to another node.
	blocked []*wanted
	// report are the volumes that the node's status is to name as attached; arrived those that are new there.
	report  []corev1.AttachedVolume
	arrived []*wanted
	// detach comes after the report, so that the kubelet mounts nothing that goes.
	detach []attachment
	// failed are volumes that could not be attached.
	failed map[*wanted]string
	// forced says why an attachment that goes may still be in use, by its name.
	forced map[string]string
	// again is when a volume may be taken by force; zero means never.
	again time.Duration
}

// decide plans for a node. Attached here are its attachments; elsewhere says which volumes other nodes have; unwanted since when
// nobody has wanted a volume.
func decide(node nodeState, wants []*wanted, here []attachment, elsewhere map[string]bool, unwantedFor func(volume string) time.Duration, force bool) plan {
	p := plan{failed: map[*wanted]string{}, forced: map[string]string{}}
	reported := map[corev1.UniqueVolumeName]bool{}
	for _, v := range node.attached {
		reported[v.Name] = true
	}
	keep := func(volume, device string) {
		p.report = append(p.report, corev1.AttachedVolume{Name: corev1.UniqueVolumeName(volume), DevicePath: device})
	}
	byVolume := map[string]attachment{}
	for _, a := range here {
		byVolume[a.volume] = a
	}
	for _, w := range wants {
		a, ok := byVolume[w.name]
		delete(byVolume, w.name)
		switch {
		case !ok && w.exclusive() && elsewhere[w.name]:
			p.blocked = append(p.blocked, w)
		case !ok:
			p.attach = append(p.attach, w)
		case a.DeletionTimestamp != nil: // it is on its way off, and attached again when it is gone
		case a.Status.Attached:
			keep(w.name, a.Status.AttachmentMetadata["devicePath"])
			if !reported[corev1.UniqueVolumeName(w.name)] {
				p.arrived = append(p.arrived, w)
			}
		case a.Status.AttachError != nil:
			p.failed[w] = a.Status.AttachError.Message
		}
	}
	for _, a := range here {
		if _, unwanted := byVolume[a.volume]; !unwanted || a.DeletionTimestamp != nil {
			continue
		}
		used := node.gone || slices.Contains(node.inUse, corev1.UniqueVolumeName(a.volume))
		if !used || node.outOfService {
			if used {
				p.forced[a.Name] = "out-of-service"
			}
			p.detach = append(p.detach, a)
			continue
		}
		if force && (node.unwell || node.gone) {
			left := unmountPatience - unwantedFor(a.volume)
			if left <= 0 {
				p.forced[a.Name] = "timeout"
				p.detach = append(p.detach, a)
				continue
			}
			if p.again == 0 || left < p.again {
				p.again = left
			}
		}
		if a.Status.Attached {
			keep(a.volume, a.Status.AttachmentMetadata["devicePath"])
		}
	}
	slices.SortFunc(p.report, func(a, b corev1.AttachedVolume) int { return cmp.Compare(a.Name, b.Name) })
	return p
}

// needsVolumes reports whether a pod's volumes must be attached.
func needsVolumes(p *corev1.Pod, keepTerminated bool) bool {
	if p.Spec.NodeName == "" {
		return false
	}
	if keepTerminated {
		return true
	}
	return !pods.IsTerminated(p) && (p.DeletionTimestamp == nil || runs(p))
}

// runs reports whether some container of a pod may run.
func runs(p *corev1.Pod) bool {
	for _, s := range p.Status.ContainerStatuses {
		if s.State.Terminated == nil && s.State.Waiting == nil {
			return true
		}
	}
	return false
}
