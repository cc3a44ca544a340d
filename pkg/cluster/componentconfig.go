package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// kubeletConfig is the kubelet's configuration file.
func kubeletConfig(d dataDir, n *nodeSpec) *kubeletv1beta1.KubeletConfiguration {
	c := &kubeletv1beta1.KubeletConfiguration{
		TypeMeta:                 metav1.TypeMeta{APIVersion: "kubelet.config.k8s.io/v1beta1", Kind: "KubeletConfiguration"},
		Port:                     int32(n.Ports.Kubelet),
		HealthzPort:              ptr.To(int32(n.Ports.KubeletHealth)),
		HealthzBindAddress:       "127.0.0.1",
		TLSCertFile:              d.pki("kubelet.crt"),
		TLSPrivateKeyFile:        d.pki("kubelet.key"),
		RotateCertificates:       false, // `leme up` renews them
		ClusterDomain:            n.DNSDomain,
		ClusterDNS:               []string{n.DNSIP},
		ResolverConfig:           ptr.To(d.config("resolv.conf")),
		ContainerRuntimeEndpoint: "unix://" + d.containerdSocket(),
		CgroupDriver:             "cgroupfs",
		CgroupRoot:               n.CgroupRoot,
		FailCgroupV1:             ptr.To(false),
		FailSwapOn:               ptr.To(false),
		StaticPodPath:            d.path("manifests"),
		PodLogsDir:               d.path("log", "pods"),
		VolumePluginDir:          d.path("kubelet", "volume-plugins"),
		RegisterWithTaints:       n.Taints,
		// A laptop's disk is often nearly full: only what would soon stop the node counts.
		EvictionHard:                map[string]string{"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi", "nodefs.inodesFree": "1%"},
		ImageGCHighThresholdPercent: ptr.To(int32(100)),
		ImageGCLowThresholdPercent:  ptr.To(int32(99)),
		MaxPods:                     110,
		// A single node has all the machine's pods to start.
		SerializeImagePulls:            ptr.To(false),
		ShutdownGracePeriod:            metav1.Duration{},
		NodeStatusReportFrequency:      metav1.Duration{Duration: 5 * time.Minute},
		RuntimeRequestTimeout:          metav1.Duration{Duration: 2 * time.Minute},
		ServerTLSBootstrap:             false,
		EnableControllerAttachDetach:   ptr.To(true),
		EnableSystemLogHandler:         ptr.To(true),
		EnableProfilingHandler:         ptr.To(true),
		EnableDebuggingHandlers:        ptr.To(true),
		StreamingConnectionIdleTimeout: metav1.Duration{Duration: 4 * time.Hour},
	}
	c.Authentication.X509.ClientCAFile = d.pki("ca.crt")
	c.Authentication.Anonymous.Enabled = ptr.To(false)
	c.Authentication.Webhook.Enabled = ptr.To(true)
	c.Authorization.Mode = kubeletv1beta1.KubeletAuthorizationModeWebhook
	return c
}

// proxyConfig is the proxy's configuration file.
func proxyConfig(d dataDir, n *nodeSpec) *kubeproxyv1alpha1.KubeProxyConfiguration {
	c := &kubeproxyv1alpha1.KubeProxyConfiguration{
		TypeMeta:           metav1.TypeMeta{APIVersion: "kubeproxy.config.k8s.io/v1alpha1", Kind: "KubeProxyConfiguration"},
		Mode:               "nftables",
		ClusterCIDR:        n.ClusterCIDR,
		HealthzBindAddress: fmt.Sprintf("127.0.0.1:%d", n.Ports.ProxyHealth),
		MetricsBindAddress: fmt.Sprintf("127.0.0.1:%d", n.Ports.ProxyMetrics),
	}
	c.ClientConnection.Kubeconfig = d.kubeconfig("kube-proxy")
	return c
}

func writeComponentConfigs(d dataDir, n *nodeSpec) error {
	for file, c := range map[string]any{"kubelet.yaml": kubeletConfig(d, n), "kube-proxy.yaml": proxyConfig(d, n)} {
		data, err := yaml.Marshal(c)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := writeFile(d.config(file), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func joinLabels(labels map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, k+"="+labels[k])
	}
	return strings.Join(out, ",")
}
