// Package kubelet is the node agent: it runs the pods that are bound to its node.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/kubelet/eviction"
	"github.com/leme-k8s/leme/pkg/kubelet/images"
)

// Options are the kubelet's flags.
type Options struct {
	ConfigFile          string
	ConfigDir           string
	Kubeconfig          string
	BootstrapKubeconfig string
	HostnameOverride    string
	NodeIP              string
	NodeLabels          map[string]string
	RootDir             string
	CertDir             string
	CloudProvider       string
	RuntimeCgroups      string
	CredentialConfig    string
	CredentialBinDir    string

	overrides []func(*kubeletconfig.KubeletConfiguration) error
}

// NewOptions returns the defaults.
func NewOptions() *Options {
	return &Options{RootDir: "/var/lib/kubelet", CertDir: "/var/lib/kubelet/pki"}
}

// AddFlags implements component.Options.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.ConfigFile, "config", o.ConfigFile, "File with a KubeletConfiguration; flags win over it")
	fs.StringVar(&o.ConfigDir, "config-dir", o.ConfigDir, "Directory of *.conf files that are laid over the configuration file")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "File that says where the API server is and who the kubelet is to it; without it static pods run alone")
	fs.StringVar(&o.BootstrapKubeconfig, "bootstrap-kubeconfig", o.BootstrapKubeconfig, "File with which to ask for a client certificate if --kubeconfig is not there yet; it is written then")
	fs.StringVar(&o.HostnameOverride, "hostname-override", o.HostnameOverride, "Name of the node, if it is not the machine's host name")
	fs.StringVar(&o.NodeIP, "node-ip", o.NodeIP, "IP address of the node, or two of different families with a comma between them")
	fs.StringToStringVar(&o.NodeLabels, "node-labels", o.NodeLabels, "Labels to register the node with (key=value,…)")
	fs.StringVar(&o.RootDir, "root-dir", o.RootDir, "Directory of the kubelet's files")
	fs.StringVar(&o.CertDir, "cert-dir", o.CertDir, "Directory of the kubelet's certificates")
	fs.StringVar(&o.CloudProvider, "cloud-provider", o.CloudProvider, "Empty, or external if a cloud controller manager initializes nodes")
	fs.StringVar(&o.RuntimeCgroups, "runtime-cgroups", o.RuntimeCgroups, "Cgroup of the container runtime, for statistics")
	fs.StringVar(&o.CredentialConfig, "image-credential-provider-config", o.CredentialConfig, "File with the configuration of credential provider plugins")
	fs.StringVar(&o.CredentialBinDir, "image-credential-provider-bin-dir", o.CredentialBinDir, "Directory of credential provider plugins")
	addConfigFlags(fs, o)
}

// Config reads the configuration file and lays the flags over it.
func (o *Options) Config() (*kubeletconfig.KubeletConfiguration, error) {
	c := &kubeletconfig.KubeletConfiguration{}
	if o.ConfigFile != "" {
		var err error
		if c, err = LoadConfig(o.ConfigFile); err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
	}
	if o.ConfigDir != "" {
		if err := mergeDropIns(c, o.ConfigDir); err != nil {
			return nil, fmt.Errorf("--config-dir: %w", err)
		}
	}
	for _, set := range o.overrides {
		if err := set(c); err != nil {
			return nil, err
		}
	}
	SetDefaults(c)
	return c, Validate(c)
}

// New implements component.Options.
func (o *Options) New(ctx context.Context) (component.Runner, error) {
	c, err := o.Config()
	if err != nil {
		return nil, err
	}
	for field, reason := range withoutEffect(c) {
		klog.FromContext(ctx).Info("A setting has no effect", "field", field, "reason", reason)
	}
	if (o.CredentialConfig == "") != (o.CredentialBinDir == "") {
		return nil, errors.New("--image-credential-provider-config: must be given together with --image-credential-provider-bin-dir")
	}
	if o.CloudProvider != "" && o.CloudProvider != "external" {
		return nil, fmt.Errorf("--cloud-provider: %q is neither empty nor external", o.CloudProvider)
	}
	component.CountNatively(component.NativeHistograms(c.FeatureGates))
	if err := component.ShowFeatureGates(ctx, c.FeatureGates); err != nil {
		return nil, err
	}
	k := &Kubelet{options: *o, config: c}
	if o.CredentialConfig != "" {
		if k.providers, err = images.LoadProviders(o.CredentialConfig, o.CredentialBinDir); err != nil {
			return nil, fmt.Errorf("--image-credential-provider-config: %w", err)
		}
	}
	if k.thresholds, err = eviction.Parse(c); err != nil {
		return nil, err
	}
	if k.hostname, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("asking for the host name: %w", err)
	}
	if o.HostnameOverride != "" {
		k.hostname = o.HostnameOverride
	}
	k.hostname = strings.ToLower(strings.TrimSpace(k.hostname))
	k.nodeName = k.hostname
	if msgs := validation.IsDNS1123Subdomain(k.nodeName); len(msgs) > 0 {
		return nil, fmt.Errorf("--hostname-override: %q: %s", k.nodeName, strings.Join(msgs, "; "))
	}
	if k.options.RootDir, err = filepath.Abs(o.RootDir); err != nil {
		return nil, fmt.Errorf("--root-dir: %w", err)
	}
	for _, s := range split(o.NodeIP) {
		ip := net.ParseIP(s)
		if ip == nil {
			return nil, fmt.Errorf("--node-ip: %q is not an IP address", s)
		}
		if !ip.IsUnspecified() {
			k.ips = append(k.ips, ip)
		}
	}
	if len(k.ips) > 2 || len(k.ips) == 2 && (k.ips[0].To4() == nil) == (k.ips[1].To4() == nil) {
		return nil, errors.New("--node-ip: two addresses must be of different families")
	}
	for key, value := range o.NodeLabels {
		msgs := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...)
		if len(msgs) > 0 {
			return nil, fmt.Errorf("--node-labels: %s=%s: %s", key, value, strings.Join(msgs, "; "))
		}
	}
	return k, nil
}
