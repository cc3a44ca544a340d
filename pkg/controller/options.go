package controller

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/config"
	configoptions "k8s.io/component-base/config/options"
	"k8s.io/klog/v2"
	netutils "k8s.io/utils/net"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/controller/csrsigning"
	"github.com/leme-k8s/leme/pkg/controller/nodelifecycle"
	"github.com/leme-k8s/leme/pkg/controller/podautoscaler"
)

// Options are the flags of kube-controller-manager.
type Options struct {
	Serving *component.Serving

	Master     string
	Kubeconfig string
	QPS        float32
	Burst      int32

	Controllers                  []string
	UseServiceAccountCredentials bool
	LeaderElection               config.LeaderElectionConfiguration
	ClusterName                  string
	RootCAFile                   string
	ServiceAccountKeyFile        string
	LegacyTokenCleanUp           time.Duration
	FeatureGates                 map[string]bool

	AllocateNodeCIDRs    bool
	ClusterCIDR          string
	ServiceCIDR          string
	NodeCIDRMaskSize     int
	NodeCIDRMaskSizeIPv4 int
	NodeCIDRMaskSizeIPv6 int

	NodeMonitorPeriod         time.Duration
	NodeMonitorGracePeriod    time.Duration
	NodeStartupGracePeriod    time.Duration
	NodeEvictionRate          float32
	SecondaryNodeEvictionRate float32
	LargeClusterSizeThreshold int
	UnhealthyZoneThreshold    float32

	EnableGarbageCollector  bool
	TerminatedPodThreshold  int
	MaxEndpointsPerSlice    int
	EndpointsBatchPeriod    time.Duration
	EndpointSliceBatch      time.Duration
	MirroringMaxEndpoints   int
	MirroringBatch          time.Duration
	ResourceQuotaSync       time.Duration
	NamespaceSyncPeriod     time.Duration
	EnableHostpathProvision bool
	EnableDynamicProvision  bool
	DisableForceDetach      bool

	Autoscaling podautoscaler.Config
	Signing     csrsigning.Options
	Workers     Workers

	flags *pflag.FlagSet
}

const recycled = "volumes are not recycled"

// withoutEffect are flags that mean nothing to the controllers there are, and why. They
// are accepted, because installers set them, and it is logged that they were.
var withoutEffect = map[string]string{
	"node-monitor-period":                    "nodes are looked at when their heartbeat is due, not at intervals",
	"namespace-sync-period":                  "namespaces are followed by watches, not at intervals",
	"pv-recycler-minimum-timeout-nfs":        recycled,
	"pv-recycler-increment-timeout-nfs":      recycled,
	"pv-recycler-minimum-timeout-hostpath":   recycled,
	"pv-recycler-timeout-increment-hostpath": recycled,
	"flex-volume-plugin-dir":                 "volumes of flex plugins are attached by no controller",
	"pvclaimbinder-sync-period":              "volumes and claims are followed by watches, not at intervals",
	"attach-detach-reconcile-sync-period":    "attachments are followed by watches, not at intervals",
	"disable-attach-detach-reconcile-sync":   "attachments are followed by watches, not at intervals",
	"enable-hostpath-provisioner":            "volumes are made by the provisioners of storage classes alone",
}

// Workers says how many objects of each kind are reconciled at a time.
type Workers struct {
	Autoscaler, CronJob, DaemonSet, Deployment, DeviceTaintEviction, Disruption, Endpoints, EndpointSlice, EndpointSliceMirroring, EphemeralVolume, GarbageCollector, Job, Namespace, PolicyStatus,
	ReplicaSet, ReplicationController, ResourceClaim, ResourceQuota, StatefulSet, ServiceAccountToken, TTLAfterFinished int
}

