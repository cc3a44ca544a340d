package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"
	nodeutil "k8s.io/component-helpers/node/util"
	"k8s.io/klog/v2"
	configv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/proxy/nft"
)

// DefaultTable is the name of the nftables tables, that of the original's.
const DefaultTable = "kube-proxy"

// primary is the value of --nodeport-addresses for the node's primary addresses.
const primary = "primary"

// Options are kube-proxy's flags. As in the original a configuration file replaces the
// flags it can say, but for --hostname-override.
type Options struct {
	configFile string
	master     string
	hostname   string
	table      string
	cleanup    bool
	config     *configv1alpha1.KubeProxyConfiguration
}

var _ component.Options = &Options{}

// NewOptions returns the options with their defaults.
func NewOptions() *Options {
	c := &configv1alpha1.KubeProxyConfiguration{}
	setDefaults(c)
	return &Options{config: c, table: DefaultTable}
}

func setDefaults(c *configv1alpha1.KubeProxyConfiguration) {
	value(&c.BindAddress, "0.0.0.0")
	value(&c.HealthzBindAddress, "0.0.0.0:10256")
	value(&c.MetricsBindAddress, "127.0.0.1:10249")
	value(&c.Mode, "nftables")
	value(&c.DetectLocalMode, "ClusterCIDR")
	value(&c.ClientConnection.QPS, 5)
	value(&c.ClientConnection.Burst, 10)
	value(&c.ClientConnection.ContentType, runtime.ContentTypeProtobuf)
	pointer(&c.NFTables.MasqueradeBit, 14)
	pointer(&c.OOMScoreAdj, -999)
	pointer(&c.Conntrack.MaxPerCore, 32*1024)
	pointer(&c.Conntrack.Min, 128*1024)
	pointer(&c.Conntrack.TCPEstablishedTimeout, metav1.Duration{Duration: 24 * time.Hour})
	pointer(&c.Conntrack.TCPCloseWaitTimeout, metav1.Duration{Duration: time.Hour})
}

func value[T comparable](field *T, v T) {
	var zero T
	if *field == zero {
		*field = v
	}
}

func pointer[T any](field **T, v T) {
	if *field == nil {
		*field = ptr.To(v)
	}
}

