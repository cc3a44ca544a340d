package testcluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/scheduler"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// An Option says what a cluster has beside an API server, or how that differs.
type Option func(*options)

type options struct {
	apiServerFlags []string

	controllerManager      bool
	controllerManagerFlags []string
	scheduler              bool
	schedulerFlags         []string
	schedulerOptions       []scheduler.Option

	crdPaths []string
	objects  []runtime.Object
}

// WithAPIServerFlags adds flags of kube-apiserver, such as "--audit-log-path=…". They
// replace those of the same name that the cluster would have. Where it listens, where
// it stores and which certificates it has is not up to flags.
func WithAPIServerFlags(flags ...string) Option {
	return func(o *options) { o.apiServerFlags = append(o.apiServerFlags, flags...) }
}

// WithControllerManager runs kube-controller-manager as well, with the given flags in
// addition, such as "--controllers=*,-garbagecollector". The cluster is ready when the
// service account of pods in the default namespace is there.
func WithControllerManager(flags ...string) Option {
	return func(o *options) {
		o.controllerManager = true
		o.controllerManagerFlags = append(o.controllerManagerFlags, flags...)
	}
}

// WithScheduler runs kube-scheduler as well, with the given flags in addition, such as
// "--config=…", whose file need not say how the cluster is reached.
func WithScheduler(flags ...string) Option {
	return func(o *options) {
		o.scheduler = true
		o.schedulerFlags = append(o.schedulerFlags, flags...)
	}
}

// WithSchedulerPlugin has the kube-scheduler of [WithScheduler] know a plugin that is not part of Kubernetes,
// for the profiles of its configuration to name.
func WithSchedulerPlugin(name string, factory framework.Factory) Option {
	return func(o *options) { o.schedulerOptions = append(o.schedulerOptions, scheduler.WithPlugin(name, factory)) }
}

// WithCRDs installs the CustomResourceDefinitions in files, or in the .yaml, .yml and
// .json files of directories, and waits until what they define is served. Other objects
// in these files are passed over.
func WithCRDs(paths ...string) Option {
	return func(o *options) { o.crdPaths = append(o.crdPaths, paths...) }
}

// WithObjects creates objects: CustomResourceDefinitions first, waiting until what they
// define is served, then the others in their order. Unstructured objects and those of
// the built-in kinds are known by their type; others must have apiVersion and kind.
func WithObjects(objects ...runtime.Object) Option {
	return func(o *options) { o.objects = append(o.objects, objects...) }
}

// fixed are the flags that would cut the cluster off from its parts.
var fixed = map[string][]string{
	"kube-apiserver": {
		"bind-address", "secure-port", "etcd-servers", "tls-cert-file", "tls-private-key-file", "client-ca-file",
		"service-account-key-file", "service-account-signing-key-file",
	},
	"kube-controller-manager": {"kubeconfig", "master", "leader-elect"},
	"kube-scheduler":          {"kubeconfig", "master"},
}

func (o *options) validate() error {
	var errs []error
	for component, flags := range map[string][]string{
		"kube-apiserver": o.apiServerFlags, "kube-controller-manager": o.controllerManagerFlags, "kube-scheduler": o.schedulerFlags,
	} {
		for _, f := range flags {
			if name, ok := flagName(f); !ok {
				errs = append(errs, fmt.Errorf("%s: %q is not of the form --flag=value", component, f))
			} else if slices.Contains(fixed[component], name) {
				errs = append(errs, fmt.Errorf("%s: --%s is set by the cluster itself", component, name))
			}
		}
	}
	return errors.Join(errs...)
}

// flagName returns the name in --name=value or --name.
func flagName(flag string) (string, bool) {
	text, ok := strings.CutPrefix(flag, "--")
	name, _, _ := strings.Cut(text, "=")
	return strings.ReplaceAll(name, "_", "-"), ok && name != ""
}

// override returns the defaults that are not given, and what is given.
func override(defaults, given []string) []string {
	var all []string
	for _, d := range defaults {
		name, _ := flagName(d)
		if !slices.ContainsFunc(given, func(g string) bool { n, _ := flagName(g); return n == name }) {
			all = append(all, d)
		}
	}
	return append(all, given...)
}
