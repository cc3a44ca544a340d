package kubelet

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
)

// configFlags are the flags that stand for fields of the configuration. A flag that is given wins over the file.
var configFlags = []struct {
	name, usage string
	field       func(c *kubeletconfig.KubeletConfiguration) any
}{
	{"address", "IP address to serve on", func(c *kubeletconfig.KubeletConfiguration) any { return &c.Address }},
	{"allowed-unsafe-sysctls", "Patterns of sysctls, ending in * perhaps, that pods may set although they are unsafe", func(c *kubeletconfig.KubeletConfiguration) any { return &c.AllowedUnsafeSysctls }},
	{"anonymous-auth", "Let clients that do not say who they are pass as system:anonymous", func(c *kubeletconfig.KubeletConfiguration) any { return &c.Authentication.Anonymous.Enabled }},
	{"authentication-token-webhook", "Ask the API server whose a bearer token is", func(c *kubeletconfig.KubeletConfiguration) any { return &c.Authentication.Webhook.Enabled }},
	{"authorization-mode", "AlwaysAllow or Webhook", func(c *kubeletconfig.KubeletConfiguration) any { return &c.Authorization.Mode }},
	{"cgroup-driver", "cgroupfs or systemd", func(c *kubeletconfig.KubeletConfiguration) any { return &c.CgroupDriver }},
	{"cgroup-root", "Cgroup below which pods run", func(c *kubeletconfig.KubeletConfiguration) any { return &c.CgroupRoot }},
	{"cgroups-per-qos", "Keep a hierarchy of cgroups for classes and pods", func(c *kubeletconfig.KubeletConfiguration) any { return &c.CgroupsPerQOS }},
	{"client-ca-file", "CA of client certificates", func(c *kubeletconfig.KubeletConfiguration) any { return &c.Authentication.X509.ClientCAFile }},
	{"cluster-dns", "IP addresses of the cluster's DNS", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ClusterDNS }},
	{"cluster-domain", "Domain of the cluster", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ClusterDomain }},
	{"container-log-max-files", "Number of log files that a container may have", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ContainerLogMaxFiles }},
	{"container-log-max-size", "Size at which a container's log is rotated", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ContainerLogMaxSize }},
	{"container-runtime-endpoint", "Endpoint of the container runtime (unix://…)", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ContainerRuntimeEndpoint }},
	{"cpu-cfs-quota", "Enforce CPU limits", func(c *kubeletconfig.KubeletConfiguration) any { return &c.CPUCFSQuota }},
	{"cpu-cfs-quota-period", "Period of CPU limits", func(c *kubeletconfig.KubeletConfiguration) any { return &c.CPUCFSQuotaPeriod }},
	{"enable-server", "Serve the kubelet's API", func(c *kubeletconfig.KubeletConfiguration) any { return &c.EnableServer }},
	{"enforce-node-allocatable", "What is held to the node's allocatable: none, or of pods, system-reserved, kube-reserved", func(c *kubeletconfig.KubeletConfiguration) any { return &c.EnforceNodeAllocatable }},
	{"event-burst", "Burst of events above event-qps", func(c *kubeletconfig.KubeletConfiguration) any { return &c.EventBurst }},
	{"event-qps", "Events a second; 0 for no limit", func(c *kubeletconfig.KubeletConfiguration) any { return &c.EventRecordQPS }},
	{"eviction-hard", "Thresholds at which pods are evicted at once (memory.available<100Mi,…)", func(c *kubeletconfig.KubeletConfiguration) any { return (*thresholds)(&c.EvictionHard) }},
	{"eviction-soft", "Thresholds at which pods are evicted after a grace period", func(c *kubeletconfig.KubeletConfiguration) any { return (*thresholds)(&c.EvictionSoft) }},
	{"eviction-soft-grace-period", "Grace periods of the soft thresholds", func(c *kubeletconfig.KubeletConfiguration) any { return &c.EvictionSoftGracePeriod }},
	{"fail-cgroupv1", "Do not start on a machine with cgroup v1", func(c *kubeletconfig.KubeletConfiguration) any { return &c.FailCgroupV1 }},
	{"fail-swap-on", "Do not start on a machine with swap", func(c *kubeletconfig.KubeletConfiguration) any { return &c.FailSwapOn }},
	{"feature-gates", "Features to switch on and off (Name=true,…)", func(c *kubeletconfig.KubeletConfiguration) any { return &c.FeatureGates }},
	{"healthz-bind-address", "IP address of the health port", func(c *kubeletconfig.KubeletConfiguration) any { return &c.HealthzBindAddress }},
	{"healthz-port", "Health port on the local machine; 0 for none", func(c *kubeletconfig.KubeletConfiguration) any { return &c.HealthzPort }},
	{"image-gc-high-threshold", "Percentage of disk usage above which unused images are removed", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ImageGCHighThresholdPercent }},
	{"image-gc-low-threshold", "Percentage of disk usage down to which they are", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ImageGCLowThresholdPercent }},
	{"image-service-endpoint", "Endpoint of the image service, if it is not the runtime's", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ImageServiceEndpoint }},
	{"kube-api-burst", "Burst of requests above kube-api-qps", func(c *kubeletconfig.KubeletConfiguration) any { return &c.KubeAPIBurst }},
	{"kube-api-qps", "Requests a second to the API server", func(c *kubeletconfig.KubeletConfiguration) any { return &c.KubeAPIQPS }},
	{"kube-reserved", "What Kubernetes itself keeps of the machine (cpu=100m,memory=…)", func(c *kubeletconfig.KubeletConfiguration) any { return &c.KubeReserved }},
	{"kube-reserved-cgroup", "Cgroup of Kubernetes' daemons", func(c *kubeletconfig.KubeletConfiguration) any { return &c.KubeReservedCgroup }},
	{"kubelet-cgroups", "Cgroup of the kubelet", func(c *kubeletconfig.KubeletConfiguration) any { return &c.KubeletCgroups }},
	{"max-pods", "Number of pods that the node takes", func(c *kubeletconfig.KubeletConfiguration) any { return &c.MaxPods }},
	{"node-status-max-images", "Number of images in the node's status; -1 for all", func(c *kubeletconfig.KubeletConfiguration) any { return &c.NodeStatusMaxImages }},
	{"node-status-update-frequency", "Time between two looks at the node's status", func(c *kubeletconfig.KubeletConfiguration) any { return &c.NodeStatusUpdateFrequency }},
	{"oom-score-adj", "oom_score_adj of the kubelet", func(c *kubeletconfig.KubeletConfiguration) any { return &c.OOMScoreAdj }},
	{"pod-cidr", "Pod CIDR of a node without an API server", func(c *kubeletconfig.KubeletConfiguration) any { return &c.PodCIDR }},
	{"pod-manifest-path", "Directory, or file, of static pods", func(c *kubeletconfig.KubeletConfiguration) any { return &c.StaticPodPath }},
	{"pod-max-pids", "Processes that a pod may have; -1 for no limit", func(c *kubeletconfig.KubeletConfiguration) any { return &c.PodPidsLimit }},
	{"port", "Port of the kubelet's API", func(c *kubeletconfig.KubeletConfiguration) any { return &c.Port }},
	{"provider-id", "The machine's name at its cloud provider", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ProviderID }},
	{"read-only-port", "Must be 0", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ReadOnlyPort }},
	{"register-node", "Register the node with the API server", func(c *kubeletconfig.KubeletConfiguration) any { return &c.RegisterNode }},
	{"register-with-taints", "Taints to register with (key=value:effect,…)", func(c *kubeletconfig.KubeletConfiguration) any { return &c.RegisterWithTaints }},
	{"registry-burst", "Burst of image pulls above registry-qps", func(c *kubeletconfig.KubeletConfiguration) any { return &c.RegistryBurst }},
	{"registry-qps", "Image pulls a second; 0 for no limit", func(c *kubeletconfig.KubeletConfiguration) any { return &c.RegistryPullQPS }},
	{"resolv-conf", "The node's resolver configuration", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ResolverConfig }},
	{"rotate-certificates", "Renew the client certificate", func(c *kubeletconfig.KubeletConfiguration) any { return &c.RotateCertificates }},
	{"rotate-server-certificates", "Have the cluster sign the serving certificate", func(c *kubeletconfig.KubeletConfiguration) any { return &c.ServerTLSBootstrap }},
	{"runtime-request-timeout", "Time that a call of the runtime may take", func(c *kubeletconfig.KubeletConfiguration) any { return &c.RuntimeRequestTimeout }},
	{"seccomp-default", "Confine containers that ask for no seccomp profile", func(c *kubeletconfig.KubeletConfiguration) any { return &c.SeccompDefault }},
	{"serialize-image-pulls", "Pull one image at a time", func(c *kubeletconfig.KubeletConfiguration) any { return &c.SerializeImagePulls }},
	{"streaming-connection-idle-timeout", "Time after which an idle exec or port-forward ends", func(c *kubeletconfig.KubeletConfiguration) any { return &c.StreamingConnectionIdleTimeout }},
	{"system-reserved", "What the system keeps of the machine", func(c *kubeletconfig.KubeletConfiguration) any { return &c.SystemReserved }},
	{"system-reserved-cgroup", "Cgroup of the system's daemons", func(c *kubeletconfig.KubeletConfiguration) any { return &c.SystemReservedCgroup }},
	{"tls-cert-file", "Serving certificate", func(c *kubeletconfig.KubeletConfiguration) any { return &c.TLSCertFile }},
	{"tls-cipher-suites", "Cipher suites", func(c *kubeletconfig.KubeletConfiguration) any { return &c.TLSCipherSuites }},
	{"tls-min-version", "Least TLS version", func(c *kubeletconfig.KubeletConfiguration) any { return &c.TLSMinVersion }},
	{"tls-private-key-file", "Key of the serving certificate", func(c *kubeletconfig.KubeletConfiguration) any { return &c.TLSPrivateKeyFile }},
}