// AddFlags adds kube-proxy's flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	c := o.config
	fs.StringVar(&o.configFile, "config", o.configFile, "The path to the configuration file (KubeProxyConfiguration v1alpha1)")
	fs.BoolVar(&o.cleanup, "cleanup", o.cleanup, "Remove the rules and exit")
	fs.StringVar(&o.master, "master", o.master, "The address of the Kubernetes API server (overrides any value in kubeconfig)")
	fs.StringVar(&o.hostname, "hostname-override", o.hostname, "The name of the node that the proxy runs on, if it is not the host's name")
	fs.StringVar(&o.table, "nftables-table", o.table, "The name of the nftables tables, for several clusters on one machine. Leme only")
	fs.Var(cliflag.NewMapStringBool(&c.FeatureGates), "feature-gates", "Feature gates as Name=true|false pairs; only the defaults of v"+component.Version+" are supported, and NativeHistograms")

	fs.StringVar(&c.ClientConnection.Kubeconfig, "kubeconfig", c.ClientConnection.Kubeconfig, "Path to a kubeconfig file with authorization information")
	fs.Float32Var(&c.ClientConnection.QPS, "kube-api-qps", c.ClientConnection.QPS, "QPS to use while talking with the API server")
	fs.Int32Var(&c.ClientConnection.Burst, "kube-api-burst", c.ClientConnection.Burst, "Burst to use while talking with the API server")
	fs.StringVar(&c.ClientConnection.ContentType, "kube-api-content-type", c.ClientConnection.ContentType, "Content type of requests sent to the API server")
	fs.StringVar(&c.BindAddress, "bind-address", c.BindAddress, "Accepted for compatibility: Services of both IP families are always proxied")
	fs.StringVar(&c.HealthzBindAddress, "healthz-bind-address", c.HealthzBindAddress, "Where to serve health checks; empty for nowhere")
	fs.StringVar(&c.MetricsBindAddress, "metrics-bind-address", c.MetricsBindAddress, "Where to serve metrics; empty for nowhere")
	fs.BoolVar(&c.BindAddressHardFail, "bind-address-hard-fail", c.BindAddressHardFail, "End when an address cannot be listened on")
	fs.BoolVar(&c.EnableProfiling, "profiling", c.EnableProfiling, "Serve profiles at /debug/pprof of the metrics address")
	fs.StringVar((*string)(&c.Mode), "proxy-mode", string(c.Mode), "How Services are implemented: nftables")
	fs.StringVar(&c.ClusterCIDR, "cluster-cidr", c.ClusterCIDR, "The CIDRs of the pods in the cluster, one for each address family")
	fs.StringVar((*string)(&c.DetectLocalMode), "detect-local-mode", string(c.DetectLocalMode), "How traffic of this node's pods is told: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix")
	fs.StringVar(&c.DetectLocal.BridgeInterface, "pod-bridge-interface", c.DetectLocal.BridgeInterface, "The bridge of the pods, for BridgeInterface")
	fs.StringVar(&c.DetectLocal.InterfaceNamePrefix, "pod-interface-name-prefix", c.DetectLocal.InterfaceNamePrefix, "The prefix of the names of pods' interfaces, for InterfaceNamePrefix")
	fs.StringSliceVar(&c.NodePortAddresses, "nodeport-addresses", c.NodePortAddresses, "CIDRs of the addresses at which node ports answer, or 'primary' (the default)")
	fs.BoolVar(&c.NFTables.MasqueradeAll, "masquerade-all", c.NFTables.MasqueradeAll, "Masquerade all traffic to cluster IPs")
	fs.DurationVar(&c.NFTables.MinSyncPeriod.Duration, "nftables-min-sync-period", c.NFTables.MinSyncPeriod.Duration, "The least time between two writes of rules")
	fs.Int32Var(c.OOMScoreAdj, "oom-score-adj", *c.OOMScoreAdj, "oom_score_adj of the proxy")
	fs.Int32Var(c.Conntrack.MaxPerCore, "conntrack-max-per-core", *c.Conntrack.MaxPerCore, "The number of tracked connections for each core; 0 leaves it as it is")
	fs.Int32Var(c.Conntrack.Min, "conntrack-min", *c.Conntrack.Min, "The least number of tracked connections")
	fs.DurationVar(&c.Conntrack.TCPEstablishedTimeout.Duration, "conntrack-tcp-timeout-established", c.Conntrack.TCPEstablishedTimeout.Duration, "Idle timeout of established TCP connections; 0 leaves it as it is")
	fs.DurationVar(&c.Conntrack.TCPCloseWaitTimeout.Duration, "conntrack-tcp-timeout-close-wait", c.Conntrack.TCPCloseWaitTimeout.Duration, "Timeout of TCP connections in CLOSE_WAIT; 0 leaves it as it is")
	fs.BoolVar(&c.Conntrack.TCPBeLiberal, "conntrack-tcp-be-liberal", c.Conntrack.TCPBeLiberal, "Let packets with a wrong TCP window pass")
	fs.DurationVar(&c.Conntrack.UDPTimeout.Duration, "conntrack-udp-timeout", c.Conntrack.UDPTimeout.Duration, "Idle timeout of UDP flows without an answer; 0 leaves it as it is")
	fs.DurationVar(&c.Conntrack.UDPStreamTimeout.Duration, "conntrack-udp-timeout-stream", c.Conntrack.UDPStreamTimeout.Duration, "Idle timeout of UDP flows with an answer; 0 leaves it as it is")
}

