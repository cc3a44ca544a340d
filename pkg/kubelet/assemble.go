package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/clock"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
	"github.com/leme-k8s/leme/pkg/kubelet/certificates"
	"github.com/leme-k8s/leme/pkg/kubelet/csi"
	"github.com/leme-k8s/leme/pkg/kubelet/devices"
	"github.com/leme-k8s/leme/pkg/kubelet/dra"
	"github.com/leme-k8s/leme/pkg/kubelet/eviction"
	"github.com/leme-k8s/leme/pkg/kubelet/images"
	"github.com/leme-k8s/leme/pkg/kubelet/logs"
	"github.com/leme-k8s/leme/pkg/kubelet/node"
	"github.com/leme-k8s/leme/pkg/kubelet/objects"
	"github.com/leme-k8s/leme/pkg/kubelet/plugins"
	"github.com/leme-k8s/leme/pkg/kubelet/podcertificates"
	"github.com/leme-k8s/leme/pkg/kubelet/pods"
	"github.com/leme-k8s/leme/pkg/kubelet/probes"
	"github.com/leme-k8s/leme/pkg/kubelet/resources"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
	"github.com/leme-k8s/leme/pkg/kubelet/server"
	"github.com/leme-k8s/leme/pkg/kubelet/stats"
	"github.com/leme-k8s/leme/pkg/kubelet/status"
	"github.com/leme-k8s/leme/pkg/kubelet/volumes"
)

// A room is a part of the kubelet that runs until its context is cancelled. An error means that the
// kubelet cannot go on.
type room func(context.Context) error

func quiet(run func(context.Context)) room {
	return func(ctx context.Context) error { run(ctx); return nil }
}

// withoutFail is a room that the kubelet can do without; what says what is missing if it fails.
func withoutFail(what string, run room) func(context.Context) {
	return func(ctx context.Context) {
		if err := run(ctx); err != nil {
			klog.FromContext(ctx).Error(err, "Going on although "+what)
		}
	}
}

// parallel is how many status writes, and starts of sandboxes and containers, go on at the same time: enough to
// keep the machine busy, too few to have them all wait for each other.
const parallel = 8