type thresholds map[string]string

// override is a flag's value: it is kept until the file has been read.
type override struct {
	o     *Options
	field func(c *kubeletconfig.KubeletConfiguration) any
	last  string
}

func (v *override) String() string { return v.last }

func (v *override) Type() string {
	switch v.field(&kubeletconfig.KubeletConfiguration{}).(type) {
	case *bool, **bool:
		return "bool"
	case *int32, **int32, **int64:
		return "int"
	case *metav1.Duration, **metav1.Duration:
		return "duration"
	}
	return "string"
}

func (v *override) Set(s string) error {
	if err := parseInto(v.field(&kubeletconfig.KubeletConfiguration{}), s); err != nil {
		return err
	}
	v.last = s
	v.o.overrides = append(v.o.overrides, func(c *kubeletconfig.KubeletConfiguration) error { return parseInto(v.field(c), s) })
	return nil
}

func addConfigFlags(fs *pflag.FlagSet, o *Options) {
	for _, f := range configFlags {
		v := &override{o: o, field: f.field}
		flag := fs.VarPF(v, f.name, "", f.usage)
		if v.Type() == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
}

// parseInto parses a flag's value into a field of the configuration.
func parseInto(field any, s string) error {
	var err error
	switch p := field.(type) {
	case *string:
		*p = s
	case **string:
		*p = &s
	case *kubeletconfig.KubeletAuthorizationMode:
		*p = kubeletconfig.KubeletAuthorizationMode(s)
	case *bool:
		*p, err = strconv.ParseBool(s)
	case **bool:
		var b bool
		b, err = strconv.ParseBool(s)
		*p = &b
	case *int32:
		var n int64
		n, err = strconv.ParseInt(s, 10, 32)
		*p = int32(n)
	case **int32:
		var n int64
		n, err = strconv.ParseInt(s, 10, 32)
		n32 := int32(n)
		*p = &n32
	case **int64:
		var n int64
		n, err = strconv.ParseInt(s, 10, 64)
		*p = &n
	case *metav1.Duration:
		p.Duration, err = time.ParseDuration(s)
	case **metav1.Duration:
		var d time.Duration
		d, err = time.ParseDuration(s)
		*p = &metav1.Duration{Duration: d}
	case *[]string:
		*p = split(s)
	case *map[string]string:
		*p, err = parseMap(s, "=")
	case *thresholds:
		*p, err = parseMap(s, "<")
	case *map[string]bool:
		*p = map[string]bool{}
		var m map[string]string
		m, err = parseMap(s, "=")
		for k, v := range m {
			if (*p)[k], err = strconv.ParseBool(v); err != nil {
				return err
			}
		}
	case *[]v1.Taint:
		*p, err = parseTaints(s)
	default:
		err = fmt.Errorf("no flag can set a %T", field)
	}
	return err
}

func split(s string) []string {
	if s == "" {
		return []string{}
	}
	return strings.Split(s, ",")
}

func parseMap(s, separator string) (map[string]string, error) {
	m := map[string]string{}
	for _, pair := range split(s) {
		k, v, ok := strings.Cut(pair, separator)
		if !ok {
			return nil, fmt.Errorf("%q is not of the form key%svalue", pair, separator)
		}
		m[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	return m, nil
}

func parseTaints(s string) ([]v1.Taint, error) {
	var out []v1.Taint
	for _, t := range split(s) {
		kv, effect, ok := strings.Cut(t, ":")
		if !ok {
			return nil, fmt.Errorf("%q is not of the form key=value:effect", t)
		}
		switch v1.TaintEffect(effect) {
		case v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute:
		default:
			return nil, fmt.Errorf("%q is not an effect of a taint", effect)
		}
		k, v, _ := strings.Cut(kv, "=")
		out = append(out, v1.Taint{Key: k, Value: v, Effect: v1.TaintEffect(effect)})
	}
	return out, nil
}
