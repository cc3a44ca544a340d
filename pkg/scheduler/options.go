package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
)

// Options are kube-scheduler's flags. A flag that a configuration file can say as well
// wins over it where the original lets it: leader election and kubeconfig do not.
type Options struct {
	configFile       string
	writeConfigTo    string
	recordTo         string
	recordLimit      resource.QuantityValue
	master           string
	maxUnschedulable time.Duration
	featureGates     map[string]bool
	flags            *pflag.FlagSet
	component        *configv1.KubeSchedulerConfiguration
	serving          *component.Serving
	outOfTree        framework.Registry
}

var _ component.Options = &Options{}

// An Option changes the options of a scheduler that is built from this package.
type Option func(*Options)

// WithPlugin adds a plugin that is not part of Kubernetes, for profiles to name.
func WithPlugin(name string, factory framework.Factory) Option {
	return func(o *Options) { o.outOfTree[name] = factory }
}

// NewOptions returns the options with their defaults.
func NewOptions(opts ...Option) *Options {
	o := &Options{
		maxUnschedulable: 5 * time.Minute,
		recordLimit:      resource.QuantityValue{Quantity: resource.MustParse("1Gi")},
		component:        config.Default(),
		serving:          component.NewServing(10259),
		outOfTree:        framework.Registry{},
	}
	for _, opt := range opts {
		opt(o)
	}
	return o
}

// AddFlags adds kube-scheduler's flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.flags = fs
	c := o.component
	fs.StringVar(&o.configFile, "config", o.configFile, "The path to the configuration file (KubeSchedulerConfiguration v1)")
	fs.StringVar(&o.writeConfigTo, "write-config-to", o.writeConfigTo, "If set, write the configuration values to this file and exit")
	fs.StringVar(&o.recordTo, "record-to", o.recordTo, "If set, record to this file all that decisions depend on, for `leme scheduler replay`. It has the specs of all pods. A file that exists is kept, with .old added to its name")
	fs.Var(&o.recordLimit, "record-limit", "The size of the file of --record-to at which the recording ends")
	fs.StringVar(&o.master, "master", o.master, "The address of the Kubernetes API server (overrides any value in kubeconfig)")
	fs.DurationVar(&o.maxUnschedulable, "pod-max-in-unschedulable-pods-duration", o.maxUnschedulable, "The maximum time that a pod stays unschedulable without being tried again")
	fs.Var(cliflag.NewMapStringBool(&o.featureGates), "feature-gates", "Feature gates as Name=true|false pairs. Of those that concern the scheduler, these may differ from the defaults of v"+component.Version+": "+strings.Join(heededGates, ", "))
	o.serving.AddFlags(fs)

	fs.StringVar(&c.ClientConnection.Kubeconfig, "kubeconfig", c.ClientConnection.Kubeconfig, "Path to a kubeconfig file with authorization and master location information")
	fs.Float32Var(&c.ClientConnection.QPS, "kube-api-qps", c.ClientConnection.QPS, "QPS to use while talking with the API server")
	fs.Int32Var(&c.ClientConnection.Burst, "kube-api-burst", c.ClientConnection.Burst, "Burst to use while talking with the API server")
	fs.StringVar(&c.ClientConnection.ContentType, "kube-api-content-type", c.ClientConnection.ContentType, "Content type of requests sent to the API server")
	fs.BoolVar(c.EnableContentionProfiling, "contention-profiling", *c.EnableContentionProfiling, "Enable block profiling, if profiling is enabled. It costs, and is off unless asked for")

	l := &c.LeaderElection
	fs.BoolVar(l.LeaderElect, "leader-elect", *l.LeaderElect, "Lead only while holding a lease, so that several schedulers can stand by")
	fs.DurationVar(&l.LeaseDuration.Duration, "leader-elect-lease-duration", l.LeaseDuration.Duration, "How long others wait, after the leader was last seen, before they take over")
	fs.DurationVar(&l.RenewDeadline.Duration, "leader-elect-renew-deadline", l.RenewDeadline.Duration, "How long the leader tries to renew its lease before it gives up")
	fs.DurationVar(&l.RetryPeriod.Duration, "leader-elect-retry-period", l.RetryPeriod.Duration, "How long to wait between two attempts at the lease")
	fs.StringVar(&l.ResourceLock, "leader-elect-resource-lock", l.ResourceLock, "The kind of object that is the lock: leases")
	fs.StringVar(&l.ResourceName, "leader-elect-resource-name", l.ResourceName, "The name of the lock object")
	fs.StringVar(&l.ResourceNamespace, "leader-elect-resource-namespace", l.ResourceNamespace, "The namespace of the lock object")
}

