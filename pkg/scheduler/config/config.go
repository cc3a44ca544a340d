// Package config reads KubeSchedulerConfiguration v1, the file that --config names:
// its defaults, its validation, and what it says of profiles.
package config

import (
	"fmt"
	"os"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	componentbaseconfigv1alpha1 "k8s.io/component-base/config/v1alpha1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
)

// DefaultSchedulerName is the profile that pods get which ask for none.
const DefaultSchedulerName = "default-scheduler"

// Default returns the configuration of a scheduler that is given no file.
func Default() *configv1.KubeSchedulerConfiguration {
	c := &configv1.KubeSchedulerConfiguration{}
	SetDefaults(c)
	return c
}

// Load reads a configuration file. A field that is not known, or twice there, is an error.
func Load(path string) (*configv1.KubeSchedulerConfiguration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Decode reads a configuration, as Load does.
func Decode(data []byte) (*configv1.KubeSchedulerConfiguration, error) {
	codecs, err := newCodecs()
	if err != nil {
		return nil, err
	}
	decoder := codecs.UniversalDeserializer()
	obj, _, err := decoder.Decode(data, nil, nil)
	if err != nil {
		return nil, err
	}
	c, ok := obj.(*configv1.KubeSchedulerConfiguration)
	if !ok {
		return nil, fmt.Errorf("holds a %s, want a KubeSchedulerConfiguration", obj.GetObjectKind().GroupVersionKind().Kind)
	}
	if err := c.DecodeNestedObjects(decoder); err != nil {
		return nil, err
	}
	SetDefaults(c)
	return c, nil
}

// Encode writes a configuration as YAML or JSON.
func Encode(c *configv1.KubeSchedulerConfiguration, mediaType string) ([]byte, error) {
	codecs, err := newCodecs()
	if err != nil {
		return nil, err
	}
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), mediaType)
	if !ok {
		return nil, fmt.Errorf("no serializer for %s", mediaType)
	}
	encoder := codecs.EncoderForVersion(info.Serializer, configv1.SchemeGroupVersion)
	c = c.DeepCopy()
	if err := c.EncodeNestedObjects(encoder); err != nil {
		return nil, err
	}
	return runtime.Encode(encoder, c)
}

func newCodecs() (serializer.CodecFactory, error) {
	scheme := runtime.NewScheme()
	err := configv1.AddToScheme(scheme)
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict), err
}

// SetDefaults fills what c leaves open.
func SetDefaults(c *configv1.KubeSchedulerConfiguration) {
	set(&c.Parallelism, 16)
	set(&c.PercentageOfNodesToScore, 0)
	set(&c.PodInitialBackoffSeconds, 1)
	set(&c.PodMaxBackoffSeconds, 10)
	set(&c.EnableProfiling, true)
	set(&c.EnableContentionProfiling, false)
	setValue(&c.ClientConnection.QPS, 50)
	setValue(&c.ClientConnection.Burst, 100)
	setValue(&c.ClientConnection.ContentType, runtime.ContentTypeProtobuf)
	setValue(&c.LeaderElection.ResourceLock, "leases")
	componentbaseconfigv1alpha1.RecommendedDefaultLeaderElectionConfiguration(&c.LeaderElection)
	setValue(&c.LeaderElection.ResourceNamespace, metav1.NamespaceSystem)
	setValue(&c.LeaderElection.ResourceName, configv1.SchedulerDefaultLockObjectName)

	if len(c.Profiles) == 0 {
		c.Profiles = []configv1.KubeSchedulerProfile{{}}
	}
	for i := range c.Profiles {
		p := &c.Profiles[i]
		if len(c.Profiles) == 1 {
			set(&p.SchedulerName, DefaultSchedulerName)
		}
		if p.Plugins == nil {
			p.Plugins = &configv1.Plugins{}
		}
		setArgs(p)
	}
	for i := range c.Extenders {
		setValue(&c.Extenders[i].HTTPTimeout.Duration, 30*time.Second)
		for _, r := range c.Extenders[i].ManagedResources {
			if r.IgnoredByScheduler {
				ignore(c.Profiles, r.Name)
			}
		}
	}
}

func set[T any](field **T, v T) {
	if *field == nil {
		*field = ptr.To(v)
	}
}

func setValue[T comparable](field *T, v T) {
	var zero T
	if *field == zero {
		*field = v
	}
}

// ignore leaves a resource that an extender counts out of what nodes are checked for.
func ignore(profiles []configv1.KubeSchedulerProfile, resource string) {
	for i := range profiles {
		for _, c := range profiles[i].PluginConfig {
			if fit, ok := c.Args.Object.(*configv1.NodeResourcesFitArgs); ok && !slices.Contains(fit.IgnoredResources, resource) {
				fit.IgnoredResources = append(fit.IgnoredResources, resource)
			}
		}
	}
}

