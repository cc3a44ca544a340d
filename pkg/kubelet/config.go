package kubelet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	logsapi "k8s.io/component-base/logs/api/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/pkg/component"
)

const defaultVolumePluginDir = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"

// LoadConfig reads a KubeletConfiguration file; an unknown field is an error. Relative paths in it are relative to
// the file. It sets no defaults.
func LoadConfig(path string) (*kubeletconfig.KubeletConfiguration, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &kubeletconfig.KubeletConfiguration{}
	if err := yaml.UnmarshalStrict(raw, c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.Kind != "KubeletConfiguration" || c.APIVersion != kubeletconfig.SchemeGroupVersion.String() {
		return nil, fmt.Errorf("%s: %s %q is not a KubeletConfiguration of %s", path, c.APIVersion, c.Kind, kubeletconfig.SchemeGroupVersion)
	}
	for _, p := range []*string{&c.StaticPodPath, &c.Authentication.X509.ClientCAFile, &c.TLSCertFile, &c.TLSPrivateKeyFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	if c.ResolverConfig != nil && *c.ResolverConfig != "" && !filepath.IsAbs(*c.ResolverConfig) {
		*c.ResolverConfig = filepath.Join(filepath.Dir(path), *c.ResolverConfig)
	}
	return c, nil
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func orPointer[T any](v **T, d T) {
	if *v == nil {
		*v = &d
	}
}

func orDuration(v *metav1.Duration, d time.Duration) { orDefault(&v.Duration, d) }

// SetDefaults fills in what a configuration leaves open, as the original does.
func SetDefaults(c *kubeletconfig.KubeletConfiguration) {
	orPointer(&c.EnableServer, true)
	orDuration(&c.SyncFrequency, time.Minute)
	orDuration(&c.FileCheckFrequency, 20*time.Second)
	orDuration(&c.HTTPCheckFrequency, 20*time.Second)
	orDefault(&c.Address, "0.0.0.0")
	orDefault(&c.Port, 10250)
	orPointer(&c.Authentication.Anonymous.Enabled, false)
	orPointer(&c.Authentication.Webhook.Enabled, true)
	orDuration(&c.Authentication.Webhook.CacheTTL, 2*time.Minute)
	orDefault(&c.Authorization.Mode, kubeletconfig.KubeletAuthorizationModeWebhook)
	orDuration(&c.Authorization.Webhook.CacheAuthorizedTTL, 5*time.Minute)
	orDuration(&c.Authorization.Webhook.CacheUnauthorizedTTL, 30*time.Second)
	orPointer(&c.RegistryPullQPS, 5)
	orDefault(&c.RegistryBurst, 10)
	orPointer(&c.EventRecordQPS, 50)
	orDefault(&c.EventBurst, 100)
	orPointer(&c.EnableDebuggingHandlers, true)
	orPointer(&c.HealthzPort, 10248)
	orDefault(&c.HealthzBindAddress, "127.0.0.1")
	orPointer(&c.OOMScoreAdj, -999)
	orDuration(&c.StreamingConnectionIdleTimeout, 4*time.Hour)
	if c.NodeStatusUpdateFrequency.Duration != 0 {
		orDuration(&c.NodeStatusReportFrequency, c.NodeStatusUpdateFrequency.Duration)
	}
	orDuration(&c.NodeStatusReportFrequency, 5*time.Minute)
	orDuration(&c.NodeStatusUpdateFrequency, 10*time.Second)
	orDefault(&c.NodeLeaseDurationSeconds, 40)
	orDuration(&c.ImageMinimumGCAge, 2*time.Minute)
	orPointer(&c.ImageGCHighThresholdPercent, 85)
	orPointer(&c.ImageGCLowThresholdPercent, 80)
	orDuration(&c.VolumeStatsAggPeriod, time.Minute)
	orPointer(&c.CgroupsPerQOS, true)
	orDefault(&c.CgroupDriver, "cgroupfs")
	orDefault(&c.CPUManagerPolicy, "none")
	orDuration(&c.CPUManagerReconcilePeriod, 10*time.Second)
	orDefault(&c.MemoryManagerPolicy, kubeletconfig.NoneMemoryManagerPolicy)
	orDefault(&c.TopologyManagerPolicy, kubeletconfig.NoneTopologyManagerPolicy)
	orDefault(&c.TopologyManagerScope, kubeletconfig.ContainerTopologyManagerScope)
	orDuration(&c.RuntimeRequestTimeout, 2*time.Minute)
	orDefault(&c.HairpinMode, kubeletconfig.PromiscuousBridge)
	orDefault(&c.MaxPods, 110)
	if c.PodPidsLimit == nil || *c.PodPidsLimit < 0 {
		none := int64(-1)
		c.PodPidsLimit = &none
	}
	orPointer(&c.ResolverConfig, "/etc/resolv.conf")
	orPointer(&c.CPUCFSQuota, true)
	orPointer(&c.CPUCFSQuotaPeriod, metav1.Duration{Duration: 100 * time.Millisecond})
	orPointer(&c.NodeStatusMaxImages, 50)
	orDefault(&c.MaxOpenFiles, 1000000)
	orDefault(&c.ContentType, "application/vnd.kubernetes.protobuf")
	orPointer(&c.KubeAPIQPS, 50)
	orDefault(&c.KubeAPIBurst, 100)
	orPointer(&c.SerializeImagePulls, c.MaxParallelImagePulls == nil || *c.MaxParallelImagePulls < 2)
	orDuration(&c.EvictionPressureTransitionPeriod, 5*time.Minute)
	orPointer(&c.MergeDefaultEvictionSettings, false)
	orPointer(&c.EnableControllerAttachDetach, true)
	orPointer(&c.MakeIPTablesUtilChains, true)
	orPointer(&c.IPTablesMasqueradeBit, 14)
	orPointer(&c.IPTablesDropBit, 15)
	orPointer(&c.FailSwapOn, true)
	orDefault(&c.ContainerLogMaxSize, "10Mi")
	orPointer(&c.ContainerLogMaxFiles, 5)
	orPointer(&c.ContainerLogMaxWorkers, 1)
	orPointer(&c.ContainerLogMonitorInterval, metav1.Duration{Duration: 10 * time.Second})
	orDefault(&c.ConfigMapAndSecretChangeDetectionStrategy, kubeletconfig.WatchChangeDetectionStrategy)
	if c.EnforceNodeAllocatable == nil {
		c.EnforceNodeAllocatable = []string{"pods"}
	}
	orDefault(&c.VolumePluginDir, defaultVolumePluginDir)
	logsapi.SetRecommendedLoggingConfiguration(&c.Logging)
	orPointer(&c.EnableSystemLogHandler, true)
	orPointer(&c.EnableProfilingHandler, true)
	orPointer(&c.EnableDebugFlagsHandler, true)
	orPointer(&c.SeccompDefault, false)
	orPointer(&c.FailCgroupV1, true)
	orDefault(&c.MemoryReservationPolicy, kubeletconfig.NoneMemoryReservationPolicy)
	orPointer(&c.RegisterNode, true)
	orPointer(&c.LocalStorageCapacityIsolation, true)
	orDefault(&c.ContainerRuntimeEndpoint, "unix:///run/containerd/containerd.sock")
	orDefault(&c.PodLogsDir, "/var/log/pods")
	orPointer(&c.CrashLoopBackOff.MaxContainerRestartPeriod, metav1.Duration{Duration: 300 * time.Second})
	orDefault(&c.ImagePullCredentialsVerificationPolicy, kubeletconfig.NeverVerifyPreloadedImages)
}

// Validate reports everything that is wrong with a configuration that has its defaults. What this kubelet has not
// is an error, too, rather than silently without effect.
func Validate(c *kubeletconfig.KubeletConfiguration) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	port := func(field string, p int32) {
		if p < 0 || p > 65535 {
			bad("%s: %d is not a port", field, p)
		}
	}
	port("port", c.Port)
	port("healthzPort", *c.HealthzPort)
	for field, ip := range map[string]string{"address": c.Address, "healthzBindAddress": c.HealthzBindAddress} {
		if net.ParseIP(ip) == nil {
			bad("%s: %q is not an IP address", field, ip)
		}
	}
	for _, ip := range c.ClusterDNS {
		if net.ParseIP(ip) == nil {
			bad("clusterDNS: %q is not an IP address", ip)
		}
	}
	if c.ClusterDomain != "" {
		for _, msg := range validation.IsDNS1123Subdomain(c.ClusterDomain) {
			bad("clusterDomain: %q: %s", c.ClusterDomain, msg)
		}
	}
	for field, v := range map[string]int64{
		"eventBurst": int64(c.EventBurst), "eventRecordQPS": int64(*c.EventRecordQPS), "registryBurst": int64(c.RegistryBurst),
		"registryPullQPS": int64(*c.RegistryPullQPS), "kubeAPIQPS": int64(*c.KubeAPIQPS), "kubeAPIBurst": int64(c.KubeAPIBurst),
		"maxPods": int64(c.MaxPods), "podsPerCore": int64(c.PodsPerCore), "maxOpenFiles": c.MaxOpenFiles,
	} {
		if v < 0 {
			bad("%s: %d must not be negative", field, v)
		}
	}
	if *c.OOMScoreAdj < -1000 || *c.OOMScoreAdj > 1000 {
		bad("oomScoreAdj: %d is not between -1000 and 1000", *c.OOMScoreAdj)
	}
	if c.NodeLeaseDurationSeconds <= 0 {
		bad("nodeLeaseDurationSeconds: %d must be positive", c.NodeLeaseDurationSeconds)
	}
	if p := c.CPUCFSQuotaPeriod.Duration; p < time.Millisecond || p > time.Second {
		bad("cpuCFSQuotaPeriod: %s is not between 1ms and 1s", p)
	}
	if p := c.CrashLoopBackOff.MaxContainerRestartPeriod.Duration; p < time.Second || p > 300*time.Second {
		bad("crashLoopBackOff.maxContainerRestartPeriod: %s is not between 1s and 300s", p)
	}
	if *c.ContainerLogMaxFiles < 2 {
		bad("containerLogMaxFiles: %d is less than 2", *c.ContainerLogMaxFiles)
	}
	if c.MaxParallelImagePulls != nil && *c.MaxParallelImagePulls > 1 && *c.SerializeImagePulls {
		bad("maxParallelImagePulls: cannot be larger than 1 unless serializeImagePulls is false")
	}
	for _, s := range c.EnforceNodeAllocatable {
		if !slices.Contains([]string{"none", "pods", "system-reserved", "kube-reserved", "system-reserved-compressible", "kube-reserved-compressible"}, s) {
			bad("enforceNodeAllocatable: %q is not a level", s)
		}
		switch name, compressible := strings.CutSuffix(s, "-compressible"); {
		case name == "system-reserved" && c.SystemReservedCgroup == "":
			bad("systemReservedCgroup: must be given for enforceNodeAllocatable to contain %q", s)
		case name == "kube-reserved" && c.KubeReservedCgroup == "":
			bad("kubeReservedCgroup: must be given for enforceNodeAllocatable to contain %q", s)
		case compressible && slices.Contains(c.EnforceNodeAllocatable, name):
			bad("enforceNodeAllocatable: cannot contain both %q and %q", name, s)
		case s == "none" && len(c.EnforceNodeAllocatable) > 1:
			bad("enforceNodeAllocatable: cannot contain more than %q", s)
		}
	}
	if modes := []string{kubeletconfig.PromiscuousBridge, kubeletconfig.HairpinVeth, kubeletconfig.HairpinNone}; !slices.Contains(modes, c.HairpinMode) {
		bad("hairpinMode: %q is none of %s", c.HairpinMode, strings.Join(modes, ", "))
	}
	if c.MaxPods > 0 && c.PodLogsDir != "" && !filepath.IsAbs(c.PodLogsDir) {
		bad("podLogsDir: %q is not an absolute path", c.PodLogsDir)
	}
	if d := c.ShutdownGracePeriod.Duration; d != 0 && d < c.ShutdownGracePeriodCriticalPods.Duration {
		bad("shutdownGracePeriodCriticalPods: must not be longer than shutdownGracePeriod")
	}
	errs = append(errs, unsupported(c)...)
	return errors.Join(errs...)
}

// unsupported are settings that ask for what this kubelet does not have.
func unsupported(c *kubeletconfig.KubeletConfiguration) []error {
	var errs []error
	no := func(field string, asked bool, why string) {
		if asked {
			errs = append(errs, fmt.Errorf("%s: %s", field, why))
		}
	}
	no("cpuManagerPolicy", c.CPUManagerPolicy != "none", "only none is available")
	no("memoryManagerPolicy", c.MemoryManagerPolicy != kubeletconfig.NoneMemoryManagerPolicy, "only None is available")
	no("topologyManagerPolicy", c.TopologyManagerPolicy != kubeletconfig.NoneTopologyManagerPolicy, "only none is available")
	no("staticPodURL", c.StaticPodURL != "", "static pods are read from files only")
	no("runOnce", c.RunOnce, "is no longer available")
	no("readOnlyPort", c.ReadOnlyPort != 0, "this kubelet answers only clients that it knows; set it to 0")
	no("podsPerCore", c.PodsPerCore != 0 && c.MaxPods == 0, "needs maxPods")
	no("memorySwap.swapBehavior", c.MemorySwap.SwapBehavior != "" && c.MemorySwap.SwapBehavior != "NoSwap", "only NoSwap is available")
	no("userNamespaces.idsPerPod", c.UserNamespaces != nil && c.UserNamespaces.IDsPerPod != nil && *c.UserNamespaces.IDsPerPod != 65536, "only 65536 is available")
	no("shutdownGracePeriod", c.ShutdownGracePeriod.Duration != 0 || len(c.ShutdownGracePeriodByPodPriority) > 0, "graceful node shutdown is not available")
	no("tracing", c.Tracing != nil && c.Tracing.Endpoint != nil, "is not available")
	no("qosReserved", len(c.QOSReserved) > 0, "is not available")
	no("protectKernelDefaults", c.ProtectKernelDefaults, "is not available")
	no("cpuManagerPolicyOptions", len(c.CPUManagerPolicyOptions) > 0, "the policy none has no options")
	no("topologyManagerPolicyOptions", len(c.TopologyManagerPolicyOptions) > 0, "the policy none has no options")
	no("topologyManagerScope", c.TopologyManagerScope != kubeletconfig.ContainerTopologyManagerScope, "only container is available")
	no("reservedSystemCPUs", c.ReservedSystemCPUs != "", "is not available; reserve a quantity of CPU with systemReserved")
	no("reservedMemory", len(c.ReservedMemory) > 0, "needs a policy of the memory manager that is not available")
	no("memoryReservationPolicy", c.MemoryReservationPolicy != kubeletconfig.NoneMemoryReservationPolicy, "only None is available")
	no("memoryThrottlingFactor", c.MemoryThrottlingFactor != nil, "needs the feature gate MemoryQoS, which is off")
	no("staticPodURLHeader", len(c.StaticPodURLHeader) > 0, "static pods are read from files only")
	no("enableSystemLogQuery", c.EnableSystemLogQuery != nil && *c.EnableSystemLogQuery, "is not available")
	no("enableControllerAttachDetach", !*c.EnableControllerAttachDetach, "this kubelet attaches no volumes itself")
	no("localStorageCapacityIsolation", !*c.LocalStorageCapacityIsolation, "local storage is always accounted for")
	drivers, _ := os.ReadDir(c.VolumePluginDir) // a directory that is not there has none
	no("volumePluginDir", len(drivers) > 0, "FlexVolume drivers are not available, but there are some in "+c.VolumePluginDir)
	no("kubeletCgroups", c.KubeletCgroups != "", "the kubelet stays in the cgroup that it was started in")
	no("systemCgroups", c.SystemCgroups != "", "the system's processes stay in their cgroups")
	no("showHiddenMetricsForVersion", c.ShowHiddenMetricsForVersion != "", "no metrics are hidden")
	if err := component.CheckFeatureGates(c.FeatureGates, gateGroupClaims, gateWorkload); err != nil {
		errs = append(errs, fmt.Errorf("featureGates: %w", err))
	}
	if c.FeatureGates[gateGroupClaims] && !c.FeatureGates[gateWorkload] {
		errs = append(errs, fmt.Errorf("featureGates: %s is enabled, but depends on features that are disabled: [%s]", gateGroupClaims, gateWorkload))
	}
	return errs
}

// The feature gates that can be switched: pods use ResourceClaims of their PodGroup, where there are such.
const (
	gateGroupClaims = "DRAWorkloadResourceClaims"
	gateWorkload    = "GenericWorkload"
)

// withoutEffect are settings of a configuration with its defaults that make no
// difference to this kubelet, and why. Nothing is missing for that.
func withoutEffect(c *kubeletconfig.KubeletConfiguration) map[string]string {
	defaults := &kubeletconfig.KubeletConfiguration{}
	SetDefaults(defaults)
	fields := map[string]string{}
	idle := func(field string, changed bool, why string) {
		if changed {
			fields[field] = why
		}
	}
	idle("syncFrequency", c.SyncFrequency != defaults.SyncFrequency, "pods are looked at when something happens to them, not at intervals")
	idle("fileCheckFrequency", c.FileCheckFrequency != defaults.FileCheckFrequency, "the files of static pods are watched")
	idle("httpCheckFrequency", c.HTTPCheckFrequency != defaults.HTTPCheckFrequency, "static pods are read from files only")
	idle("cpuManagerReconcilePeriod", c.CPUManagerReconcilePeriod != defaults.CPUManagerReconcilePeriod, "the policy none has nothing to reconcile")
	idle("configMapAndSecretChangeDetectionStrategy", c.ConfigMapAndSecretChangeDetectionStrategy != defaults.ConfigMapAndSecretChangeDetectionStrategy, "ConfigMaps and Secrets of pods are watched")
	idle("kernelMemcgNotification", c.KernelMemcgNotification, "memory is looked at often enough without")
	idle("maxOpenFiles", c.MaxOpenFiles != defaults.MaxOpenFiles, "the limit of open files is that of whoever started the kubelet")
	idle("iptablesMasqueradeBit", *c.IPTablesMasqueradeBit != *defaults.IPTablesMasqueradeBit, "the kubelet writes no rules of iptables")
	idle("iptablesDropBit", *c.IPTablesDropBit != *defaults.IPTablesDropBit, "the kubelet writes no rules of iptables")
	idle("logging", component.AsksForLogging(&c.Logging), "the flags decide how to log")
	return fields
}

// mergeDropIns lays the *.conf files of a directory, in the order of their names, over a configuration.
func mergeDropIns(c *kubeletconfig.KubeletConfiguration, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".conf") {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if err := yaml.UnmarshalStrict(raw, c); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return nil
}
