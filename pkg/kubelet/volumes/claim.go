package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	volumehelper "k8s.io/component-helpers/storage/volume"
	csitranslation "k8s.io/csi-translation-lib"
	"k8s.io/klog/v2"
	mount "k8s.io/mount-utils"

	"github.com/leme-k8s/leme/pkg/kubelet/csi"
	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// claim mounts the persistent volume behind a claim.
func (m *Manager) claim(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, from *source) (kuberuntime.Volume, time.Time, error) {
	pv, readOnly, err := m.bound(ctx, pod, v)
	if err != nil {
		return kuberuntime.Volume{}, time.Time{}, err
	}
	// What drivers have taken over from the original is their volume under another name.
	if translator := csitranslation.New(); pv.Spec.CSI == nil && translator.IsPVMigratable(pv) {
		if pv, err = translator.TranslateInTreePVToCSI(klog.FromContext(ctx), pv); err != nil {
			return kuberuntime.Volume{}, time.Time{}, fmt.Errorf("PersistentVolume %s: %w", pv.Name, err)
		}
		from.migrated = true
	}
	from.plugin, from.pv = pluginOfPV(pv), pv.Name
	mounted, refresh, err := m.persistent(ctx, pod, v, pv, readOnly)
	mounted.SupplementalGroup = groupOf(ctx, pv)
	return mounted, refresh, err
}

// groupAnnotation names the group that a PersistentVolume belongs to, which the processes of pods that use it get.
// https://kubernetes.io/docs/reference/labels-annotations-taints/#pv-beta-kubernetes-io-gid
const groupAnnotation = "pv.beta.kubernetes.io/gid"

// groupOf returns the group of a volume; nil if it names none, or one that is no number, which the original passes over too.
func groupOf(ctx context.Context, pv *corev1.PersistentVolume) *int64 {
	named, ok := pv.Annotations[groupAnnotation]
	if !ok {
		return nil
	}
	gid, err := strconv.ParseInt(named, 10, 64)
	if err != nil {
		klog.FromContext(ctx).Error(err, "The group of a PersistentVolume is no number", "volume", klog.KObj(pv), "annotation", groupAnnotation)
		return nil
	}
	return &gid
}

// persistent mounts a persistent volume.
func (m *Manager) persistent(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, pv *corev1.PersistentVolume, readOnly bool) (kuberuntime.Volume, time.Time, error) {
	switch {
	case pv.Spec.CSI != nil:
		return m.csi(ctx, pod, csi.Volume{PV: pv, Name: v.Name, ReadOnly: readOnly || pv.Spec.CSI.ReadOnly})
	case pv.Spec.HostPath != nil:
		return kuberuntime.Volume{HostPath: pv.Spec.HostPath.Path, ReadOnly: readOnly}, time.Time{}, hostPath(pv.Spec.HostPath.Path, pv.Spec.HostPath.Type)
	case pv.Spec.Local != nil:
		dir, err := m.local(pod, pv, readOnly)
		return kuberuntime.Volume{HostPath: dir, ReadOnly: readOnly, Relabel: !readOnly}, time.Time{}, err
	case pv.Spec.NFS != nil:
		mounted, err := m.nfs(ctx, pod, pv.Name, pv.Spec.NFS, readOnly, pv.Spec.MountOptions)
		return mounted, time.Time{}, err
	}
	return kuberuntime.Volume{}, time.Time{}, fmt.Errorf("PersistentVolume %s: this kubelet does not support volumes of type %s", pv.Name, persistentType(&pv.Spec.PersistentVolumeSource))
}

// csi has a driver mount a volume.
func (m *Manager) csi(ctx context.Context, pod *corev1.Pod, v csi.Volume) (kuberuntime.Volume, time.Time, error) {
	if m.cfg.CSI == nil {
		return kuberuntime.Volume{}, time.Time{}, errors.New("this kubelet has no API server, and without one no CSI drivers")
	}
	mounted, err := m.cfg.CSI.Mount(ctx, pod, v)
	if err == nil && mounted.Own {
		err = applyGroup(pod, mounted.Path)
	}
	return kuberuntime.Volume{HostPath: mounted.Path, ReadOnly: v.ReadOnly, Relabel: !v.ReadOnly}, mounted.Refresh, err
}