// New checks the flags and assembles a proxy.
func (o *Options) New(ctx context.Context) (component.Runner, error) {
	if o.cleanup {
		return cleanup(o.table), nil
	}
	c := o.config
	if o.configFile != "" {
		var err error
		if c, err = loadConfig(o.configFile); err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
	}
	if errs := validate(c); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	native := component.NativeHistograms(c.FeatureGates)
	component.CountNatively(native)
	for field, reason := range withoutEffect(c) {
		klog.FromContext(ctx).Info("A setting has no effect", "field", field, "reason", reason)
	}
	if c.ClientConnection.Kubeconfig == "" && o.master == "" {
		return nil, errors.New("--kubeconfig: name a kubeconfig file, here or as clientConnection.kubeconfig in the file of --config")
	}
	kubeConfig, err := clientcmd.BuildConfigFromFlags(o.master, c.ClientConnection.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	kubeConfig.QPS, kubeConfig.Burst = c.ClientConnection.QPS, int(c.ClientConnection.Burst)
	kubeConfig.ContentType, kubeConfig.AcceptContentTypes = c.ClientConnection.ContentType, c.ClientConnection.AcceptContentTypes

	name := o.hostname
	if name == "" {
		name = c.HostnameOverride
	}
	if name, err = nodeutil.GetHostname(name); err != nil {
		return nil, fmt.Errorf("--hostname-override: %w", err)
	}
	rules, err := rulesOf(ctx, c, kubeConfig, name)
	if err != nil {
		return nil, err
	}
	networks, err := nodePortNetworks(c.NodePortAddresses)
	if err != nil {
		return nil, fmt.Errorf("--nodeport-addresses: %w", err)
	}
	p, err := New(Config{
		KubeConfig:     kubeConfig,
		NodeName:       name,
		Table:          o.table,
		Rules:          rules,
		NodePorts:      networks,
		MinSyncPeriod:  c.NFTables.MinSyncPeriod.Duration,
		HealthAddress:  c.HealthzBindAddress,
		MetricsAddress: c.MetricsBindAddress,
		HardFail:       c.BindAddressHardFail,
		Profiling:      c.EnableProfiling,

		NativeHistograms: native,
	})
	if err != nil {
		return nil, err
	}
	if err := component.SetOOMScore(int(*c.OOMScoreAdj)); err != nil {
		klog.FromContext(ctx).Info("Cannot set the proxy's oom_score_adj; going on without", "err", err)
	}
	setConntrack(ctx, &c.Conntrack)
	return p, nil
}

// loadConfig reads a configuration file. A field that is not known is an error.
func loadConfig(path string) (*configv1alpha1.KubeProxyConfiguration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := configv1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c := &configv1alpha1.KubeProxyConfiguration{}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	if _, _, err := decoder.Decode(data, nil, c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	setDefaults(c)
	return c, nil
}

func validate(c *configv1alpha1.KubeProxyConfiguration) field.ErrorList {
	var errs field.ErrorList
	if c.Mode != "nftables" {
		errs = append(errs, field.NotSupported(field.NewPath("mode"), c.Mode, []string{"nftables"}))
	}
	if bit := *c.NFTables.MasqueradeBit; bit < 0 || bit > 31 {
		errs = append(errs, field.Invalid(field.NewPath("nftables", "masqueradeBit"), bit, "must be within the range [0, 31]"))
	}
	if err := component.CheckFeatureGates(c.FeatureGates); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("featureGates"), c.FeatureGates, err.Error()))
	}
	if _, err := netip.ParseAddr(c.BindAddress); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("bindAddress"), c.BindAddress, "not a valid textual representation of an IP address"))
	}
	if v := c.ShowHiddenMetricsForVersion; v != "" {
		errs = append(errs, field.Forbidden(field.NewPath("showHiddenMetricsForVersion"), "no metrics are hidden"))
	}
	if score := *c.OOMScoreAdj; score < -1000 || score > 1000 {
		errs = append(errs, field.Invalid(field.NewPath("oomScoreAdj"), score, "must be within the range [-1000, 1000]"))
	}
	for name, address := range map[string]string{"healthzBindAddress": c.HealthzBindAddress, "metricsBindAddress": c.MetricsBindAddress} {
		if address == "" {
			continue
		}
		if _, port, err := net.SplitHostPort(address); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(name), address, "must be IP:port"))
		} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(name), address, "the port must be a number from 0 to 65535"))
		}
	}
	for _, cidr := range split(c.ClusterCIDR) {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("clusterCIDR"), c.ClusterCIDR, "must be CIDRs (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)"))
		}
	}
	switch c.DetectLocalMode {
	case "ClusterCIDR", "NodeCIDR":
	case "BridgeInterface":
		if c.DetectLocal.BridgeInterface == "" {
			errs = append(errs, field.Required(field.NewPath("detectLocal", "bridgeInterface"), ""))
		}
	case "InterfaceNamePrefix":
		if c.DetectLocal.InterfaceNamePrefix == "" {
			errs = append(errs, field.Required(field.NewPath("detectLocal", "interfaceNamePrefix"), ""))
		}
	default:
		errs = append(errs, field.NotSupported(field.NewPath("detectLocalMode"), c.DetectLocalMode,
			[]string{"ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"}))
	}
	return errs
}

