// Package unhurried lets the writing of a status wait for a moment when more changes of it are on their way and nobody decides by what is between.
package unhurried

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Moment is how long a status waits at most.
const Moment = time.Second

// Statuses are those that wait.
type Statuses struct {
	mu    sync.Mutex
	since map[types.NamespacedName]time.Time
}

// Wait returns how long an object's status still has to wait; none, or less, says that it is to be written. The moment begins when it is first asked
// for, and does not begin again while the status changes further.
func (s *Statuses) Wait(object types.NamespacedName, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	began, waits := s.since[object]
	if !waits {
		if s.since == nil {
			s.since = map[types.NamespacedName]time.Time{}
		}
		began = now
		s.since[object] = now
	}
	return began.Add(Moment).Sub(now)
}

// Written notes that an object's status waits no longer, since it has been written, needs not be, or the object is gone.
func (s *Statuses) Written(object types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.since, object)
}
