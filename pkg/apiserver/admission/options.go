// Package admission lists the admission plugins of the kube-apiserver, in the
// order in which they run. Each has a folder of its own, but for those that
// k8s.io/apiserver publishes.
//
// To wire it into a server, after authorization and before its informers start:
//
//	err := o.ApplyTo(&config.Config, admission.Dependencies{Client: client, Dynamic: dynamic, Informers: informers, Serves: serves, …})
//
// A plugin that is on by default but needs a resource that the server does not
// have (webhooks without admissionregistration.k8s.io) stays off.
package admission

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/pflag"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"github.com/leme-k8s/leme/pkg/apiserver/admission/alwaysadmit"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/alwaysdeny"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/alwayspullimages"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/certificateapproval"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/certificatesigning"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/certificatesubjectrestriction"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/clustertrustbundleattest"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/defaultingressclass"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/defaultstorageclass"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/defaulttolerationseconds"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/denyserviceexternalips"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/eventratelimit"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/extendedresourcetoleration"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/imagepolicywebhook"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/limitpodhardantiaffinitytopology"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/limitranger"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/mutatingwebhook"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/namespaceautoprovision"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/namespaceexists"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/nodedeclaredfeaturevalidator"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/noderestriction"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/ownerreferencespermissionenforcement"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/persistentvolumeclaimresize"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/podgroupprotection"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/podnodeselector"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/podresizevalidator"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/podsecurity"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/podtolerationrestriction"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/podtopologylabels"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/policies"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/priority"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/runtimeclass"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/serviceaccount"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/storageobjectinuseprotection"
	"github.com/leme-k8s/leme/pkg/apiserver/admission/taintnodesbycondition"
)

// Options are the flags of admission.
type Options struct {
	generic *genericoptions.AdmissionOptions
	// NotReadySeconds and UnreachableSeconds are how long pods tolerate such nodes.
	NotReadySeconds, UnreachableSeconds int64
	// Exactly, unless empty, are all plugins that are on.
	Exactly []string
}

// A plugin of the list below.
type plugin struct {
	name string
	// new makes it from its section of the configuration file; nil for those that
	// k8s.io/apiserver can register itself.
	new admission.Factory
	// off by default.
	off bool
	// needs is a resource without which the plugin cannot work.
	needs schema.GroupVersionResource
}

func configless[T admission.Interface](new func() T) admission.Factory {
	return func(io.Reader) (admission.Interface, error) { return new(), nil }
}

func configured[T admission.Interface](new func(io.Reader) (T, error)) admission.Factory {
	return func(section io.Reader) (admission.Interface, error) { return new(section) }
}

// plugins in the order in which they run. Mutating ones run before all validating ones.
func (o *Options) plugins() []plugin {
	registration := admissionregistrationv1.SchemeGroupVersion
	v1 := func(group, resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}
	}
	return []plugin{
		{name: alwaysadmit.PluginName, new: configless(alwaysadmit.New), off: true},
		{name: namespaceautoprovision.PluginName, new: configless(namespaceautoprovision.New), off: true},
		{name: lifecycle.PluginName},
		{name: namespaceexists.PluginName, new: configless(namespaceexists.New), off: true},
		{name: limitpodhardantiaffinitytopology.PluginName, new: configless(limitpodhardantiaffinitytopology.New), off: true},
		{name: limitranger.PluginName, new: configless(limitranger.New), needs: v1("", "limitranges")},
		{name: serviceaccount.PluginName, new: configless(serviceaccount.New)},
		{name: noderestriction.PluginName, new: configless(noderestriction.New), off: true},
		{name: taintnodesbycondition.PluginName, new: configless(taintnodesbycondition.New)},
		{name: alwayspullimages.PluginName, new: configless(alwayspullimages.New), off: true},
		{name: imagepolicywebhook.PluginName, new: configured(imagepolicywebhook.New), off: true},
		{name: podsecurity.PluginName, new: configured(podsecurity.New)},
		{name: podnodeselector.PluginName, new: configured(podnodeselector.New), off: true},
		{name: priority.PluginName, new: configless(priority.New), needs: v1("scheduling.k8s.io", "priorityclasses")},
		{name: defaulttolerationseconds.PluginName, new: func(io.Reader) (admission.Interface, error) {
			return defaulttolerationseconds.New(o.NotReadySeconds, o.UnreachableSeconds), nil
		}},
		{name: podtolerationrestriction.PluginName, new: configured(podtolerationrestriction.New), off: true},
		{name: eventratelimit.PluginName, new: configured(eventratelimit.New), off: true},
		{name: extendedresourcetoleration.PluginName, new: configless(extendedresourcetoleration.New), off: true},
		{name: defaultstorageclass.PluginName, new: configless(defaultstorageclass.New), needs: v1("storage.k8s.io", "storageclasses")},
		{name: storageobjectinuseprotection.PluginName, new: configless(storageobjectinuseprotection.New)},
		{name: podgroupprotection.PluginName, new: configless(podgroupprotection.New)},
		{name: ownerreferencespermissionenforcement.PluginName, new: configless(ownerreferencespermissionenforcement.New), off: true},
		{name: persistentvolumeclaimresize.PluginName, new: configless(persistentvolumeclaimresize.New), needs: v1("storage.k8s.io", "storageclasses")},
		{name: runtimeclass.PluginName, new: configless(runtimeclass.New), needs: v1("node.k8s.io", "runtimeclasses")},
		{name: certificateapproval.PluginName, new: configless(certificateapproval.New)},
		{name: certificatesigning.PluginName, new: configless(certificatesigning.New)},
		{name: clustertrustbundleattest.PluginName, new: configless(clustertrustbundleattest.New)},
		{name: certificatesubjectrestriction.PluginName, new: configless(certificatesubjectrestriction.New)},
		{name: defaultingressclass.PluginName, new: configless(defaultingressclass.New), needs: v1("networking.k8s.io", "ingressclasses")},
		{name: denyserviceexternalips.PluginName, new: configless(denyserviceexternalips.New), off: true},
		{name: podtopologylabels.PluginName, new: configless(podtopologylabels.New)},
		{name: nodedeclaredfeaturevalidator.PluginName, new: configless(nodedeclaredfeaturevalidator.New)},
		{name: podresizevalidator.PluginName, new: configless(podresizevalidator.New)},
		{name: policies.Mutating, new: policies.NewMutating, needs: registration.WithResource("mutatingadmissionpolicies")},
		{name: mutatingwebhook.PluginName, new: configured(mutatingwebhook.New), needs: registration.WithResource("mutatingwebhookconfigurations")},
		{name: policies.Validating, new: policies.NewValidating, needs: registration.WithResource("validatingadmissionpolicies")},
		{name: validatingwebhook.PluginName, needs: registration.WithResource("validatingwebhookconfigurations")},
		{name: resourcequota.PluginName, needs: v1("", "resourcequotas")},
		{name: alwaysdeny.PluginName, new: configless(alwaysdeny.New), off: true},
	}
}

