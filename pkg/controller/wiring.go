package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/controller-manager/pkg/clientbuilder"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
)

// An entry says how one controller comes into being.
type entry struct {
	Name, Alias, Identity string
	// OffByDefault leaves the controller out unless --controllers names it.
	OffByDefault bool
	// Workers is how many objects it works on at a time; nil means one.
	Workers func(Workers) int
	// Indexes of the shared cache that it uses.
	Indexes []index.Index
	// New assembles it. An error made by notConfigured leaves it out.
	New func(d *dependencies, a *access) (registrar, error)
}

// A registrar adds its watches and itself to a manager.
type registrar interface {
	Register(mgr manager.Manager, o controller.Options) error
}

// dependencies are what the controllers of one manager are made from.
type dependencies struct {
	*Manager
	mgr        manager.Manager
	identities clientbuilder.ControllerClientBuilder
	events     record.EventBroadcaster
	indexed    map[string]bool
}

var errNotConfigured = errors.New("not configured")

func notConfigured(flag string) error { return fmt.Errorf("%w: %s is not set", errNotConfigured, flag) }

// add brings one controller into the manager.
func (d *dependencies) add(ctx context.Context, e entry) error {
	a, err := d.access(e.Identity)
	if err != nil {
		return err
	}
	r, err := e.New(d, a)
	if err != nil {
		return err
	}
	for _, i := range e.Indexes {
		key := fmt.Sprintf("%T %s", i.Object, i.Field)
		if d.indexed[key] {
			continue
		}
		if err := d.mgr.GetFieldIndexer().IndexField(ctx, i.Object, i.Field, i.Values); err != nil {
			return fmt.Errorf("indexing %s: %w", key, err)
		}
		d.indexed[key] = true
	}
	o := controller.Options{MaxConcurrentReconciles: 1, NewQueue: newQueue}
	if e.Workers != nil {
		o.MaxConcurrentReconciles = e.Workers(d.options.Workers)
	}
	return r.Register(d.mgr, o)
}

// newQueue makes a controller's work queue. The one that controller-runtime makes wakes
// the process twice a second for its metrics, and there are as many as controllers.
func newQueue(name string, limiter workqueue.TypedRateLimiter[reconcile.Request]) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[reconcile.Request]{
		Name: name, Clock: queueClock{component.Coarse{Period: time.Second}},
	})
}

// queueClock is coarse for metrics and exact for work that is due.
type queueClock struct{ component.Coarse }

// NewTimer implements clock.Clock.
func (c queueClock) NewTimer(d time.Duration) clock.Timer { return c.RealClock.NewTimer(d) }

// selectControllers resolves the value of --controllers.
func selectControllers(list []string) (sets.Set[string], error) {
	on, off, all := sets.New[string](), sets.New[string](), false
	var errs []error
	for _, item := range list {
		if item == "*" {
			all = true
			continue
		}
		name, into := item, on
		if strings.HasPrefix(item, "-") {
			name, into = item[1:], off
		}
		i := slices.IndexFunc(entries, func(e entry) bool { return name == e.Name || name == e.Alias })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%q is not a controller; there are %s", name, allNames()))
			continue
		}
		into.Insert(entries[i].Name)
	}
	if all {
		for _, e := range entries {
			if !e.OffByDefault {
				on.Insert(e.Name)
			}
		}
	}
	return on.Difference(off), errors.Join(errs...)
}

func names(want func(entry) bool) string {
	var found []string
	for _, e := range entries {
		if want(e) {
			found = append(found, e.Name)
		}
	}
	slices.Sort(found)
	return strings.Join(found, ", ")
}

func allNames() string { return names(func(entry) bool { return true }) }

func offByDefaultNames() string { return names(func(e entry) bool { return e.OffByDefault }) }
