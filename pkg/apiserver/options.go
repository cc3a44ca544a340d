// Package apiserver is the Kubernetes API server: it stores objects of built-in kinds
// and custom resources in etcd, serves them over HTTPS to authenticated clients, and
// passes on what other API servers have.
//
//	options.go    flags
//	config.go     what the library's server is configured with
//	storage.go    where and how objects are stored
//	server.go     the assembled server
//	chain.go      the servers of aggregated APIs and of custom resources, before and behind it
//	registry/     the resources, one folder each, and the list of them
//	aggregation/  which versions the server has itself, and the way to those that it has not
//	openapi/      the documents of all of them
//	bootstrap/    objects that a cluster has from the start
//	authentication/ authorization/ admission/   who may do what
package apiserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/blang/semver/v4"
	"github.com/spf13/pflag"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/compatibility"
	"k8s.io/component-base/metrics"
	metricsv1 "k8s.io/component-base/metrics/api/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/admission"
	"github.com/leme-k8s/leme/pkg/apiserver/authentication"
	"github.com/leme-k8s/leme/pkg/apiserver/authorization"
	"github.com/leme-k8s/leme/pkg/apiserver/coordinatedelection"
	"github.com/leme-k8s/leme/pkg/component"
)

// Options are the flags of the API server.
type Options struct {
	Server         *genericoptions.ServerRunOptions
	Serving        *genericoptions.SecureServingOptions
	Etcd           *genericoptions.EtcdOptions
	Authentication *authentication.Options
	Authorization  *authorization.Options
	Admission      *admission.Options
	Audit          *genericoptions.AuditOptions
	Features       *genericoptions.FeatureOptions
	APIs           *genericoptions.APIEnablementOptions
	Egress         *genericoptions.EgressSelectorOptions
	Traces         *genericoptions.TracingOptions
	Metrics        *metrics.Options
	Kubelet        KubeletOptions

	// AllowPrivileged lets pods have privileged containers.
	AllowPrivileged bool
	// EventTTL is how long events are kept.
	EventTTL time.Duration
	// ServiceClusterIPRange is one or, for dual stack, two comma-separated CIDRs
	// that cluster IPs are taken from.
	ServiceClusterIPRange string
	// ServiceNodePortRange is where node ports are taken from.
	ServiceNodePortRange utilnet.PortRange
	// KubernetesServiceNodePort makes the default/kubernetes Service a NodePort Service.
	KubernetesServiceNodePort int
	// EndpointReconciler says which servers are the endpoints of default/kubernetes: "lease"
	// (who renews its lease), "master-count" (the last Count that came) or "none".
	EndpointReconciler string
	// Count is how many servers there are.
	Count int
	// ProxyClientCert is what the server shows to webhooks and aggregated API servers.
	ProxyClientCertFile, ProxyClientKeyFile string
	// MaxConnectionBytesPerSec throttles each proxied connection; 0 does not.
	MaxConnectionBytesPerSec int64
	// AggregatorRouting sends aggregated requests to endpoints in place of cluster IPs.
	AggregatorRouting bool
	// AggregatorRejectsRedirects keeps redirects of aggregated API servers from clients.
	AggregatorRejectsRedirects bool
	// Peers are the cluster's other servers.
	Peers PeerOptions
	// Elections are about the lease of the server that elects the leaders of components.
	Elections coordinatedelection.Timing
	// LogsHandler serves the files of /var/log.
	LogsHandler bool

	flags *pflag.FlagSet
	// features says of those of letIn whether they are on.
	features map[string]bool

	globals compatibility.ComponentGlobalsRegistry
	version compatibility.EffectiveVersion
}

// KubeletOptions say how the server reaches kubelets.
type KubeletOptions struct {
	// PreferredAddressTypes orders the addresses of a node by preference.
	PreferredAddressTypes     []string
	Port                      uint
	Timeout                   time.Duration
	CertFile, KeyFile, CAFile string
}

var _ component.Options = &Options{}

