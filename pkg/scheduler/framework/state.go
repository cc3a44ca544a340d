package framework

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
)

// CycleState is the scratch pad of plugins during one attempt at one pod.
type CycleState struct {
	mu      sync.RWMutex
	data    map[fwk.StateKey]fwk.StateData
	metrics bool
	trial   bool
	now     time.Time
	// placement is where the pod is tried with its group, nil for a pod on its own.
	placement *PlacementState

	skipFilter, skipScore, skipPreBind, parallelPreBind sets.Set[string]
}

var _ fwk.CycleState = &CycleState{}

// NewCycleState returns an empty state. recordMetrics says whether this attempt is one
// of those whose plugins are timed.
func NewCycleState(recordMetrics bool) *CycleState {
	return &CycleState{data: map[fwk.StateKey]fwk.StateData{}, metrics: recordMetrics}
}

// NewTrialState returns an empty state for an attempt of which nothing is to come: a dry
// run, or the replay of a recorded attempt.
func NewTrialState() *CycleState {
	s := NewCycleState(false)
	s.trial = true
	return s
}

// IsTrial says whether nothing is to come of the attempt. A PostFilter plugin then says
// what it would do, and does not do it.
func IsTrial(state fwk.CycleState) bool {
	s, ok := state.(*CycleState)
	return ok && s.trial
}

// SetTime says when the attempt is made. A replay makes it at the time of the recorded one.
func SetTime(state fwk.CycleState, now time.Time) {
	if s, ok := state.(*CycleState); ok {
		s.now = now
	}
}

// TimeOf returns when the attempt is made: what a decision depends on time by.
func TimeOf(state fwk.CycleState) time.Time {
	if s, ok := state.(*CycleState); ok && !s.now.IsZero() {
		return s.now
	}
	return time.Now()
}

// IsGroupTrial is IsTrial, for an attempt at a pod group.
func IsGroupTrial(state fwk.PodGroupCycleState) bool {
	s, ok := state.(*GroupState)
	return ok && s.trial
}

// ShouldRecordPluginMetrics says whether plugins are timed in this attempt.
func (s *CycleState) ShouldRecordPluginMetrics() bool { return s.metrics }

// GetSkipFilterPlugins returns the plugins whose PreFilter had nothing to check.
func (s *CycleState) GetSkipFilterPlugins() sets.Set[string] { return s.skipFilter }

// SetSkipFilterPlugins sets what GetSkipFilterPlugins returns.
func (s *CycleState) SetSkipFilterPlugins(p sets.Set[string]) { s.skipFilter = p }

// GetSkipScorePlugins returns the plugins whose PreScore had nothing to weigh.
func (s *CycleState) GetSkipScorePlugins() sets.Set[string] { return s.skipScore }

// SetSkipScorePlugins sets what GetSkipScorePlugins returns.
func (s *CycleState) SetSkipScorePlugins(p sets.Set[string]) { s.skipScore = p }

// GetSkipPreBindPlugins returns the plugins with nothing to do before the binding.
func (s *CycleState) GetSkipPreBindPlugins() sets.Set[string] { return s.skipPreBind }

// SetSkipPreBindPlugins sets what GetSkipPreBindPlugins returns.
func (s *CycleState) SetSkipPreBindPlugins(p sets.Set[string]) { s.skipPreBind = p }

// GetParallelPreBindPlugins returns the plugins that may run beside others before the binding.
func (s *CycleState) GetParallelPreBindPlugins() sets.Set[string] { return s.parallelPreBind }

// SetParallelPreBindPlugins sets what GetParallelPreBindPlugins returns.
func (s *CycleState) SetParallelPreBindPlugins(p sets.Set[string]) { s.parallelPreBind = p }

// ShouldSkipAllPostFilterPlugins is true only for pods of a group, which preempt together.
func (s *CycleState) ShouldSkipAllPostFilterPlugins() bool { return s.placement != nil }

// Read returns what a plugin wrote, or ErrNotFound.
func (s *CycleState) Read(key fwk.StateKey) (fwk.StateData, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if v, ok := s.data[key]; ok {
		return v, nil
	}
	return nil, fwk.ErrNotFound
}

// Write keeps a plugin's data for the rest of the attempt.
func (s *CycleState) Write(key fwk.StateKey, v fwk.StateData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[key] = v
}

// Delete forgets a plugin's data.
func (s *CycleState) Delete(key fwk.StateKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.data, key)
}

// Clone copies the state for a trial that must leave the original alone.
func (s *CycleState) Clone() fwk.CycleState {
	if s == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := NewCycleState(s.metrics)
	c.trial, c.now, c.placement = s.trial, s.now, s.placement
	for k, v := range s.data {
		c.data[k] = v.Clone()
	}
	// These sets are replaced, never changed.
	c.skipFilter, c.skipScore, c.skipPreBind, c.parallelPreBind = s.skipFilter, s.skipScore, s.skipPreBind, s.parallelPreBind
	return c
}

// IsPodGroupSchedulingCycle says that the pod is tried together with its group.
func (s *CycleState) IsPodGroupSchedulingCycle() bool { return s.placement != nil }

// GetPodGroupSchedulingCycle returns the state of the group, nil outside of one.
func (s *CycleState) GetPodGroupSchedulingCycle() fwk.PodGroupCycleState {
	if s.placement == nil {
		return nil
	}
	return s.placement.group
}

// GetPlacementCycleState returns the state of the placement, nil outside of a group.
func (s *CycleState) GetPlacementCycleState() fwk.PlacementCycleState {
	if s.placement == nil {
		return nil
	}
	return s.placement
}