// assemble builds the rooms and hands each what it needs of the others.
func (k *Kubelet) assemble(ctx context.Context, c *connections) ([]room, error) {
	machine, cgroups, err := k.machine()
	if err != nil {
		return nil, err
	}
	if err := k.enforce(machine, cgroups); err != nil {
		return nil, err
	}
	count := newRegistries()
	recorder := k.recorder(ctx, c)
	services := newServices(c.main)
	claims := claims{c.main}

	most := k.config.CrashLoopBackOff.MaxContainerRestartPeriod.Duration
	manager := pods.NewManager(pods.Config{
		NodeName: k.nodeName, StaticPodPath: k.config.StaticPodPath,
		Limits:        pods.BackoffLimits{Initial: min(10*time.Second, most), Max: most},
		UnsafeSysctls: k.config.AllowedUnsafeSysctls, RuntimeName: c.runtimeName,
	})
	store := objects.New(c.main, manager.Refresh)
	var mounted *volumes.Manager
	measure := stats.New(stats.Config{
		NodeName: k.nodeName, RootDir: k.options.RootDir, PodLogsDir: k.config.PodLogsDir, Machine: machine.Machine, BootTime: bootTime(),
		RuntimeCgroup: k.options.RuntimeCgroups,
		VolumeOf:      func(uid types.UID, pv string) (string, bool) { return mounted.VolumeOf(uid, pv) },
		VolumePeriod:  k.config.VolumeStatsAggPeriod.Duration, Pods: manager, Cgroups: cgroups, Runtime: c.runtime, Images: c.images,
	})
	records, err := images.NewRecords(k.options.RootDir, k.config.ImagePullCredentialsVerificationPolicy, k.config.PreloadedImagesVerificationAllowlist)
	if err != nil {
		return nil, err
	}
	own, err := images.NodeCredentials(k.options.RootDir)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Going on without the node's own credentials for images")
	}
	ref := node.Ref(k.nodeName)
	collector, err := k.collector(c, records, recorder, ref)
	if err != nil {
		return nil, err
	}
	pressure := eviction.New(eviction.Config{
		Thresholds: k.thresholds, Transition: k.config.EvictionPressureTransitionPeriod.Duration, MaxGrace: int64(k.config.EvictionMaxPodGracePeriod),
		Observe: (&eviction.Observer{RootDir: k.options.RootDir, Memory: machine.Memory, Cgroups: cgroups, Images: c.images}).Observe,
		FreeDisk: func(ctx context.Context) error {
			return errors.Join(manager.RemoveDead(ctx), collector.RemoveUnused(ctx))
		},
		Pods: manager, Stats: measure, Recorder: recorder, Clock: clock.RealClock{},
	})
	var drivers *csi.Manager
	var nodes *node.Manager
	plugged, err := devices.New(filepath.Join(k.options.RootDir, "device-plugins"), func() { nodes.Again() })
	if err != nil {
		klog.FromContext(ctx).Error(err, "Devices that pods have may be given to others")
	}
	nodes = node.New(k.nodeConfig(), node.Dependencies{
		Client: c.heartbeat, Watch: c.main, CRI: c.runtime, Machine: withDevices{machine, plugged}, Pressure: pressure, Recorder: recorder,
		Images:       images.Lister{Images: c.images, Max: int(*k.config.NodeStatusMaxImages)},
		Changed:      func(ctx context.Context, _ *v1.Node) { manager.NodeChanged(ctx) },
		VolumesInUse: func() []v1.UniqueVolumeName { return drivers.InUse() },
	})
	drivers = csi.New(csi.Config{RootDir: k.options.RootDir, NodeName: k.nodeName, Client: c.main, Node: nodes.Node})
	claimed, err := dra.New(dra.Config{
		Client: c.main, NodeName: k.nodeName, StateFile: filepath.Join(k.options.RootDir, dra.StateFile), GroupClaims: k.config.FeatureGates[gateGroupClaims],
	})
	if err != nil {
		return nil, err
	}
	volumeConfig := volumes.Config{
		RootDir: k.options.RootDir, Objects: store, Claims: claims, Allocatable: machine.Allocatable, HostIPs: nodes.HostIPs, NodeLabels: nodes.NodeLabels,
	}
	if c.main != nil {
		volumeConfig.TrustBundles, volumeConfig.CSI = volumes.ClusterTrustBundles{Client: c.main}, drivers
		volumeConfig.PodCertificates = podcertificates.New(ctx, podcertificates.Config{
			Client: c.main, NodeName: k.nodeName, Node: nodes.Node, Changed: manager.Refresh, Recorder: recorder, Clock: clock.RealClock{},
		})
	}
	run := runtime.New(k.runtimeConfig(machine, cgroups), runtime.Dependencies{
		CRI: c.runtime, Images: c.images, Objects: store, Services: services.of, Recorder: recorder,
		HostIPs: nodes.HostIPs, Allocatable: machine.Allocatable, RecursiveReadOnly: nodes.RecursiveReadOnly,
	})
	mounted = volumes.New(volumeConfig)
	prober, writer := probes.NewManager(run.Exec, recorder, manager.Wake), status.NewWriter(c.main, parallel)
	pulls := images.New(images.Config{
		Images: c.images, Secrets: store, Recorder: recorder, Records: records, Parallel: k.parallelPulls(),
		NodeCredentials: own, Providers: k.providers,
		QPS: float32(*k.config.RegistryPullQPS), Burst: int(k.config.RegistryBurst),
	})
	manager.Dependencies = pods.Dependencies{
		Client: c.main, Runtime: run, Observer: runtime.NewObserver(c.runtime), Cgroups: cgroups, Objects: store,
		Allocated: k.sizes(ctx, allocation.AllocatedFile), Actuated: k.sizes(ctx, allocation.ActuatedFile),
		Probes: prober, Status: writer, Volumes: mounted, Images: pulls,
		Node: nodes.Node, Handler: claims.handler, Devices: []pods.Devices{claimed, plugged}, Recorder: recorder, Pressure: pressure.Admit, Ready: services.synced,
	}
	policy, err := logs.ParsePolicy(k.config.ContainerLogMaxSize, *k.config.ContainerLogMaxFiles, *k.config.ContainerLogMaxWorkers, k.config.ContainerLogMonitorInterval.Duration)
	if err != nil {
		return nil, err
	}
	rotator := &logs.Rotator{Runtime: c.runtime, Policy: policy, Clock: clock.RealClock{}}
	serving, err := k.serve(ctx, c, manager, measure, nodes, count)
	if err != nil {
		return nil, err
	}
	register(count.own, c.calls, manager, measure, pulls, collector, pressure, mounted, drivers, claimed, plugged, nodes, writer, cgroups)
	register(count.probes, prober)
	rooms := append(serving, manager.Run, nodes.Run, quiet(services.run), quiet(pressure.Run), quiet(collector.Run), quiet(rotator.Run))
	if c.main != nil {
		registry := &plugins.Watcher{
			Dir: filepath.Join(k.options.RootDir, "plugins_registry"), Handlers: map[string]plugins.Handler{registerapi.CSIPlugin: drivers, registerapi.DRAPlugin: claimed, registerapi.DevicePlugin: plugged.Handler(ctx)},
		}
		rooms = append(rooms, quiet(drivers.Run), quiet(withoutFail("device plugins cannot register", plugged.Run)), quiet(claimed.Run), quiet(registry.Run))
	}
	if c.certificate != nil {
		register(count.own, c.certificate)
		rooms = append(rooms, quiet(c.certificate.Run))
	}
	return rooms, nil
}

