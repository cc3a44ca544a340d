package runtime

import (
	"fmt"
	"path/filepath"
	"strconv"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a container with the default proc mount does not see of the machine's /proc and /sys, and
// what it may only read.
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// Security is how the node confines containers.
type Security struct {
	// SeccompDefault confines a container that asks for nothing.
	SeccompDefault bool
	// SeccompRoot is the directory of Localhost profiles.
	SeccompRoot string
}

// EffectiveSecurity is a container's security context with the pod's filled in; never nil.
func EffectiveSecurity(pod *v1.Pod, c *v1.Container) *v1.SecurityContext {
	out := &v1.SecurityContext{}
	if c.SecurityContext != nil {
		out = c.SecurityContext.DeepCopy()
	}
	p := pod.Spec.SecurityContext
	if p == nil {
		return out
	}
	inherit(&out.SELinuxOptions, p.SELinuxOptions)
	inherit(&out.RunAsUser, p.RunAsUser)
	inherit(&out.RunAsGroup, p.RunAsGroup)
	inherit(&out.RunAsNonRoot, p.RunAsNonRoot)
	inherit(&out.SeccompProfile, p.SeccompProfile)
	inherit(&out.AppArmorProfile, p.AppArmorProfile)
	return out
}

func inherit[T any](own **T, pods *T) {
	if *own == nil && pods != nil {
		v := *pods
		*own = &v
	}
}

// VerifyNonRoot tells why a container that must not run as root would, given the user
// that its image names.
func VerifyNonRoot(pod *v1.Pod, c *v1.Container, uid *int64, username string) error {
	sc := EffectiveSecurity(pod, c)
	if sc.RunAsNonRoot == nil || !*sc.RunAsNonRoot {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", c.Name)
	switch {
	case sc.RunAsUser != nil && *sc.RunAsUser == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case sc.RunAsUser != nil:
		return nil
	case uid != nil && *uid == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	case uid == nil && username != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", username, where)
	}
	return nil
}

func (s Security) container(pod *v1.Pod, c *v1.Container, target string, uid *int64, username string, userns *runtimeapi.UserNamespace, volumes map[string]Volume) (*runtimeapi.LinuxContainerSecurityContext, error) {
	sc := EffectiveSecurity(pod, c)
	out := &runtimeapi.LinuxContainerSecurityContext{
		Privileged:       yes(sc.Privileged),
		ReadonlyRootfs:   yes(sc.ReadOnlyRootFilesystem),
		NoNewPrivs:       sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
		NamespaceOptions: namespaces(pod, userns),
		SelinuxOptions:   selinux(sc.SELinuxOptions),
		RunAsUser:        int64Value(sc.RunAsUser),
		RunAsGroup:       int64Value(sc.RunAsGroup),
	}
	if target != "" {
		out.NamespaceOptions.Pid, out.NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, target
	}
	if out.RunAsUser == nil {
		if uid != nil {
			out.RunAsUser = &runtimeapi.Int64Value{Value: *uid}
		}
		out.RunAsUsername = username
	}
	if caps := sc.Capabilities; caps != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, a := range caps.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(a))
		}
		for _, d := range caps.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(d))
		}
	}
	if sc.ProcMount == nil || *sc.ProcMount == v1.DefaultProcMount {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(pod, volumes)
	var err error
	if out.Seccomp, err = s.seccomp(sc.SeccompProfile, out.Privileged); err != nil {
		return nil, err
	}
	out.Apparmor = appArmor(sc.AppArmorProfile)
	return out, nil
}

func (s Security) sandbox(pod *v1.Pod, userns *runtimeapi.UserNamespace) (*runtimeapi.LinuxSandboxSecurityContext, error) {
	out := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod, userns),
		// The sandbox runs nothing but a process that waits.
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	EachContainer(pod, func(c *v1.Container, _ Kind) {
		if c.SecurityContext != nil && yes(c.SecurityContext.Privileged) {
			out.Privileged = true
		}
	})
	if p := pod.Spec.SecurityContext; p != nil {
		out.RunAsUser, out.RunAsGroup = int64Value(p.RunAsUser), int64Value(p.RunAsGroup)
		out.SelinuxOptions = selinux(p.SELinuxOptions)
		out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(pod, nil)
	}
	return out, nil
}

// groups are what the pod's processes get besides their own group.
func groups(pod *v1.Pod, volumes map[string]Volume) ([]int64, runtimeapi.SupplementalGroupsPolicy) {
	var out []int64
	policy := runtimeapi.SupplementalGroupsPolicy_Merge
	if p := pod.Spec.SecurityContext; p != nil {
		if p.FSGroup != nil {
			out = append(out, *p.FSGroup)
		}
		out = append(out, p.SupplementalGroups...)
		if p.SupplementalGroupsPolicy != nil && *p.SupplementalGroupsPolicy == v1.SupplementalGroupsPolicyStrict {
			policy = runtimeapi.SupplementalGroupsPolicy_Strict
		}
	}
	for i := range pod.Spec.Volumes {
		if v, ok := volumes[pod.Spec.Volumes[i].Name]; ok && v.SupplementalGroup != nil {
			out = append(out, *v.SupplementalGroup)
		}
	}
	return out, policy
}

func namespaces(pod *v1.Pod, userns *runtimeapi.UserNamespace) *runtimeapi.NamespaceOption {
	out := &runtimeapi.NamespaceOption{
		Network:       runtimeapi.NamespaceMode_POD,
		Pid:           runtimeapi.NamespaceMode_CONTAINER,
		Ipc:           runtimeapi.NamespaceMode_POD,
		UsernsOptions: userns,
	}
	if pod.Spec.HostNetwork {
		out.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		out.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		out.Pid = runtimeapi.NamespaceMode_NODE
	case yes(pod.Spec.ShareProcessNamespace):
		out.Pid = runtimeapi.NamespaceMode_POD
	}
	return out
}

func (s Security) seccomp(p *v1.SeccompProfile, privileged bool) (*runtimeapi.SecurityProfile, error) {
	unconfined := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	runtimeDefault := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	switch {
	case privileged:
		return unconfined, nil
	case p == nil && s.SeccompDefault:
		return runtimeDefault, nil
	case p == nil || p.Type == v1.SeccompProfileTypeUnconfined:
		return unconfined, nil
	case p.Type == v1.SeccompProfileTypeRuntimeDefault:
		return runtimeDefault, nil
	case p.Type == v1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil && *p.LocalhostProfile != "":
		return &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: filepath.Join(s.SeccompRoot, *p.LocalhostProfile),
		}, nil
	}
	return nil, fmt.Errorf("localhostProfile must be set if seccompProfile type is Localhost")
}

func appArmor(p *v1.AppArmorProfile) *runtimeapi.SecurityProfile {
	switch {
	case p == nil:
		return nil
	case p.Type == v1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case p.Type == v1.AppArmorProfileTypeLocalhost && p.LocalhostProfile != nil:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *p.LocalhostProfile}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}

func selinux(o *v1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}

func yes(b *bool) bool { return b != nil && *b }

// imageUser splits the user that an image names as CRI reports it.
func imageUser(image *runtimeapi.Image) (uid *int64, username string) {
	if image.GetUid() != nil {
		v := image.GetUid().GetValue()
		return &v, ""
	}
	if name := image.GetUsername(); name != "" {
		if n, err := strconv.ParseInt(name, 10, 64); err == nil {
			return &n, ""
		}
		return nil, name
	}
	zero := int64(0)
	return &zero, ""
}