// NewOptions returns the defaults.
func NewOptions() *Options {
	return &Options{
		Serving:     component.NewServing(10257),
		Controllers: []string{"*"},
		LeaderElection: config.LeaderElectionConfiguration{
			LeaderElect:       true,
			ResourceLock:      "leases",
			ResourceName:      "kube-controller-manager",
			ResourceNamespace: "kube-system",
			LeaseDuration:     duration(15 * time.Second),
			RenewDeadline:     duration(10 * time.Second),
			RetryPeriod:       duration(2 * time.Second),
		},
		ClusterName: "kubernetes",

		LegacyTokenCleanUp: 365 * 24 * time.Hour,

		NodeMonitorPeriod:         5 * time.Second,
		NodeMonitorGracePeriod:    50 * time.Second,
		NodeStartupGracePeriod:    time.Minute,
		NodeEvictionRate:          0.1,
		SecondaryNodeEvictionRate: 0.01,
		LargeClusterSizeThreshold: 50,
		UnhealthyZoneThreshold:    0.55,

		EnableGarbageCollector: true,
		EnableDynamicProvision: true,
		TerminatedPodThreshold: 12500,
		MaxEndpointsPerSlice:   100,
		MirroringMaxEndpoints:  1000,
		ResourceQuotaSync:      5 * time.Minute,
		NamespaceSyncPeriod:    5 * time.Minute,

		Autoscaling: podautoscaler.DefaultConfig(),
		Signing:     csrsigning.DefaultOptions(),
		Workers: Workers{
			Autoscaler: 5, CronJob: 5, DaemonSet: 2, Deployment: 5, DeviceTaintEviction: 8, Disruption: 1, Endpoints: 5, EndpointSlice: 5, EndpointSliceMirroring: 5, EphemeralVolume: 5, GarbageCollector: 20, Job: 5, Namespace: 10, PolicyStatus: 5,
			ReplicaSet: 5, ReplicationController: 5, ResourceClaim: 50, ResourceQuota: 5, StatefulSet: 5, ServiceAccountToken: 5, TTLAfterFinished: 5,
		},
	}
}