// sizes opens the file of what pods have, or had. What a damaged one knew is lost, as if all pods were new.
func (k *Kubelet) sizes(ctx context.Context, file string) *allocation.Store {
	s, err := allocation.Open(filepath.Join(k.options.RootDir, file))
	if err != nil {
		klog.FromContext(ctx).Error(err, "Pods are taken to have what they ask for")
	}
	return s
}

// serve begins to listen for the kubelet's API.
func (k *Kubelet) serve(ctx context.Context, c *connections, manager *pods.Manager, measure *stats.Provider, nodes *node.Manager, count registries) ([]room, error) {
	certificate, err := certificates.NewServing(ctx, certificates.ServingConfig{
		CertFile: k.config.TLSCertFile, KeyFile: k.config.TLSPrivateKeyFile, Bootstrap: k.config.ServerTLSBootstrap, Dir: k.options.CertDir,
		NodeName: k.nodeName, HostName: k.hostname, IPs: k.ips, Client: c.main, Addresses: nodes.Addresses,
	})
	if err != nil {
		return nil, err
	}
	auth, followCA, err := server.NewAuth(k.config, c.main)
	if err != nil {
		return nil, err
	}
	s, err := server.New(server.Config{
		NodeName: k.nodeName, RootDir: k.options.RootDir, Kubelet: k.config, Certificate: certificate.Get, Auth: auth,
		Pods: manager, Stats: measure, Runtime: c.runtime,
		Metrics: count.own, Probes: count.probes, Checks: []server.Check{{Name: "syncloop", Do: manager.Check}},
	})
	if err != nil {
		return nil, err
	}
	register(count.own, certificate, s)
	return []room{s.Run, quiet(certificate.Run), quiet(followCA)}, nil
}

// collector removes images that are not used.
func (k *Kubelet) collector(c *connections, records *images.Records, recorder record.EventRecorder, ref *v1.ObjectReference) (*images.Collector, error) {
	retention := images.Retention{
		High: int(*k.config.ImageGCHighThresholdPercent), Low: int(*k.config.ImageGCLowThresholdPercent),
		MinAge: k.config.ImageMinimumGCAge.Duration, MaxAge: k.config.ImageMaximumGCAge.Duration,
	}
	return &images.Collector{
		Images: c.images, Containers: c.runtime, Records: records, Retention: retention, Recorder: recorder, Node: ref, Clock: clock.RealClock{},
	}, retention.Validate()
}

// bootTime is since when the machine has been up.
func bootTime() time.Time {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(info.Uptime) * time.Second).Truncate(time.Second)
}

func (k *Kubelet) nodeConfig() node.Config {
	taints := k.config.RegisterWithTaints
	if k.options.CloudProvider == "external" {
		taints = append(taints, v1.Taint{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: v1.TaintEffectNoSchedule})
	}
	return node.Config{
		Name: k.nodeName, Hostname: k.hostname, IPs: k.ips, Labels: k.options.NodeLabels, Taints: taints,
		Register: *k.config.RegisterNode, ProviderID: k.config.ProviderID, Port: k.config.Port, Version: component.Version,
		Look: k.config.NodeStatusUpdateFrequency.Duration, Report: k.config.NodeStatusReportFrequency.Duration,
		LeaseSeconds: k.config.NodeLeaseDurationSeconds, External: k.options.CloudProvider == "external",
		PodCIDR: k.config.PodCIDR, Boot: bootTime(),
	}
}

func (k *Kubelet) runtimeConfig(machine *resources.Node, cgroups *resources.Cgroups) runtime.Config {
	v2 := cgroups.Version() == 2
	return runtime.Config{
		RootDir: k.options.RootDir, LogDir: k.config.PodLogsDir, LogLinkDir: runtime.ContainerLogsDir, MaxPods: int(machine.MaxPods), Parallel: parallel,
		DNS: runtime.DNS{ClusterDNS: k.config.ClusterDNS, ClusterDomain: k.config.ClusterDomain, ResolvConf: *k.config.ResolverConfig},
		Limits: runtime.Limits{
			CPUQuota: *k.config.CPUCFSQuota, Period: k.config.CPUCFSQuotaPeriod.Duration, MemoryCapacity: int64(machine.Memory),
			GroupKill: v2 && (k.config.SingleProcessOOMKill == nil || !*k.config.SingleProcessOOMKill), NoSwap: v2 && machine.Swap > 0,
		},
		Security:       runtime.Security{SeccompDefault: *k.config.SeccompDefault, SeccompRoot: filepath.Join(k.options.RootDir, "seccomp")},
		DefaultSysctls: k.config.DefaultPodSysctls,
	}
}

