// Package scheduler finds a node for each pod that has none.
//
//	watch events ──▶ cache ◀── assumed pods ──┐
//	      │            │ snapshot             │
//	      ▼            ▼                      │
//	    queue ──▶ scheduling cycle ──▶ binding ──▶ API server
//
// One goroutine decides, pod after pod: a cycle filters and scores the nodes of a
// snapshot through the plugins of the pod's profile and changes nothing. The pod is then
// taken to be on its node ("assumed") and bound in a goroutine of its own, while the next
// one is decided.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection"
	componentconfig "k8s.io/component-base/config"
	componentconfigv1alpha1 "k8s.io/component-base/config/v1alpha1"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/component/election"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/extender"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plan"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
)

// Config is what a scheduler is made from.
type Config struct {
	// KubeConfig says how to reach the API server, and as whom.
	KubeConfig *rest.Config
	// Component is the configuration file, defaulted.
	Component *configv1.KubeSchedulerConfiguration
	// Serving is the HTTPS endpoint; nil for none.
	Serving *component.Serving
	// Plugins are the plugins that profiles may name.
	Plugins framework.Registry
	// Gates are the feature gates.
	Gates framework.Gates
	// MaxUnschedulable is how long a pod may stay unschedulable without being tried again.
	MaxUnschedulable time.Duration
	// RecordTo is a file to record to, of RecordLimit bytes at most; none if it is empty.
	RecordTo    string
	RecordLimit int64
	// Now tells the time; time.Now if nil.
	Now func() time.Time
}

// Scheduler is an assembled kube-scheduler.
type Scheduler struct {
	*mind
	config    Config
	client    kubernetes.Interface
	elector   *leaderelection.LeaderElectionConfig
	server    *component.Server
	events    events.EventBroadcaster
	informers informers.SharedInformerFactory
	now       func() time.Time
	metrics   *recorder
	arrivals  *arrivals
	why       *explain.Book
	recorder  *record.Recorder // nil if nothing is recorded

	synced atomic.Bool

	// nextStart is where the next search begins. It belongs to the goroutine that decides.
	nextStart int

	// planning is held by the one dry run that goes on.
	planning sync.Mutex

	// binding are the goroutines that carry decisions out.
	binding sync.WaitGroup
}