// AddFlags implements component.Options.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.flags = fs
	o.Serving.AddFlags(fs)
	o.Signing.AddFlags(fs)
	configoptions.BindLeaderElectionFlags(&o.LeaderElection, fs)

	fs.StringVar(&o.Master, "master", o.Master, "Address of the API server; overrides the one in --kubeconfig")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "Path of a kubeconfig file with the API server's address and credentials")
	fs.Float32Var(&o.QPS, "kube-api-qps", o.QPS, "Requests a second that one controller may send; 0 leaves it to the API server's priority and fairness")
	fs.Int32Var(&o.Burst, "kube-api-burst", o.Burst, "Requests that one controller may send at once; used with --kube-api-qps")

	fs.StringSliceVar(&o.Controllers, "controllers", o.Controllers,
		"Controllers to run: '*' is all that are on by default, 'foo' adds foo, '-foo' leaves foo out.\nAll controllers: "+allNames()+"\nOff by default: "+offByDefaultNames())
	fs.BoolVar(&o.UseServiceAccountCredentials, "use-service-account-credentials", o.UseServiceAccountCredentials, "Give each controller the identity of its own service account")
	fs.StringVar(&o.ClusterName, "cluster-name", o.ClusterName, "Name of the cluster")
	fs.StringVar(&o.RootCAFile, "root-ca-file", o.RootCAFile, "File with the certificates that pods trust the API server by; published in every namespace")
	fs.StringVar(&o.ServiceAccountKeyFile, "service-account-private-key-file", o.ServiceAccountKeyFile, "File with the private key that signs the tokens in Secrets of type kubernetes.io/service-account-token")
	fs.DurationVar(&o.LegacyTokenCleanUp, "legacy-service-account-token-clean-up-period", o.LegacyTokenCleanUp, "Time without use after which a token that was made for every service account is marked as invalid, and then deleted")
	fs.Var(cliflag.NewMapStringBool(&o.FeatureGates), "feature-gates", "Feature gates as Name=true|false pairs. Of those that concern controllers, these may differ from the defaults of v"+component.Version+": "+strings.Join(heededGates, ", "))

	fs.BoolVar(&o.AllocateNodeCIDRs, "allocate-node-cidrs", o.AllocateNodeCIDRs, "Give each node a range of pod addresses out of --cluster-cidr")
	fs.StringVar(&o.ClusterCIDR, "cluster-cidr", o.ClusterCIDR, "Range of pod addresses of the cluster, or one range for each IP family, separated by a comma")
	fs.StringVar(&o.ServiceCIDR, "service-cluster-ip-range", o.ServiceCIDR, "Range of Service addresses, which no node may be given")
	fs.IntVar(&o.NodeCIDRMaskSize, "node-cidr-mask-size", o.NodeCIDRMaskSize, "Prefix length of a node's range in a single-stack cluster; 24 for IPv4 and 64 for IPv6 by default")
	fs.IntVar(&o.NodeCIDRMaskSizeIPv4, "node-cidr-mask-size-ipv4", o.NodeCIDRMaskSizeIPv4, "Prefix length of a node's IPv4 range; 24 by default")
	fs.IntVar(&o.NodeCIDRMaskSizeIPv6, "node-cidr-mask-size-ipv6", o.NodeCIDRMaskSizeIPv6, "Prefix length of a node's IPv6 range; 64 by default")

	fs.DurationVar(&o.NodeMonitorPeriod, "node-monitor-period", o.NodeMonitorPeriod, accepted("node-monitor-period"))
	fs.DurationVar(&o.NodeMonitorGracePeriod, "node-monitor-grace-period", o.NodeMonitorGracePeriod, "Time without a heartbeat after which a node's state is unknown")
	fs.DurationVar(&o.NodeStartupGracePeriod, "node-startup-grace-period", o.NodeStartupGracePeriod, "The same for a node that has never sent one")
	fs.Float32Var(&o.NodeEvictionRate, "node-eviction-rate", o.NodeEvictionRate, "Nodes a second that are tainted NoExecute in a healthy zone")
	fs.Float32Var(&o.SecondaryNodeEvictionRate, "secondary-node-eviction-rate", o.SecondaryNodeEvictionRate, "Nodes a second that are tainted NoExecute in a zone with too many nodes down")
	fs.IntVar(&o.LargeClusterSizeThreshold, "large-cluster-size-threshold", o.LargeClusterSizeThreshold, "Number of nodes up to which a zone with too many nodes down is left alone")
	fs.Float32Var(&o.UnhealthyZoneThreshold, "unhealthy-zone-threshold", o.UnhealthyZoneThreshold, "Share of a zone's nodes (three at least) that are not ready for the zone to have too many nodes down")

	fs.BoolVar(&o.EnableGarbageCollector, "enable-garbage-collector", o.EnableGarbageCollector, "Delete objects whose owners are gone")
	fs.IntVar(&o.TerminatedPodThreshold, "terminated-pod-gc-threshold", o.TerminatedPodThreshold, "Number of terminated pods above which the oldest are deleted; 0 keeps all")
	fs.IntVar(&o.MaxEndpointsPerSlice, "max-endpoints-per-slice", o.MaxEndpointsPerSlice, "Endpoints that one EndpointSlice holds at most")
	fs.DurationVar(&o.EndpointsBatchPeriod, "endpoint-updates-batch-period", o.EndpointsBatchPeriod, "Time in which changes of pods are gathered into one update of Endpoints")
	fs.DurationVar(&o.EndpointSliceBatch, "endpointslice-updates-batch-period", o.EndpointSliceBatch, "Time in which changes of pods are gathered into one update of EndpointSlices")
	fs.DurationVar(&o.Autoscaling.SyncPeriod, "horizontal-pod-autoscaler-sync-period", o.Autoscaling.SyncPeriod, "Interval at which autoscalers ask for metrics")
	fs.DurationVar(&o.Autoscaling.DownscaleStabilization, "horizontal-pod-autoscaler-downscale-stabilization", o.Autoscaling.DownscaleStabilization, "Time for which a higher recommendation keeps a workload from getting smaller")
	fs.Float64Var(&o.Autoscaling.Tolerance, "horizontal-pod-autoscaler-tolerance", o.Autoscaling.Tolerance, "How far from 1.0 the ratio of use to target must be for an autoscaler to act")
	fs.DurationVar(&o.Autoscaling.CPUInitialization, "horizontal-pod-autoscaler-cpu-initialization-period", o.Autoscaling.CPUInitialization, "Time after the start of a pod in which its use of CPU may not count")
	fs.DurationVar(&o.Autoscaling.InitialReadiness, "horizontal-pod-autoscaler-initial-readiness-delay", o.Autoscaling.InitialReadiness, "Time after the start of a pod in which it is starting, even if it becomes ready and unready again")
	fs.IntVar(&o.MirroringMaxEndpoints, "mirroring-max-endpoints-per-subset", o.MirroringMaxEndpoints, "Addresses with the same ports that are copied from Endpoints to EndpointSlices at most")
	fs.DurationVar(&o.MirroringBatch, "mirroring-endpointslice-updates-batch-period", o.MirroringBatch, "Time in which changes of copied EndpointSlices are gathered into one correction")
	fs.DurationVar(&o.ResourceQuotaSync, "resource-quota-sync-period", o.ResourceQuotaSync, "Interval at which what is used of ResourceQuotas is checked though nothing seems to have changed")
	fs.DurationVar(&o.NamespaceSyncPeriod, "namespace-sync-period", o.NamespaceSyncPeriod, accepted("namespace-sync-period"))
	fs.BoolVar(&o.EnableDynamicProvision, "enable-dynamic-provisioning", o.EnableDynamicProvision, "Ask the provisioners of storage classes for volumes")
	fs.BoolVar(&o.DisableForceDetach, "disable-force-detach-on-timeout", o.DisableForceDetach, "Take no volume by force from a node that is not ready and has not unmounted it for six minutes")
	for _, name := range []string{"pv-recycler-minimum-timeout-nfs", "pv-recycler-increment-timeout-nfs", "pv-recycler-minimum-timeout-hostpath", "pv-recycler-timeout-increment-hostpath"} {
		fs.Int(name, 0, accepted(name))
	}
	fs.String("flex-volume-plugin-dir", "", accepted("flex-volume-plugin-dir"))
	fs.Duration("pvclaimbinder-sync-period", 15*time.Second, accepted("pvclaimbinder-sync-period"))
	fs.Duration("attach-detach-reconcile-sync-period", time.Minute, accepted("attach-detach-reconcile-sync-period"))
	fs.Bool("disable-attach-detach-reconcile-sync", false, accepted("disable-attach-detach-reconcile-sync"))
	fs.BoolVar(&o.EnableHostpathProvision, "enable-hostpath-provisioner", o.EnableHostpathProvision, accepted("enable-hostpath-provisioner"))

	for name, n := range map[string]*int{
		"concurrent-ephemeralvolume-syncs":                    &o.Workers.EphemeralVolume,
		"concurrent-device-taint-eviction-syncs":              &o.Workers.DeviceTaintEviction,
		"concurrent-resourceclaim-syncs":                      &o.Workers.ResourceClaim,
		"concurrent-disruption-syncs":                         &o.Workers.Disruption,
		"concurrent-validating-admission-policy-status-syncs": &o.Workers.PolicyStatus,
		"concurrent-horizontal-pod-autoscaler-syncs":          &o.Workers.Autoscaler,
		"concurrent-resource-quota-syncs":                     &o.Workers.ResourceQuota,
		"mirroring-concurrent-service-endpoint-syncs":         &o.Workers.EndpointSliceMirroring,
		"concurrent-cron-job-syncs":                           &o.Workers.CronJob,
		"concurrent-daemonset-syncs":                          &o.Workers.DaemonSet,
		"concurrent-deployment-syncs":                         &o.Workers.Deployment,
		"concurrent-endpoint-syncs":                           &o.Workers.Endpoints,
		"concurrent-service-endpoint-syncs":                   &o.Workers.EndpointSlice,
		"concurrent-gc-syncs":                                 &o.Workers.GarbageCollector,
		"concurrent-job-syncs":                                &o.Workers.Job,
		"concurrent-namespace-syncs":                          &o.Workers.Namespace,
		"concurrent-replicaset-syncs":                         &o.Workers.ReplicaSet,
		"concurrent-rc-syncs":                                 &o.Workers.ReplicationController,
		"concurrent-statefulset-syncs":                        &o.Workers.StatefulSet,
		"concurrent-serviceaccount-token-syncs":               &o.Workers.ServiceAccountToken,
		"concurrent-ttl-after-finished-syncs":                 &o.Workers.TTLAfterFinished,
	} {
		usage := "How many of these objects are worked on at a time"
		if withoutEffect[name] != "" {
			usage = accepted(name)
		}
		fs.IntVar(n, name, *n, usage)
	}
}

