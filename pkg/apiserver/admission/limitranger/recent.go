package limitranger

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	recentFor = 30 * time.Second
	maxRecent = 10_000
)

// recentNamespaces remembers for a while what the server said of namespaces.
type recentNamespaces struct {
	mu      sync.Mutex
	entries map[string]recentEntry
}

type recentEntry struct {
	until  time.Time
	ranges []*corev1.LimitRange
}

func (r *recentNamespaces) get(namespace string, ask func() ([]*corev1.LimitRange, error)) ([]*corev1.LimitRange, error) {
	now := time.Now()
	r.mu.Lock()
	entry, ok := r.entries[namespace]
	r.mu.Unlock()
	if ok && now.Before(entry.until) {
		return entry.ranges, nil
	}
	ranges, err := ask()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries == nil || len(r.entries) >= maxRecent {
		r.entries = map[string]recentEntry{}
	}
	r.entries[namespace] = recentEntry{until: now.Add(recentFor), ranges: ranges}
	return ranges, nil
}
