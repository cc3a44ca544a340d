// Package probes asks containers whether they have started, are ready and are alive.
//
// A [Manager] runs one goroutine for each probe of each running container and keeps the
// results; whoever owns the pod is told when one changes and reads them as [Results].
package probes

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// Kind tells probes apart.
type Kind string

// The kinds of probes, as events name them.
const (
	Startup   Kind = "Startup"
	Readiness Kind = "Readiness"
	Liveness  Kind = "Liveness"
)

// Results are what is known of one incarnation of a container. Its zero value is
// true of a container whose probes have found nothing yet.
type Results struct {
	Started   bool // the startup probe has succeeded
	Ready     bool // the readiness probe succeeds
	Unstarted bool // the startup probe has failed: the container is to be killed
	Dead      bool // the liveness probe has failed: the container is to be killed
}

// A Manager runs probes.
type Manager struct {
	exec     ExecFunc
	recorder record.EventRecorder
	// changed is called when a result of a pod's container changed.
	changed func(types.UID)
	// began spreads the probes of pods that were running before the kubelet.
	began   time.Time
	metrics probeMetrics

	mu      sync.Mutex
	results map[string]Results // by container id
	pods    map[types.UID]map[key]*worker
}

type key struct {
	id   string
	kind Kind
}

// NewManager returns a Manager without probes.
func NewManager(exec ExecFunc, recorder record.EventRecorder, changed func(types.UID)) *Manager {
	return &Manager{
		exec: exec, recorder: recorder, changed: changed, began: time.Now(), metrics: newMetrics(),
		results: map[string]Results{}, pods: map[types.UID]map[key]*worker{},
	}
}

// Results returns what is known of a container.
func (m *Manager) Results(id string) Results {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.results[id]
}

// Adopt takes over what an earlier kubelet had found out about a running container, so that a
// restart of the kubelet makes no pod unready for a moment.
func (m *Manager) Adopt(id string, r Results) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.results[id]; !ok {
		m.results[id] = r
	}
}