// NewOptions returns the original's defaults.
func NewOptions() *Options {
	features := map[string]bool{}
	for name := range letIn {
		features[name] = false
	}
	registry := compatibility.NewComponentGlobalsRegistry()
	version := compatibility.NewEffectiveVersionFromString(component.Version, "1.34", "1.34")
	if err := registry.Register(compatibility.DefaultKubeComponent, version, gates{utilfeature.DefaultMutableFeatureGate, features}); err != nil {
		panic(err) // the registry is new: nothing can be registered twice
	}
	o := &Options{
		Server:         genericoptions.NewServerRunOptionsForComponent(compatibility.DefaultKubeComponent, registry),
		Serving:        genericoptions.NewSecureServingOptions(),
		Etcd:           genericoptions.NewEtcdOptions(storagebackend.NewDefaultConfig("/registry", nil)),
		Authentication: authentication.NewOptions(),
		Authorization:  authorization.NewOptions(),
		Admission:      admission.NewOptions(),
		Audit:          genericoptions.NewAuditOptions(),
		Features:       genericoptions.NewFeatureOptions(),
		APIs:           genericoptions.NewAPIEnablementOptions(),
		Egress:         genericoptions.NewEgressSelectorOptions(),
		Traces:         genericoptions.NewTracingOptions(),
		Metrics:        metrics.NewOptions(),
		Kubelet: KubeletOptions{
			PreferredAddressTypes: []string{
				string(corev1.NodeHostName),
				string(corev1.NodeInternalDNS), string(corev1.NodeInternalIP),
				string(corev1.NodeExternalDNS), string(corev1.NodeExternalIP),
			},
			Port:    10250,
			Timeout: 5 * time.Second,
		},
		EventTTL:             time.Hour,
		ServiceNodePortRange: utilnet.PortRange{Base: 30000, Size: 2768},
		EndpointReconciler:   "lease",
		Count:                1,

		AggregatorRejectsRedirects: true,

		Elections: coordinatedelection.DefaultTiming(),

		features: features,

		globals: registry,
		version: reportedVersion{version},
	}
	o.Serving.BindPort = 6443
	o.Serving.Required = true
	o.Serving.ServerCert.CertDirectory = "/var/run/kubernetes"
	o.Etcd.DefaultStorageMediaType = runtime.ContentTypeProtobuf
	return o
}