// nfs mounts a directory of a file server.
func (m *Manager) nfs(ctx context.Context, pod *corev1.Pod, name string, source *corev1.NFSVolumeSource, readOnly bool, options []string) (kuberuntime.Volume, error) {
	dir := m.volumeDir(pod.UID, "nfs", name)
	v := kuberuntime.Volume{HostPath: dir, ReadOnly: readOnly || source.ReadOnly}
	if done, err := prepared(dir); err != nil || done {
		return v, err
	}
	options = slices.Clone(options)
	if source.ReadOnly {
		options = append(options, "ro")
	}
	host := source.Server
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	// The kernel needs a helper to speak to a file server: mount.nfs, of the package nfs-common.
	if err := mount.New("").Mount(host+":"+source.Path, dir, "nfs", options); err != nil {
		return v, errors.Join(err, os.Remove(dir))
	}
	return v, nil
}

// bound returns the persistent volume behind a volume of a pod, and whether the pod may only read it.
func (m *Manager) bound(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (pv *corev1.PersistentVolume, readOnly bool, err error) {
	if m.cfg.Claims == nil {
		return nil, false, errors.New("this kubelet has no API server to get a PersistentVolumeClaim from")
	}
	name := ""
	if v.Ephemeral != nil {
		name = ephemeral.VolumeClaimName(pod, v)
	} else {
		name, readOnly = v.PersistentVolumeClaim.ClaimName, v.PersistentVolumeClaim.ReadOnly
	}
	pvc, err := m.cfg.Claims.Claim(ctx, pod.Namespace, name)
	if err != nil {
		return nil, false, fmt.Errorf("getting PersistentVolumeClaim %s: %w", name, err)
	}
	if v.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(pod, pvc); err != nil {
			return nil, false, err
		}
	}
	if pvc.Status.Phase != corev1.ClaimBound || pvc.Spec.VolumeName == "" {
		return nil, false, fmt.Errorf("PersistentVolumeClaim %s is not bound", name)
	}
	pv, err = m.cfg.Claims.Volume(ctx, pvc.Spec.VolumeName)
	if err != nil {
		return nil, false, fmt.Errorf("getting PersistentVolume %s: %w", pvc.Spec.VolumeName, err)
	}
	if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != pvc.UID {
		return nil, false, fmt.Errorf("PersistentVolume %s is not bound to PersistentVolumeClaim %s", pv.Name, name)
	}
	if err := volumehelper.CheckNodeAffinity(pv, m.cfg.NodeLabels()); err != nil {
		return nil, false, fmt.Errorf("PersistentVolume %s is not for this node: %w", pv.Name, err)
	}
	return pv, readOnly, nil
}

// local binds a directory or a device of the host. Binding, rather than using the
// path itself, keeps the volume there while the pod runs whatever happens to the path.
func (m *Manager) local(pod *corev1.Pod, pv *corev1.PersistentVolume, readOnly bool) (string, error) {
	source := pv.Spec.Local.Path
	info, err := os.Stat(source)
	if err != nil {
		return "", fmt.Errorf("PersistentVolume %s: %w", pv.Name, err)
	}
	isDevice := info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
	if pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock {
		if !isDevice {
			return "", fmt.Errorf("PersistentVolume %s: %s is not a block device", pv.Name, source)
		}
		return source, nil
	}
	if !info.IsDir() {
		return "", fmt.Errorf("PersistentVolume %s: %s is not a directory; this kubelet does not make file systems on devices", pv.Name, source)
	}
	dir := m.volumeDir(pod.UID, "local-volume", pv.Name)
	done, err := prepared(dir)
	if err != nil || done {
		return dir, err
	}
	if err := unix.Mount(source, dir, "", unix.MS_BIND, ""); err != nil {
		return "", &os.PathError{Op: "mount --bind " + source, Path: dir, Err: err}
	}
	if readOnly {
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return "", &os.PathError{Op: "mount -o remount,bind,ro", Path: dir, Err: err}
		}
		return dir, nil
	}
	return dir, applyGroup(pod, dir)
}

// volumeType names the one source that is set, as it is written in a manifest.
func volumeType(s *corev1.VolumeSource) string { return setField(reflect.ValueOf(s).Elem()) }

func persistentType(s *corev1.PersistentVolumeSource) string {
	return setField(reflect.ValueOf(s).Elem())
}

func setField(v reflect.Value) string {
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return "unknown"
}