// Sync probes exactly the running containers of a pod. A terminating pod's containers are only
// asked whether they are ready.
func (m *Manager) Sync(ctx context.Context, pod *v1.Pod, state *runtime.State, ips []string, terminating bool) {
	want := map[key]*worker{}
	live := map[string]bool{}
	runtime.EachContainer(pod, func(c *v1.Container, kind runtime.Kind) {
		running := state.Newest(c.Name)
		if running == nil || running.State != runtime.Running || kind == runtime.Ephemeral || kind == runtime.Init {
			return
		}
		live[running.ID] = true
		if len(ips) == 0 {
			return
		}
		for kind, probe := range map[Kind]*v1.Probe{Startup: c.StartupProbe, Readiness: c.ReadinessProbe, Liveness: c.LivenessProbe} {
			if probe == nil || terminating && kind != Readiness {
				continue
			}
			want[key{running.ID, kind}] = &worker{
				m: m, pod: pod, container: c, kind: kind, probe: probe, id: running.ID, ip: ips[0], started: running.StartedAt,
				ref: &v1.ObjectReference{
					APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
					FieldPath: fieldPath(kindOf(pod, c.Name), c.Name),
				},
			}
		}
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.pods[pod.UID]
	if have == nil {
		have = map[key]*worker{}
		m.pods[pod.UID] = have
	}
	for k, w := range have {
		if want[k] == nil {
			w.end()
			delete(have, k)
			if !slices.ContainsFunc(slices.Collect(maps.Values(want)), w.sameProbe) {
				m.metrics.forget(w)
			}
			if !live[k.id] {
				delete(m.results, k.id)
			}
		}
	}
	for k, w := range want {
		if have[k] == nil {
			var run context.Context
			run, w.cancel = context.WithCancel(ctx)
			w.poke = make(chan struct{}, 1)
			have[k] = w
			go w.run(run)
		}
	}
}

// Forget stops all probes of a pod.
func (m *Manager) Forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, w := range m.pods[uid] {
		w.end()
		m.metrics.forget(w)
		delete(m.results, k.id)
	}
	delete(m.pods, uid)
}

func kindOf(pod *v1.Pod, name string) (kind runtime.Kind) {
	runtime.EachContainer(pod, func(c *v1.Container, k runtime.Kind) {
		if c.Name == name {
			kind = k
		}
	})
	return kind
}

func fieldPath(kind runtime.Kind, name string) string {
	if kind == runtime.Sidecar || kind == runtime.Init {
		return fmt.Sprintf("spec.initContainers{%s}", name)
	}
	return fmt.Sprintf("spec.containers{%s}", name)
}

// set changes the results of a container and tells the pod's owner if that made a difference.
func (m *Manager) set(uid types.UID, id string, f func(*Results)) {
	m.mu.Lock()
	before := m.results[id]
	after := before
	f(&after)
	m.results[id] = after
	if after.Started && !before.Started {
		// What waits for the start need not wait for its next turn, too.
		for k, w := range m.pods[uid] {
			if k.id == id && k.kind != Startup {
				select {
				case w.poke <- struct{}{}:
				default:
				}
			}
		}
	}
	m.mu.Unlock()
	if after != before {
		m.changed(uid)
	}
}

// A worker is one probe of one container.
type worker struct {
	m         *Manager
	pod       *v1.Pod
	container *v1.Container
	kind      Kind
	probe     *v1.Probe
	id        string
	ip        string
	started   time.Time
	ref       *v1.ObjectReference
	cancel    context.CancelFunc
	poke      chan struct{}
	ended     bool // has the manager's lock
}

// end stops the probe. The manager's lock is held.
func (w *worker) end() {
	w.ended = true
	w.cancel()
}

// sameProbe tells whether another worker asks the same of another incarnation of the container.
func (w *worker) sameProbe(o *worker) bool {
	return o.kind == w.kind && o.container.Name == w.container.Name
}

// run asks once a period until the context ends or the question is settled.
func (w *worker) run(ctx context.Context) {
	defer utilruntime.HandleCrashWithContext(ctx)
	period := time.Duration(w.probe.PeriodSeconds) * time.Second
	first := time.Until(w.started.Add(time.Duration(w.probe.InitialDelaySeconds) * time.Second))
	if w.started.Before(w.m.began) && time.Since(w.m.began) < period {
		first = max(first, rand.N(period))
	}
	timer := time.NewTimer(max(first, 0))
	defer timer.Stop()
	var last Outcome
	var run int32
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.poke:
			if time.Since(w.started) < time.Duration(w.probe.InitialDelaySeconds)*time.Second {
				continue
			}
		}
		timer.Reset(period)
		if w.kind != Startup && w.container.StartupProbe != nil && !w.m.Results(w.id).Started {
			continue
		}
		outcome, ok := w.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if !ok {
			continue
		}
		if outcome == last {
			run++
		} else {
			last, run = outcome, 1
		}
		if outcome == Failure && run < w.probe.FailureThreshold || outcome == Success && run < w.probe.SuccessThreshold {
			continue
		}
		if settled := w.record(outcome == Success); settled {
			return
		}
	}
}

// once probes with a few retries when nothing can be found out, and sends events.
func (w *worker) once(ctx context.Context) (Outcome, bool) {
	const tries = 3
	began := time.Now()
	var outcome Outcome
	var output string
	var err error
	for range tries {
		if outcome, output, err = attempt(ctx, w.m.exec, w.probe, w.container, w.id, w.ip); err == nil || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return "", false
	}
	w.count(outcome, err, time.Since(began))
	switch {
	case err != nil:
		w.m.recorder.Eventf(w.ref, v1.EventTypeWarning, "Unhealthy", "%s probe errored and resulted in unknown state: %v", w.kind, err)
		return "", false
	case outcome == Warning:
		w.m.recorder.Eventf(w.ref, v1.EventTypeWarning, "ProbeWarning", "%s probe warning: %s", w.kind, output)
		return Success, true
	case outcome == Failure:
		klog.FromContext(ctx).V(3).Info("Probe failed", "probe", w.kind, "pod", klog.KObj(w.pod), "container", w.container.Name, "output", output)
		w.m.recorder.Eventf(w.ref, v1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", w.kind, output)
	}
	return outcome, true
}

// record keeps a result that has passed its threshold and tells whether there is nothing left to ask.
func (w *worker) record(success bool) (settled bool) {
	w.m.set(w.pod.UID, w.id, func(r *Results) {
		switch w.kind {
		case Startup:
			r.Started, r.Unstarted = success, !success
			settled = true
		case Readiness:
			r.Ready = success
		case Liveness:
			r.Dead = !success
			settled = !success
		}
	})
	return settled
}
