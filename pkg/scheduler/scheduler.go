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
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/component/election"
	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/extender"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
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
	// MaxUnschedulable is how long a pod may stay unschedulable without being tried again.
	MaxUnschedulable time.Duration
	// Now tells the time; time.Now if nil.
	Now func() time.Time
}

// Scheduler is an assembled kube-scheduler.
type Scheduler struct {
	component *configv1.KubeSchedulerConfiguration
	client    kubernetes.Interface
	elector   *leaderelection.LeaderElectionConfig
	server    *component.Server
	events    events.EventBroadcaster
	informers informers.SharedInformerFactory
	pods      corelisters.PodLister
	now       func() time.Time
	metrics   *recorder
	why       *explain.Book

	profiles map[string]*framework.Framework
	cache    *cache.Cache
	queue    *queue.Queue
	synced   atomic.Bool

	// These belong to the goroutine that decides.
	snapshot  *cache.Snapshot
	nextStart int
	memo      *framework.Memo

	// binding are the goroutines that carry decisions out.
	binding sync.WaitGroup
}

// New assembles a scheduler. Errors name the field of the configuration that is wrong.
func New(ctx context.Context, c Config) (*Scheduler, error) {
	if errs := config.Validate(c.Component, sets.KeySet(c.Plugins)); len(errs) > 0 {
		return nil, fmt.Errorf("invalid configuration: %w", errs.ToAggregate())
	}
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(c.KubeConfig, "scheduler"))
	if err != nil {
		return nil, err
	}
	s := &Scheduler{
		component: c.Component,
		client:    client,
		informers: newInformers(client),
		now:       c.Now,
		metrics:   sharedRecorder(),
		why:       explain.NewBook(),
		profiles:  map[string]*framework.Framework{},
		cache:     cache.New(),
		snapshot:  cache.NewSnapshot(),
		memo:      framework.NewMemo(),
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.pods = s.informers.Core().V1().Pods().Lister()
	s.events = events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	if err := s.addProfiles(ctx, c); err != nil {
		return nil, err
	}
	s.addQueue(c)

	checks := []healthz.HealthChecker{healthz.NamedCheck("informer-sync", func(*http.Request) error {
		if !s.synced.Load() && s.elector == nil {
			return errors.New("pods and nodes are not known yet")
		}
		return nil
	})}
	if *c.Component.LeaderElection.LeaderElect {
		watchdog := leaderelection.NewLeaderHealthzAdaptor(20 * time.Second)
		checks = append(checks, watchdog)
		if s.elector, err = s.newElector(c, watchdog); err != nil {
			return nil, fmt.Errorf("leaderElection: %w", err)
		}
	}
	if c.Serving != nil {
		c.Serving.Profiling = *c.Component.EnableProfiling
		if c.Serving.Profiling && *c.Component.EnableContentionProfiling {
			runtime.SetBlockProfileRate(1)
		}
		if s.server, err = c.Serving.New(checks, func(m *mux.PathRecorderMux) {
			m.HandlePrefix(explain.Path, s.why.Handler(s.queue.Describe))
		}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Scheduler) addProfiles(ctx context.Context, c Config) error {
	deps := framework.Deps{
		Client:      s.client,
		KubeConfig:  c.KubeConfig,
		Informers:   s.informers,
		Snapshot:    s.snapshot,
		Nominator:   func() *queue.Queue { return s.queue },
		Waiting:     framework.NewWaitingPods(),
		Parallelism: int(*c.Component.Parallelism),
	}
	for i, e := range c.Component.Extenders {
		made, err := extender.New(e)
		if err != nil {
			return fmt.Errorf("extenders[%d]: %w", i, err)
		}
		deps.Extenders = append(deps.Extenders, made)
	}
	var sorter string
	for i, spec := range config.Specs(c.Component) {
		deps.Recorder = s.events.NewRecorder(clientscheme.Scheme, spec.SchedulerName)
		fw, err := framework.New(ctx, spec, c.Plugins, deps)
		if err != nil {
			return fmt.Errorf("profiles[%d] (%s): %w", i, spec.SchedulerName, err)
		}
		if sorter == "" {
			sorter = fw.QueueSortName()
		} else if sorter != fw.QueueSortName() {
			return fmt.Errorf("profiles[%d].plugins.queueSort: all profiles share one queue, so %q must be %q as in the first", i, fw.QueueSortName(), sorter)
		}
		s.profiles[spec.SchedulerName] = fw
	}
	return nil
}

func (s *Scheduler) addQueue(c Config) {
	q := queue.Config{
		InitialBackoff:   time.Duration(*c.Component.PodInitialBackoffSeconds) * time.Second,
		MaxBackoff:       time.Duration(*c.Component.PodMaxBackoffSeconds) * time.Second,
		MaxUnschedulable: c.MaxUnschedulable,
		Hints:            map[string][]queue.Hint{},
		PreEnqueue: func(ctx context.Context, pod *v1.Pod) *fwk.Status {
			return s.profiles[pod.Spec.SchedulerName].RunPreEnqueue(ctx, pod)
		},
	}
	for name, fw := range s.profiles {
		q.Hints[name] = fw.Hints()
		if len(c.Component.Extenders) > 0 { // nobody knows what an extender waits for
			q.Hints[name] = append(q.Hints[name], queue.Hint{Plugin: extender.Plugin, Event: fwk.ClusterEvent{Resource: fwk.WildCard, ActionType: fwk.All}})
		}
		q.Less = fw.Less // the same in all profiles
	}
	s.queue = queue.New(q)
}

func (s *Scheduler) newElector(c Config, watchdog *leaderelection.HealthzAdaptor) (*leaderelection.LeaderElectionConfig, error) {
	l := c.Component.LeaderElection
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	id := host + "_" + string(uuid.NewUUID())
	lock, err := resourcelock.NewFromKubeconfig(l.ResourceLock, l.ResourceNamespace, l.ResourceName,
		resourcelock.ResourceLockConfig{Identity: id}, c.KubeConfig, l.RenewDeadline.Duration)
	if err != nil {
		return nil, err
	}
	return &leaderelection.LeaderElectionConfig{
		Lock:          lock,
		LeaseDuration: l.LeaseDuration.Duration,
		RenewDeadline: l.RenewDeadline.Duration,
		RetryPeriod:   l.RetryPeriod.Duration,
		WatchDog:      watchdog,
		Name:          "kube-scheduler",
	}, nil
}

// Run schedules until ctx is cancelled, or until it loses the lead, which is an error.
func (s *Scheduler) Run(ctx context.Context) error {
	if err := s.events.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("recording events: %w", err)
	}
	defer s.events.Shutdown()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	var serving sync.WaitGroup
	defer serving.Wait()
	serving.Go(func() {
		if err := s.server.Run(ctx); err != nil {
			stop(fmt.Errorf("serving: %w", err))
		}
	})

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

func (s *Scheduler) percentage(profile string) int32 {
	for i := range s.component.Profiles {
		if p := &s.component.Profiles[i]; *p.SchedulerName == profile && p.PercentageOfNodesToScore != nil {
			return *p.PercentageOfNodesToScore
		}
	}
	return *s.component.PercentageOfNodesToScore
}
