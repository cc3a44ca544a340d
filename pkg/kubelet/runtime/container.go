package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerRequest is what it takes to create one container.
type ContainerRequest struct {
	Pod          *v1.Pod
	Container    *v1.Container
	RestartCount int
	// Image is the reference that CRI knows the image by.
	Image string
	// Sandbox is the pod's ready sandbox, Config the configuration it was made of.
	Sandbox *Sandbox
	Config  *runtimeapi.PodSandboxConfig
	// Target is the container whose process namespace an ephemeral container joins.
	Target  string
	Volumes map[string]Volume
	// SubPath makes a path below a volume safe to mount.
	SubPath func(ctx context.Context, index int, volume Volume, subPath string) (string, error)
	// Devices are what of the machine the container is given.
	Devices Devices
	// ImageVolume makes the image of a volume present and returns CRI's reference to it.
	ImageVolume func(ctx context.Context, volume string) (string, error)
}

// Devices are what of the machine a container is given besides CPU and memory, in each of the ways in which that can be done.
type Devices struct {
	// CDI are names of devices of the Container Device Interface.
	CDI         []string
	Nodes       []*runtimeapi.Device
	Mounts      []*runtimeapi.Mount
	Envs        map[string]string
	Annotations map[string]string
}

// Add adds others.
func (d *Devices) Add(o Devices) {
	d.CDI, d.Nodes, d.Mounts = append(d.CDI, o.CDI...), append(d.Nodes, o.Nodes...), append(d.Mounts, o.Mounts...)
	for _, pair := range []struct {
		into *map[string]string
		from map[string]string
	}{{&d.Envs, o.Envs}, {&d.Annotations, o.Annotations}} {
		if *pair.into == nil {
			*pair.into = map[string]string{}
		}
		maps.Copy(*pair.into, pair.from)
	}
}

// containerConfig generates the configuration of a container; it writes the pod's hosts
// file and the file for the termination message.
func (r *Runtime) containerConfig(ctx context.Context, req ContainerRequest) (*runtimeapi.ContainerConfig, error) {
	pod, c := req.Pod, req.Container
	ips := r.PodIPs(pod, req.Sandbox)
	vars, err := Environment(ctx, pod, c, EnvSources{
		Objects: r.Objects, Services: r.Services(pod.Namespace), PodIPs: ips, HostIPs: r.HostIPs(),
		Allocatable: r.Allocatable(), Volumes: req.Volumes,
	})
	if err != nil {
		return nil, err
	}
	values := make(map[string]string, len(vars))
	envs := make([]*runtimeapi.KeyValue, 0, len(vars))
	for _, v := range vars {
		values[v.Name] = v.Value
		envs = append(envs, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	lookup := func(name string) (string, bool) { v, ok := values[name]; return v, ok }

	image, err := r.Images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: req.Image}, false)
	if err != nil {
		return nil, fmt.Errorf("failed to get image %q: %w", c.Image, err)
	}
	if image.GetImage() == nil {
		return nil, fmt.Errorf("image %q is not present", c.Image)
	}
	uid, username := imageUser(image.GetImage())
	if err := VerifyNonRoot(pod, c, uid, username); err != nil {
		return nil, err
	}
	userns, err := r.users.mapping(pod)
	if err != nil {
		return nil, err
	}
	security, err := r.Security.container(pod, c, req.Target, uid, username, userns, req.Volumes)
	if err != nil {
		return nil, err
	}
	mounts, devices, err := r.mounts(ctx, req, ips, lookup, userns)
	if err != nil {
		return nil, err
	}
	annotations, err := containerAnnotations(pod, c, req.RestartCount)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(req.Devices.Envs)) {
		if _, own := values[name]; !own {
			envs = append(envs, &runtimeapi.KeyValue{Key: name, Value: []byte(req.Devices.Envs[name])})
		}
	}
	maps.Copy(annotations, req.Devices.Annotations)
	var cdi []*runtimeapi.CDIDevice
	for _, name := range req.Devices.CDI {
		cdi = append(cdi, &runtimeapi.CDIDevice{Name: name})
	}
	config := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(req.RestartCount)},
		Image:       &runtimeapi.ImageSpec{Image: req.Image, UserSpecifiedImage: c.Image},
		Command:     expandAll(c.Command, lookup),
		Args:        expandAll(c.Args, lookup),
		WorkingDir:  c.WorkingDir,
		Envs:        envs,
		Mounts:      append(mounts, req.Devices.Mounts...),
		Devices:     append(devices, req.Devices.Nodes...),
		CDIDevices:  cdi,
		Labels:      containerLabels(pod, c),
		Annotations: annotations,
		LogPath:     containerLogPath(c.Name, req.RestartCount),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       r.Limits.Container(pod, c),
			SecurityContext: security,
		},
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		if n, ok := runtimeapi.Signal_value[strings.ReplaceAll(string(*c.Lifecycle.StopSignal), "+", "PLUS")]; ok {
			config.StopSignal = runtimeapi.Signal(n)
		}
	}
	return config, nil
}

func expandAll(in []string, lookup func(string) (string, bool)) []string {
	out := make([]string, 0, len(in))
	for _, s := range in {
		out = append(out, Expand(s, lookup))
	}
	return out
}

