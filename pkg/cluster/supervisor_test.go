package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

// A service that fails is started again, one that is replaced ends before the next
// begins, and one that is stopped is forgotten.
func TestSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &supervisor{clock: clock.RealClock{}}
		g := s.group(t.Context())
		running := 0
		until := func(name string, fail error) service {
			return service{name: name, run: func(ctx context.Context) error {
				if running++; running > 1 {
					t.Error("two run at once")
				}
				defer func() { running-- }()
				if fail != nil {
					time.Sleep(time.Millisecond)
					return fail
				}
				<-ctx.Done()
				time.Sleep(time.Second)
				return nil
			}}
		}
		task := g.start(until("a", errors.New("broken")))
		time.Sleep(5 * time.Second)
		if c := task.current(); c.Restarts < 3 || c.Error != "broken" {
			t.Errorf("a service that fails: %+v", c)
		}
		if err := task.replace(until("b", nil), time.Minute); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c := task.current(); c.Name != "b" || !c.Running || c.Restarts != 0 || c.Error != "" {
			t.Errorf("its replacement: %+v", c)
		}
		if err := task.replace(until("c", nil), time.Millisecond); err == nil {
			t.Error("a service that takes a second to end was replaced after a millisecond")
		}
		time.Sleep(2 * time.Second)
		if err := task.stop(time.Minute); err != nil {
			t.Fatal(err)
		}
		if l := s.list(); len(l) != 0 {
			t.Errorf("stopped, it is still known: %+v", l)
		}
		if err := g.stop(time.Minute); err != nil {
			t.Error(err)
		}
	})
}