// AddFlags implements component.Options.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.flags = fs
	o.Server.AddUniversalFlags(fs)
	o.Serving.AddFlags(fs)
	o.Etcd.AddFlags(fs)
	o.Authentication.AddFlags(fs)
	o.Authorization.AddFlags(fs)
	o.Admission.AddFlags(fs)
	o.Audit.AddFlags(fs)
	o.Features.AddFlags(fs)
	o.APIs.AddFlags(fs)
	o.Egress.AddFlags(fs)
	o.Traces.AddFlags(fs)
	o.Metrics.AddFlags(fs)

	fs.BoolVar(&o.AllowPrivileged, "allow-privileged", o.AllowPrivileged, "Allow privileged containers")
	fs.DurationVar(&o.EventTTL, "event-ttl", o.EventTTL, "How long events are kept")
	fs.StringVar(&o.ServiceClusterIPRange, "service-cluster-ip-range", o.ServiceClusterIPRange, "CIDR, or two comma-separated CIDRs of different IP families, that cluster IPs of Services are taken from. It must not overlap the addresses of nodes and pods")
	fs.Var(&o.ServiceNodePortRange, "service-node-port-range", "Ports that node ports of Services are taken from, such as 30000-32767")
	fs.IntVar(&o.KubernetesServiceNodePort, "kubernetes-service-node-port", o.KubernetesServiceNodePort, "Node port of the default/kubernetes Service; 0 gives it a cluster IP alone")
	fs.StringVar(&o.EndpointReconciler, "endpoint-reconciler-type", o.EndpointReconciler, "Which servers are the endpoints of the default/kubernetes Service: lease (who renews its lease), master-count (as many as --apiserver-count says; deprecated) or none (left alone)")
	fs.IntVar(&o.Count, "apiserver-count", o.Count, "How many API servers there are, for --endpoint-reconciler-type=master-count")
	utilruntime.Must(fs.MarkDeprecated("apiserver-count", "servers that renew their lease need not be counted"))
	fs.StringVar(&o.ProxyClientCertFile, "proxy-client-cert-file", o.ProxyClientCertFile, "Client certificate that is shown to aggregated API servers")
	fs.StringVar(&o.ProxyClientKeyFile, "proxy-client-key-file", o.ProxyClientKeyFile, "Private key of --proxy-client-cert-file")
	fs.Int64Var(&o.MaxConnectionBytesPerSec, "max-connection-bytes-per-sec", o.MaxConnectionBytesPerSec, "Throttle each connection that is proxied to this many bytes per second; 0 does not")
	fs.BoolVar(&o.AggregatorRouting, "enable-aggregator-routing", o.AggregatorRouting, "Send requests for aggregated APIs to endpoint IPs in place of the cluster IP")

	fs.BoolVar(&o.AggregatorRejectsRedirects, "aggregator-reject-forwarding-redirect", o.AggregatorRejectsRedirects, "Answer clients with an error when an aggregated API server redirects them")
	fs.StringVar(&o.Peers.CAFile, "peer-ca-file", o.Peers.CAFile, "CA bundle that the certificates of the cluster's other API servers are verified with, to which requests are passed on that this one does not serve. Without it, none are")
	fs.StringVar(&o.Peers.Advertise.PeerAdvertiseIP, "peer-advertise-ip", o.Peers.Advertise.PeerAdvertiseIP, "IP by which other API servers reach this one. By default the one that is advertised")
	fs.StringVar(&o.Peers.Advertise.PeerAdvertisePort, "peer-advertise-port", o.Peers.Advertise.PeerAdvertisePort, "Port by which other API servers reach this one. By default the one that is served")
	fs.DurationVar(&o.Elections.LeaseDuration, "coordinated-leadership-lease-duration", o.Elections.LeaseDuration, "How long the server that elects leaders may be silent before another one does, where the feature CoordinatedLeaderElection is on")
	fs.DurationVar(&o.Elections.RenewDeadline, "coordinated-leadership-renew-deadline", o.Elections.RenewDeadline, "How long that server tries to renew its lease before it stops electing")
	fs.DurationVar(&o.Elections.RetryPeriod, "coordinated-leadership-retry-period", o.Elections.RetryPeriod, "How long servers wait between two attempts to get or to renew that lease")
	fs.BoolVar(&o.LogsHandler, "enable-logs-handler", o.LogsHandler, "Serve the files of /var/log under /logs")
	utilruntime.Must(fs.MarkDeprecated("enable-logs-handler", "serving logs of the machine is no task of an API server"))
	for _, f := range accepted {
		fs.String(f.name, "", "Accepted for compatibility: "+f.why)
		utilruntime.Must(fs.MarkDeprecated(f.name, f.why))
	}

	k := &o.Kubelet
	fs.StringSliceVar(&k.PreferredAddressTypes, "kubelet-preferred-address-types", k.PreferredAddressTypes, "Types of node addresses to reach kubelets by, in order of preference")
	fs.UintVar(&k.Port, "kubelet-port", k.Port, "Port of kubelets that do not report one")
	fs.DurationVar(&k.Timeout, "kubelet-timeout", k.Timeout, "Accepted for compatibility: as in the original, a request to a kubelet lasts as long as its client waits")
	fs.StringVar(&k.CertFile, "kubelet-client-certificate", k.CertFile, "Client certificate that is shown to kubelets")
	fs.StringVar(&k.KeyFile, "kubelet-client-key", k.KeyFile, "Private key of --kubelet-client-certificate")
	fs.StringVar(&k.CAFile, "kubelet-certificate-authority", k.CAFile, "CA bundle that the certificates of kubelets are verified with")
	utilruntime.Must(fs.MarkDeprecated("kubelet-port", "nodes report the port of their kubelet"))
}

// accepted are flags that change nothing, here as in the original.
var accepted = []struct{ name, why string }{
	{"kubelet-read-only-port", "nothing is asked of that port"},
}

