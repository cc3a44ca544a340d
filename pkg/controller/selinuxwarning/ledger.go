package selinuxwarning

import (
	"context"
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/controller/internal/census"
)

// A ledger says how pods use volumes.
type ledger struct {
	mu      sync.Mutex
	pods    map[types.NamespacedName]map[string]use // by pod and volume
	volumes map[string]map[types.NamespacedName]use // the same, by volume and pod
}

func newLedger() *ledger {
	return &ledger{pods: map[types.NamespacedName]map[string]use{}, volumes: map[string]map[types.NamespacedName]use{}}
}

// note takes down how a pod uses volumes, and returns the conflicts that were not there before.
func (l *ledger) note(pod types.NamespacedName, uses map[string]use) []conflict {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.pods[pod]
	for volume := range before {
		delete(l.volumes[volume], pod)
		if len(l.volumes[volume]) == 0 {
			delete(l.volumes, volume)
		}
	}
	delete(l.pods, pod)
	if len(uses) > 0 {
		l.pods[pod] = uses
	}
	var found []conflict
	seen := map[conflict]bool{}
	for volume, u := range uses {
		others := l.volumes[volume]
		if old, had := before[volume]; !had || old != u {
			for other, their := range others {
				for _, c := range conflicts(pod, u, other, their) {
					if !seen[c] {
						found = append(found, c)
					}
					seen[c] = true
				}
			}
		}
		if others == nil {
			l.volumes[volume] = map[types.NamespacedName]use{}
		}
		l.volumes[volume][pod] = u
	}
	return found
}

// all returns all conflicts that there are.
func (l *ledger) all() map[conflict]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := map[conflict]bool{}
	for _, users := range l.volumes {
		rest := maps.Clone(users)
		for pod, u := range users {
			delete(rest, pod)
			for other, their := range rest {
				for _, c := range conflicts(pod, u, other, their) {
					found[c] = true
				}
			}
		}
	}
	return found
}

// register adds the original's metric.
func (l *ledger) register(r metrics.KubeRegistry) {
	gauge := census.Gauge("selinux_warning_controller", "selinux_volume_conflict", "Pods that use the same volume with different SELinux labels or policies",
		"property", "pod1_namespace", "pod1_name", "pod1_value", "pod2_namespace", "pod2_name", "pod2_value")
	r.CustomMustRegister(&census.Census{Gauges: []*metrics.Desc{gauge}, Count: func(_ context.Context, show func(*metrics.Desc, float64, ...string)) error {
		for c := range l.all() {
			show(gauge, 1, c.property, c.pod.Namespace, c.pod.Name, c.value, c.other.Namespace, c.other.Name, c.their)
		}
		return nil
	}})
}