func accepted(flag string) string { return "Accepted for compatibility: " + withoutEffect[flag] }

// Validate reports every flag that is wrong.
func (o *Options) Validate() error {
	errs := []error{o.Signing.Validate()}
	if _, err := resolveGates(o.FeatureGates); err != nil {
		errs = append(errs, err)
	}
	if o.flags != nil {
		o.flags.VisitAll(func(f *pflag.Flag) {
			if n, err := o.flags.GetInt(f.Name); err == nil && n < 1 && strings.Contains(f.Name, "concurrent-") {
				errs = append(errs, fmt.Errorf("--%s: %d is less than 1", f.Name, n))
			}
		})
	}
	if _, err := selectControllers(o.Controllers); err != nil {
		errs = append(errs, fmt.Errorf("--controllers: %w", err))
	}
	if o.LeaderElection.LeaderElect && o.LeaderElection.ResourceLock != "leases" {
		errs = append(errs, fmt.Errorf("--leader-elect-resource-lock: %q is not supported, only leases", o.LeaderElection.ResourceLock))
	}
	if o.MaxEndpointsPerSlice < 1 || o.MaxEndpointsPerSlice > 1000 {
		errs = append(errs, fmt.Errorf("--max-endpoints-per-slice: %d is not between 1 and 1000", o.MaxEndpointsPerSlice))
	}
	if o.Autoscaling.SyncPeriod <= 0 {
		errs = append(errs, fmt.Errorf("--horizontal-pod-autoscaler-sync-period: %s is not above zero", o.Autoscaling.SyncPeriod))
	}
	if o.LegacyTokenCleanUp <= 0 {
		errs = append(errs, fmt.Errorf("--legacy-service-account-token-clean-up-period: %s is not above zero", o.LegacyTokenCleanUp))
	}
	if o.MirroringMaxEndpoints < 1 || o.MirroringMaxEndpoints > 1000 {
		errs = append(errs, fmt.Errorf("--mirroring-max-endpoints-per-subset: %d is not between 1 and 1000", o.MirroringMaxEndpoints))
	}
	if o.AllocateNodeCIDRs {
		if _, _, _, err := o.nodeCIDRs(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// nodeCIDRs returns the cluster's ranges, the prefix lengths of a node's part of
// each, and the ranges of Services.
func (o *Options) nodeCIDRs() (cluster []*net.IPNet, masks []int, services []*net.IPNet, err error) {
	if cluster, err = netutils.ParseCIDRs(splitList(o.ClusterCIDR)); err != nil {
		return nil, nil, nil, fmt.Errorf("--cluster-cidr: %w", err)
	}
	if len(cluster) == 0 || len(cluster) > 2 {
		return nil, nil, nil, fmt.Errorf("--cluster-cidr: %d ranges given; --allocate-node-cidrs needs one, or one for each IP family", len(cluster))
	}
	if len(cluster) == 2 && netutils.IsIPv6CIDR(cluster[0]) == netutils.IsIPv6CIDR(cluster[1]) {
		return nil, nil, nil, errors.New("--cluster-cidr: two ranges must be of different IP families")
	}
	if len(cluster) == 2 && o.NodeCIDRMaskSize != 0 {
		return nil, nil, nil, errors.New("--node-cidr-mask-size: a dual-stack cluster takes --node-cidr-mask-size-ipv4 and --node-cidr-mask-size-ipv6")
	}
	if services, err = netutils.ParseCIDRs(splitList(o.ServiceCIDR)); err != nil {
		return nil, nil, nil, fmt.Errorf("--service-cluster-ip-range: %w", err)
	}
	for _, c := range cluster {
		size, flag := o.NodeCIDRMaskSizeIPv4, "--node-cidr-mask-size-ipv4"
		fallback, longest := 24, 16
		if netutils.IsIPv6CIDR(c) {
			size, flag, fallback = o.NodeCIDRMaskSizeIPv6, "--node-cidr-mask-size-ipv6", 64
		}
		if o.NodeCIDRMaskSize != 0 {
			size, flag = o.NodeCIDRMaskSize, "--node-cidr-mask-size"
		}
		if size == 0 {
			size = fallback
		}
		ones, bits := c.Mask.Size()
		if size < ones || size > bits || size-ones > longest {
			return nil, nil, nil, fmt.Errorf("%s: %d does not divide %s into at most 2^%d ranges", flag, size, c, longest)
		}
		masks = append(masks, size)
	}
	return cluster, masks, services, nil
}

func (o *Options) nodeLifecycle() nodelifecycle.Config {
	return nodelifecycle.Config{
		GracePeriod: o.NodeMonitorGracePeriod, StartupGracePeriod: o.NodeStartupGracePeriod,
		EvictionRate: o.NodeEvictionRate, SecondaryEvictionRate: o.SecondaryNodeEvictionRate,
		UnhealthyZoneThreshold: o.UnhealthyZoneThreshold, LargeCluster: o.LargeClusterSizeThreshold,
	}
}

// New implements component.Options.
func (o *Options) New(ctx context.Context) (component.Runner, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.flags != nil {
		o.flags.Visit(func(f *pflag.Flag) {
			if reason := withoutEffect[f.Name]; reason != "" {
				klog.FromContext(ctx).Info("A flag has no effect", "flag", "--"+f.Name, "reason", reason)
			}
		})
	}
	cfg, err := o.restConfig()
	if err != nil {
		return nil, err
	}
	m := &Manager{options: *o, config: cfg}
	if m.gates, err = resolveGates(o.FeatureGates); err != nil {
		return nil, err
	}
	component.CountNatively(component.NativeHistograms(m.gates))
	if o.RootCAFile != "" {
		if m.rootCA, err = os.ReadFile(o.RootCAFile); err != nil {
			return nil, fmt.Errorf("--root-ca-file: %w", err)
		}
		if _, err := cert.ParseCertsPEM(m.rootCA); err != nil {
			return nil, fmt.Errorf("--root-ca-file: %s: %w", o.RootCAFile, err)
		}
	}
	if o.ServiceAccountKeyFile != "" {
		key, err := keyutil.PrivateKeyFromFile(o.ServiceAccountKeyFile)
		if err != nil {
			return nil, fmt.Errorf("--service-account-private-key-file: %w", err)
		}
		var ok bool
		if m.serviceAccountKey, ok = key.(crypto.Signer); !ok {
			return nil, fmt.Errorf("--service-account-private-key-file: a key of type %T cannot sign", key)
		}
	}
	if m.signers, err = csrsigning.Load(o.Signing); err != nil {
		return nil, err
	}
	return m, nil
}

func (o *Options) restConfig() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags(o.Master, o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	cfg.WarningHandlerWithContext = rest.NoWarnings{} // they are for people
	cfg.QPS, cfg.Burst = o.QPS, int(o.Burst)
	cfg.DisableCompression = true // watches would be compressed for as long as they last, which costs both sides more than a near network
	if o.QPS == 0 {
		cfg.QPS = -1
	}
	return rest.AddUserAgent(cfg, "kube-controller-manager"), nil
}
