package queue

import (
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
)

// Pod is a pod that waits for a node, with the history of its attempts.
type Pod struct {
	*cache.PodInfo

	Timestamp            time.Time  // when it last entered the queue
	InitialAttempt       *time.Time // when it was first tried
	Attempts             int
	UnschedulableCount   int // attempts that ended without a node that fits
	ConsecutiveErrors    int // errors since the last other outcome
	BackoffExpiration    time.Time
	UnschedulablePlugins sets.Set[string] // plugins that rejected it the last time
	PendingPlugins       sets.Set[string] // plugins that wait for something of their own
	GatingPlugin         string           // the plugin that keeps it out of the queue
}

var _ fwk.QueuedEntityInfo = &Pod{}

func newPod(info *cache.PodInfo, now time.Time) *Pod {
	return &Pod{PodInfo: info, Timestamp: now, UnschedulablePlugins: sets.New[string](), PendingPlugins: sets.New[string]()}
}

// Type says that the entity is a single pod.
func (p *Pod) Type() fwk.EntityKeyType { return fwk.PodKeyType }

// GetPriority returns the pod's priority.
func (p *Pod) GetPriority() int32 { return corev1helpers.PodPriority(p.Pod) }

// GetTimestamp returns when the pod last entered the queue.
func (p *Pod) GetTimestamp() time.Time { return p.Timestamp }

// GetAttempts returns how often the pod was tried.
func (p *Pod) GetAttempts() int { return p.Attempts }

// GetBackoffExpiration returns when the pod may be tried again.
func (p *Pod) GetBackoffExpiration() time.Time { return p.BackoffExpiration }

// GetUnschedulableCount returns how many attempts found no node.
func (p *Pod) GetUnschedulableCount() int { return p.UnschedulableCount }

// GetConsecutiveErrorsCount returns the errors since the last other outcome.
func (p *Pod) GetConsecutiveErrorsCount() int { return p.ConsecutiveErrors }

// GetInitialAttemptTimestamp returns when the pod was first tried, nil before.
func (p *Pod) GetInitialAttemptTimestamp() *time.Time { return p.InitialAttempt }

// GetUnschedulablePlugins returns the plugins that rejected the pod the last time.
func (p *Pod) GetUnschedulablePlugins() sets.Set[string] { return p.UnschedulablePlugins }

// GetPendingPlugins returns the plugins that wait for something of their own.
func (p *Pod) GetPendingPlugins() sets.Set[string] { return p.PendingPlugins }

// GetGatingPlugin returns the plugin that keeps the pod out of the queue, if any does.
func (p *Pod) GetGatingPlugin() string { return p.GatingPlugin }

// GetGatingPluginEvents returns nil: the queue looks the events up by plugin.
func (p *Pod) GetGatingPluginEvents() []fwk.ClusterEvent { return nil }

func (p *Pod) rejectors() sets.Set[string] { return p.UnschedulablePlugins.Union(p.PendingPlugins) }