// withoutEffect are settings that make no difference to this proxy, and why.
func withoutEffect(c *configv1alpha1.KubeProxyConfiguration) map[string]string {
	fields := map[string]string{}
	if ip, err := netip.ParseAddr(c.BindAddress); err == nil && !ip.IsUnspecified() {
		fields["bindAddress"] = "Services of both IP families are always proxied"
	}
	if p := c.ConfigSyncPeriod.Duration; p != 0 && p != 15*time.Minute {
		fields["configSyncPeriod"] = "Services are followed by watches, not at intervals"
	}
	if p := c.NFTables.SyncPeriod.Duration; p != 0 && p != 30*time.Second {
		fields["nftables.syncPeriod"] = "rules are written when something changes, not at intervals"
	}
	if component.AsksForLogging(&c.Logging) {
		fields["logging"] = "the flags decide how to log"
	}
	return fields
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// rulesOf translates how local traffic is told into what nftables says.
func rulesOf(ctx context.Context, c *configv1alpha1.KubeProxyConfiguration, kubeConfig *rest.Config, node string) (map[nft.Family]nft.Rules, error) {
	local := map[nft.Family]string{}
	cidrs := split(c.ClusterCIDR)
	switch c.DetectLocalMode {
	case "NodeCIDR":
		var err error
		if cidrs, err = podCIDRs(ctx, kubeConfig, node); err != nil {
			return nil, fmt.Errorf("--detect-local-mode=NodeCIDR: %w", err)
		}
	case "BridgeInterface":
		cidrs = nil
		local[nft.IPv4] = fmt.Sprintf("iifname %q", c.DetectLocal.BridgeInterface)
		local[nft.IPv6] = local[nft.IPv4]
	case "InterfaceNamePrefix":
		cidrs = nil
		local[nft.IPv4] = fmt.Sprintf("iifname %q", c.DetectLocal.InterfaceNamePrefix+"*")
		local[nft.IPv6] = local[nft.IPv4]
	}
	for _, cidr := range cidrs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, fmt.Errorf("pod CIDR %q: %w", cidr, err)
		}
		family := nft.IPv4
		if prefix.Addr().Is6() {
			family = nft.IPv6
		}
		local[family] = string(family) + " saddr " + prefix.Masked().String()
	}
	rules := map[nft.Family]nft.Rules{}
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		rules[f] = nft.Rules{Local: local[f], MasqueradeAll: c.NFTables.MasqueradeAll, Mark: 1 << *c.NFTables.MasqueradeBit}
	}
	return rules, nil
}

// podCIDRs waits until the node has been given its pod CIDRs.
func podCIDRs(ctx context.Context, kubeConfig *rest.Config, name string) ([]string, error) {
	client, err := kubernetes.NewForConfig(kubeConfig)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(n.Spec.PodCIDRs) > 0 {
			return n.Spec.PodCIDRs, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("node %q got no podCIDRs within two minutes: %w", name, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

func nodePortNetworks(list []string) ([]netip.Prefix, error) {
	if len(list) == 1 && list[0] == primary {
		return nil, nil
	}
	var out []netip.Prefix
	for _, cidr := range list {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, err
		}
		out = append(out, prefix.Masked())
	}
	return out, nil
}

// cleanup is what --cleanup does instead of proxying.
type cleanup string

// Run removes the tables.
func (c cleanup) Run(ctx context.Context) error {
	var errs []error
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		table, err := nft.NewTable(f, string(c), nft.Rules{})
		if err == nil {
			err = table.Remove(ctx)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
