package core

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// mounts validates where a container finds its volumes, as directories and as
// devices.
func (r *report) mounts(c *corev1.Container, s *podScope, p *field.Path) {
	mounted, mountPaths := sets.New[string](), sets.New[string]()
	devices, devicePaths := sets.New[string](), sets.New[string]()
	for _, m := range c.VolumeMounts {
		mounted.Insert(m.Name)
		mountPaths.Insert(m.MountPath)
	}
	for _, d := range c.VolumeDevices {
		devices.Insert(d.Name)
		devicePaths.Insert(d.DevicePath)
	}

	paths := sets.New[string]()
	for i := range c.VolumeMounts {
		m, list := &c.VolumeMounts[i], p.Child("volumeMounts")
		at := list.Index(i)
		r.required(m.Name, at.Child("name"))
		if s.volumes[m.Name] == nil {
			r.add(field.NotFound(at.Child("name"), m.Name))
		}
		r.required(m.MountPath, at.Child("mountPath"))
		r.invalidIf(paths.Has(m.MountPath), at.Child("mountPath"), m.MountPath, "must be unique")
		paths.Insert(m.MountPath)
		if r.invalidIf(devices.Has(m.Name), at.Child("name"), m.Name, "must not already exist in volumeDevices") {
			r.invalidIf(devicePaths.Has(m.MountPath), at.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices")
		}
		r.relativePath(m.SubPath, list.Child("subPath"))
		r.relativePath(m.SubPathExpr, list.Child("subPathExpr"))
		r.invalidIf(m.SubPath != "" && m.SubPathExpr != "", at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
		r.propagation(m, c, list)
	}

	names, seen := sets.New[string](), sets.New[string]()
	for i, d := range c.VolumeDevices {
		at := p.Child("volumeDevices").Index(i)
		r.required(d.Name, at.Child("name"))
		r.invalidIf(names.Has(d.Name), at.Child("name"), d.Name, "must be unique")
		names.Insert(d.Name)
		if source := s.volumes[d.Name]; source == nil {
			r.add(field.NotFound(at.Child("name"), d.Name))
		} else {
			r.invalidIf(source.PersistentVolumeClaim == nil && source.Ephemeral == nil, at.Child("name"), d.Name,
				"can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
		}
		r.required(d.DevicePath, at.Child("devicePath"))
		r.invalidIf(seen.Has(d.DevicePath), at.Child("devicePath"), d.DevicePath, "must be unique")
		seen.Insert(d.DevicePath)
		backsteps := strings.Contains("/"+path.Clean(d.DevicePath)+"/", "/../") || strings.Contains("/"+d.DevicePath+"/", "/../")
		r.invalidIf(backsteps, at.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')")
		r.invalidIf(mounted.Has(d.Name), at.Child("name"), d.Name, "must not already exist in volumeMounts")
		r.invalidIf(s.volumes[d.Name] != nil && mountPaths.Has(d.DevicePath), at.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts")
	}
}

// propagation validates how mounts pass between a container and its host.
func (r *report) propagation(m *corev1.VolumeMount, c *corev1.Container, p *field.Path) {
	at := p.Child("mountPropagation")
	if optionalOneOf(r, m.MountPropagation, at, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone) &&
		m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional {
		privileged := c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
		r.forbidIf(!privileged, at, "Bidirectional mount propagation is available only to privileged containers")
	}
	at = p.Child("recursiveReadOnly")
	if m.RecursiveReadOnly == nil {
		return
	}
	switch *m.RecursiveReadOnly {
	case corev1.RecursiveReadOnlyDisabled:
	case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
		r.forbidIf(!m.ReadOnly, at, "may only be specified when readOnly is true")
		r.forbidIf(m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone, at,
			"may only be specified when mountPropagation is None or not specified")
	default:
		oneOf(r, *m.RecursiveReadOnly, at, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)
	}
}