// New assembles a scheduler. Errors name the field of the configuration that is wrong.
func New(ctx context.Context, c Config) (*Scheduler, error) {
	if errs := config.Validate(c.Component, sets.KeySet(c.Plugins), c.Gates); len(errs) > 0 {
		return nil, fmt.Errorf("invalid configuration: %w", errs.ToAggregate())
	}
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(c.KubeConfig, "scheduler"))
	if err != nil {
		return nil, err
	}
	s, err := assemble(ctx, c, client)
	if err != nil {
		return nil, err
	}
	checks := s.checks()
	if *c.Component.LeaderElection.LeaderElect {
		var l componentconfig.LeaderElectionConfiguration
		if err := componentconfigv1alpha1.Convert_v1alpha1_LeaderElectionConfiguration_To_config_LeaderElectionConfiguration(&c.Component.LeaderElection, &l, nil); err != nil {
			return nil, err
		}
		if s.elector, err = election.NewConfig(configv1.SchedulerDefaultLockObjectName, l, c.KubeConfig); err != nil {
			return nil, err
		}
		checks = append(checks, s.elector.WatchDog)
	}
	if c.Serving != nil {
		c.Serving.Profiling = *c.Component.EnableProfiling
		if c.Serving.Profiling && *c.Component.EnableContentionProfiling {
			runtime.SetBlockProfileRate(1)
		}
		if s.server, err = c.Serving.New(checks, func(m *mux.PathRecorderMux) {
			m.HandlePrefix(explain.Path, s.why.Handler(s.queue.Describe))
			m.Handle(plan.Path, s.planHandler())
		}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// assemble makes a scheduler of its parts, without what it shows of itself and without
// the election.
func assemble(ctx context.Context, c Config, client kubernetes.Interface) (*Scheduler, error) {
	s := &Scheduler{
		config:  c,
		client:  client,
		now:     c.Now,
		metrics: sharedRecorder(),
		why:     explain.NewBook(),
	}
	if s.now == nil {
		s.now = time.Now
	}
	var err error
	if s.informers, s.recorder, err = openInformers(c, client); err != nil {
		return nil, err
	}
	s.events = events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	extenders, err := newExtenders(c.Component)
	if err != nil {
		return nil, err
	}
	deps := framework.Deps{Client: client, KubeConfig: c.KubeConfig, Informers: s.informers, Extenders: extenders, Notes: s.note, Gates: c.Gates, Timed: true}
	s.mind, err = newMind(ctx, c.Component, c.Plugins, deps, func(profile string) events.EventRecorderLogger {
		return s.events.NewRecorder(clientscheme.Scheme, profile)
	})
	if err != nil {
		return nil, err
	}
	s.arrivals = newArrivals(s.metrics, s.groups != nil)
	s.addQueue(c)
	return s, nil
}

// openInformers makes the informers, and what records them if that is asked for.
func openInformers(c Config, client kubernetes.Interface) (informers.SharedInformerFactory, *record.Recorder, error) {
	watching := newInformers(client, c.Gates)
	if c.RecordTo == "" {
		return watching, nil, nil
	}
	if len(c.Component.Extenders) > 0 {
		return nil, nil, errors.New("--record-to: the answers of extenders cannot be recorded, and the configuration has some")
	}
	told, err := config.Encode(c.Component, apiruntime.ContentTypeJSON)
	if err != nil {
		return nil, nil, fmt.Errorf("--record-to: %w", err)
	}
	r, err := record.Create(c.RecordTo, c.RecordLimit, record.Header{Version: component.Version, Time: time.Now(), Configuration: told, Gates: c.Gates})
	if err != nil {
		return nil, nil, fmt.Errorf("--record-to: %w", err)
	}
	known := newFactory(client)
	return known, r, r.Informers(known, watching, c.Gates)
}

// note records a change of a plugin's memory.
func (s *Scheduler) note(ctx context.Context, profile, plugin string, n framework.Note, change func()) {
	s.recorder.Change(ctx, func() record.Entry {
		return record.Entry{Noted: &record.Noted{Profile: profile, Plugin: plugin, What: n.What, Object: record.Object{Object: n.Object}}}
	}, change)
}

func (s *Scheduler) checks() []healthz.HealthChecker {
	return []healthz.HealthChecker{healthz.NamedCheck("informer-sync", func(*http.Request) error {
		if !s.synced.Load() && s.elector == nil {
			return errors.New("pods and nodes are not known yet")
		}
		return nil
	})}
}

func (s *Scheduler) addQueue(c Config) {
	q := queue.Config{
		InitialBackoff:   time.Duration(*c.Component.PodInitialBackoffSeconds) * time.Second,
		MaxBackoff:       time.Duration(*c.Component.PodMaxBackoffSeconds) * time.Second,
		MaxUnschedulable: c.MaxUnschedulable,
		Hints:            map[string][]queue.Hint{},
		Less:             s.less(),
		Entered:          s.arrivals.entered,
		PreEnqueue: func(ctx context.Context, pod *v1.Pod) *fwk.Status {
			return s.profiles[pod.Spec.SchedulerName].RunPreEnqueue(ctx, pod)
		},
	}
	for name, fw := range s.profiles {
		q.Hints[name] = fw.Hints()
		if len(c.Component.Extenders) > 0 { // nobody knows what an extender waits for
			q.Hints[name] = append(q.Hints[name], queue.Hint{Plugin: extender.Plugin, Event: fwk.ClusterEvent{Resource: fwk.WildCard, ActionType: fwk.All}})
		}
	}
	s.queue = queue.New(q)
}

// Run schedules until ctx is cancelled, or until it loses the lead, which is an error.
func (s *Scheduler) Run(ctx context.Context) error {
	if err := s.events.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("recording events: %w", err)
	}
	defer s.events.Shutdown()
	defer s.metrics.gauges.include(s)()
	var beside sync.WaitGroup
	defer beside.Wait()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	beside.Go(func() {
		if err := s.server.Run(ctx); err != nil {
			stop(fmt.Errorf("serving: %w", err))
		}
	})
	if s.recorder != nil {
		beside.Go(func() { s.recorder.Run(ctx) })
	}

	ready, err := s.watch(ctx)
	if err != nil {
		return err
	}
	if !s.component.DelayCacheUntilActive {
		if err := ready(); err != nil {
			return cause(ctx, err)
		}
	}
	if s.elector == nil {
		err = s.lead(ctx, ready)
	} else {
		err = election.Run(ctx, *s.elector, func(ctx context.Context) error { return s.lead(ctx, ready) })
	}
	stop(err)
	return cause(ctx, err)
}

// cause returns why ctx ended if somebody here ended it, else err; nil for a plain stop.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		if errors.Is(c, context.Canceled) {
			return nil
		}
		return c
	}
	return err
}

// lead decides for pod after pod.
func (s *Scheduler) lead(ctx context.Context, ready func() error) error {
	if err := ready(); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Scheduling", "profiles", len(s.profiles))
	var ticking sync.WaitGroup
	ticking.Go(func() { s.queue.Run(ctx) })
	for s.scheduleOne(ctx) {
	}
	s.binding.Wait()
	ticking.Wait()
	return nil
}
