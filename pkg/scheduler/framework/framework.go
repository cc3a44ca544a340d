// Package framework runs the plugins of a profile at each extension point of the
// scheduling framework (KEP-624), whose interfaces k8s.io/kube-scheduler/framework
// publishes. Plugins that are written against those run here unchanged.
package framework

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/devices"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// Factory makes a plugin from its arguments: a typed object of
// k8s.io/kube-scheduler/config/v1 for the plugins of Kubernetes, *runtime.Unknown for
// others, nil where the configuration has none.
type Factory func(ctx context.Context, args runtime.Object, h fwk.Handle) (fwk.Plugin, error)

// Registry has the factory of every plugin that a configuration may name.
type Registry map[string]Factory

// Spec is a profile: its name and which plugins it runs, in order, at each extension point.
type Spec struct {
	SchedulerName string
	// Plugins are the plugins to make, each once, in the order of the configuration.
	Plugins []string
	// Args are the arguments of plugins.
	Args map[string]runtime.Object
	// Points selects plugins where the configuration enables them for one extension
	// point only or disables them there. A point that is missing runs every plugin
	// of Plugins that implements it.
	Points map[string]Point
	// Weights of scores; 1 where missing.
	Weights map[string]int64
	// PlacementWeights are those of scores of placements, where they differ.
	PlacementWeights map[string]int64
}

// A Point is what the configuration says of one extension point.
type Point struct {
	// Plugins run in this order, as far as they implement the point.
	Plugins []string
	// Named are those that the configuration asks for by name and that must implement it.
	Named []string
}

// Deps are what the scheduler lends to plugins.
type Deps struct {
	Client      clientset.Interface
	KubeConfig  *restclient.Config
	Informers   informers.SharedInformerFactory
	Devices     fwk.SharedDRAManager // made from Informers if nil; profiles of one scheduler share it
	Recorder    events.EventRecorderLogger
	Snapshot    *cache.Snapshot
	Nominator   func() *queue.Queue // the queue is made after the profiles, from their hints
	Waiting     *WaitingPods
	Parallelism int
	Extenders   []fwk.Extender
	Notes       Notes // nil if nobody writes notes down
	Gates       Gates
	Timed       bool                // extension points are, for metrics
	Groups      fwk.PodGroupManager // nil while the GenericWorkload gate is off
}

// Framework is a profile at work. It is the Handle that its plugins get.
type Framework struct {
	Deps
	profile string

	preEnqueue []fwk.PreEnqueuePlugin
	queueSort  fwk.QueueSortPlugin
	preFilter  []fwk.PreFilterPlugin
	filter     []fwk.FilterPlugin
	postFilter []fwk.PostFilterPlugin
	preScore   []fwk.PreScorePlugin
	score      []weighted
	reserve    []fwk.ReservePlugin
	permit     []fwk.PermitPlugin
	preBind    []fwk.PreBindPlugin
	bind       []fwk.BindPlugin
	postBind   []fwk.PostBindPlugin
	sign       []fwk.SignPlugin
	unsigned   bool // a filter or score plugin cannot sign, so no two pods are known to be alike
	hints      []queue.Hint
	keepers    map[string]Keeper
	groups     groupPoints

	// byNode are the plugins whose answers alike pods share; of the filters, the first
	// sharedFilters.
	byNode        map[string]ByNode
	sharedFilters int
}

type weighted struct {
	fwk.ScorePlugin
	weight int64
	shared bool // its scores are, by pods that are alike
}

var _ fwk.Handle = &Framework{}