// mounts are what a container sees of volumes, its hosts file and its termination message.
func (r *Runtime) mounts(ctx context.Context, req ContainerRequest, ips []string, lookup func(string) (string, bool), userns *runtimeapi.UserNamespace) ([]*runtimeapi.Mount, []*runtimeapi.Device, error) {
	pod, c := req.Pod, req.Container
	var mounts []*runtimeapi.Mount
	ownHosts := false
	for i := range c.VolumeMounts {
		vm := &c.VolumeMounts[i]
		volume, ok := req.Volumes[vm.Name]
		if !ok {
			return nil, nil, fmt.Errorf("cannot find volume %q to mount into container %q", vm.Name, c.Name)
		}
		m, err := r.mount(ctx, req, i, volume, lookup)
		if err != nil {
			return nil, nil, err
		}
		if volume.Image == "" && userns != nil && userns.Mode == runtimeapi.NamespaceMode_POD {
			m.UidMappings, m.GidMappings = userns.Uids, userns.Gids
		}
		ownHosts = ownHosts || m.ContainerPath == etcHosts
		mounts = append(mounts, m)
	}
	var devices []*runtimeapi.Device
	for _, vd := range c.VolumeDevices {
		volume, ok := req.Volumes[vd.Name]
		if !ok {
			return nil, nil, fmt.Errorf("cannot find volume %q to pass into container %q", vd.Name, c.Name)
		}
		permissions := "mrw"
		if volume.ReadOnly {
			permissions = "r"
		}
		devices = append(devices, &runtimeapi.Device{HostPath: volume.HostPath, ContainerPath: vd.DevicePath, Permissions: permissions})
	}
	dir := r.PodDir(pod.UID)
	// A pod without an address yet would get a hosts file that lies.
	if !ownHosts && (pod.Spec.HostNetwork || len(ips) > 0) {
		path, err := hostsFile(dir, pod, ips, r.DNS.ClusterDomain)
		if err != nil {
			return nil, nil, err
		}
		m := &runtimeapi.Mount{ContainerPath: etcHosts, HostPath: path, SelinuxRelabel: true}
		if userns != nil && userns.Mode == runtimeapi.NamespaceMode_POD {
			m.UidMappings, m.GidMappings = userns.Uids, userns.Gids
		}
		mounts = append(mounts, m)
	}
	if c.TerminationMessagePath != "" {
		path, err := messageFile(filepath.Join(dir, "containers", c.Name))
		if err != nil {
			return nil, nil, err
		}
		mounts = append(mounts, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: path, SelinuxRelabel: true})
	}
	return mounts, devices, nil
}

func (r *Runtime) mount(ctx context.Context, req ContainerRequest, index int, volume Volume, lookup func(string) (string, bool)) (*runtimeapi.Mount, error) {
	vm := &req.Container.VolumeMounts[index]
	subPath := vm.SubPath
	if vm.SubPathExpr != "" {
		unknown := ""
		subPath = Expand(vm.SubPathExpr, func(name string) (string, bool) {
			v, ok := lookup(name)
			if !ok {
				unknown = name
			}
			return v, ok
		})
		if unknown != "" {
			return nil, fmt.Errorf("missing value for %q in subPathExpr %q", unknown, vm.SubPathExpr)
		}
	}
	if filepath.IsAbs(subPath) {
		return nil, fmt.Errorf("error SubPath `%s` must not be an absolute path", subPath)
	}
	for _, part := range strings.Split(subPath, "/") {
		if part == ".." {
			return nil, fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", subPath)
		}
	}
	m := &runtimeapi.Mount{
		ContainerPath:  containerPath(vm.MountPath),
		Readonly:       vm.ReadOnly || volume.ReadOnly,
		SelinuxRelabel: volume.Relabel,
		Propagation:    propagation(vm.MountPropagation),
	}
	if mode := vm.RecursiveReadOnly; m.Readonly && mode != nil {
		supported := r.RecursiveReadOnly(req.Sandbox.RuntimeHandler)
		if *mode == v1.RecursiveReadOnlyEnabled && !supported {
			return nil, fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime", vm.Name)
		}
		m.RecursiveReadOnly = supported && *mode != v1.RecursiveReadOnlyDisabled
	}
	if volume.Image != "" {
		ref, err := req.ImageVolume(ctx, vm.Name)
		if err != nil {
			return nil, err
		}
		m.Image = &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: volume.Image}
		m.ImageSubPath, m.Readonly = subPath, true
		return m, nil
	}
	m.HostPath = volume.HostPath
	if subPath != "" {
		var err error
		if m.HostPath, err = req.SubPath(ctx, index, volume, subPath); err != nil {
			return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", vm.Name, req.Container.Name, err)
		}
	}
	return m, nil
}

// containerPath makes a relative mount path one from the container's root.
func containerPath(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return "/" + p
}

func propagation(mode *v1.MountPropagationMode) runtimeapi.MountPropagation {
	switch {
	case mode == nil:
	case *mode == v1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case *mode == v1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}

// messageFile makes the empty file that a container finds at its termination message path.
// Any user may write it.
func messageFile(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("making the directory of termination messages: %w", err)
	}
	path := filepath.Join(dir, rand.String(8))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return "", fmt.Errorf("making the termination message file: %w", err)
	}
	return path, errors.Join(f.Chmod(0o666), f.Close())
}

// nextLog is the number of a container's next log: one more than the largest on disk, so that
// a container that is known no more keeps its logs.
func nextLog(dir string) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	next := 0
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), ".log")
		if n, err := strconv.Atoi(number); err == nil && n >= next {
			next = n + 1
		}
	}
	return next
}
