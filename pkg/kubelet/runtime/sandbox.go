package runtime

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// SandboxConfig generates the configuration of a pod's sandbox.
func (r *Runtime) SandboxConfig(pod *v1.Pod, attempt uint32, cgroupParent string) (*runtimeapi.PodSandboxConfig, error) {
	dns, warning, err := r.DNS.Config(pod)
	if err != nil {
		return nil, fmt.Errorf("generating the resolver configuration: %w", err)
	}
	if warning != "" {
		r.warnOnce(pod, "DNSConfigForming", warning)
	}
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		Labels:       sandboxLabels(pod),
		Annotations:  pod.Annotations,
		DnsConfig:    dns,
		LogDirectory: PodLogDir(r.LogDir, pod.Namespace, pod.Name, pod.UID),
	}
	if !pod.Spec.HostNetwork {
		if config.Hostname, err = kernelHostName(pod, r.DNS.ClusterDomain); err != nil {
			return nil, err
		}
		EachContainer(pod, func(c *v1.Container, kind Kind) {
			if kind == Regular || kind == Sidecar {
				config.PortMappings = append(config.PortMappings, portMappings(c)...)
			}
		})
	} else if config.Hostname, err = r.hostNetworkName(pod); err != nil {
		return nil, err
	}
	userns, err := r.users.mapping(pod)
	if err != nil {
		return nil, err
	}
	security, err := r.Security.sandbox(pod, userns)
	if err != nil {
		return nil, err
	}
	config.Linux = &runtimeapi.LinuxPodSandboxConfig{
		CgroupParent:    cgroupParent,
		SecurityContext: security,
		Sysctls:         r.sysctls(pod),
		Resources:       r.Limits.Pod(pod),
	}
	if pod.Spec.Overhead != nil {
		config.Linux.Overhead = r.Limits.cgroup(nil, pod.Spec.Overhead)
	}
	return config, nil
}

// hostNetworkName leaves the host's name to a pod in the host's network, unless the pod insists.
func (r *Runtime) hostNetworkName(pod *v1.Pod) (string, error) {
	if pod.Spec.HostnameOverride != nil {
		return *pod.Spec.HostnameOverride, nil
	}
	return "", nil
}

func portMappings(c *v1.Container) []*runtimeapi.PortMapping {
	var out []*runtimeapi.PortMapping
	for _, p := range c.Ports {
		out = append(out, &runtimeapi.PortMapping{
			Protocol:      protocol(p.Protocol),
			ContainerPort: p.ContainerPort,
			HostPort:      p.HostPort,
			HostIp:        p.HostIP,
		})
	}
	return out
}

func protocol(p v1.Protocol) runtimeapi.Protocol {
	switch p {
	case v1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case v1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}

func (r *Runtime) sysctls(pod *v1.Pod) map[string]string {
	out := map[string]string{}
	for name, value := range r.DefaultSysctls {
		out[name] = value
	}
	if p := pod.Spec.SecurityContext; p != nil {
		for _, s := range p.Sysctls {
			out[s.Name] = s.Value
		}
	}
	return out
}