// New makes the plugins of a profile. Errors name the plugin.
func New(ctx context.Context, spec Spec, registry Registry, deps Deps) (*Framework, error) {
	if deps.Devices == nil { // a profile on its own
		deps.Devices = devices.NewManager(deps.Informers)
	}
	f := &Framework{Deps: deps, profile: spec.SchedulerName, keepers: map[string]Keeper{}}
	made := map[string]fwk.Plugin{}
	for _, name := range spec.Plugins {
		factory, ok := registry[name]
		if !ok {
			return nil, fmt.Errorf("plugin %q is not known", name)
		}
		p, err := factory(ctx, spec.Args[name], f)
		if err != nil {
			return nil, fmt.Errorf("plugin %q: %w", name, err)
		}
		made[name] = p
		if k, ok := p.(Keeper); ok {
			f.keepers[name] = k
		}
	}
	c := chooser{spec: spec, made: made}
	f.preEnqueue = pick[fwk.PreEnqueuePlugin](&c, "preEnqueue")
	f.preFilter = pick[fwk.PreFilterPlugin](&c, "preFilter")
	f.filter = pick[fwk.FilterPlugin](&c, "filter")
	f.postFilter = pick[fwk.PostFilterPlugin](&c, "postFilter")
	f.preScore = pick[fwk.PreScorePlugin](&c, "preScore")
	f.reserve = pick[fwk.ReservePlugin](&c, "reserve")
	f.permit = pick[fwk.PermitPlugin](&c, "permit")
	f.preBind = pick[fwk.PreBindPlugin](&c, "preBind")
	f.bind = pick[fwk.BindPlugin](&c, "bind")
	f.postBind = pick[fwk.PostBindPlugin](&c, "postBind")
	f.groups = pickGroupPoints(&c)
	scorers, sorters := pick[fwk.ScorePlugin](&c, "score"), pick[fwk.QueueSortPlugin](&c, "queueSort")
	if err := errors.Join(c.errs...); err != nil {
		return nil, err
	}
	total := int64(0)
	for _, p := range scorers {
		w := max(spec.Weights[p.Name()], 1)
		if total += w; total > math.MaxInt64/fwk.MaxNodeScore {
			return nil, fmt.Errorf("the weight of plugin %q makes the total score overflow", p.Name())
		}
		f.score = append(f.score, weighted{ScorePlugin: p, weight: w})
	}
	switch len(sorters) {
	case 1:
		f.queueSort = sorters[0]
	case 0:
		return nil, errors.New("no plugin sorts the queue (queueSort)")
	default:
		return nil, fmt.Errorf("plugins %q and %q both want to sort the queue (queueSort)", sorters[0].Name(), sorters[1].Name())
	}
	if len(f.bind) == 0 {
		return nil, errors.New("no plugin binds pods (bind)")
	}
	f.share()
	for _, name := range spec.Plugins {
		hints, err := hintsOf(ctx, made[name])
		if err != nil {
			return nil, fmt.Errorf("plugin %q: %w", name, err)
		}
		f.hints = append(f.hints, hints...)

		if s, ok := made[name].(fwk.SignPlugin); ok {
			f.sign = append(f.sign, s)
		} else if decides(made[name]) {
			f.unsigned = true
		}
	}
	return f, nil
}

type chooser struct {
	spec Spec
	made map[string]fwk.Plugin
	errs []error
}

// pick returns the plugins that run at an extension point.
func pick[T fwk.Plugin](c *chooser, name string) []T {
	point, said := c.spec.Points[name]
	if !said {
		point.Plugins = c.spec.Plugins
	}
	var out []T
	for _, p := range point.Plugins {
		if t, ok := c.made[p].(T); ok {
			out = append(out, t)
		} else if slices.Contains(point.Named, p) {
			c.errs = append(c.errs, fmt.Errorf("plugins.%s.enabled: plugin %q does not extend this point", name, p))
		}
	}
	return out
}

// decides reports whether a plugin has a say in where a pod goes.
func decides(p fwk.Plugin) bool {
	_, prefilters := p.(fwk.PreFilterPlugin)
	_, filters := p.(fwk.FilterPlugin)
	_, scores := p.(fwk.ScorePlugin)
	return prefilters || filters || scores
}

// hintsOf returns the events that a plugin registers for. A plugin that can reject a
// pod and registers for none is tried again after any event, as documented.
func hintsOf(ctx context.Context, p fwk.Plugin) ([]queue.Hint, error) {
	ext, ok := p.(fwk.EnqueueExtensions)
	if !ok {
		return []queue.Hint{{Plugin: p.Name(), Event: fwk.ClusterEvent{Resource: fwk.WildCard, ActionType: fwk.All}}}, nil
	}
	registered, err := ext.EventsToRegister(ctx)
	if err != nil {
		return nil, err
	}
	var hints []queue.Hint
	for _, e := range registered {
		hints = append(hints, queue.Hint{Plugin: p.Name(), Event: e.Event, Fn: e.QueueingHintFn})
	}
	return hints, nil
}

// Hints returns the events that could make a rejected pod schedulable.
func (f *Framework) Hints() []queue.Hint { return f.hints }

// Less orders the queue.
func (f *Framework) Less(a, b fwk.QueuedEntityInfo) bool { return f.queueSort.Less(a, b) }

// QueueSortName names the plugin that orders the queue, which all profiles must share.
func (f *Framework) QueueSortName() string { return f.queueSort.Name() }

// HasPostFilter reports whether anything can be done for a pod that fits nowhere.
func (f *Framework) HasPostFilter() bool { return len(f.postFilter) > 0 }

// HasScore reports whether nodes are scored at all.
func (f *Framework) HasScore() bool { return len(f.score) > 0 }

// The methods below make up the Handle.

// SnapshotSharedLister returns the cluster as the current cycle sees it.
func (f *Framework) SnapshotSharedLister() fwk.SharedLister { return f.Snapshot }

