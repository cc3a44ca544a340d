package scheduler

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// gauges are counted when somebody asks for metrics: how many pods wait, and where, and
// what the cache knows, of all schedulers of the process that run.
type gauges struct {
	metrics.BaseStableCollector
	pending, entities, cacheSize, unschedulable *metrics.Desc

	mu      sync.Mutex
	running sets.Set[*Scheduler]
}

var _ metrics.StableCollector = &gauges{}

func newGauges() *gauges {
	desc := func(name, help string, level metrics.StabilityLevel, labels ...string) *metrics.Desc {
		return metrics.NewDesc(metrics.BuildFQName("", subsystem, name), help, labels, nil, level, "")
	}
	return &gauges{
		pending: desc("pending_pods", "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; "+
			"'unschedulable' means number of pods in unschedulableEntities that the scheduler attempted to schedule and failed; "+
			"'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated; "+
			"'incomplete' means number of pods in incompletePodGroupPods; 'pending' means number of pods in pendingPodGroupPods.", metrics.STABLE, "queue"),
		entities: desc("queued_entities", "Number of queued scheduling entities ('pod' or 'podgroup'; 'pod' stands for individual pods that are not members of any podgroup) by the queue type. "+
			"'active' means number of entities in activeQ; 'backoff' means number of entities in backoffQ; "+
			"'unschedulable' means number of entities in unschedulableEntities that the scheduler attempted to schedule and failed; "+
			"'gated' is the number of unschedulable entities that the scheduler never attempted to schedule because they are gated.", metrics.ALPHA, "queue", "type"),
		cacheSize: desc("cache_size", "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.", metrics.ALPHA, "type"),
		unschedulable: desc("unschedulable_pods", "The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule "+
			"and so this metric have meaning only when broken down by plugin.", metrics.BETA, "plugin", "profile"),
		running: sets.New[*Scheduler](),
	}
}

// include counts what a scheduler knows until the returned function is called.
func (g *gauges) include(s *Scheduler) (exclude func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running.Insert(s)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.running.Delete(s)
	}
}

// DescribeWithStability implements metrics.StableCollector.
func (g *gauges) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, d := range []*metrics.Desc{g.pending, g.entities, g.cacheSize, g.unschedulable} {
		ch <- d
	}
}

// CollectWithStability implements metrics.StableCollector.
func (g *gauges) CollectWithStability(ch chan<- metrics.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := newTally()
	for s := range g.running {
		t.add(s.mind)
	}
	tell := func(d *metrics.Desc, n int, labels ...string) {
		ch <- metrics.NewLazyConstMetric(d, metrics.GaugeValue, float64(n), labels...)
	}
	for queue, n := range t.pods {
		tell(g.pending, n, queue)
	}
	for e, n := range t.entities {
		tell(g.entities, n, e.queue, e.kind)
	}
	for kind, n := range t.cache {
		tell(g.cacheSize, n, kind)
	}
	for by, n := range t.refused {
		tell(g.unschedulable, n, by.plugin, by.profile)
	}
}

// tally is what the gauges show.
type tally struct {
	pods     map[string]int // by queue
	entities map[entities]int
	cache    map[string]int // by what it has
	refused  map[refusing]int
}

// entities are what is decided about at once, of one kind, in one queue.
type entities struct{ queue, kind string }

type refusing struct{ plugin, profile string }

// The kinds of entities.
const (
	podEntity   = "pod"
	groupEntity = "podgroup"
)

// Queues that only pods of groups can be in: incomplete while their group is not there,
// and pending while mates are being tried. Here such mates wait like all pods.
const incomplete, pending = "incomplete", "pending"

func newTally() tally {
	t := tally{pods: map[string]int{incomplete: 0, pending: 0}, entities: map[entities]int{}, cache: map[string]int{}, refused: map[refusing]int{}}
	for _, at := range []queue.Place{queue.Active, queue.BackingOff, queue.Unschedulable, queue.Gated} {
		t.pods[string(at)] = 0
		for _, kind := range []string{podEntity, groupEntity} {
			t.entities[entities{string(at), kind}] = 0
		}
	}
	return t
}

func (t *tally) add(m *mind) {
	nodes, pods, assumed := m.cache.Counts()
	t.cache["nodes"] += nodes
	t.cache["pods"] += pods
	t.cache["assumed_pods"] += assumed
	seen := map[queue.Place]sets.Set[types.NamespacedName]{} // groups
	m.queue.Each(func(p *queue.Pod, at queue.Place) {
		if at != queue.Active {
			for plugin := range p.UnschedulablePlugins {
				t.refused[refusing{plugin, p.Pod.Spec.SchedulerName}]++
			}
		}
		group, ok := podgroup.KeyOf(p.Pod)
		if !ok || m.groups == nil {
			t.pods[string(at)]++
			t.entities[entities{string(at), podEntity}]++
			return
		}
		if _, err := m.groups.Group(group); err != nil {
			t.pods[incomplete]++
			return
		}
		t.pods[string(at)]++
		if seen[at] == nil {
			seen[at] = sets.New[types.NamespacedName]()
		}
		if !seen[at].Has(group) {
			seen[at].Insert(group)
			t.entities[entities{string(at), groupEntity}]++
		}
	})
}

// arrivals counts what comes to the queue. A group comes with the first of its pods that
// waits in a place.
type arrivals struct {
	metrics *recorder
	grouped bool // groups are heeded

	mu sync.Mutex
	at map[types.NamespacedName]queue.Place // of groups, where their pods came last
}

func newArrivals(r *recorder, grouped bool) *arrivals {
	return &arrivals{metrics: r, grouped: grouped, at: map[types.NamespacedName]queue.Place{}}
}

// entered counts a pod that came to a place.
func (a *arrivals) entered(p *queue.Pod, to queue.Place, event string) {
	a.metrics.incomingPods.WithLabelValues(string(to), event).Inc()
	kind := podEntity
	if group, ok := podgroup.KeyOf(p.Pod); ok && a.grouped {
		kind = groupEntity
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.at[group] == to {
			return
		}
		a.at[group] = to
	}
	a.metrics.incomingEntities.WithLabelValues(string(to), event, kind).Inc()
}

// left says that pods of a group have left the queue.
func (a *arrivals) left(group types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.at, group)
}