// enforce makes the cgroups of pods and holds everyone to what the configuration says (enforceNodeAllocatable).
func (k *Kubelet) enforce(machine *resources.Node, cgroups *resources.Cgroups) error {
	var all v1.ResourceList
	if slices.Contains(k.config.EnforceNodeAllocatable, "pods") {
		all = machine.PodLimits()
	}
	if err := cgroups.Start(all); err != nil {
		return err
	}
	for _, level := range k.config.EnforceNodeAllocatable {
		name, onlyCPU := strings.CutSuffix(level, "-compressible")
		var cgroup string
		var limits v1.ResourceList
		switch name {
		case "system-reserved":
			cgroup, limits = k.config.SystemReservedCgroup, machine.Reserved.System
		case "kube-reserved":
			cgroup, limits = k.config.KubeReservedCgroup, machine.Reserved.Kube
		default:
			continue
		}
		if onlyCPU {
			limits = maps.Clone(limits)
			maps.DeleteFunc(limits, func(n v1.ResourceName, _ resource.Quantity) bool { return n != v1.ResourceCPU })
		}
		if err := cgroups.Enforce(cgroup, limits); err != nil {
			return fmt.Errorf("enforceNodeAllocatable: %s: %w", level, err)
		}
	}
	return nil
}

// withDevices is a machine with what device plugins offer.
type withDevices struct {
	*resources.Node
	devices *devices.Manager
}

// Capacity implements node.Machine.
func (m withDevices) Capacity() v1.ResourceList {
	all := m.Node.Capacity()
	offered, _ := m.devices.Capacity()
	maps.Copy(all, offered)
	return all
}

// Allocatable implements node.Machine.
func (m withDevices) Allocatable() v1.ResourceList {
	all := m.Node.Allocatable()
	_, offered := m.devices.Capacity()
	maps.Copy(all, offered)
	return all
}

// parallelPulls is how many images are pulled at the same time; 0 is no limit.
func (k *Kubelet) parallelPulls() int {
	switch {
	case *k.config.SerializeImagePulls:
		return 1
	case k.config.MaxParallelImagePulls != nil:
		return int(*k.config.MaxParallelImagePulls)
	}
	return 0
}

// reserved is what of the machine pods do not get.
func (k *Kubelet) reserved(capacity v1.ResourceList) (resources.Reserved, error) {
	system, err := resources.ParseResources("systemReserved", k.config.SystemReserved)
	if err != nil {
		return resources.Reserved{}, err
	}
	kube, err := resources.ParseResources("kubeReserved", k.config.KubeReserved)
	if err != nil {
		return resources.Reserved{}, err
	}
	return resources.Reserved{System: system, Kube: kube, Eviction: eviction.Reserve(k.thresholds, capacity)}, nil
}

// claims looks up what pods refer to once, at their start.
type claims struct{ client kubernetes.Interface }

var errNoAPI = errors.New("there is no API server (--kubeconfig)")

// Claim implements volumes.Claims.
func (c claims) Claim(ctx context.Context, namespace, name string) (*v1.PersistentVolumeClaim, error) {
	if c.client == nil {
		return nil, errNoAPI
	}
	return c.client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
}

// Volume implements volumes.Claims.
func (c claims) Volume(ctx context.Context, name string) (*v1.PersistentVolume, error) {
	if c.client == nil {
		return nil, errNoAPI
	}
	return c.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
}

// handler is the runtime handler of a pod's RuntimeClass.
func (c claims) handler(ctx context.Context, pod *v1.Pod) (string, error) {
	if pod.Spec.RuntimeClassName == nil || *pod.Spec.RuntimeClassName == "" {
		return "", nil
	}
	if c.client == nil {
		return "", errNoAPI
	}
	rc, err := c.client.NodeV1().RuntimeClasses().Get(ctx, *pod.Spec.RuntimeClassName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("RuntimeClass %q not found", *pod.Spec.RuntimeClassName)
	}
	if err != nil {
		return "", fmt.Errorf("getting RuntimeClass: %w", err)
	}
	return rc.Handler, nil
}