// MutableSnapshotSharedLister returns the same, to try what would be if pods came and went.
func (f *Framework) MutableSnapshotSharedLister() fwk.MutableSnapshotSharedLister { return f.Snapshot }

// ClientSet returns a client of the API server.
func (f *Framework) ClientSet() clientset.Interface { return f.Client }

// KubeConfig returns how to reach the API server.
func (f *Framework) KubeConfig() *restclient.Config { return f.Deps.KubeConfig }

// EventRecorder records events about pods.
func (f *Framework) EventRecorder() events.EventRecorderLogger { return f.Recorder }

// SharedInformerFactory returns the scheduler's informers. A plugin that asks for one
// while it is made has it started with the others.
func (f *Framework) SharedInformerFactory() informers.SharedInformerFactory { return f.Informers }

// SharedDRAManager returns what is known of devices, which all profiles share.
func (f *Framework) SharedDRAManager() fwk.SharedDRAManager { return f.Devices }

// SharedCSIManager returns nil: no plugin of the profile counts volumes.
func (f *Framework) SharedCSIManager() fwk.CSIManager { return nil }

// Extenders returns the webhooks that have a say.
func (f *Framework) Extenders() []fwk.Extender { return f.Deps.Extenders }

// Parallelizer spreads work over the configured number of goroutines.
func (f *Framework) Parallelizer() fwk.Parallelizer { return parallelizer(f.Parallelism) }

// APIDispatcher returns nil: plugins make their API calls themselves.
func (f *Framework) APIDispatcher() fwk.APIDispatcher { return nil }

// APICacher returns nil: plugins make their API calls themselves.
func (f *Framework) APICacher() fwk.APICacher { return nil }

// PodGroupManager knows the pods of groups; nil while the GenericWorkload gate is off.
func (f *Framework) PodGroupManager() fwk.PodGroupManager { return f.Groups }

// ProfileName returns the scheduler name that pods ask for this profile by.
func (f *Framework) ProfileName() string { return f.profile }

// FiltersOf returns the filters of a cycle of the profile of a plugin whose handle is h; nil if h is not a Framework.
func FiltersOf(ctx context.Context, h fwk.Handle, state fwk.CycleState, pod *v1.Pod) *Filters {
	if f, ok := h.(*Framework); ok {
		return f.FiltersOf(ctx, state, pod)
	}
	return nil
}

// Activate makes waiting pods active.
func (f *Framework) Activate(logger klog.Logger, pods map[string]*v1.Pod) {
	f.Nominator().Activate(logger, pods)
}

// AddNominatedPod promises a node to a pod.
func (f *Framework) AddNominatedPod(logger klog.Logger, pod fwk.PodInfo, info *fwk.NominatingInfo) {
	f.Nominator().AddNominatedPod(logger, pod, info)
}

// DeleteNominatedPodIfExists takes the promise back.
func (f *Framework) DeleteNominatedPodIfExists(pod *v1.Pod) {
	f.Nominator().DeleteNominatedPodIfExists(pod)
}

// UpdateNominatedPod keeps the promise for a pod that changed.
func (f *Framework) UpdateNominatedPod(logger klog.Logger, old *v1.Pod, pod fwk.PodInfo) {
	f.Nominator().UpdateNominatedPod(logger, old, pod)
}

// NominatedPodsForNode returns the pods that have been promised a node.
func (f *Framework) NominatedPodsForNode(node string) []fwk.PodInfo {
	return f.Nominator().NominatedPodsForNode(node)
}

// SignPod returns equal signatures for pods that the profile's plugins treat alike
// (KEP-5598), nil where it cannot tell.
func (f *Framework) SignPod(ctx context.Context, pod *v1.Pod) fwk.PodSignature {
	if f.unsigned {
		return nil
	}
	parts := map[string]any{fwk.SchedulerNameSignerName: pod.Spec.SchedulerName}
	for _, p := range f.sign {
		fragments, s := p.SignPod(ctx, pod)
		if !s.IsSuccess() {
			return nil
		}
		for _, fragment := range fragments {
			parts[fragment.Key] = fragment.Value
		}
	}
	signature, err := json.Marshal(parts)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Signing a pod", "pod", klog.KObj(pod))
		return nil
	}
	return signature
}

type parallelizer int

// Until calls work for each piece. Pieces are dealt out in runs, as one node is
// checked in microseconds and handing out a piece costs as much.
func (p parallelizer) Until(ctx context.Context, pieces int, work workqueue.DoWorkPieceFunc, _ string) {
	const run = 64
	if pieces <= run {
		for i := 0; i < pieces && ctx.Err() == nil; i++ {
			work(i)
		}
		return
	}
	workqueue.ParallelizeUntil(ctx, int(p), pieces, work, workqueue.WithChunkSize(run))
}
