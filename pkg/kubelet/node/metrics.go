package node

import (
	"time"

	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// A startup is how the node came to be one of the cluster's: when the machine, this kubelet, its attempts to register the Node and the Node itself
// began, and when the Node was ready. What was a node before this kubelet has no startup.
type startup struct{ boot, kubelet, attempt, registered, ready time.Time }

// attempted notes an attempt to register the Node.
func (s *startup) attempted(now time.Time) {
	if s.attempt.IsZero() {
		s.attempt = now
	}
}

// created notes that a Node was registered that was not there before, and with which status.
func (s *startup) created(ready bool, now time.Time) {
	if s.registered.IsZero() {
		s.registered = now
	}
	s.wrote(ready, now)
}

// wrote notes that the Node was said to be ready, or not.
func (s *startup) wrote(ready bool, now time.Time) {
	if ready && s.ready.IsZero() && !s.registered.IsZero() {
		s.ready = now
	}
}

// emit says how long each part took; 0 for what has not been.
func (s *startup) emit(emit metric.Emit) {
	between := func(name string, from, to time.Time, has bool) {
		var seconds float64
		if has {
			seconds = to.Sub(from).Seconds()
		}
		emit(name, seconds)
	}
	registered, ready := !s.registered.IsZero(), !s.ready.IsZero()
	between("kubelet_node_startup_pre_kubelet_duration_seconds", s.boot, s.kubelet, registered)
	between("kubelet_node_startup_pre_registration_duration_seconds", s.kubelet, s.attempt, registered)
	between("kubelet_node_startup_registration_duration_seconds", s.attempt, s.registered, registered)
	between("kubelet_node_startup_post_registration_duration_seconds", s.registered, s.ready, ready)
	between("kubelet_node_startup_duration_seconds", s.boot, s.ready, ready)
}

// RegisterMetrics implements metric.Room.
func (m *Manager) RegisterMetrics(r metrics.KubeRegistry) {
	r.CustomMustRegister(metric.OnDemand(func(emit metric.Emit) {
		emit("kubelet_node_name", 1, m.Name)
		m.mu.Lock()
		s := m.startup
		m.mu.Unlock()
		s.emit(emit)
	},
		metric.Family{Name: "kubelet_node_name", Help: "The node's name. The count is always 1.", Labels: []string{"node"}},
		metric.Family{Name: "kubelet_node_startup_duration_seconds", Help: "Duration in seconds of node startup in total."},
		metric.Family{Name: "kubelet_node_startup_pre_kubelet_duration_seconds", Help: "Duration in seconds of node startup before kubelet starts."},
		metric.Family{Name: "kubelet_node_startup_pre_registration_duration_seconds", Help: "Duration in seconds of node startup before registration."},
		metric.Family{Name: "kubelet_node_startup_registration_duration_seconds", Help: "Duration in seconds of node startup during registration."},
		metric.Family{Name: "kubelet_node_startup_post_registration_duration_seconds", Help: "Duration in seconds of node startup after registration."},
	))
}