// Validate reports every flag that is wrong.
func (o *Options) Validate() error {
	var errs []error
	errs = append(errs, o.Server.Validate()...)
	errs = append(errs, o.Serving.Validate()...)
	errs = append(errs, o.Etcd.Validate()...)
	errs = append(errs, o.Audit.Validate()...)
	errs = append(errs, o.Features.Validate()...)
	errs = append(errs, o.Egress.Validate()...)
	errs = append(errs, o.Traces.Validate()...)
	errs = append(errs, o.Authentication.Validate(), o.Authorization.Validate(), o.Admission.Validate())
	errs = append(errs, o.Elections.Validate()...)
	errs = append(errs, o.validateMetrics())
	errs = append(errs, o.Peers.validate(o.ProxyClientCertFile, o.ProxyClientKeyFile)...)
	if _, err := o.serviceRanges(); err != nil {
		errs = append(errs, err)
	}
	if p := o.KubernetesServiceNodePort; p < 0 || p > 65535 {
		errs = append(errs, fmt.Errorf("--kubernetes-service-node-port: %d is no port", p))
	} else if p > 0 && !o.ServiceNodePortRange.Contains(p) {
		errs = append(errs, fmt.Errorf("--kubernetes-service-node-port: %d is not in the range %v of --service-node-port-range", p, o.ServiceNodePortRange))
	}
	if reconcilers := []string{"lease", "master-count", "none"}; !slices.Contains(reconcilers, o.EndpointReconciler) {
		errs = append(errs, fmt.Errorf("--endpoint-reconciler-type: %q is none of %s", o.EndpointReconciler, strings.Join(reconcilers, ", ")))
	}
	if o.Count < 1 {
		errs = append(errs, fmt.Errorf("--apiserver-count should be a positive number, but value '%d' provided", o.Count))
	}
	errs = append(errs,
		keyPair("--proxy-client-cert-file", o.ProxyClientCertFile, "--proxy-client-key-file", o.ProxyClientKeyFile),
		keyPair("--kubelet-client-certificate", o.Kubelet.CertFile, "--kubelet-client-key", o.Kubelet.KeyFile))
	return errors.Join(errs...)
}

// validateMetrics compares with the version that is reported, which the library's own Validate does not know.
func (o *Options) validateMetrics() error {
	if errs := metricsv1.Validate(&o.Metrics.MetricsConfiguration, semver.MustParse(component.Version), nil); len(errs) > 0 {
		return fmt.Errorf("flags of metrics: %w", errs.ToAggregate())
	}
	return nil
}

// keyPair says what is wrong with the files of a certificate and its key, both of
// which may be missing.
func keyPair(certFlag, certFile, keyFlag, keyFile string) error {
	switch {
	case certFile == "" && keyFile == "":
		return nil
	case certFile == "" || keyFile == "":
		return fmt.Errorf("%s and %s go together", certFlag, keyFlag)
	}
	if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		return fmt.Errorf("%s, %s: %w", certFlag, keyFlag, err)
	}
	return nil
}

// serviceRanges parses --service-cluster-ip-range.
func (o *Options) serviceRanges() ([]netip.Prefix, error) {
	const flag = "--service-cluster-ip-range"
	text := o.ServiceClusterIPRange
	if text == "" {
		text = "10.0.0.0/24"
	}
	var ranges []netip.Prefix
	for _, cidr := range strings.Split(text, ",") {
		r, err := netip.ParsePrefix(strings.TrimSpace(cidr))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		switch bits := r.Addr().BitLen() - r.Bits(); {
		case bits < 3:
			return nil, fmt.Errorf("%s: %s is too small: it has fewer than 8 addresses", flag, r)
		case bits > 64 || r.Addr().Is4() && bits > 20:
			return nil, fmt.Errorf("%s: %s is too large: an IPv4 range is at most a /12, an IPv6 range a /64", flag, r)
		}
		ranges = append(ranges, r.Masked())
	}
	if len(ranges) > 2 || len(ranges) == 2 && ranges[0].Addr().Is4() == ranges[1].Addr().Is4() {
		return nil, fmt.Errorf("%s: %q is neither one range nor two of different IP families", flag, text)
	}
	return ranges, nil
}