// NewOptions returns the original's defaults.
func NewOptions() *Options {
	o := &Options{generic: genericoptions.NewAdmissionOptions(), NotReadySeconds: 300, UnreachableSeconds: 300}
	o.generic.RecommendedPluginOrder = nil
	o.generic.Plugins = admission.NewPlugins()
	lifecycle.Register(o.generic.Plugins)
	validatingwebhook.Register(o.generic.Plugins)
	resourcequota.Register(o.generic.Plugins)
	o.generic.DefaultOffPlugins = sets.New[string]()
	for _, p := range o.plugins() {
		o.generic.RecommendedPluginOrder = append(o.generic.RecommendedPluginOrder, p.name)
		if p.new != nil {
			o.generic.Plugins.Register(p.name, p.new)
		}
		if p.off {
			o.generic.DefaultOffPlugins.Insert(p.name)
		}
	}
	return o
}

// AddFlags adds the original's flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.generic.AddFlags(fs)
	fs.StringSliceVar(&o.Exactly, "admission-control", o.Exactly, "All admission plugins that are on, in place of those that are by default")
	utilruntime.Must(fs.MarkDeprecated("admission-control", "use --enable-admission-plugins and --disable-admission-plugins"))
	fs.Int64Var(&o.NotReadySeconds, "default-not-ready-toleration-seconds", o.NotReadySeconds, "How long a pod that does not say so itself tolerates that its node is not ready")
	fs.Int64Var(&o.UnreachableSeconds, "default-unreachable-toleration-seconds", o.UnreachableSeconds, "How long a pod that does not say so itself tolerates that its node is unreachable")
}

// Validate reports every flag that is wrong.
func (o *Options) Validate() error {
	errs := o.generic.Validate()
	if len(o.Exactly) > 0 && (len(o.generic.EnablePlugins) > 0 || len(o.generic.DisablePlugins) > 0) {
		errs = append(errs, errors.New("--admission-control excludes --enable-admission-plugins and --disable-admission-plugins"))
	}
	for _, name := range o.Exactly {
		if !slices.Contains(o.generic.RecommendedPluginOrder, name) {
			errs = append(errs, fmt.Errorf("--admission-control: plugin %q is unknown", name))
		}
	}
	return errors.Join(errs...)
}

// Dependencies are what plugins ask.
type Dependencies struct {
	// Client and Dynamic are this server's loopback clients.
	Client  kubernetes.Interface
	Dynamic dynamic.Interface
	// Informers are this server's own, which have not started.
	Informers informers.SharedInformerFactory
	// Scheme knows the kinds that plugins read from files.
	Scheme *runtime.Scheme
	// Serves says which resources this server has; nil means all.
	Serves func(schema.GroupVersionResource) bool
	// Features says of feature gates that are off by default whether they are on.
	Features map[string]bool
	// Initializers give plugins what only the server has: the way to webhooks.
	Initializers []admission.PluginInitializer
}

// ApplyTo gives the chain of enabled plugins to a server whose authorizer is set.
func (o *Options) ApplyTo(c *server.Config, d Dependencies) error {
	if err := o.Validate(); err != nil {
		return err
	}
	chain := *o.generic
	chain.DisablePlugins = slices.Clone(o.generic.DisablePlugins)
	if len(o.Exactly) > 0 {
		chain.EnablePlugins = o.Exactly
		chain.DisablePlugins = slices.DeleteFunc(slices.Clone(o.generic.RecommendedPluginOrder), func(name string) bool { return slices.Contains(o.Exactly, name) })
	}
	for _, p := range o.plugins() {
		if p.needs.Empty() || d.Serves == nil || d.Serves(p.needs) {
			continue
		}
		if slices.Contains(chain.EnablePlugins, p.name) {
			return fmt.Errorf("--enable-admission-plugins: %s needs %s, which --runtime-config switches off", p.name, p.needs.GroupResource())
		}
		chain.DisablePlugins = append(chain.DisablePlugins, p.name)
	}
	initializers := append([]admission.PluginInitializer{ownInitializer{d}}, d.Initializers...)
	if err := chain.ApplyTo(c, d.Informers, d.Client, d.Dynamic, utilfeature.DefaultFeatureGate, c.EffectiveVersion, initializers...); err != nil {
		return fmt.Errorf("--admission-control-config-file: %w", err)
	}
	return nil
}