// Specs translates the profiles. The configuration must be valid with these gates.
func Specs(c *configv1.KubeSchedulerConfiguration, gates framework.Gates) []framework.Spec {
	specs := make([]framework.Spec, 0, len(c.Profiles))
	for i := range c.Profiles {
		specs = append(specs, specOf(&c.Profiles[i], gates))
	}
	return specs
}

func specOf(p *configv1.KubeSchedulerProfile, gates framework.Gates) framework.Spec {
	spec := framework.Spec{
		SchedulerName: *p.SchedulerName,
		Args:          map[string]runtime.Object{},
		Points:        map[string]framework.Point{},
		Weights:       map[string]int64{},

		PlacementWeights: map[string]int64{},
	}
	for _, a := range p.PluginConfig {
		if spec.Args[a.Name] = a.Args.Object; a.Args.Object == nil && len(a.Args.Raw) > 0 {
			spec.Args[a.Name] = &runtime.Unknown{Raw: a.Args.Raw, ContentType: runtime.ContentTypeJSON}
		}
	}
	weigh := func(list []configv1.Plugin) {
		for _, plugin := range list {
			if plugin.Weight != nil && *plugin.Weight != 0 {
				spec.Weights[plugin.Name] = int64(*plugin.Weight)
			}
		}
	}

	// multiPoint: the defaults less those disabled, then those enabled besides.
	multi := p.Plugins.MultiPoint
	for _, d := range plugins.DefaultsWith(gates) {
		if disabled(multi, d.Name) && !enabled(multi, d.Name) {
			continue
		}
		spec.Plugins = append(spec.Plugins, d.Name)
		spec.Weights[d.Name] = d.Weight
	}
	for _, plugin := range multi.Enabled {
		if !slices.Contains(spec.Plugins, plugin.Name) {
			spec.Plugins = append(spec.Plugins, plugin.Name)
		}
	}
	weigh(multi.Enabled)
	weigh(p.Plugins.Score.Enabled)
	for _, plugin := range p.Plugins.PlacementScore.Enabled {
		if plugin.Weight != nil {
			spec.PlacementWeights[plugin.Name] = int64(*plugin.Weight)
		}
	}

	everywhere := slices.Clone(spec.Plugins)
	for name, set := range points(p.Plugins) {
		if len(set.Enabled)+len(set.Disabled) == 0 {
			continue
		}
		point := pointOf(set, everywhere)
		spec.Points[name] = point
		for _, plugin := range point.Named {
			if !slices.Contains(spec.Plugins, plugin) {
				spec.Plugins = append(spec.Plugins, plugin)
			}
		}
	}
	// A plugin that is named for one point runs at no other.
	if len(spec.Plugins) > len(everywhere) {
		for name := range points(p.Plugins) {
			if _, ok := spec.Points[name]; !ok {
				spec.Points[name] = framework.Point{Plugins: everywhere}
			}
		}
	}
	return spec
}

// pointOf orders the plugins of one extension point: first those of everywhere that
// the point names too and thereby moves to the front, then the rest of everywhere,
// then those that only this point names.
func pointOf(set configv1.PluginSet, everywhere []string) framework.Point {
	var front, rest, own []string
	for _, p := range set.Enabled {
		if slices.Contains(everywhere, p.Name) {
			front = append(front, p.Name)
		} else {
			own = append(own, p.Name)
		}
	}
	for _, name := range everywhere {
		if !slices.Contains(front, name) && !disabled(set, name) {
			rest = append(rest, name)
		}
	}
	return framework.Point{Plugins: slices.Concat(front, rest, own), Named: slices.Concat(front, own)}
}

func enabled(set configv1.PluginSet, name string) bool {
	return slices.ContainsFunc(set.Enabled, func(p configv1.Plugin) bool { return p.Name == name })
}

func disabled(set configv1.PluginSet, name string) bool {
	return slices.ContainsFunc(set.Disabled, func(p configv1.Plugin) bool { return p.Name == name || p.Name == "*" })
}

// points are the plugin sets by extension point.
func points(p *configv1.Plugins) map[string]configv1.PluginSet {
	return map[string]configv1.PluginSet{
		"preEnqueue": p.PreEnqueue,
		"queueSort":  p.QueueSort,
		"preFilter":  p.PreFilter,
		"filter":     p.Filter,
		"postFilter": p.PostFilter,
		"preScore":   p.PreScore,
		"score":      p.Score,
		"reserve":    p.Reserve,
		"permit":     p.Permit,
		"preBind":    p.PreBind,
		"bind":       p.Bind,
		"postBind":   p.PostBind,

		"placementGenerate":  p.PlacementGenerate,
		"placementScore":     p.PlacementScore,
		"podGroupPostFilter": p.PodGroupPostFilter,
	}
}
