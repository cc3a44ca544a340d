package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	volumehelper "k8s.io/component-helpers/storage/volume"

	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// claim mounts the persistent volume behind a claim.
func (m *Manager) claim(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (kuberuntime.Volume, error) {
	var none kuberuntime.Volume
	if m.cfg.Claims == nil {
		return none, errors.New("this kubelet has no API server to get a PersistentVolumeClaim from")
	}
	name, readOnly := "", false
	if v.Ephemeral != nil {
		name = ephemeral.VolumeClaimName(pod, v)
	} else {
		name, readOnly = v.PersistentVolumeClaim.ClaimName, v.PersistentVolumeClaim.ReadOnly
	}
	pvc, err := m.cfg.Claims.Claim(ctx, pod.Namespace, name)
	if err != nil {
		return none, fmt.Errorf("getting PersistentVolumeClaim %s: %w", name, err)
	}
	if v.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(pod, pvc); err != nil {
			return none, err
		}
	}
	if pvc.Status.Phase != corev1.ClaimBound || pvc.Spec.VolumeName == "" {
		return none, fmt.Errorf("PersistentVolumeClaim %s is not bound", name)
	}
	pv, err := m.cfg.Claims.Volume(ctx, pvc.Spec.VolumeName)
	if err != nil {
		return none, fmt.Errorf("getting PersistentVolume %s: %w", pvc.Spec.VolumeName, err)
	}
	if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != pvc.UID {
		return none, fmt.Errorf("PersistentVolume %s is not bound to PersistentVolumeClaim %s", pv.Name, name)
	}
	if err := volumehelper.CheckNodeAffinity(pv, m.cfg.NodeLabels()); err != nil {
		return none, fmt.Errorf("PersistentVolume %s is not for this node: %w", pv.Name, err)
	}
	switch {
	case pv.Spec.HostPath != nil:
		return kuberuntime.Volume{HostPath: pv.Spec.HostPath.Path, ReadOnly: readOnly}, hostPath(pv.Spec.HostPath.Path, pv.Spec.HostPath.Type)
	case pv.Spec.Local != nil:
		dir, err := m.local(pod, pv, readOnly)
		return kuberuntime.Volume{HostPath: dir, ReadOnly: readOnly, Relabel: !readOnly}, err
	}
	return none, fmt.Errorf("PersistentVolume %s: this kubelet does not support volumes of type %s", pv.Name, persistentType(&pv.Spec.PersistentVolumeSource))
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