// New checks the flags and assembles a scheduler.
func (o *Options) New(ctx context.Context) (component.Runner, error) {
	if err := o.load(); err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	given := component.WithoutPrefix(o.featureGates)
	gates, err := gatesOf(given)
	if err != nil {
		return nil, fmt.Errorf("--feature-gates: %w", err)
	}
	o.serving.NativeHistograms = component.NativeHistograms(given)
	component.CountNatively(o.serving.NativeHistograms)
	if o.writeConfigTo != "" {
		return writeConfig{o.component, o.writeConfigTo}, nil
	}
	if o.component.ClientConnection.Kubeconfig == "" && o.master == "" {
		return nil, errors.New("--kubeconfig: name a kubeconfig file, here or as clientConnection.kubeconfig in the file of --config")
	}
	kubeConfig, err := clientcmd.BuildConfigFromFlags(o.master, o.component.ClientConnection.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	conn := o.component.ClientConnection
	kubeConfig.QPS, kubeConfig.Burst = conn.QPS, int(conn.Burst)
	kubeConfig.ContentType, kubeConfig.AcceptContentTypes = conn.ContentType, conn.AcceptContentTypes
	// A scheduler is near its API server: to compress each watch event costs both of them more than to send it.
	kubeConfig.DisableCompression = true

	registry := plugins.Registry()
	maps.Copy(registry, o.outOfTree)
	return New(ctx, Config{
		KubeConfig:       kubeConfig,
		Component:        o.component,
		Serving:          o.serving,
		Plugins:          registry,
		Gates:            gates,
		MaxUnschedulable: o.maxUnschedulable,
		RecordTo:         o.recordTo,
		RecordLimit:      o.recordLimit.Value(),
	})
}

// load reads the file of --config. As in the original, the leader election flags that
// were given win over the file, and the others that it can say do not.
func (o *Options) load() error {
	if o.configFile == "" {
		if o.flags != nil && o.flags.Changed("profiling") {
			*o.component.EnableProfiling = o.serving.Profiling
		}
		return nil
	}
	given := o.component.LeaderElection
	fromFile, err := config.Load(o.configFile)
	if err != nil {
		return err
	}
	l := &fromFile.LeaderElection
	for name, take := range map[string]func(){
		"leader-elect":                    func() { l.LeaderElect = given.LeaderElect },
		"leader-elect-lease-duration":     func() { l.LeaseDuration = given.LeaseDuration },
		"leader-elect-renew-deadline":     func() { l.RenewDeadline = given.RenewDeadline },
		"leader-elect-retry-period":       func() { l.RetryPeriod = given.RetryPeriod },
		"leader-elect-resource-lock":      func() { l.ResourceLock = given.ResourceLock },
		"leader-elect-resource-name":      func() { l.ResourceName = given.ResourceName },
		"leader-elect-resource-namespace": func() { l.ResourceNamespace = given.ResourceNamespace },
	} {
		if o.flags.Changed(name) {
			take()
		}
	}
	o.component = fromFile
	return nil
}

// writeConfig is what --write-config-to does instead of scheduling.
type writeConfig struct {
	config *configv1.KubeSchedulerConfiguration
	path   string
}

// Run writes the file.
func (w writeConfig) Run(context.Context) error {
	data, err := config.Encode(w.config, runtime.ContentTypeYAML)
	if err != nil {
		return fmt.Errorf("--write-config-to: %w", err)
	}
	if err := os.WriteFile(w.path, data, 0o600); err != nil {
		return fmt.Errorf("--write-config-to: %w", err)
	}
	return nil
}
